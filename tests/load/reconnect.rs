//! What happens when all editors come back at once, and when all of them are signed out at once.

use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::editor::{AT_ONCE, Socket, next};
use crate::install::Sessions;
use crate::report::{Report, Times, milliseconds, number};
use crate::system::{Existing, Hop, System};

/// How long sessions may take to be activated.
const COLUMNS: &[&str] = &[
    "server",
    "all back after ms",
    "median ms",
    "p99 ms",
    "processor µs each",
    "calls to sessions",
    "revoked, median ms",
    "revoked, p99 ms",
];

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many editors are signed in
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=15_000))]
    editors: u16,
    #[command(flatten)]
    existing: Existing,
}

/// What was seen of one server.
struct Seen {
    back: Duration,
    each: Times,
    processor_time: Option<Duration>,
    calls: Option<u64>,
    closed: Option<Times>,
}

pub(crate) async fn run(options: &Options, as_json: bool) -> Result<(), Failure> {
    let title = format!(
        "{} signed-in editors are cut off and come back, {AT_ONCE} at once",
        options.editors
    );
    let mut report = Report::new(title, COLUMNS);
    let kinds: &[(_, &[&str], _)] = if options.existing.is_chosen() {
        &[("floor", &[], Some(Hop::Floor)), ("the system", &[], None)]
    } else {
        &[
            ("floor", &[], Some(Hop::Floor)),
            ("relay", &[], Some(Hop::Plain)),
            (
                "relay, tokens run out",
                &["--sessions-token-ttl", "1s"],
                Some(Hop::Plain),
            ),
        ]
    };

    let mut is_as_promised = true;
    for (name, flags, hop) in kinds {
        let data = tempfile::tempdir()?;
        let seen = measure(options, data.path(), *hop, flags).await?;
        let expected = if flags.is_empty() {
            0
        } else {
            options.editors.into()
        };
        is_as_promised &= seen.calls.is_none_or(|calls| calls == expected);
        report.row(seen.row(name, options.editors));
    }

    report.print(as_json)?;

    if is_as_promised {
        Ok(())
    } else {
        Err("sessions was called for more than one editor whose token had run out".into())
    }
}

async fn measure(
    options: &Options,
    data: &Path,
    hop: Option<Hop>,
    flags: &[&str],
) -> Result<Seen, Failure> {
    let sessions = Sessions::of(&options.existing, data, flags).await?;
    let mut installs = sessions.make(options.editors.into()).await?;
    let system = match hop {
        Some(hop) => {
            // Nobody reads while others connect.
            let flags = [
                "--relay-sessions-addr",
                &*sessions.address()?,
                "--relay-heartbeat-interval",
                "1h",
            ];
            System::start(data, hop, &flags).await?
        }
        None => options.existing.system().await?,
    };

    let is_floor = hop == Some(Hop::Floor);
    if is_floor {
        drop(system.entrance.sign_all_on(&installs).await?);
    } else {
        sessions.activate(&installs, &system.entrance).await?;
    }

    if flags.is_empty() {
        sessions.renew(&mut installs).await?;
    } else {
        // Each of them is good for a second.
        sleep(Duration::from_secs(2)).await;
    }

    system.until_quiet().await?;
    let (before, used, start) = (
        sessions.calls().await,
        system.processor_time()?,
        Instant::now(),
    );
    let editors = system.entrance.sign_all_on(&installs).await?;
    let (back, processor_time) = (start.elapsed(), system.used_since(used)?);
    let calls = sessions
        .calls()
        .await
        .zip(before)
        .map(|(after, before)| after - before)
        .filter(|_| !is_floor);
    let (sockets, times) = editors
        .into_iter()
        .map(|(socket, _, time)| (socket, time))
        .unzip::<_, _, Vec<_>, Vec<_>>();
    let closed = if is_floor {
        None
    } else {
        Some(revoke(&sessions, sockets).await?)
    };

    system.stop().await?;
    sessions.stop().await?;

    Ok(Seen {
        back,
        each: Times::of(times),
        processor_time,
        calls,
        closed,
    })
}

/// From the revocation of all sessions to the frame that says so, at each socket.
async fn revoke(sessions: &Sessions, sockets: Vec<Socket>) -> Result<Times, Failure> {
    let start = Instant::now();
    let hearing: FuturesUnordered<_> = sockets
        .into_iter()
        .map(async |mut socket| {
            let frame = next(&mut socket).await?;
            let time = start.elapsed();
            if frame["type"] == "session:revoked" {
                Ok(time)
            } else {
                Err(Failure::from(format!("{frame}")))
            }
        })
        .collect();
    let (revoked, times) = tokio::join!(sessions.revoke_all(), hearing.try_collect());
    revoked?;

    Ok(Times::of(times?))
}

impl Seen {
    fn row(&self, name: &str, editors: u16) -> Vec<Value> {
        let each = |used: Duration| number(used.as_secs_f64() * 1e6 / f64::from(editors));
        let closed = |place| {
            self.closed
                .as_ref()
                .map_or(Value::Null, |times| milliseconds(times.at(place)))
        };

        vec![
            json!(name),
            milliseconds(self.back),
            milliseconds(self.each.at(500)),
            milliseconds(self.each.at(990)),
            self.processor_time.map_or(Value::Null, each),
            json!(self.calls),
            closed(500),
            closed(990),
        ]
    }
}
