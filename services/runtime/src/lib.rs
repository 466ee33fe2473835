//! How a process of the mesh lives. It does not know what the processes are for, and has no word of
//! the domain.
//!
//! A role is given a [`Process`] and serves until its `stop` is cancelled; what it spawns goes on
//! the process's tracker, so that draining waits for it. [`http`] is the one server for everything
//! that listens, and [`tls`] its certificates, which are reloaded while it runs. [`pool`] knows
//! which processes serve the same and which of them can. [`rpc`] guards and calls gRPC methods,
//! [`trace`] and [`telemetry`] say what happened, [`admin`] answers probes, and [`stop`] ends it
//! all.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod admin;
#[cfg(test)]
mod bench;
mod channel;
mod counter;
mod deadline;
pub mod forwarded;
pub mod http;
pub mod limit;
#[cfg(target_os = "linux")]
mod memory;
pub mod metrics;
pub mod origin;
pub mod pool;
pub mod rpc;
pub mod secret_file;
pub mod share;
pub mod stop;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod trace;

/// The context that every part of a process gets when it starts to serve.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its certificate among the peers.
    pub identity: Arc<tls::Identity>,
    pub metrics: metrics::Metrics,
    pub readiness: admin::Readiness,
    /// When cancelled: accept nothing new, finish the work under way within `grace`, end.
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    pub grace: Duration,
}

impl Process {
    /// Creates an HTTP server on one of the ports that this process's peers call.
    pub fn server(&self, limits: http::Limits) -> http::Server {
        let Self {
            metrics,
            stop,
            tasks,
            readiness,
            grace,
            ..
        } = self.clone();
        let limits = http::Limits {
            readiness: Some(readiness),
            ..limits
        };
        let mut server = http::Server::new(limits, metrics, stop, tasks);
        server.notice = http::NOTICE.min(grace / 4);

        server
    }
}
