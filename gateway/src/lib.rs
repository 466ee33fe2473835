//! The public edge: a path table, limits, header hygiene, and the root of each trace. It passes
//! WebSockets on without reading them, holds no secret but its TLS key, and knows nothing of
//! logins.
//!
//! `route` is what happens to every request, from top to bottom: `address` says who asks, `limit`
//! and `rate` whether there is a place, `header` what may pass, and `forward` takes it to web or to
//! a relay. What is behind believes the gateway, and only the gateway, about a client's address.

mod address;
mod class;
mod edge;
mod error;
mod forward;
mod header;
mod limit;
mod member;
mod rate;
mod route;
mod settings;
#[cfg(test)]
mod tests;
mod through;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use vvs_auth::peer::Peers;
use vvs_runtime::Process;
use vvs_runtime::http::{self, Listener};
use vvs_runtime::origin::Origin;

pub use error::Error;
pub use settings::Settings;

use route::Routes;

/// How often the counts of quiet addresses are deleted.
const FORGET_INTERVAL: Duration = Duration::from_mins(1);

/// Serves until the process is stopped. WebSockets live on as its tasks; the relay closes them.
pub async fn serve(
    settings: Settings,
    listener: Listener,
    peers: Arc<Peers>,
    public_url: Origin,
    process: Process,
) -> Result<(), Error> {
    let limits = http::Limits {
        handshake_timeout: settings.header_timeout,
        write_timeout: settings.write_timeout,
        idle_timeout: Some(settings.idle_timeout),
        max_streams: settings.max_streams,
        settings: http::Names {
            handshake_timeout: "VVS_GATEWAY_HEADER_TIMEOUT",
            idle_timeout: "VVS_GATEWAY_IDLE_TIMEOUT",
            max_connections: "VVS_GATEWAY_MAX_CONNECTIONS",
        },
        // One more than are admitted, so that the one too many is refused and counted instead of
        // waiting unseen.
        max_connections: settings
            .max_connections
            .saturating_add(1)
            .min(Semaphore::MAX_PERMITS),
        ..http::Limits::default()
    };
    let routes = Arc::new(Routes::new(settings, &peers, public_url, &process)?);
    let mut server = process.server(http::Limits {
        admission: Some(routes.edge.clone().admission()),
        ..limits
    });

    // Nobody out there is told, nor turned away while we drain: a balancer asks the administration
    // port.
    server.limits.readiness = None;
    process
        .tasks
        .spawn(process.stop.clone().run_until_cancelled_owned({
            let edge = routes.edge.clone();
            async move {
                loop {
                    tokio::time::sleep(FORGET_INTERVAL).await;
                    edge.limits.forget_quiet();
                }
            }
        }));
    process.readiness.set(true);
    let stopped = async {
        process.stop.cancelled().await;
        process.readiness.set(false);
    };

    tokio::join!(server.serve(listener, route::router(routes)), stopped);

    Ok(())
}
