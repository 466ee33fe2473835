//! Memory per idle connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::editor::{AT_ONCE, Socket};
use crate::install::{Install, Sessions};
use crate::report::{Report, number};
use crate::system::{Existing, Hop, System};
use crate::{Failure, plot};

/// Pings that each connection has answered when memory is read. The floor sends none.
const ROUNDS: usize = 2;
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many connections are held, at most 9000 through the gateway, which has two descriptors
    /// for each; several numbers with commas between are measured one after the other
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10000",
        value_parser = clap::value_parser!(u32).range(2..=15_000),
    )]
    connections: Vec<u32>,
    /// Seconds between two heartbeats of the servers started for the run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    heartbeat: u32,
    /// Fail when a connection costs a relay without TLS more, or whatever --url names
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
    /// Draws the memory of a connection against connections, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    existing: Existing,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Servers started for the run; without, a system that runs already.
    hop: Option<Hop>,
    is_limited: bool,
}

const STARTED: [Kind; 4] = [
    Kind {
        name: "floor",
        hop: Some(Hop::Floor),
        is_limited: false,
    },
    Kind {
        name: "relay, plain",
        hop: Some(Hop::Plain),
        is_limited: true,
    },
    Kind {
        name: "relay, mutual TLS",
        hop: Some(Hop::Tls),
        is_limited: false,
    },
    Kind {
        name: "gateway before a relay",
        hop: Some(Hop::Gateway),
        is_limited: false,
    },
];
const EXISTING: [Kind; 2] = [
    STARTED[0],
    Kind {
        name: "the system",
        hop: None,
        is_limited: true,
    },
];

pub(crate) async fn run(options: &Options, as_json: bool) -> Result<(), Failure> {
    if options.existing.is_chosen() {
        // Says early that it cannot be measured.
        options.existing.system().await?.memory()?;
    }

    let data = tempfile::tempdir()?;
    let sessions = Sessions::of(&options.existing, data.path(), &[]).await?;
    let most = options
        .connections
        .iter()
        .max()
        .copied()
        .unwrap_or_default();
    let mut installs = sessions.make(usize::try_from(most)?).await?;
    if !options.existing.is_chosen() {
        // Else the first relay would have the memory of all their activations. One that runs
        // already would keep it.
        let first = start(options, STARTED[1], data.path(), &sessions).await?;
        sessions.activate(&installs, &first.entrance).await?;
        first.stop().await?;
        sessions.renew(&mut installs).await?;
    }

    let installs: Arc<[_]> = installs.into();
    let kinds = if options.existing.is_chosen() {
        &EXISTING[..]
    } else {
        &STARTED
    };

    let title = format!("Idle connections of signed-in editors, {ROUNDS} heartbeats each");
    let mut report = Report::new(
        title,
        &[
            "connections",
            "server",
            "bytes per connection",
            "to the floor",
        ],
    );
    let mut lines: Vec<_> = kinds
        .iter()
        .map(|kind| plot::Line {
            name: kind.name,
            points: Vec::new(),
        })
        .collect();
    let mut limited = 0;
    for connections in &options.connections {
        let mut floor = 0;
        for (kind, line) in kinds.iter().zip(&mut lines) {
            let system = start(options, *kind, data.path(), &sessions).await?;
            let connections = kind
                .hop
                .map_or(*connections, |hop| hop.bounded(*connections));
            let rounds = if kind.hop == Some(Hop::Floor) {
                0
            } else {
                ROUNDS
            };

            let bytes = measure(&system, &installs, connections, rounds).await?;
            system.stop().await?;

            // The first one.
            floor = if rounds == 0 { bytes } else { floor };
            limited = if kind.is_limited {
                limited.max(bytes)
            } else {
                limited
            };
            let each = f64::from(u32::try_from(bytes)?);
            line.points.push((f64::from(connections), each));
            let ratio = number(each / f64::from(u32::try_from(floor.max(1))?));
            report.row(vec![
                json!(connections),
                json!(kind.name),
                json!(bytes),
                ratio,
            ]);
        }
    }

    sessions.stop().await?;
    report.print(as_json)?;

    if let Some(path) = &options.plot {
        std::fs::write(
            path,
            plot::svg(
                "Memory of one idle connection, in bytes, against connections held",
                &lines,
            ),
        )?;
    }

    match options.max_bytes {
        Some(most) if limited > most => {
            Err(format!("a connection costs {limited} bytes, more than {most}").into())
        }
        _ => Ok(()),
    }
}

async fn start(
    options: &Options,
    kind: Kind,
    data: &std::path::Path,
    sessions: &Sessions,
) -> Result<System, Failure> {
    let Some(hop) = kind.hop else {
        return options.existing.system().await;
    };
    let (heartbeat, sessions) = (format!("{}s", options.heartbeat), sessions.address()?);
    let flags = [
        ["--relay-heartbeat-interval", &*heartbeat],
        ["--relay-heartbeat-timeout", "60s"],
        ["--relay-sessions-addr", &sessions],
    ];
    System::start(data, hop, flags.as_flattened()).await
}

/// Bytes per connection of the process that editors connect to.
async fn measure(
    system: &System,
    installs: &Arc<[Install]>,
    connections: u32,
    rounds: usize,
) -> Result<u64, Failure> {
    let count = usize::try_from(connections)?;
    let before = system.memory()?;
    let seen = Arc::new(Seen {
        left: AtomicUsize::new(count),
        all: Notify::new(),
    });
    let mut editors = JoinSet::new();
    let entrance = system.entrance.clone();
    let mut signing = stream::iter(0..count)
        .map(async |place| entrance.sign_on(&installs[place]).await)
        .buffered(AT_ONCE);
    while let Some((socket, _)) = signing.try_next().await? {
        editors.spawn(hold(socket, seen.clone(), rounds));
    }

    tokio::select! {
        () = seen.all.notified() => {}
        ended = editors.join_next() => return Err(format!("an editor was cut off: {ended:?}").into()),
        () = tokio::time::sleep(PATIENCE) => return Err("the editors were not all pinged in time".into()),
    }
    let each = system.memory()?.saturating_sub(before) / u64::from(connections);
    editors.shutdown().await;

    Ok(each)
}

/// Editors that still have pings to see.
struct Seen {
    left: AtomicUsize,
    all: Notify,
}

/// Answers pings for ever.
async fn hold(mut socket: Socket, seen: Arc<Seen>, rounds: usize) -> Result<(), Failure> {
    let mut pings = 0;
    loop {
        if pings == rounds && seen.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            seen.all.notify_one();
        }
        let message = socket.next().await.ok_or("the connection was closed")??;
        pings += usize::from(message.is_ping());
    }
}
