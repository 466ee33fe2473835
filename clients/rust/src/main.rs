//! The `vvs` command. The work is done by the library.

mod settings;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use vvs_client::{Terminal, login};

use crate::settings::{Command, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Command::Login(settings) = Settings::parse().command;
    let options = settings.options().unwrap_or_else(|error| error.exit());
    let mut terminal = Terminal::new(io::stderr(), io::stderr().is_terminal(), !settings.no_browser);
    let ended = login(&options, ctrl_c(), |event| terminal.show(&event)).await;
    terminal.end();
    match ended {
        Ok(outcome) => {
            let said = if outcome.exit_code() == 0 {
                writeln!(io::stdout(), "{outcome}")
            } else {
                writeln!(io::stderr(), "{outcome}")
            };
            // Nobody reads it: the exit code is left to say it.
            said.ok();
            outcome.exit_code().into()
        }
        Err(error) => {
            writeln!(io::stderr(), "vvs: {error}").ok();
            error.exit_code().into()
        }
    }
}

async fn ctrl_c() {
    // Where it cannot be caught, it ends the process, and the server sees the connection go.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
