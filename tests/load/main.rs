//! `vvs-load`: what this system costs, measured on this machine. Numbers of different runs are not
//! comparable; lines of one run are.

mod attack;
mod calls;
mod child;
mod deliver;
mod editor;
mod floor;
mod idle;
mod install;
mod login;
mod neighbours;
mod plot;
mod reconnect;
mod report;
mod roll;
mod server;
mod system;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures what the system costs
///
/// Each command measures servers that it starts in processes of their own, or, with --url, a system
/// that runs already. Beside them, in turns, it measures the floor: a bare gRPC handler behind
/// mutual TLS that writes one WebSocket frame to a socket it holds, which is what the same work
/// costs with nothing around it. The floor is always on this machine.
///
/// How to read a table: compare lines of one run, and "/ floor" before milliseconds. Another
/// machine, or another hour, has other numbers, since this program shares the processors with what
/// it measures. Processor time is that of all threads of the server's processes, in user space and
/// in the kernel; memory is the proportional set size of the process that editors connect to, not
/// the kernel's buffers. Nothing is refused to a slow machine: a command fails when something did
/// not work, or cost more than a limit that was given.
///
/// Each editor needs a descriptor here and one at the server, two at a gateway: `ulimit -n 20000`
/// for 10,000 of them.
#[derive(Parser, Debug)]
#[command(name = "vvs-load")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print data instead of tables: one JSON object for each
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Process memory of one idle, signed-in connection, heartbeats included
    ///
    /// Editors sign in, each with a session and a device key of its own, and then only answer
    /// pings. The process's memory is read before, and when each has answered two pings: that of
    /// the floor, which has neither sessions nor pings; of a relay with plain sockets; of one
    /// behind the mutual TLS that the gateway speaks; and of a gateway before one. "bytes per
    /// connection" is the difference for one. With fewer than 1,000 connections it is mostly what a
    /// process takes anyway.
    Idle(idle::Options),
    /// `DeliverAuth`: how long until the frame is in the editor's hands, how many a second, and
    /// what one costs
    ///
    /// Editors connect to each server in turn, to a relay directly and through a gateway. Some of
    /// them get their sign-in at a steady rate: "median ms" and the others are from the call to the
    /// frame in the editor's hands. The rest get theirs as fast as it goes: "a second" is how fast
    /// that was, and "processor µs each" what one delivery took of the server's processes, of
    /// gateway and relay together where there are both. A relay's delivery has the acknowledgement
    /// and the activation of the session in it, which is a call to sessions; the floor's has the
    /// write alone. Sessions is played by this program: it says yes. In a system that runs already
    /// it is that system's own. Servers that this program starts write no log, unless `VVS_LOG`
    /// says so.
    Deliver(deliver::Options),
    /// Whole logins: an editor connects, a person signs in and approves through the pages, the
    /// editor has its token
    ///
    /// All four roles in one process with SQLite, the development sign-in, plain HTTP. The floor's
    /// "login" is one WebSocket, four requests on connections of their own that are answered with
    /// nothing, and one delivery: as many round trips from outside, with nothing behind them.
    Login(login::Options),
    /// A storm: signed-in editors are all cut off, come back, and are all signed out
    ///
    /// Editors sign in, are cut off, and come back, some at once. "all back after" is from the
    /// first that connects to the last that is signed in, "median ms" and "p99 ms" are those of one
    /// editor. While tokens are good sessions must get no call; the last line has tokens that ran
    /// out meanwhile, which cost one call each: anything else is a failure. "revoked" is from the
    /// revocation of all sessions to the frame that says so. The relay's limits are as they are
    /// when nobody sets them. The floor reads one frame and writes one, and believes everything.
    Reconnect(reconnect::Options),
    /// Sign-ins of other people while somebody attacks, beside sign-ins while he attacks another
    /// installation
    ///
    /// Two installations, each with all four roles in one process. An attacker has addresses of one
    /// /24, one account and a certificate for `backend`. He sends headers without a body over
    /// HTTP/2, opens sockets that say nothing, floods pages and back-channel logouts, refreshes the
    /// token of one session as fast as it is answered, and follows the feed of revocations many
    /// times; all at once. Other people sign in from another /24 all along: undisturbed, then while
    /// he attacks the other installation, then while he attacks theirs, in turns. The second is
    /// what the third is compared with, since the attack itself takes of the two processors what it
    /// takes, wherever it goes. Fails when a sign-in fails, when its median under attack is more
    /// than --most times that beside it, or when one of the editors that are signed in from the
    /// attacker's own /24 loses its socket.
    Neighbours(neighbours::Options),
    /// A rolling restart under load: how many logins fail, who is signed out, and how many come
    /// back in each second
    ///
    /// Three relays, two webs, two sessions on PostgreSQL, NATS and a gateway, as processes.
    /// Reference editors hold connections and others sign in through the pages, all along, while
    /// one process after the other is told to end and replaced. Fails when a login fails, an editor
    /// is signed out, or too many connect again in one second. A bare editor that is sent away in
    /// the middle has no ticket and begins again; that is counted apart.
    Roll(roll::Options),
    /// What is measured; started by the other commands
    #[command(hide = true)]
    Serve(Box<server::Options>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Idle(options) => idle::run(&options, cli.json).await,
        Command::Deliver(options) => deliver::run(&options, cli.json).await,
        Command::Login(options) => login::run(&options, cli.json).await,
        Command::Reconnect(options) => reconnect::run(&options, cli.json).await,
        Command::Neighbours(options) => neighbours::run(&options, cli.json).await,
        Command::Roll(options) => roll::run(&options, cli.json).await,
        Command::Serve(options) => server::serve(*options).await,
    };

    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("vvs-load: {cause}");
            ExitCode::FAILURE
        }
    }
}
