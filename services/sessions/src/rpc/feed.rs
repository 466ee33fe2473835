//! The stream of revocations: what is there, then what comes. It reads the table whenever something may have changed and
//! every few seconds anyway, so that a notice that got lost costs a moment and no revocation.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::BoxStream;
use vvs_proto::session::watch_revocations_response::Event;
use vvs_proto::session::{WatchRevocationsRequest, WatchRevocationsResponse};

use super::{CALL_LIMIT, message};
use crate::metric::Counts;
use crate::store::{Revocation, Store};
use crate::{Error, clock};

/// How often somebody who watches hears that all is well. None is sent while the database cannot be read: then nobody
/// knows whether it is.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How soon the table is read again after it could not be.
const RETRY: Duration = Duration::from_millis(500);

/// Seconds behind us in which a session may have been approved whose commit is still to come: longer than a call takes.
const IN_FLIGHT: i64 = 5;

struct Watch {
    store: Store,
    counts: Counts,
    stop: CancellationToken,
    changed: watch::Receiver<()>,
    database_id: String,
    ticks: Interval,
    /// The number that has been read to.
    read_to: i64,
    /// Whether there was more than one reading returns.
    is_behind: bool,
    is_caught_up: bool,
    /// Whether the last reading failed.
    is_blind: bool,
    ready: VecDeque<Event>,
}

/// Starts to watch behind a number of this database; 0 is before everything.
pub(super) async fn watch(
    store: &Store,
    counts: Counts,
    stop: CancellationToken,
    from: WatchRevocationsRequest,
) -> Result<BoxStream<WatchRevocationsResponse>, Error> {
    // Before anything is read, so that what comes in between is not missed.
    let changed = store.revoked();
    let (newest, pruned) = store.feed_ends().await?;
    let database_id = store.database_id().await?;
    let after = from.after_sequence;
    let is_foreign = after > 0 && !from.database_id.is_empty() && from.database_id != database_id;
    let read_to = i64::try_from(after).map_err(|_cause| Error::SequenceGone(after))?;
    if is_foreign || read_to > newest || (read_to > 0 && read_to < pruned) {
        return Err(Error::SequenceGone(after));
    }
    let mut ticks = interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let mut watch = Watch {
        store: store.clone(),
        counts,
        stop,
        changed,
        database_id,
        ticks,
        read_to,
        is_behind: true,
        is_caught_up: false,
        is_blind: false,
        ready: VecDeque::new(),
    };
    watch.read(false).await?;
    Ok(Box::pin(stream::unfold(watch, Watch::next)))
}

impl Watch {
    async fn next(mut self) -> Option<(Result<WatchRevocationsResponse, Status>, Self)> {
        let stop = self.stop.clone();
        loop {
            if let Some(event) = self.ready.pop_front() {
                let database_id = self.database_id.clone();
                return Some((Ok(WatchRevocationsResponse { event: Some(event), database_id }), self));
            }
            // A drain ends the stream; the relay goes on elsewhere, from the number it has.
            let heartbeat = stop.run_until_cancelled(self.pause()).await?;
            let read = tokio::time::timeout(CALL_LIMIT, self.read(heartbeat)).await;
            let read = read.unwrap_or_else(|_elapsed| Err(Error::slow()));
            if let Err(error) = &read {
                self.counts.failed(error);
                if !self.is_blind {
                    tracing::warn!(detail = %error, "the revocation feed cannot be read");
                }
            }
            self.is_blind = read.is_err();
        }
    }

    /// Waits until it is time to read; whether a heartbeat is due.
    async fn pause(&mut self) -> bool {
        if self.is_blind {
            sleep(RETRY).await;
            return true;
        }
        if self.is_behind {
            return false;
        }
        tokio::select! {
            // Fails only without a sender, and we hold a store, which has one.
            _ = self.changed.changed() => false,
            _ = self.ticks.tick() => true,
        }
    }

    async fn read(&mut self, heartbeat: bool) -> Result<(), Error> {
        let page = self.store.revocations(self.read_to, clock()).await?;
        (self.read_to, self.is_behind) = (page.read_to, !page.complete);
        let is_quiet = page.entries.is_empty();
        self.ready.extend(page.entries.into_iter().map(entry));
        let newest = page.read_to.unsigned_abs();
        if page.complete && !self.is_caught_up {
            let since = self.pending_since().await?;
            self.is_caught_up = true;
            self.ready.extend([since, Event::CaughtUp(newest)]);
        } else if heartbeat && is_quiet {
            let since = self.pending_since().await?;
            self.ready.extend([Event::Heartbeat(newest), since]);
        }
        Ok(())
    }

    async fn pending_since(&self) -> Result<Event, Error> {
        let settled = clock().saturating_sub(IN_FLIGHT);
        let oldest = self.store.oldest_pending().await?.unwrap_or(settled);
        let at = message::timestamp(oldest.min(settled)).unwrap_or_default();
        Ok(Event::PendingSince(at))
    }
}

fn entry(revocation: Revocation) -> Event {
    Event::Revocation(vvs_proto::session::Revocation {
        sequence: revocation.sequence.unsigned_abs(),
        session_id: revocation.session.as_str().to_owned(),
        reason: revocation.reason,
        tokens_expire_at: message::timestamp(revocation.tokens_expire_at),
    })
}
