//! Reads the feed for all followers, from its position at the start of the process. It knows none
//! of them.

use std::sync::Arc;
use std::time::Duration;

use prost_types::Timestamp;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};
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
    /// The reader reads: a heartbeat.
    Alive {
        newest: i64,
        /// Unknown while there is more to read: a session that was swept would look active.
        pending_since: Option<Timestamp>,
    },
}

/// The reader of this process.
pub(super) struct Reader {
    store: Store,
    counts: Counts,
    told: broadcast::Sender<Told>,
    changed: watch::Receiver<()>,
    ticks: Interval,
    /// When the last heartbeat was sent.
    alive_at: Instant,
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
            alive_at: Instant::now(),
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
        }

        // However much there is to read: a follower must be able to tell a feed that is behind from
        // one that is dead.
        if heartbeat || self.alive_at.elapsed() >= HEARTBEAT {
            let pending_since = if page.complete {
                Some(pending_since(&self.store).await?)
            } else {
                None
            };
            self.tell(Told::Alive {
                newest: page.read_to,
                pending_since,
            });
            self.alive_at = Instant::now();
            self.ticks.reset();
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

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::Receiver;
    use vvs_runtime::metrics::Metrics;

    use super::*;
    use crate::store::feed::PAGE;
    use crate::store::tests::{Location, on_both_databases};

    /// As if the last heartbeat had been sent so long ago that the next one is due.
    fn age(reader: &mut Reader) {
        reader.alive_at -= HEARTBEAT;
    }

    /// Returns the number of revocations, and the heartbeats.
    fn heard(told: &mut Receiver<Told>) -> (usize, Vec<(i64, bool)>) {
        let (mut revoked, mut alive) = (0, Vec::new());
        while let Ok(told) = told.try_recv() {
            match told {
                Told::Revoked(entries) => revoked += entries.len(),
                Told::Alive {
                    newest,
                    pending_since,
                } => alive.push((newest, pending_since.is_some())),
            }
        }
        (revoked, alive)
    }

    async fn a_heartbeat_is_sent_in_time_however_much_there_is_to_read(place: &Location) {
        let store = place.open().await;
        let (all, page) = (i64::from(PAGE) * 3, PAGE as usize);
        for sql in [
            "INSERT INTO revocations (sequence, session_id, reason, tokens_expire_at)
             WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $1)
             SELECT n, 'ses_' || n, 'logout', 9999999999 FROM numbers",
            "UPDATE feed SET newest = $1",
        ] {
            sqlx::query(sql)
                .bind(all)
                .execute(store.pool())
                .await
                .unwrap();
        }

        let counts = Counts::register(&Metrics::default());
        let (tell, mut told) = broadcast::channel(16);
        let mut reader = Reader::new(store, counts, tell);
        reader.read(false).await.unwrap();
        assert_eq!(heard(&mut told), (page, vec![]), "it is not due");

        // Whose sessions are pending is not said, because there is more to read.
        age(&mut reader);
        reader.read(false).await.unwrap();
        assert_eq!(heard(&mut told), (page, vec![(i64::from(PAGE) * 2, false)]));

        reader.read(false).await.unwrap();
        assert_eq!(heard(&mut told), (page, vec![]), "it has just been sent");

        age(&mut reader);
        reader.read(false).await.unwrap();
        assert!(!reader.is_behind);
        assert_eq!(heard(&mut told), (0, vec![(all, true)]));
    }

    on_both_databases! {
        a_heartbeat_is_sent_in_time_however_much_there_is_to_read
    }
}
