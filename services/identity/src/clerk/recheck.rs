//! Asks Clerk again about users who use an editor, because it does not report everything: once a
//! day for each user, counted by sessions. A missing answer from Clerk says nothing about a user.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use vvs_proto::types::RevocationReason;
use vvs_runtime::metrics::count;

use super::Clerk;
use crate::fetch::Failed;
use crate::refusal::Refusal;
use crate::sessions::Whose;

/// The maximum number of users that are taken at a time. Those that are left when this process ends
/// are checked a day later.
const BATCH: usize = 50;
/// The minimum time between two questions: a twentieth of the rate that Clerk allows a production
/// instance, half of what it allows a development one.
const PACE: Duration = Duration::from_millis(200);
/// How long to wait before the next batch may be due.
const ROUND: Duration = Duration::from_secs(10);
/// The longest pause that Clerk can request.
const MAX_PAUSE: Duration = Duration::from_hours(1);

/// The reason that the editors receive.
const BANNED: RevocationReason = RevocationReason::UserBanned;
const DELETED: RevocationReason = RevocationReason::UserDeleted;

/// The result of one question.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Done,
    /// Unknown: retry, but not before this time.
    Failed(Duration),
}

/// Asks until it is dropped.
pub(super) async fn run(clerk: Arc<Clerk>) {
    let mut waiting = VecDeque::new();
    loop {
        sleep(once(&clerk, &mut waiting).await).await;
    }
}

/// Asks about one batch. Returns how long to wait then.
pub(super) async fn once(clerk: &Arc<Clerk>, waiting: &mut VecDeque<String>) -> Duration {
    let is_full = take(clerk, waiting).await;
    let pause = round(waiting, |subject| ask(clerk.clone(), subject)).await;
    pause.unwrap_or(if is_full { Duration::ZERO } else { ROUND })
}

/// Takes as many users as fit. Returns whether that many were there.
async fn take(clerk: &Clerk, waiting: &mut VecDeque<String>) -> bool {
    let room = BATCH.saturating_sub(waiting.len());
    let Some(limit) = u32::try_from(room).ok().filter(|room| *room > 0) else {
        return false;
    };

    match clerk.sessions.take_stale(&clerk.name, limit).await {
        Ok(subjects) => {
            let is_full = subjects.len() >= room;
            waiting.extend(subjects.into_iter().take(room));
            is_full
        }
        Err(cause) => {
            tracing::warn!(%cause, "no users to ask Clerk about");
            false
        }
    }
}

/// Asks about all users that are taken, until a question fails; returns how long to wait then. The
/// failed user goes to the end, so that one user that Clerk cannot answer about does not keep the
/// others waiting forever.
async fn round<F>(waiting: &mut VecDeque<String>, ask: impl Fn(String) -> F) -> Option<Duration>
where
    F: Future<Output = Judged>,
{
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);

    for _ in 0..waiting.len() {
        pace.tick().await;
        let subject = waiting.front()?.clone();
        let asked = ask(subject.clone()).await;
        waiting.pop_front();
        if let Judged::Failed(pause) = asked {
            waiting.push_back(subject);
            return Some(pause);
        }
    }

    None
}

async fn ask(clerk: Arc<Clerk>, subject: String) -> Judged {
    let outcome = judge(&clerk, &subject).await;
    let label = match &outcome {
        Ok(None) => "good",
        Ok(Some(_)) => "ended",
        Err(_) => "failed",
    };

    count(&clerk.rechecks, "outcome", label);

    match outcome {
        Ok(None) => Judged::Done,
        Ok(Some(revoked)) => {
            tracing::info!(
                subject,
                revoked,
                "editors signed out: Clerk has let the user go"
            );
            Judged::Done
        }
        Err(refusal) => {
            refusal.log("");
            Judged::Failed(pause(&refusal))
        }
    }
}

/// Returns how many editors were signed out, if the user may no longer be signed in.
async fn judge(clerk: &Clerk, subject: &str) -> Result<Option<u32>, Refusal> {
    let reason = match clerk.known_user(subject).await? {
        Some(user) if !user.is_banned() => return Ok(None),
        Some(_) => BANNED,
        None if clerk.has_known_users() => DELETED,
        // The secret key may be another instance's, to which all our users are strangers.
        None => {
            return Err(Refusal::NotAllowed(
                "Clerk knows this user not, and has not known any other so far",
            ));
        }
    };

    let whose = Whose {
        provider: &clerk.name,
        subject,
        provider_session: "",
    };

    clerk.sessions.end(whose, true, reason).await.map(Some)
}

fn pause(refusal: &Refusal) -> Duration {
    if let Refusal::Provider(Failed::Unavailable {
        retry_after: Some(time),
        ..
    }) = refusal
    {
        (*time).clamp(PACE, MAX_PAUSE)
    } else {
        ROUND
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;

    use tokio::time::Instant;

    use super::*;

    fn waiting(subjects: &[&str]) -> VecDeque<String> {
        subjects
            .iter()
            .map(|subject| (*subject).to_owned())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn users_are_asked_about_one_by_one_and_five_a_second() {
        let (began, asked) = (Instant::now(), RefCell::new(Vec::new()));
        let mut hand = waiting(&["a", "b", "c", "d", "e", "f"]);
        let pause = round(&mut hand, |subject| {
            asked.borrow_mut().push(subject);
            ready(Judged::Done)
        });
        assert_eq!(pause.await, None);
        assert_eq!(*asked.borrow(), ["a", "b", "c", "d", "e", "f"]);
        assert!(hand.is_empty());
        assert_eq!(began.elapsed(), PACE * 5);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_ends_the_round_and_loses_nobody() {
        let mut hand = waiting(&["a", "b", "c"]);
        let fail_at = |bad: &'static str| {
            move |subject: String| {
                ready(if subject == bad {
                    Judged::Failed(Duration::from_secs(7))
                } else {
                    Judged::Done
                })
            }
        };

        assert_eq!(
            round(&mut hand, fail_at("b")).await,
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            hand,
            ["c", "b"],
            "who could not be judged goes behind the others"
        );
        assert_eq!(
            round(&mut hand, fail_at("b")).await,
            Some(Duration::from_secs(7))
        );
        assert_eq!(hand, ["b"]);
        assert_eq!(round(&mut hand, fail_at("")).await, None);
        assert!(hand.is_empty());
    }

    #[test]
    fn clerk_says_how_long_to_wait_within_reason() {
        let unavailable = |retry_after| {
            pause(&Refusal::Provider(Failed::Unavailable {
                host: String::new(),
                cause: String::new(),
                retry_after,
            }))
        };
        assert_eq!(
            unavailable(Some(Duration::from_secs(30))),
            Duration::from_secs(30)
        );
        assert_eq!(unavailable(Some(Duration::from_hours(48))), MAX_PAUSE);
        assert_eq!(unavailable(Some(Duration::ZERO)), PACE);
        assert_eq!(unavailable(None), ROUND);
        assert_eq!(pause(&Refusal::TooOften), ROUND);
    }
}
