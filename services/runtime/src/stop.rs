//! How a process ends: the first signal drains, the second or the end of the grace period cuts.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// SIGTERM and SIGINT, which no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over the signals. Call it before anything else: a signal that arrives earlier ends the
    /// process immediately.
    ///
    /// # Errors
    ///
    /// When the operating system refuses.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancels `drain` at the first signal and `cut` at the second.
    pub async fn obey(mut self, drain: CancellationToken, cut: CancellationToken) {
        for token in [&drain, &cut] {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            tracing::info!(cut = std::ptr::eq(token, &raw const cut), "stopping");
            token.cancel();
        }
    }
}

/// Waits until all tasks have ended, `grace` is over, or `cut` is cancelled. Returns `true` when
/// the tasks have ended by themselves.
pub async fn drained(tasks: &TaskTracker, grace: Duration, cut: &CancellationToken) -> bool {
    tasks.close();
    tokio::select! {
        () = tasks.wait() => true,
        () = tokio::time::sleep(grace) => {
            tracing::warn!(?grace, left = tasks.len(), "some connections were cut");
            false
        }
        () = cut.cancelled() => false,
    }
}
