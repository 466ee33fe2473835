//! The server binary: reads all settings before it binds anything, starts one role or all four, and
//! ends when told. It knows every role's way in, and nothing of what they do.
//!
//! [`Cli`] is the command line: each flag is an environment variable as well, and `check` says what
//! is wrong with them. [`up`] puts the four roles into one process and makes the choices that are
//! not set; a role alone requires every choice. [`launch`] holds the state that the roles of a
//! process share and stops the process when one of them fails. [`exit`] has the exit codes.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;
use vvs_runtime::stop::Signals;
use vvs_runtime::telemetry;

use crate::launch::{Launch, read_keys};
use crate::settings::{Keys, Pki};

mod clock;
mod demo;
mod error;
pub mod exit;
mod guard;
pub mod launch;
pub mod pki;
mod role;
mod settings;
mod start;
mod trusted;
pub mod up;

pub use error::Error;
pub use settings::{Cli, Command, Single, Up};

/// Runs the command line.
pub fn run(cli: Cli) -> Result<ExitCode, Error> {
    match cli.command {
        Command::Check(check) => {
            exit::warn(&check.check()?);
            print(&["the settings are fine".to_owned()])?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pki(pki) => make_certificates(&pki),
        Command::Keys(keys) => rotate_keys(&keys),
        serving @ (Command::Up(_)
        | Command::Demo(_)
        | Command::Gateway(_)
        | Command::Web(_)
        | Command::Relay(_)
        | Command::Sessions(_)) => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            let code = runtime.block_on(serve(serving));
            // What is still running after the grace period is cut.
            runtime.shutdown_background();
            code
        }
    }
}

async fn serve(mut command: Command) -> Result<ExitCode, Error> {
    if let Command::Demo(up) = &mut command {
        // The terminal belongs to the editor.
        up.common
            .telemetry
            .log
            .get_or_insert_with(|| "warn".to_owned());
    }

    let (settings, name) = match &command {
        Command::Up(up) | Command::Demo(up) => (&up.common.telemetry, "vvs-mesh"),
        Command::Gateway(single) => (&single.common.telemetry, "vvs-gateway"),
        Command::Web(single) => (&single.common.telemetry, "vvs-web"),
        Command::Relay(single) => (&single.common.telemetry, "vvs-relay"),
        Command::Sessions(single) => (&single.common.telemetry, "vvs-sessions"),
        Command::Check(_) | Command::Pki(_) | Command::Keys(_) => return Ok(ExitCode::SUCCESS),
    };

    let bad = |cause: telemetry::Error| Error::Settings(vec![cause.to_string()]);
    let endpoint = settings.otlp_endpoint.as_deref();
    let traces = endpoint
        .map(|endpoint| telemetry::otlp(endpoint, name))
        .transpose()
        .map_err(bad)?;
    let dispatch =
        telemetry::subscriber(settings, std::io::stderr, traces.as_ref()).map_err(bad)?;

    // Fails only when one is installed already, and this is the one place that does.
    tracing::dispatcher::set_global_default(dispatch).ok();
    let code = serve_role(command).await;
    telemetry::flush(traces.map(Arc::new)).await;

    code
}

async fn serve_role(command: Command) -> Result<ExitCode, Error> {
    let signals = Signals::take()?;
    let running = match command {
        Command::Up(up) => return serve_all(*up, signals).await,
        Command::Demo(up) => return demo::run(*up, signals).await,
        Command::Gateway(single) => role::gateway(*single).await?,
        Command::Web(single) => role::web(*single).await?,
        Command::Relay(single) => role::relay(*single).await?,
        Command::Sessions(single) => role::sessions(*single).await?,
        Command::Check(_) | Command::Pki(_) | Command::Keys(_) => return Ok(ExitCode::SUCCESS),
    };

    print(
        &running
            .addresses
            .iter()
            .map(|(name, address)| format!("{name} {address}"))
            .collect::<Vec<_>>(),
    )?;
    let ready = async {
        running
            .launch
            .stop
            .run_until_cancelled(running.readiness.wait())
            .await;
        if running.readiness.get() {
            print(&["ready".to_owned()])
        } else {
            Ok(())
        }
    };

    tokio::try_join!(ready, until_stopped(running.launch.clone(), signals))?;

    Ok(ExitCode::SUCCESS)
}

async fn serve_all(up: Up, signals: Signals) -> Result<ExitCode, Error> {
    let running = up::start(up).await?;
    let key = running
        .dev_key
        .iter()
        .map(|key| format!("dev-key {}", key.expose_secret()));
    print(
        &listing(&running.addresses)
            .into_iter()
            .chain(key)
            .collect::<Vec<_>>(),
    )?;
    let ready = async {
        running.ready().await;
        let url = &running.addresses.public_url;
        if running.launch.stop.is_cancelled() {
            Ok(())
        } else {
            print(&[format!("ready {url}")])
        }
    };

    tokio::try_join!(ready, until_stopped(running.launch.clone(), signals))?;

    Ok(ExitCode::SUCCESS)
}

/// Returns one line for each address, so that a script that asked for port 0 learns the ports.
fn listing(addresses: &up::Addresses) -> Vec<String> {
    let line = |name: &str, address: SocketAddr| format!("{name} {address}");
    vec![
        line("listen", addresses.public),
        line("relay-rpc", addresses.relay_rpc),
        line("sessions-rpc", addresses.sessions_rpc),
        line("admin", addresses.admin),
    ]
}

async fn until_stopped(launch: Launch, signals: Signals) -> Result<(), Error> {
    let cut = CancellationToken::new();
    let obeying = signals.obey(launch.stop.clone(), cut.clone());
    let obeying = async {
        obeying.await;
        std::future::pending().await
    };
    tokio::select! {
        ended = launch.finish(cut) => ended,
        never = obeying => never,
    }
}

fn make_certificates(pki: &Pki) -> Result<ExitCode, Error> {
    exit::warn(&pki.check()?);
    let written = pki::ensure(&pki.data_dir, &pki.trust_domain, clock::now())?;
    let mut lines: Vec<_> = written
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if lines.is_empty() {
        lines.push("all certificates are there, and good for another 30 days".to_owned());
    }

    print(&lines)?;

    Ok(ExitCode::SUCCESS)
}

fn rotate_keys(keys: &Keys) -> Result<ExitCode, Error> {
    exit::warn(&keys.check()?);
    let Keys::Rotate(rotation) = keys;
    let sessions = &rotation.sessions;
    let keyring = read_keys(sessions.key_file.as_deref().unwrap_or("".as_ref()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let next = runtime.block_on(vvs_sessions::rotate_keys(sessions, &keyring))?;
    let signs_at = time::OffsetDateTime::from(next.signs_at)
        .format(&time::format_description::well_known::Rfc3339)?;
    print(&[format!("{} signs from {signs_at}", next.kid)])?;

    Ok(ExitCode::SUCCESS)
}

/// Standard output is for programs that read it: one fact a line.
fn print(lines: &[String]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(())
}
