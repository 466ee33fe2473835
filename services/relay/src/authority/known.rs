//! A relay's knowledge from sessions: the keys of tokens, the revocations, and their watchers. No
//! call, no task.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use vvs_auth::token::{self, Claims, Distrust, JwkSet, Verifier};

use super::Untrusted;

/// One event of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Revoked {
        sequence: u64,
        session_id: String,
        reason: String,
        tokens_expire_at: i64,
    },
    CaughtUp(u64),
    Heartbeat,
    /// No session that was created before this second is pending any longer.
    PendingSince(i64),
}

/// The revocations, and until when they matter.
struct Revoked {
    reason: Arc<str>,
    tokens_expire_at: i64,
}

#[derive(Default)]
struct Feed {
    sequence: u64,
    /// The database that this number belongs to.
    database_id: String,
    /// Whether the current stream has reported everything that happened before it.
    is_current: bool,
    /// When the feed last said that it is complete.
    heard_at: Option<Instant>,
    pending_since: Option<i64>,
    revoked: HashMap<Arc<str>, Revoked>,
    /// Watchers by session and number, so that a late guard never removes its successor.
    watches: BTreeMap<(Arc<str>, u64), oneshot::Sender<Arc<str>>>,
    watched: u64,
    /// Sessions that are being activated for an editor that has presented a recent token.
    activating: HashSet<String>,
    /// Sessions that are over for this relay, but not yet for the sessions role.
    ending: HashSet<String>,
}

/// The keys, the feed, and its watchers.
pub(crate) struct Known {
    issuer: String,
    audience: String,
    feed_silence: Duration,
    started: Instant,
    verifier: RwLock<Option<Arc<Verifier>>>,
    keys_wanted: Notify,
    feed: Mutex<Feed>,
    ready: watch::Sender<bool>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Known {
    pub(crate) fn new(issuer: String, audience: String, feed_silence: Duration) -> Arc<Self> {
        Arc::new(Self {
            issuer,
            audience,
            feed_silence,
            started: Instant::now(),
            verifier: RwLock::default(),
            keys_wanted: Notify::new(),
            feed: Mutex::default(),
            ready: watch::Sender::new(false),
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verifier(&self) -> Option<Arc<Verifier>> {
        self.verifier
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_keys(&self, keys: &JwkSet) {
        let verifier = Arc::new(Verifier::new(keys, &self.issuer, &self.audience));
        *self
            .verifier
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(verifier);
        self.note_ready();
    }

    pub(super) fn has_keys(&self) -> bool {
        self.verifier().is_some()
    }

    /// Returns when a token has named an unknown key.
    pub(super) async fn keys_wanted(&self) {
        self.keys_wanted.notified().await;
    }

    pub(super) async fn ready(&self) {
        // Fails only without a sender, and we hold one.
        self.ready.subscribe().wait_for(|ready| *ready).await.ok();
    }

    fn note_ready(&self) {
        if self.has_keys() && self.feed().heard_at.is_some() {
            self.ready
                .send_if_modified(|ready| !std::mem::replace(ready, true));
        }
    }

    pub(super) fn check_token(&self, token: &str, now: i64) -> Result<Claims, Untrusted> {
        // Until everything that was revoked is known, no token is good.
        let verifier = self
            .verifier()
            .filter(|_| *self.ready.borrow())
            .ok_or(Untrusted::NotReady)?;
        let checked = verifier.verify(token, now);
        if checked == Err(Distrust::UnknownKey) {
            self.keys_wanted.notify_one();
        }

        // What sessions has said of a session also holds for a token of it that has expired. Any
        // other anybody can make, and would learn from it which sessions there were.
        let session_id = match &checked {
            Ok(claims) => Some(claims.sid.clone()),
            Err(Distrust::Expired) => token::unverified(token).map(|claims| claims.sid),
            Err(_) => None,
        };

        let feed = self.feed();
        if let Some(session_id) = session_id {
            if let Some(revoked) = feed.revoked.get(session_id.as_str()) {
                return Err(Untrusted::Revoked(revoked.reason.clone()));
            }
            if feed.ending.contains(&session_id) {
                return Err(Untrusted::Ending);
            }
        }

        let claims = checked.map_err(Untrusted::Bad)?;
        if claims.cnf.is_none()
            && feed
                .heard_at
                .is_none_or(|at| at.elapsed() >= self.feed_silence)
        {
            return Err(Untrusted::StaleFeed);
        }

        Ok(claims)
    }

    /// Returns whether fewer than `most` watch this session.
    pub(super) fn has_room(&self, session_id: &str, most: usize) -> bool {
        self.feed().watchers(session_id) < most
    }

    /// Watches a session; `None` when `most` watch it already.
    pub(super) fn watch(known: &Arc<Self>, session_id: &str, most: usize) -> Option<Watch> {
        let (sender, revoked) = oneshot::channel();
        let mut feed = known.feed();
        if feed.watchers(session_id) >= most {
            return None;
        }

        feed.watched += 1;
        let number = feed.watched;
        let session_id: Arc<str> = session_id.into();

        // Under the lock that revocations take: whichever comes second sees the first.
        if let Some(already) = feed.revoked.get(&session_id) {
            sender.send(already.reason.clone()).ok();
        } else {
            feed.watches.insert((session_id.clone(), number), sender);
        }

        Some(Watch {
            known: known.clone(),
            session_id,
            number,
            revoked,
        })
    }

    /// Records that the stream is gone, so that the next event begins a new snapshot. `is_gone`
    /// makes it begin from 0.
    pub(super) fn disconnected(&self, is_gone: bool) {
        let mut feed = self.feed();
        feed.is_current = false;
        feed.pending_since = None;
        if is_gone {
            feed.sequence = 0;
            feed.database_id.clear();
        }
    }

    /// Returns the last number of the feed, and the database that it belongs to.
    pub(super) fn heard_to(&self) -> (u64, String) {
        let feed = self.feed();
        (feed.sequence, feed.database_id.clone())
    }

    /// Sets the database of all further numbers; an empty one is ignored.
    pub(super) fn note_database(&self, id: &str) {
        let mut feed = self.feed();
        if !id.is_empty() && feed.database_id != id {
            id.clone_into(&mut feed.database_id);
        }
    }

    /// Processes one event; `now` in seconds since 1970.
    pub(super) fn take(&self, event: News, now: i64) {
        let mut feed = self.feed();
        match event {
            News::Revoked {
                sequence,
                session_id,
                reason,
                tokens_expire_at,
            } => {
                feed.sequence = feed.sequence.max(sequence);
                feed.revoke(session_id.into(), reason.into(), tokens_expire_at);
            }
            News::CaughtUp(sequence) => {
                feed.is_current = true;
                feed.sequence = feed.sequence.max(sequence);
                feed.revoked
                    .retain(|_, revoked| revoked.tokens_expire_at > now);
            }
            News::Heartbeat => feed
                .revoked
                .retain(|_, revoked| revoked.tokens_expire_at > now),
            News::PendingSince(since) => feed.pending_since = Some(since),
        }

        if feed.is_current {
            feed.heard_at = Some(Instant::now());
        }

        drop(feed);
        self.note_ready();
    }

    /// Marks the session as over for this relay until [`Known::finish_end`]; `false` when `most`
    /// are marked already.
    pub(super) fn start_end(&self, session_id: &str, most: usize) -> bool {
        let mut feed = self.feed();
        let has_room = feed.ending.len() < most;
        if has_room {
            feed.ending.insert(session_id.to_owned());
        }
        has_room
    }

    pub(super) fn finish_end(&self, session_id: &str) {
        self.feed().ending.remove(session_id);
    }

    /// Returns whether a session whose token was signed then may wait for its activation, and no
    /// task here is activating it.
    pub(super) fn start_activation(&self, session_id: &str, signed_at: i64) -> bool {
        let mut feed = self.feed();
        let may_be_pending = feed.pending_since.is_none_or(|since| signed_at >= since);
        may_be_pending
            && !feed.ending.contains(session_id)
            && feed.activating.insert(session_id.to_owned())
    }

    /// Returns how many sockets watch for the end of their session.
    #[cfg(test)]
    pub(super) fn watches(&self) -> usize {
        self.feed().watches.len()
    }

    pub(super) fn end_activation(&self, session_id: &str) {
        self.feed().activating.remove(session_id);
    }
}

impl Feed {
    fn watchers(&self, session_id: &str) -> usize {
        let session_id: Arc<str> = session_id.into();
        self.watches
            .range((session_id.clone(), 0)..=(session_id, u64::MAX))
            .count()
    }

    fn revoke(&mut self, session_id: Arc<str>, reason: Arc<str>, tokens_expire_at: i64) {
        while let Some((key, _)) = self
            .watches
            .range((session_id.clone(), 0)..=(session_id.clone(), u64::MAX))
            .next()
        {
            let key = key.clone();
            if let Some(watcher) = self.watches.remove(&key) {
                // Fails when its socket is on its way out.
                watcher.send(reason.clone()).ok();
            }
        }

        self.revoked.insert(
            session_id,
            Revoked {
                reason,
                tokens_expire_at,
            },
        );
    }
}

/// Receives the end of one session.
pub(crate) struct Watch {
    known: Arc<Known>,
    session_id: Arc<str>,
    number: u64,
    revoked: oneshot::Receiver<Arc<str>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("session_id", &self.session_id)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn session_id(&self) -> &str {
        &self.session_id
    }

    /// Returns why the session was revoked, if it was.
    pub(crate) fn revoked(&mut self) -> Option<Arc<str>> {
        self.revoked.try_recv().ok().flatten()
    }

    /// Resolves once, with the reason, when the session is revoked.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Arc<str>> {
        match Pin::new(&mut self.revoked).poll(cx) {
            Poll::Ready(Ok(reason)) => Poll::Ready(reason),
            // It has been told.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.known
            .feed()
            .watches
            .remove(&(self.session_id.clone(), self.number));
    }
}

/// The number of seconds since this relay last knew all revocations: `vvs_revocation_lag_seconds`.
#[derive(Debug)]
pub(crate) struct Lag(pub(crate) Arc<Known>);

impl EncodeMetric for Lag {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        let since = self.0.feed().heard_at.unwrap_or(self.0.started);
        ConstGauge::new(since.elapsed().as_secs_f64()).encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
