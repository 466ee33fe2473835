//! The pings of one socket. They are numbered, so that a pong shows what it answers: that ping and
//! all before it, because an editor may answer only the last of several (RFC 6455, section 5.5.3).

use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// The pings that are out.
#[derive(Debug)]
pub(super) struct Pings {
    /// When the next heartbeat is due.
    next: Instant,
    sent: u64,
    answered: u64,
    /// The first unanswered heartbeat, and its deadline.
    awaited: Option<(u64, Instant)>,
    /// The ping right behind the token: an editor that has read that far has read the token.
    behind_token: Option<u64>,
}

/// The meaning of a pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pong {
    /// It answers no ping.
    Unsolicited,
    Alive,
    /// It also shows that the editor has the token.
    HasToken,
}

impl Pings {
    pub(super) fn new(first: Instant) -> Self {
        Self {
            next: first,
            sent: 0,
            answered: 0,
            awaited: None,
            behind_token: None,
        }
    }

    /// Returns when there is something to do.
    pub(super) fn deadline(&self) -> Instant {
        self.awaited
            .map_or(self.next, |(_, due)| due.min(self.next))
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.awaited.is_some_and(|(_, due)| due <= now)
    }

    /// Returns the next heartbeat, if it is due.
    pub(super) fn beat(
        &mut self,
        now: Instant,
        interval: Duration,
        timeout: Duration,
    ) -> Option<Message> {
        if now < self.next {
            return None;
        }
        self.next = now + interval;
        let ping = self.ping();
        self.awaited.get_or_insert((self.sent, now + timeout));
        Some(ping)
    }

    pub(super) fn behind_token(&mut self) -> Message {
        let ping = self.ping();
        self.behind_token = Some(self.sent);
        ping
    }

    fn ping(&mut self) -> Message {
        self.sent += 1;
        Message::Ping(self.sent.to_be_bytes().to_vec().into())
    }

    /// Handles a pong. Each ping is answered once; any further pong answers nothing.
    pub(super) fn on_pong(&mut self, payload: &[u8]) -> Pong {
        let number = payload.try_into().map_or(0, u64::from_be_bytes);
        if number <= self.answered || number > self.sent {
            return Pong::Unsolicited;
        }

        self.answered = number;
        self.awaited.take_if(|(awaited, _)| *awaited <= number);
        let has_token = self
            .behind_token
            .take_if(|behind_token| *behind_token <= number)
            .is_some();

        if has_token {
            Pong::HasToken
        } else {
            Pong::Alive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn payload(ping: Message) -> Vec<u8> {
        ping.into_data().to_vec()
    }

    fn beat(pings: &mut Pings, now: Instant) -> Vec<u8> {
        payload(pings.beat(now, SECOND * 25, SECOND * 8).unwrap())
    }

    #[test]
    fn a_heartbeat_is_answered_by_its_pong_or_a_later_one_and_by_nothing_else() {
        let start = Instant::now();
        let (mut pings, late) = (Pings::new(start), start + SECOND * 8);
        assert_eq!(pings.on_pong(&[]), Pong::Unsolicited);

        let first = beat(&mut pings, start);
        assert_eq!((pings.deadline(), pings.is_overdue(late)), (late, true));
        assert!(pings.beat(late, SECOND, SECOND).is_none(), "not yet");

        for wrong in [&b""[..], b"x", &[0; 8], &[255; 8], &[0; 16]] {
            assert_eq!(pings.on_pong(wrong), Pong::Unsolicited);
        }

        assert!(pings.is_overdue(late));
        assert_eq!(pings.on_pong(&first), Pong::Alive);
        assert!(!pings.is_overdue(late));
        assert_eq!(pings.on_pong(&first), Pong::Unsolicited, "once");

        let second = beat(&mut pings, start + SECOND * 25);
        let third = beat(&mut pings, start + SECOND * 50);
        assert!(
            pings.is_overdue(start + SECOND * 33),
            "the first that is out counts"
        );
        assert_eq!(pings.on_pong(&third), Pong::Alive);
        assert!(!pings.is_overdue(start + SECOND * 1000));
        assert_eq!(pings.on_pong(&second), Pong::Unsolicited);
    }

    #[test]
    fn whoever_answers_a_ping_behind_the_token_has_it_and_whoever_answers_one_before_it_has_not() {
        let start = Instant::now();
        for answers_last in [false, true] {
            let mut pings = Pings::new(start);
            let before = beat(&mut pings, start);
            let behind = payload(pings.behind_token());
            assert_eq!(pings.on_pong(&before), Pong::Alive);

            let last = beat(&mut pings, start + SECOND * 25);
            let answered = if answers_last { &last } else { &behind };
            assert_eq!(pings.on_pong(answered), Pong::HasToken);
            assert_eq!(
                pings.is_overdue(start + SECOND * 33),
                !answers_last,
                "the last one is not answered by it"
            );
        }
    }
}
