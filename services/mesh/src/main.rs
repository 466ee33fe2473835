//! `vvs-mesh`: one role of VVS Auth, or all four in one process.

use std::process::ExitCode;

use clap::Parser as _;
use vvs_mesh::{Cli, run};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return vvs_mesh::exit::usage(&refused),
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => vvs_mesh::exit::report(&error),
    }
}
