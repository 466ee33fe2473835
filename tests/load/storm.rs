//! What happens when all editors come back at once, and when all of them are signed out at once.

use std::io::Write as _;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use vvs_tests::crowd;
use vvs_tests::database::Database;

use crate::Failure;

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many editors are signed in
    #[arg(long, default_value_t = 1000)]
    editors: usize,
}

pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    for database in [Database::Sqlite, Database::Postgres] {
        let lived = come_back(database, options, &[], false).await?;
        writeln!(out, "{database:?}: {} editors with good tokens came back, calls: {}", options.editors, lived.calls)?;
        writeln!(out, "revoked at once: median {:?}, p99 {:?} until the socket is closed", lived.median, lived.p99)?;
        let renewed = come_back(database, options, &["--sessions-token-ttl", "1s"], true).await?;
        writeln!(
            out,
            "{database:?}: {} with tokens that ran out came back, calls: {}",
            options.editors, renewed.calls
        )?;
        if lived.calls != 0 || renewed.calls != options.editors {
            return Err("that is not 0 and one each".into());
        }
    }
    Ok(())
}

struct Lived {
    calls: usize,
    median: Duration,
    p99: Duration,
}

/// Through a relay that is killed, and to the end of all sessions.
async fn come_back(
    database: Database,
    options: &Options,
    flags: &[&str],
    is_refreshed: bool,
) -> Result<Lived, Failure> {
    let (split, installs) = crowd::without_a_relay(database, options.editors, flags).await;
    if is_refreshed {
        crowd::until_expired(&installs).await;
    }
    let before = crowd::calls(&split.stack).values().sum::<usize>();
    let mut editors = crowd::sign_on(&split.stack, &installs).await;
    if editors.iter().any(|(_, answer)| answer["token"].is_string() != is_refreshed) {
        return Err("an editor got a fresh token that had a good one, or got none".into());
    }
    let calls = crowd::calls(&split.stack).values().sum::<usize>() - before;
    let start = Instant::now();
    let closing = join_all(editors.iter_mut().map(async |(editor, _)| {
        crowd::hears_of_its_end(editor).await;
        start.elapsed()
    }));
    let (_, mut times) = tokio::join!(crowd::revoke_all(&split.stack, &installs[0]), closing);
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    Ok(Lived { calls, median: at(50), p99: at(99) })
}
