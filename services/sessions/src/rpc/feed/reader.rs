//! Reads the feed for all followers, from its position at the start of the process. It knows none
//! of them.

use std::sync::Arc;
use std::time::Duration;

use prost_types::Timestamp;
use tokio::sync::{broadcast, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use vvs_proto::timestamp;

use super::{CALL_LIMIT, RETRY};
use crate::clock::clock;
use crate::error::Error;
use crate::metric::Counts;
use crate::store::{Revocation, Store};

/// How often followers get a heartbeat. None is sent while the database cannot be read, because
/// then nobody knows whether anything was revoked.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Seconds in the past in which a session may have been approved whose commit is still to come:
/// longer than a call takes.
const IN_FLIGHT: i64 = 5;

/// One message to all followers.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// In the order of their numbers.
    Revoked(Arc<[Revocation]>),
    /// Nothing has happened: a heartbeat.
    Quiet {
        newest: i64,
        pending_since: Timestamp,
    },
}

/// The reader of this process.
pub(super) struct Reader {
    store: Store,
    counts: Counts,
    told: broadcast::Sender<Told>,
    changed: watch::Receiver<()>,
    ticks: Interval,
    /// The number up to which it has read.
    read_to: i64,
    /// Whether there was more than one read returns.
    is_behind: bool,
    /// Whether the last read failed.
    is_blind: bool,
}

impl Reader {
    pub(super) fn new(store: Store, counts: Counts, told: broadcast::Sender<Told>) -> Self {
        let changed = store.revoked();
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();

        Self {
            store,
            counts,
            told,
            changed,
            ticks,
            read_to: 0,
            is_behind: false,
            is_blind: false,
        }
    }

    /// Reads forever. A follower that begins after `begun` is told of everything after the number
    /// that it finds in the database.
    pub(super) async fn run(mut self, begun: watch::Sender<bool>) {
        while let Err(error) = self.begin().await {
            self.failed(&error);
            sleep(RETRY).await;
        }

        begun.send_replace(true);

        loop {
            let heartbeat = self.pause().await;
            let read = timeout(CALL_LIMIT, self.read(heartbeat)).await;
            match read.unwrap_or_else(|_elapsed| Err(Error::slow())) {
                Ok(()) => self.is_blind = false,
                Err(error) => self.failed(&error),
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        let ends = timeout(CALL_LIMIT, self.store.feed_ends()).await;
        (self.read_to, _) = ends.unwrap_or_else(|_elapsed| Err(Error::slow()))?;
        self.is_blind = false;
        Ok(())
    }

    fn failed(&mut self, error: &Error) {
        self.counts.failed(error);
        if !self.is_blind {
            tracing::warn!(detail = %error, "the revocation feed cannot be read");
        }
        self.is_blind = true;
    }

    /// Waits until the next read is due. Returns whether a heartbeat is due.
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
        self.counts.feed_reads.inc();
        (self.read_to, self.is_behind) = (page.read_to, !page.complete);

        if !page.entries.is_empty() {
            self.tell(Told::Revoked(page.entries.into()));
        } else if heartbeat {
            let pending_since = pending_since(&self.store).await?;
            self.tell(Told::Quiet {
                newest: page.read_to,
                pending_since,
            });
        }

        Ok(())
    }

    fn tell(&self, told: Told) {
        // Fails only when nobody follows.
        self.told.send(told).ok();
    }
}

/// Returns the time before which no session is pending.
pub(super) async fn pending_since(store: &Store) -> Result<Timestamp, Error> {
    let settled = clock().saturating_sub(IN_FLIGHT);
    let oldest = store.oldest_pending().await?.unwrap_or(settled);
    Ok(timestamp::seconds(oldest.min(settled)))
}
