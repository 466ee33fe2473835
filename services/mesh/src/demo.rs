//! `demo`: everything in one process, and the reference editor signing in beside it.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vvs_client::{Options, Terminal};
use vvs_runtime::stop;

use crate::settings::Up;
use crate::{Error, up};

/// How long the browser has to get its last page.
const LINGER: Duration = Duration::from_secs(3);

/// Runs until the editor is signed in, or gave up.
pub(crate) async fn run(mut up: Up) -> Result<ExitCode, Error> {
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
    tokio::select! {
        code = work => code,
        Err(cause) = stop::on_signal(drain.clone(), cut.clone()) => Err(cause.into()),
    }
}

async fn sign_in(
    running: &up::Running,
    state_dir: std::path::PathBuf,
    cancel: CancellationToken,
) -> Result<ExitCode, Error> {
    let url = &running.addresses.public_url;
    say(&format!("Serving on {url}; an editor now signs in.\n"))?;
    let options = Options { server: url.to_string().parse()?, ca_file: None, state_dir };
    let mut terminal = Terminal::new(io::stderr(), io::stderr().is_terminal(), true);
    let outcome = vvs_client::login(&options, cancel.cancelled(), |event| terminal.show(&event)).await?;
    terminal.end();
    say(&format!("{outcome}"))?;
    Ok(ExitCode::from(outcome.exit_code()))
}

fn say(line: &str) -> Result<(), Error> {
    writeln!(io::stderr(), "{line}")?;
    Ok(())
}
