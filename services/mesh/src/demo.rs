//! `demo`: everything in one process, and the reference editor signing in beside it.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vvs_client::{DEFAULT, Input, Keep, Options, Profile, Terminal};
use vvs_runtime::stop::Signals;

use crate::settings::Up;
use crate::{Error, up};

/// How long the browser has to get its last page.
const LINGER: Duration = Duration::from_secs(3);

/// Runs until the editor is signed in, or gave up.
pub(crate) async fn run(mut up: Up, signals: Signals) -> Result<ExitCode, Error> {
    let state_dir = up.data_dir.join("editor");
    up.common.grace.get_or_insert(Duration::from_secs(1));
    say("Starting gateway, web, relay and sessions…")?;
    let running = up::start(up).await?;
    let launch = running.launch.clone();
    let (drain, cut) = (CancellationToken::new(), CancellationToken::new());
    let work = async {
        running.ready().await;
        let signed_in = sign_in(&running, state_dir, drain.clone()).await;
        drain.run_until_cancelled(tokio::time::sleep(LINGER)).await;
        launch.stop.cancel();
        launch.finish(cut.clone()).await?;
        signed_in
    };

    let obeying = async {
        signals.obey(drain.clone(), cut.clone()).await;
        std::future::pending().await
    };

    tokio::select! {
        code = work => code,
        never = obeying => never,
    }
}

async fn sign_in(
    running: &up::Running,
    state_dir: std::path::PathBuf,
    cancel: CancellationToken,
) -> Result<ExitCode, Error> {
    let url = &running.addresses.public_url;
    say(&format!("Serving on {url}; an editor now signs in.\n"))?;

    if let Some(key) = &running.dev_key {
        say(&format!(
            "The browser asks for this key: {}\n",
            key.expose_secret()
        ))?;
    }

    // In a file: what the demo makes is all in one folder, and goes with it.
    let profile = Profile::new(state_dir, DEFAULT, Keep::File)?;
    let options = Options::new(
        url.to_string().parse().map_err(vvs_client::Error::from)?,
        profile,
    );
    let (person, inputs) = mpsc::channel(1);
    let mut terminal =
        Terminal::new(io::stderr(), io::stderr().is_terminal(), true).asking(person.clone());
    let cancelling = async {
        cancel.cancelled().await;
        person.send(Input::Cancel).await.ok();
        std::future::pending().await
    };

    let outcome = tokio::select! {
        outcome = vvs_client::login(&options, inputs, |event| terminal.show(&event)) => outcome?,
        never = cancelling => never,
    };
    terminal.end();
    say(&format!("{outcome}"))?;

    Ok(ExitCode::from(outcome.exit_code()))
}

fn say(line: &str) -> Result<(), Error> {
    writeln!(io::stderr(), "{line}")?;
    Ok(())
}
