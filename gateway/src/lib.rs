//! The public edge: a path table, limits, header hygiene, and the root of each trace. It passes WebSockets on without
//! reading them, holds no secret but its TLS key, and knows nothing of logins.

mod address;
mod error;
mod forward;
mod header;
mod limit;
mod member;
mod route;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use vvs_auth::peer::Peers;
use vvs_runtime::Process;
use vvs_runtime::http::{self, Listener};
use vvs_runtime::origin::Origin;

pub use error::Error;
pub use settings::Settings;

use route::Edge;

/// How often addresses that have been quiet are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// Serves until the process is stopped. WebSockets live on as its tasks: the relay is who closes them.
pub async fn serve(
    settings: Settings,
    listener: Listener,
    peers: Arc<Peers>,
    public_url: Origin,
    process: Process,
) -> Result<(), Error> {
    // Accepted sockets inherit it. Only the kernel sees that a client takes nothing of what waits for it.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&listener.tcp)
        .set_tcp_user_timeout(Some(settings.write_timeout))
        .map_err(Error::Listener)?;
    let limits = http::Limits {
        handshake_timeout: settings.header_timeout,
        // One more than are admitted, so that the one too many is refused and counted instead of waiting unseen.
        max_connections: settings.max_connections.saturating_add(1).min(Semaphore::MAX_PERMITS),
        ..http::Limits::default()
    };
    let edge = Arc::new(Edge::new(settings, &peers, public_url, &process)?);
    let mut server = process.server(http::Limits { admission: Some(edge.clone().admission()), ..limits });
    // Nobody out there is told, nor turned away while we drain: a balancer asks the administration port.
    server.limits.readiness = None;
    process.tasks.spawn(process.stop.clone().run_until_cancelled_owned({
        let edge = edge.clone();
        async move {
            loop {
                tokio::time::sleep(FORGET_INTERVAL).await;
                edge.limits.forget_quiet();
            }
        }
    }));
    process.readiness.set(true);
    server.serve(listener, route::router(edge)).await;
    process.readiness.set(false);
    Ok(())
}
