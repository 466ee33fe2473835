//! How a relay that stops uses its grace period: when each socket is sent to another relay, and how
//! long calls are answered and logins kept for it. It knows no socket and no login.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pause::moment_within;

/// The maximum part of the grace period that is reserved at its end, for editors to come back
/// elsewhere and to be given their logins.
const ROOM: Duration = Duration::from_secs(6);
/// The longest time that an editor is asked to wait before it reconnects.
const RECONNECT_WITHIN: Duration = Duration::from_secs(2);

/// The grace period.
#[derive(Debug)]
pub(crate) struct Drain {
    grace: Duration,
    /// Whether no other relay can take anything over.
    is_alone: bool,
    begun: OnceLock<Instant>,
    over: CancellationToken,
}

/// When one socket is closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    /// When nothing prevents it.
    pub(crate) own: Instant,
    /// Regardless of anything that prevents it.
    pub(crate) last: Instant,
}

impl Drain {
    pub(crate) fn new(grace: Duration, is_alone: bool) -> Self {
        Self {
            grace,
            is_alone,
            begun: OnceLock::new(),
            over: CancellationToken::new(),
        }
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Returns when draining began; the first caller sets it.
    pub(crate) fn begun(&self) -> Instant {
        *self.begun.get_or_init(Instant::now)
    }

    fn room(&self) -> Duration {
        ROOM.min(self.grace / 5)
    }

    /// Returns the moments for a socket, spread over the grace period, so that the other relays get
    /// the editors one after the other. A late caller gets the rest of the period.
    pub(crate) fn moments(&self) -> Moments {
        let (begun, room) = (self.begun(), self.room());
        let now = Instant::now();
        let left = (begun + self.grace.saturating_sub(room)).saturating_duration_since(now);
        let last = begun + self.grace.saturating_sub(room / 2) + moment_within(room / 4);
        Moments {
            own: now + moment_within(left),
            last,
        }
    }

    /// Returns how long an editor is asked to wait before it reconnects.
    pub(crate) fn pause(&self) -> Duration {
        moment_within(RECONNECT_WITHIN.min(self.room() / 3))
    }

    /// Returns the time from which nobody is waited for: calls under way have the time to end by
    /// themselves.
    pub(crate) fn end(&self) -> Instant {
        self.begun() + self.grace.saturating_sub(self.room() / 6)
    }

    /// Returns the token that is cancelled at the end, or when nothing is held any longer.
    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn no_second_of_the_grace_period_has_more_than_a_small_share_and_nobody_is_cut() {
        let drain = Drain::new(GRACE, false);
        let start = drain.begun();
        let mut seconds = [0; 30];
        for _ in 0..10_000 {
            let Moments { own, last } = drain.moments();
            assert!(
                own < last && last + Duration::from_secs(1) < start + GRACE,
                "a close takes a second"
            );
            assert!(
                own + drain.pause() < drain.end(),
                "its login is still here when it has come back"
            );
            seconds[usize::try_from((own - start).as_secs()).unwrap()] += 1;
        }

        assert!(seconds.iter().all(|count| *count < 1_000), "{seconds:?}");
        assert!(seconds[..24].iter().all(|count| *count > 0), "{seconds:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_while_it_drains_has_what_is_left() {
        let drain = Drain::new(GRACE, false);
        let start = drain.begun();

        for (after, latest) in [(20, 24), (24, 24), (29, 29)] {
            tokio::time::sleep_until(start + Duration::from_secs(after)).await;
            for _ in 0..100 {
                let own = drain.moments().own - start;
                assert!(
                    (after..=latest).contains(&own.as_secs()) && own <= Duration::from_secs(latest),
                    "{own:?}"
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_grace_period_leaves_as_much_room_in_proportion() {
        for grace in [
            Duration::ZERO,
            Duration::from_millis(500),
            Duration::from_secs(5),
        ] {
            let drain = Drain::new(grace, false);
            let (start, Moments { own, last }) = (drain.begun(), drain.moments());
            assert!(
                own <= last && last <= drain.end() && drain.end() <= start + grace,
                "{grace:?}"
            );
            assert!(drain.pause() <= grace / 15, "{grace:?}");
        }
    }
}
