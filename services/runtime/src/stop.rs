//! How a process ends: the first signal drains, the second or the end of the grace period cuts.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cancels `drain` at the first SIGTERM or SIGINT and `cut` at the second.
pub async fn on_signal(drain: CancellationToken, cut: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    for token in [&drain, &cut] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(cut = std::ptr::eq(token, &raw const cut), "stopping");
        token.cancel();
    }
    Ok(())
}

/// Waits until all tasks have ended, `grace` is over, or `cut` is cancelled. `true` when they have ended by themselves.
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
