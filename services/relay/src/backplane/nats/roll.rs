//! Which other relays exist, and whether one of them holds a login. Silence under a login's own
//! subject proves nothing once a client that is not a relay listens there. Nor does a broker's word
//! that nobody listens, because anybody who knows the inbox can send it. So each relay is asked,
//! and each answer is sealed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Message;
use futures_util::StreamExt as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;
use vvs_proto::internal::{BackplaneHere, BackplanePresence, BackplaneWho};
use vvs_proto::{ConnectionId, timestamp};
use vvs_runtime::metrics::count;

use super::{ACCEPT_TIME, MESSAGE_ID, NatsLink, SETTLE_TIME, headers};
use crate::backplane::message::{self, Direction, ROLL};
use crate::clock;

/// How often a relay announces itself.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a silent relay still counts: one that stands still may continue, with its logins.
const ABSENCE: Duration = Duration::from_secs(30);
/// How soon a relay announces itself when it is asked to, however often that is.
const SOON: Duration = Duration::from_millis(100);

/// The answer of all others about a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// One of them holds it.
    Somewhere,
    /// Each of them has said that it does not.
    Nowhere,
    /// Not all of them have answered, or this relay cannot know yet which ones exist.
    Unsaid,
}

/// The other relays that are present.
#[derive(Debug, Default)]
pub(super) struct Roll {
    members: Mutex<Members>,
    pub(super) size: Gauge,
}

#[derive(Debug, Default)]
struct Members {
    /// When each was last heard from.
    others: HashMap<String, Instant>,
    /// The time since which all of them have had a reason to announce themselves.
    since: Option<Instant>,
}

impl Roll {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that there is a connection and everybody was asked to announce themselves; or that
    /// none exists.
    fn begin(&self, since: Option<Instant>) {
        self.members().since = since;
    }

    fn hear(&self, presence: BackplanePresence, now: Instant) {
        let mut members = self.members();
        if presence.is_leaving {
            members.others.remove(&presence.holder);
        } else {
            members.others.insert(presence.holder, now);
        }
        self.forget(&mut members, now);
    }

    fn forget(&self, members: &mut Members, now: Instant) {
        members
            .others
            .retain(|_, heard| now.duration_since(*heard) < ABSENCE);
        self.size
            .set(i64::try_from(members.others.len()).unwrap_or(i64::MAX));
    }

    /// Returns the relays that are present; `None` as long as one may be that was not heard from
    /// yet.
    fn others(&self, now: Instant) -> Option<HashSet<String>> {
        let mut members = self.members();
        self.forget(&mut members, now);
        let is_complete = members
            .since
            .is_some_and(|since| now.duration_since(since) >= SETTLE_TIME);
        is_complete.then(|| members.others.keys().cloned().collect())
    }
}

impl NatsLink {
    /// Announces this relay and listens to the others, until stopped.
    pub(super) async fn attend(self: Arc<Self>, stop: CancellationToken) {
        let Ok(mut messages) = self.client.subscribe(ROLL).await else {
            return;
        };

        let mut line = self.line.clone();
        let mut due = interval(INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);

        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = line.changed() => {
                    let is_up = line.borrow_and_update().is_up;
                    self.roll.begin(is_up.then(Instant::now));
                    self.appear(true, false).await;
                }
                _ = due.tick() => self.appear(false, false).await,
                message = messages.next() => {
                    let Some(message) = message else { return };
                    if self.hear_roll(message).await {
                        due.reset_after(SOON);
                    }
                }
            }
        }

        self.appear(false, true).await;
        self.client.flush().await.ok();
    }

    async fn appear(&self, asks_back: bool, is_leaving: bool) {
        let drop_after = Some(timestamp::exact(clock::now() + ACCEPT_TIME));
        let presence = BackplanePresence {
            drop_after,
            holder: self.holder.clone(),
            asks_back,
            is_leaving,
        };
        let Some(message_id) = message::message_id() else {
            return;
        };

        let sealed = message::seal(
            &self.keys,
            Direction::Presence,
            ROLL,
            &message_id,
            &presence,
        );

        // What is published without a connection is kept, and says later what is no longer so.
        let is_up = self.line.borrow().is_up;

        if let Some(sealed) = sealed.filter(|_| is_up) {
            self.client
                .publish_with_headers(ROLL, headers(&message_id, None), sealed.into())
                .await
                .ok();
        }
    }

    /// Handles a message of another relay. Returns whether that relay asks for an announcement
    /// soon.
    async fn hear_roll(&self, message: Message) -> bool {
        let message_id = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(MESSAGE_ID));
        let message_id = message_id
            .map(|id| id.as_str().to_owned())
            .unwrap_or_default();
        let is_late = |drop_after| timestamp::read(drop_after).is_none_or(|at| at < clock::now());

        let Some(inbox) = message.reply else {
            let presence: Option<BackplanePresence> = message::open(
                &self.keys,
                Direction::Presence,
                ROLL,
                &message_id,
                &message.payload,
            );
            let Some(presence) = presence else {
                count(&self.dropped, "reason", "stranger");
                return false;
            };

            if is_late(presence.drop_after) || presence.holder == self.holder {
                return false;
            }

            let asks_back = presence.asks_back;
            self.roll.hear(presence, Instant::now());
            return asks_back;
        };

        let who: Option<BackplaneWho> = message::open(
            &self.keys,
            Direction::Ask,
            ROLL,
            &message_id,
            &message.payload,
        );
        let Some(who) = who else {
            count(&self.dropped, "reason", "stranger");
            return false;
        };

        if !is_late(who.drop_after) && who.holder != self.holder {
            let is_here = who
                .connection_id
                .parse()
                .is_ok_and(|id| self.local.holds(id));
            let here = BackplaneHere {
                holder: self.holder.clone(),
                is_here,
            };

            if let Some(sealed) =
                message::seal(&self.keys, Direction::Answer, ROLL, &message_id, &here)
            {
                self.client.publish(inbox, sealed.into()).await.ok();
            }
        }

        false
    }

    /// Asks all other relays whether one of them holds the login.
    pub(super) async fn find(&self, id: ConnectionId) -> Whereabouts {
        let is_up = self.line.borrow().is_up;
        let Some(mut silent) = self.roll.others(Instant::now()).filter(|_| is_up) else {
            return Whereabouts::Unsaid;
        };

        if silent.is_empty() {
            return Whereabouts::Nowhere;
        }

        let due = Instant::now() + ACCEPT_TIME;
        let drop_after = Some(timestamp::exact(clock::now() + ACCEPT_TIME));
        let who = BackplaneWho {
            drop_after,
            connection_id: id.to_string(),
            holder: self.holder.clone(),
        };
        let asking = async {
            let message_id = message::message_id()?;
            let sealed = message::seal(&self.keys, Direction::Ask, ROLL, &message_id, &who)?;
            let inbox = self.client.new_inbox();
            let answers = self.client.subscribe(inbox.clone()).await.ok()?;
            let headers = headers(&message_id, None);
            self.client
                .publish_with_reply_and_headers(ROLL, inbox, headers, sealed.into())
                .await
                .ok()?;
            Some((answers, message_id))
        };

        let Ok(Some((mut answers, message_id))) = timeout_at(due, asking).await else {
            return Whereabouts::Unsaid;
        };

        while let Ok(Some(message)) = timeout_at(due, answers.next()).await {
            let here = message::open(
                &self.keys,
                Direction::Answer,
                ROLL,
                &message_id,
                &message.payload,
            );
            let Some(BackplaneHere { holder, is_here }) = here else {
                count(&self.dropped, "reason", "stranger");
                continue;
            };

            if is_here {
                return Whereabouts::Somewhere;
            }

            silent.remove(&holder);

            if silent.is_empty() {
                return Whereabouts::Nowhere;
            }
        }

        Whereabouts::Unsaid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(holder: &str, is_leaving: bool) -> BackplanePresence {
        BackplanePresence {
            holder: holder.to_owned(),
            is_leaving,
            ..BackplanePresence::default()
        }
    }

    #[test]
    fn a_relay_counts_until_it_leaves_or_has_said_nothing_for_long() {
        let (roll, start) = (Roll::default(), Instant::now());
        roll.begin(Some(start));
        roll.hear(presence("a", false), start);
        roll.hear(presence("b", false), start);
        let names = |after: Duration| {
            let mut names: Vec<_> = roll.others(start + after).unwrap().into_iter().collect();
            names.sort();
            names.concat()
        };
        assert_eq!(names(SETTLE_TIME), "ab");

        roll.hear(presence("b", true), start + SETTLE_TIME);
        assert_eq!(names(ABSENCE.saturating_sub(Duration::from_millis(1))), "a");
        assert_eq!((names(ABSENCE).as_str(), roll.size.get()), ("", 0));
    }

    #[test]
    fn who_is_there_is_known_only_after_everybody_could_have_said_so() {
        let (roll, start) = (Roll::default(), Instant::now());
        assert_eq!(roll.others(start), None);
        roll.begin(Some(start));
        assert_eq!(roll.others(start + SETTLE_TIME / 2), None);
        assert_eq!(roll.others(start + SETTLE_TIME), Some(HashSet::new()));
        roll.begin(None);
        assert_eq!(roll.others(start + ABSENCE), None, "without a connection");
    }
}
