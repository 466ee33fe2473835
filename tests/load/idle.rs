//! Memory per idle connection.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::Failure;
use crate::target::{Target, gateway_connector};

/// Connections made at once.
const AT_ONCE: usize = 64;
/// Pings that each connection has answered when memory is read.
const ROUNDS: usize = 2;
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many connections are held
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Fail when a plain connection costs more
    #[arg(long)]
    max_bytes: Option<u64>,
}

pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{} idle connections, {ROUNDS} heartbeats each", options.connections)?;
    writeln!(out, "{:<12} {:>22}", "hop", "bytes per connection")?;
    let plain = measure(options.connections, false).await?;
    writeln!(out, "{:<12} {plain:>22}", "plain")?;
    let tls = measure(options.connections, true).await?;
    writeln!(out, "{:<12} {tls:>22}", "mutual TLS")?;
    match options.max_bytes {
        Some(most) if plain > most => Err(format!("a plain connection costs {plain} bytes, more than {most}").into()),
        _ => Ok(()),
    }
}

async fn measure(connections: usize, tls: bool) -> Result<u64, Failure> {
    let data = tempfile::tempdir()?;
    let flags = [
        ["--relay-max-logins-per-address", "1000000"],
        ["--relay-handshake-burst", "1000000"],
        ["--relay-heartbeat-interval", "5s"],
        ["--relay-heartbeat-timeout", "60s"],
    ];
    let target = Target::start(data.path(), tls, flags.as_flattened()).await?;
    let connector = gateway_connector(data.path())?;
    let before = target.memory()?;
    let seen = Arc::new(Seen { left: AtomicUsize::new(connections), all: Notify::new() });
    let (mut editors, places) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
    for _ in 0..connections {
        let (address, connector, seen) = (target.address, connector.clone(), seen.clone());
        let place = places.clone().acquire_owned().await?;
        editors.spawn(async move {
            if tls {
                hold(connector.connect(&address.to_string()).await?, place, &seen).await
            } else {
                hold(TcpStream::connect(address).await?, place, &seen).await
            }
        });
    }
    tokio::select! {
        () = seen.all.notified() => {}
        ended = editors.join_next() => return Err(format!("an editor was cut off: {ended:?}").into()),
        () = tokio::time::sleep(PATIENCE) => return Err("the editors were not all pinged in time".into()),
    }
    let each = target.memory()?.saturating_sub(before) / u64::try_from(connections)?;
    editors.shutdown().await;
    target.stop().await?;
    Ok(each)
}

/// Editors that still have pings to see.
struct Seen {
    left: AtomicUsize,
    all: Notify,
}

/// Connects and answers pings for ever. The place is for connecting only.
async fn hold<S>(io: S, place: tokio::sync::OwnedSemaphorePermit, seen: &Seen) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
    let (mut socket, _) = client_async_with_config("ws://localhost/ws", io, Some(config)).await?;
    drop(place);
    let mut pings = 0;
    while let Some(message) = socket.next().await {
        if matches!(message?, Message::Ping(_)) {
            pings += 1;
            if pings == ROUNDS && seen.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                seen.all.notify_one();
            }
        }
    }
    Err("the relay closed the connection".into())
}
