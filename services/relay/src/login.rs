//! One login as a table: what happens to it, and what is to be done then. No clock, no socket, no task; the socket's task
//! supplies the events and carries out the actions.

use time::OffsetDateTime;
use vvs_proto::Secret;
use vvs_proto::frame::close;

use crate::id::RequestId;

/// Who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) avatar_url: Option<String>,
}

/// What an approval gives to the editor. Kept until the editor has acknowledged it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grant {
    pub(crate) request_id: RequestId,
    pub(crate) token: Secret,
    pub(crate) token_expires_at: OffsetDateTime,
    pub(crate) user: User,
    pub(crate) session_id: String,
    pub(crate) session_expires_at: OffsetDateTime,
}

/// What is left of a grant once the editor has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) request_id: RequestId,
    pub(crate) user_id: String,
    pub(crate) session_id: String,
    /// Until when the socket counts as signed in.
    pub(crate) authorized_until: OffsetDateTime,
}

impl Grant {
    fn receipt(&self) -> Receipt {
        Receipt {
            request_id: self.request_id,
            user_id: self.user.id.clone(),
            session_id: self.session_id.clone(),
            authorized_until: self.token_expires_at.min(self.session_expires_at),
        }
    }
}

/// How far a login has come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Waiting,
    /// The token is on its way, or there, and not acknowledged.
    Sent(Box<Grant>),
    /// The editor has the token; the session is not active yet.
    Activating(Receipt),
    Acked(Receipt, OffsetDateTime),
    Denied,
    Cancelled,
    /// The editor said that it does not want what it got.
    Refused,
    Expired,
}

/// What others see of a [`State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Waiting,
    Sent,
    Acked,
    Denied,
    Cancelled,
    Expired,
}

impl Phase {
    /// As metrics and logs spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Sent => "SENT",
            Self::Acked => "ACKED",
            Self::Denied => "DENIED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// What can happen to a login.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// The person in the browser approved.
    Approved(Box<Grant>),
    /// The person in the browser refused.
    Denied,
    /// The editor has stored the token.
    Acked,
    /// The editor could not take the token.
    Refused,
    /// The session is active, since then.
    Activated(OffsetDateTime),
    /// The editor gave up.
    Cancelled,
    SocketGone,
    TimedOut,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the grant to the editor, and a ping behind it.
    Push,
    /// Tell the sessions role that the editor has its token.
    Activate,
    TellDenied,
    TellExpired,
    /// Tell the editor that its frame does not fit.
    NotNow,
    Close(u16),
}

impl State {
    /// The whole machine. What does not fit changes nothing.
    pub(crate) fn on(self, event: Event) -> (Self, Vec<Action>) {
        match (self, event) {
            (Self::Waiting, Event::Approved(grant)) => (Self::Sent(grant), vec![Action::Push]),
            (Self::Waiting, Event::Denied) => {
                (Self::Denied, vec![Action::TellDenied, Action::Close(close::LOGIN_OVER)])
            }
            (Self::Waiting | Self::Sent(_), Event::Cancelled) => (Self::Cancelled, vec![Action::Close(close::NORMAL)]),
            (Self::Waiting | Self::Sent(_), Event::SocketGone) => (Self::Cancelled, vec![]),
            (Self::Waiting | Self::Sent(_), Event::TimedOut) => {
                (Self::Expired, vec![Action::TellExpired, Action::Close(close::LOGIN_OVER)])
            }
            (Self::Sent(grant), Event::Acked) => (Self::Activating(grant.receipt()), vec![Action::Activate]),
            (Self::Sent(_), Event::Refused) => (Self::Refused, vec![Action::Close(close::LOGIN_OVER)]),
            // A repeated delivery asks again what failed before.
            (Self::Activating(receipt), Event::Approved(grant)) if receipt.request_id == grant.request_id => {
                (Self::Activating(receipt), vec![Action::Activate])
            }
            (Self::Activating(receipt), Event::Activated(at)) => (Self::Acked(receipt, at), vec![]),
            (state, Event::Acked) if state.receipt().is_some() => (state, vec![]),
            (state, Event::Acked | Event::Refused | Event::Cancelled) => (state, vec![Action::NotNow]),
            (state, Event::Approved(_) | Event::Denied | Event::Activated(_) | Event::SocketGone | Event::TimedOut) => {
                (state, vec![])
            }
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Waiting => Phase::Waiting,
            Self::Sent(_) | Self::Activating(_) => Phase::Sent,
            Self::Acked(..) => Phase::Acked,
            Self::Denied => Phase::Denied,
            Self::Cancelled | Self::Refused => Phase::Cancelled,
            Self::Expired => Phase::Expired,
        }
    }

    /// The delivery that the editor has not acknowledged yet.
    pub(crate) fn unacked(&self) -> Option<RequestId> {
        if let Self::Sent(grant) = self { Some(grant.request_id) } else { None }
    }

    /// Whether the editor has its token, so that the socket counts as signed in.
    pub(crate) fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Activating(receipt) | Self::Acked(receipt, _) => Some(receipt),
            Self::Waiting | Self::Sent(_) | Self::Denied | Self::Cancelled | Self::Refused | Self::Expired => None,
        }
    }

    /// Whether this very delivery is the one that the login has taken. The same request for another user or session is
    /// another delivery.
    pub(crate) fn took(&self, grant: &Grant) -> bool {
        let same = |request_id: RequestId, user_id: &str, session_id: &str| {
            request_id == grant.request_id && user_id == grant.user.id && session_id == grant.session_id
        };
        match self {
            Self::Sent(taken) => same(taken.request_id, &taken.user.id, &taken.session_id),
            Self::Activating(receipt) | Self::Acked(receipt, _) => {
                same(receipt.request_id, &receipt.user_id, &receipt.session_id)
            }
            Self::Waiting | Self::Denied | Self::Cancelled | Self::Refused | Self::Expired => false,
        }
    }
}

#[cfg(test)]
mod tests;
