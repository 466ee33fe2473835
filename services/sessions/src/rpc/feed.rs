//! The stream of revocations: first the existing ones, then new ones. One reader for the whole
//! process reads the table when something may have changed, and every few seconds in any event, so
//! that a lost notice costs a moment and no revocation. It tells all followers; each follower reads
//! for itself only the revocations from before it began.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use prost_types::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, SemaphorePermit, broadcast, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::codegen::BoxStream;
use vvs_auth::peer::Role;
use vvs_proto::timestamp;
use vvs_proto::token::watch_revocations_response::Event;
use vvs_proto::token::{
    self as wire, CaughtUp, Heartbeat, WatchRevocationsRequest, WatchRevocationsResponse,
};
use vvs_proto::types::RevocationReason;
use vvs_runtime::limit::Reached;

use self::reader::{Reader, Told, pending_since};
use super::CALL_LIMIT;
use crate::clock::clock;
use crate::error::Error;
use crate::metric::Counts;
use crate::store::{Revocation, Store};

mod reader;

/// How soon the table is read again after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// The number of relays that read missed revocations at the same time: fewer than there are
/// connections to the database.
const RELAYS_TURNS: usize = 4;
/// The same for other callers. However many begin at the same time, the calls of web and relays
/// wait for only one of their reads.
const OTHERS_TURNS: usize = 1;

/// How far a follower may be behind, and how long it waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Messages that it has not read yet.
    pub(crate) backlog: u32,
    /// Time until it may read the revocations that it has missed.
    pub(crate) turn_time: Duration,
}

/// Tells all followers what this process has read.
#[derive(Debug, Clone)]
pub(crate) struct Feed(Arc<Broadcast>);

#[derive(Debug)]
struct Broadcast {
    store: Store,
    counts: Counts,
    reached: Reached,
    stop: CancellationToken,
    told: broadcast::Sender<Told>,
    /// Whether the reader knows its position: from then on it skips nothing.
    has_begun: watch::Receiver<bool>,
    /// The turns of relays, and of other callers, which must not delay them.
    turns: [Semaphore; 2],
    turn_time: Duration,
}

impl Feed {
    /// Starts the reader.
    pub(crate) fn start(
        store: &Store,
        counts: Counts,
        reached: Reached,
        bounds: Bounds,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Self {
        let (told, _) = broadcast::channel(usize::try_from(bounds.backlog).unwrap_or(usize::MAX));
        let (begun, has_begun) = watch::channel(false);
        let reader = Reader::new(store.clone(), counts.clone(), told.clone());
        let until = stop.clone();
        tasks.spawn(async move { until.run_until_cancelled(reader.run(begun)).await });
        let turns = [Semaphore::new(RELAYS_TURNS), Semaphore::new(OTHERS_TURNS)];
        let (store, stop, turn_time) = (store.clone(), stop.clone(), bounds.turn_time);

        Self(Arc::new(Broadcast {
            store,
            counts,
            reached,
            stop,
            told,
            has_begun,
            turns,
            turn_time,
        }))
    }

    /// Starts to follow after a number of this database; 0 is before everything.
    pub(crate) async fn follow(
        &self,
        role: Role,
        from: WatchRevocationsRequest,
    ) -> Result<BoxStream<WatchRevocationsResponse>, Error> {
        let feed = &self.0;
        if feed.stop.is_cancelled() {
            return Err(Error::Stopping);
        }
        // Fails only when the reader has ended, because the process does.
        feed.has_begun
            .clone()
            .wait_for(|begun| *begun)
            .await
            .map_err(|_ended| Error::Stopping)?;

        // Before anything is read, so that what comes in between is not missed.
        let told = feed.told.subscribe();

        let _turn = feed.turn(role).await?;
        let (newest, pruned) = feed.store.feed_ends().await?;
        let database_id = feed.store.database_id().await?;
        let after = from.after_sequence;
        let is_foreign =
            after > 0 && !from.database_id.is_empty() && from.database_id != database_id;
        let heard_to = i64::try_from(after).map_err(|_cause| Error::SequenceGone(after))?;
        if is_foreign || heard_to > newest || (heard_to > 0 && heard_to < pruned) {
            return Err(Error::SequenceGone(after));
        }

        let mut follower = Follower {
            feed: feed.clone(),
            role,
            told,
            database_id,
            heard_to,
            is_caught_up: false,
            is_over: false,
            newest,
            ready: VecDeque::new(),
        };
        follower.catch_up().await?;

        Ok(Box::pin(stream::unfold(follower, Follower::next)))
    }
}

#[cfg(test)]
impl Feed {
    /// Holds all turns of callers other than relays.
    pub(crate) async fn hold_turns_of_others(&self) -> SemaphorePermit<'_> {
        self.0.turns[1].acquire().await.unwrap()
    }
}

impl Broadcast {
    /// Waits until one more follower may read the revocations that it has missed.
    async fn turn(&self, role: Role) -> Result<SemaphorePermit<'_>, Error> {
        let turns = &self.turns[usize::from(role != Role::Relay)];
        let turn = timeout(self.turn_time, turns.acquire()).await;

        // No semaphore of ours is ever closed.
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            self.reached.tell("VVS_SESSIONS_FEED_TURN_TIME");
            Error::FollowersBusy
        })
    }
}

/// An event on its way, and the time before which no session is pending.
type Ready = (Event, Option<Timestamp>);

/// One stream.
struct Follower {
    feed: Arc<Broadcast>,
    role: Role,
    told: broadcast::Receiver<Told>,
    database_id: String,
    /// The number up to which it has been told, or has it in `ready`.
    heard_to: i64,
    /// Whether it has all revocations from before it began.
    is_caught_up: bool,
    is_over: bool,
    /// The newest number that this process knows.
    newest: i64,
    ready: VecDeque<Ready>,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<WatchRevocationsResponse, Status>, Self)> {
        loop {
            if let Some((event, pending_since)) = self.ready.pop_front() {
                let response = WatchRevocationsResponse {
                    event: Some(event),
                    database_id: self.database_id.clone(),
                    newest_sequence: self.newest.unsigned_abs(),
                    pending_since,
                };
                return Some((Ok(response), self));
            }

            if self.is_over {
                return None;
            }

            let feed = self.feed.clone();
            if !self.is_caught_up {
                if feed.stop.run_until_cancelled(self.go_on()).await.is_none() {
                    return Some(self.ends(Error::Stopping));
                }
                continue;
            }

            match feed.stop.run_until_cancelled(self.told.recv()).await {
                Some(Ok(told)) => self.hear(&told),
                Some(Err(RecvError::Lagged(_))) => {
                    feed.reached.tell("VVS_SESSIONS_FEED_BACKLOG");
                    return Some(self.ends(Error::FollowerSlow));
                }
                // A follower that sees the stream end without an error would trust what it has.
                Some(Err(RecvError::Closed)) | None => return Some(self.ends(Error::Stopping)),
            }
        }
    }

    /// Ends the stream with an error; the follower goes on elsewhere, from the number it has.
    fn ends(mut self, error: Error) -> (Result<WatchRevocationsResponse, Status>, Self) {
        self.is_over = true;
        (Err(error.into()), self)
    }

    fn hear(&mut self, told: &Told) {
        match told {
            Told::Revoked(entries) => {
                for revocation in entries.iter() {
                    // What came while it was catching up it has read itself.
                    if revocation.sequence > self.heard_to {
                        self.heard_to = revocation.sequence;
                        self.ready.push_back((entry(revocation), None));
                    }
                }
                self.newest = self.newest.max(self.heard_to);
            }
            Told::Alive {
                newest,
                pending_since,
            } => {
                self.newest = self.newest.max(*newest);
                let heartbeat = Event::Heartbeat(Heartbeat {});
                self.ready.push_back((heartbeat, *pending_since));
            }
        }
    }

    /// Continues to read when there was more than one read returns.
    async fn go_on(&mut self) {
        let feed = self.feed.clone();
        let read = timeout(CALL_LIMIT, async {
            let _turn = feed.turn(self.role).await?;
            self.catch_up().await
        });
        if let Err(error) = read.await.unwrap_or_else(|_elapsed| Err(Error::slow())) {
            feed.counts.failed(&error);
            sleep(RETRY).await;
        }
    }

    async fn catch_up(&mut self) -> Result<(), Error> {
        let page = self.feed.store.revocations(self.heard_to, clock()).await?;
        self.heard_to = page.read_to;
        self.newest = self.newest.max(page.read_to);
        self.ready.extend(
            page.entries
                .iter()
                .map(|revocation| (entry(revocation), None)),
        );
        if page.complete {
            let since = pending_since(&self.feed.store).await?;
            self.is_caught_up = true;
            self.ready
                .push_back((Event::CaughtUp(CaughtUp {}), Some(since)));
        }
        Ok(())
    }
}

fn entry(revocation: &Revocation) -> Event {
    let reason = RevocationReason::from_word(&revocation.reason).unwrap_or_default();
    Event::Revocation(wire::Revocation {
        sequence: revocation.sequence.unsigned_abs(),
        session_id: revocation.session.as_str().to_owned(),
        reason: reason.into(),
        tokens_expire_at: Some(timestamp::seconds(revocation.tokens_expire_at)),
        user_id: revocation.user.as_str().to_owned(),
    })
}
