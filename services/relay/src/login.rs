//! One login as a state table: its events, and the actions that follow. No clock, no socket, no
//! task; the socket's task supplies the events and carries out the actions.

use time::OffsetDateTime;
use vvs_auth::token;
use vvs_proto::frame::{Binding, close};
use vvs_proto::types::RevocationReason;
use vvs_proto::{Phase, RequestId, Secret};

mod answer;

pub(crate) use answer::Objection;

/// The user who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) avatar_url: Option<String>,
}

/// The grant of an approval for the editor. Kept until the editor has acknowledged it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grant {
    pub(crate) request_id: RequestId,
    pub(crate) token: Secret,
    pub(crate) token_expires_at: OffsetDateTime,
    pub(crate) user: User,
    pub(crate) session_id: String,
    pub(crate) session_expires_at: OffsetDateTime,
}

/// The part of a grant that is kept once the editor has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) request_id: RequestId,
    pub(crate) user_id: String,
    pub(crate) session_id: String,
    pub(crate) token_expires_at: OffsetDateTime,
    pub(crate) session_expires_at: OffsetDateTime,
    /// The `kid` of the token.
    pub(crate) key_id: Box<str>,
}

impl Grant {
    fn end(&self, reason: RevocationReason) -> Action {
        Action::EndSession {
            session_id: self.session_id.clone(),
            reason,
        }
    }

    pub(crate) fn receipt(&self) -> Receipt {
        Receipt {
            request_id: self.request_id,
            user_id: self.user.id.clone(),
            session_id: self.session_id.clone(),
            token_expires_at: self.token_expires_at,
            session_expires_at: self.session_expires_at,
            key_id: token::key_id(self.token.expose())
                .unwrap_or_default()
                .into(),
        }
    }
}

/// How often a completion code may be tried.
pub(crate) const ATTEMPTS: u8 = 5;

/// How far a login has come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Waiting,
    /// Approved; the editor gets the grant for the code that the approving browser has.
    Held {
        grant: Box<Grant>,
        attempts_left: u8,
    },
    /// The token is on its way, or there, and not acknowledged.
    Sent(Box<Grant>),
    /// The editor has the token; the session is not active yet.
    Activating(Receipt),
    Acked(Receipt, OffsetDateTime),
    Denied,
    Cancelled,
    /// The editor said that it does not accept the token.
    Refused,
    Expired,
    /// Too many wrong codes.
    Burned,
    /// The editor has taken the login to another socket, whose task holds it now.
    Moved,
}

/// An event of a login.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// The person in the browser approved.
    Approved(Box<Grant>),
    /// The person in the browser refused.
    Denied,
    /// The editor showed the completion code.
    Completed,
    /// The editor showed another code.
    Miscompleted,
    /// The editor has stored the token.
    Acked,
    /// The editor could not take the token.
    Refused,
    /// The session is active, since this time.
    Activated(OffsetDateTime),
    /// The session is over and can no longer become active.
    NotActivated,
    /// The editor gave up.
    Cancelled,
    SocketGone,
    /// The editor takes the login to another socket.
    TakenOver,
    TimedOut,
    /// A newer login has its place.
    GaveWay,
}

/// An action to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Tell the editor that a code is on its way.
    TellPending {
        attempts_left: u8,
    },
    TellBadCode {
        attempts_left: u8,
    },
    /// Send the grant to the editor, and a ping behind it.
    Push,
    /// Tell the sessions role that the editor has its token.
    Activate,
    /// Tell the sessions role that this session, which no editor has acknowledged, is over.
    EndSession {
        session_id: String,
        reason: RevocationReason,
    },
    TellDenied,
    TellExpired,
    /// Tell the editor that its frame does not fit.
    NotNow,
    Close(u16),
}

impl Action {
    /// Returns whether the action is for the sessions role; the others are for the socket.
    pub(crate) fn is_for_sessions(&self) -> bool {
        matches!(self, Self::Activate | Self::EndSession { .. })
    }
}

/// A login: its state, how its browser is tied to its editor, and whether the editor is connected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Login {
    binding: Binding,
    is_attached: bool,
    state: State,
}

impl Login {
    pub(crate) fn new(binding: Binding) -> Self {
        Self {
            binding,
            is_attached: true,
            state: State::Waiting,
        }
    }

    /// Creates a login that its editor has brought along.
    pub(crate) fn resumed(binding: Binding, state: State) -> Self {
        Self {
            binding,
            is_attached: true,
            state,
        }
    }

    pub(crate) fn binding(&self) -> Binding {
        self.binding
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Ties the login more strongly than at its start.
    pub(crate) fn bind(&mut self, binding: Binding) {
        self.binding = self.binding.max(binding);
    }

    /// Returns whether the editor may come back. One that never said hello has no ticket with which
    /// it could take its login to another socket.
    fn may_come_back(&self) -> bool {
        self.binding > Binding::Confirm
    }

    /// The whole state machine. Events that do not fit change nothing.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Action> {
        if event == Event::SocketGone {
            self.is_attached = false;
            if self.may_come_back() || !self.state.is_unfinished() {
                return Vec::new();
            }
        }
        let state = std::mem::replace(&mut self.state, State::Moved);
        let (state, actions) = state.on(event, self.binding, self.is_attached);
        self.state = state;
        actions
    }

    pub(crate) fn phase(&self) -> Phase {
        match &self.state {
            state if state.is_unfinished() && !self.is_attached => Phase::Away,
            State::Waiting => Phase::Waiting,
            State::Held { .. } => Phase::Held,
            State::Sent(_) | State::Activating(_) => Phase::Sent,
            State::Acked(..) => Phase::Acked,
            State::Denied => Phase::Denied,
            State::Cancelled | State::Refused => Phase::Cancelled,
            State::Expired => Phase::Expired,
            State::Burned => Phase::Burned,
            State::Moved => Phase::Away,
        }
    }
}

impl State {
    fn on(self, event: Event, binding: Binding, is_attached: bool) -> (Self, Vec<Action>) {
        match (self, event) {
            (Self::Waiting, Event::Approved(grant)) if is_attached => {
                Self::approved(grant, binding)
            }
            (Self::Waiting, Event::Denied) => (
                Self::Denied,
                vec![Action::TellDenied, Action::Close(close::LOGIN_OVER)],
            ),
            (Self::Held { grant, .. }, Event::Completed) => (Self::Sent(grant), vec![Action::Push]),
            (
                Self::Held {
                    grant,
                    attempts_left,
                },
                Event::Miscompleted,
            ) => Self::miscompleted(grant, attempts_left - 1),
            (Self::Waiting, Event::Cancelled) => {
                (Self::Cancelled, vec![Action::Close(close::NORMAL)])
            }
            (Self::Held { grant, .. } | Self::Sent(grant), Event::Cancelled) => (
                Self::Cancelled,
                vec![
                    grant.end(RevocationReason::Cancelled),
                    Action::Close(close::NORMAL),
                ],
            ),
            // What its socket is told of the second comes from the feed, as on every other socket
            // of the session.
            (Self::Waiting, Event::SocketGone) | (Self::Activating(_), Event::NotActivated) => {
                (Self::Cancelled, vec![])
            }
            // Nobody is told that this editor is signed in, so whatever it may have read is worth
            // nothing.
            (Self::Sent(grant), Event::SocketGone) => (
                Self::Cancelled,
                vec![grant.end(RevocationReason::Cancelled)],
            ),
            (Self::Waiting, Event::TimedOut) => Self::expired(),
            // Nobody has said anything about it.
            (Self::Waiting, Event::GaveWay) if binding == Binding::Confirm => Self::expired(),
            (Self::Held { grant, .. } | Self::Sent(grant), Event::TimedOut) => {
                let end = grant.end(RevocationReason::Expired);
                (
                    Self::Expired,
                    vec![end, Action::TellExpired, Action::Close(close::LOGIN_OVER)],
                )
            }
            (state, Event::TakenOver) if state.is_unfinished() => {
                (Self::Moved, vec![Action::Close(close::LOGIN_OVER)])
            }
            (Self::Sent(grant), Event::Acked) => {
                (Self::Activating(grant.receipt()), vec![Action::Activate])
            }
            (Self::Sent(grant), Event::Refused) => (
                Self::Refused,
                vec![
                    grant.end(RevocationReason::Refused),
                    Action::Close(close::LOGIN_OVER),
                ],
            ),
            // A repeated delivery asks again what failed before.
            (Self::Activating(receipt), Event::Approved(grant))
                if receipt.request_id == grant.request_id =>
            {
                (Self::Activating(receipt), vec![Action::Activate])
            }
            (Self::Activating(receipt), Event::Activated(at)) => (Self::Acked(receipt, at), vec![]),
            (state, Event::Acked) if state.receipt().is_some() => (state, vec![]),
            (
                state,
                Event::Completed
                | Event::Miscompleted
                | Event::Acked
                | Event::Refused
                | Event::Cancelled,
            ) => (state, vec![Action::NotNow]),
            (
                state,
                Event::Approved(_)
                | Event::Denied
                | Event::Activated(_)
                | Event::NotActivated
                | Event::SocketGone
                | Event::TakenOver
                | Event::TimedOut
                | Event::GaveWay,
            ) => (state, vec![]),
        }
    }

    fn approved(grant: Box<Grant>, binding: Binding) -> (Self, Vec<Action>) {
        match binding {
            Binding::Confirm => (Self::Sent(grant), vec![Action::Push]),
            Binding::Typed | Binding::Link => {
                let attempts_left = ATTEMPTS;
                (
                    Self::Held {
                        grant,
                        attempts_left,
                    },
                    vec![Action::TellPending { attempts_left }],
                )
            }
        }
    }

    fn expired() -> (Self, Vec<Action>) {
        (
            Self::Expired,
            vec![Action::TellExpired, Action::Close(close::LOGIN_OVER)],
        )
    }

    fn miscompleted(grant: Box<Grant>, attempts_left: u8) -> (Self, Vec<Action>) {
        let tell = Action::TellBadCode { attempts_left };
        if attempts_left > 0 {
            return (
                Self::Held {
                    grant,
                    attempts_left,
                },
                vec![tell],
            );
        }

        (
            Self::Burned,
            vec![
                grant.end(RevocationReason::Burned),
                tell,
                Action::Close(close::LOGIN_OVER),
            ],
        )
    }

    /// Returns whether the editor may still get its token.
    pub(crate) fn is_unfinished(&self) -> bool {
        matches!(self, Self::Waiting | Self::Held { .. } | Self::Sent(_))
    }

    /// Returns the frame that is due to an editor that has just resumed its login.
    pub(crate) fn due(&self) -> Option<Action> {
        if let Self::Held { attempts_left, .. } = self {
            return Some(Action::TellPending {
                attempts_left: *attempts_left,
            });
        }
        matches!(self, Self::Sent(_)).then_some(Action::Push)
    }

    /// Returns the grant, while the editor has not acknowledged it.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        if let Self::Held { grant, .. } | Self::Sent(grant) = self {
            Some(grant)
        } else {
            None
        }
    }

    /// Returns the delivery that the editor has not acknowledged yet.
    pub(crate) fn unacked(&self) -> Option<RequestId> {
        if let Self::Sent(grant) = self {
            Some(grant.request_id)
        } else {
            None
        }
    }

    /// Returns the receipt if the editor has its token, so that the socket counts as signed in.
    pub(crate) fn receipt(&self) -> Option<&Receipt> {
        if let Self::Activating(receipt) | Self::Acked(receipt, _) = self {
            Some(receipt)
        } else {
            None
        }
    }

    /// Returns whether the login has accepted exactly this delivery. The same request for another
    /// user or session is another delivery.
    pub(crate) fn took(&self, grant: &Grant) -> bool {
        let same = |request_id: RequestId, user_id: &str, session_id: &str| {
            request_id == grant.request_id
                && user_id == grant.user.id
                && session_id == grant.session_id
        };
        let taken = self
            .grant()
            .is_some_and(|taken| same(taken.request_id, &taken.user.id, &taken.session_id));

        taken
            || self
                .receipt()
                .is_some_and(|taken| same(taken.request_id, &taken.user_id, &taken.session_id))
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
