//! `vvs-load`: what this system costs, measured on this machine. Numbers of different runs are not comparable; lines of
//! one run are.

mod idle;
mod storm;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures what the system costs
#[derive(Parser, Debug)]
#[command(name = "vvs-load")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Process memory of one idle, anonymous connection in the relay, heartbeats included
    ///
    /// Starts a relay in a process of its own, connects editors that only answer pings, and reads the relay's
    /// proportional set size before and after. Once plain, and once behind mutual TLS as the gateway connects.
    Idle(idle::Options),
    /// Editors that all come back after their relay was killed, and that are all signed out
    ///
    /// Counts the calls to sessions, with tokens that are good and with tokens that have run out, and measures the time
    /// from the revocation to the closed socket. On SQLite and on PostgreSQL, through the gateway, with all limits as they
    /// are when nobody sets them.
    Storm(storm::Options),
    /// The relay that is measured; started by the other commands
    #[command(hide = true)]
    Relay(Box<target::Options>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Idle(options) => idle::run(&options).await,
        Command::Storm(options) => storm::run(&options).await,
        Command::Relay(options) => target::serve(*options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("vvs-load: {cause}");
            ExitCode::FAILURE
        }
    }
}
