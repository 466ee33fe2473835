//! The audit log: who did what, from where, on which device. It contains no secret. A row is
//! written in the transaction of its event; the log line follows after the commit.

use crate::id::SessionId;
use crate::session::{Device, Session};

/// An audited event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Approved,
    Denied,
    Burned,
    SessionCreated,
    Activated,
    Refreshed,
    Revoked,
    ProofRefused,
    BrowserSignedOut,
    /// All browsers of a user.
    BrowsersSignedOut,
}

impl Event {
    /// Returns the name in rows and log lines, which others search for.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Burned => "burned",
            Self::SessionCreated => "session_created",
            Self::Activated => "activated",
            Self::Refreshed => "refreshed",
            Self::Revoked => "revoked",
            Self::ProofRefused => "proof_refused",
            Self::BrowserSignedOut => "browser_signed_out",
            Self::BrowsersSignedOut => "browsers_signed_out",
        }
    }
}

/// One row. Unknown members stay empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub(crate) event: Event,
    pub(crate) user_id: String,
    pub(crate) session_id: String,
    pub(crate) connection_id: String,
    pub(crate) address: String,
    pub(crate) device: String,
    pub(crate) reason: String,
}

impl AuditRow {
    pub(crate) fn new(event: Event) -> Self {
        Self {
            event,
            user_id: String::new(),
            session_id: String::new(),
            connection_id: String::new(),
            address: String::new(),
            device: String::new(),
            reason: String::new(),
        }
    }

    /// Creates an entry about a session, with the address where its editor was last, unless another
    /// is given.
    pub(crate) fn of(event: Event, session: &Session) -> Self {
        let session_id = session.id.as_str().to_owned();
        Self {
            session_id,
            address: session.address.clone(),
            ..Self::new(event)
        }
        .about(session)
    }

    /// Creates an entry about a proof that was presented from this address, which need not be the
    /// editor's.
    pub(crate) fn proof_refused(id: &SessionId, address: &str) -> Self {
        Self {
            session_id: id.as_str().to_owned(),
            ..Self::new(Event::ProofRefused).from(address)
        }
    }

    /// Fills unknown members from the session, except the address.
    pub(crate) fn about(self, session: &Session) -> Self {
        let known = |text: String, other: &str| {
            if text.is_empty() {
                other.to_owned()
            } else {
                text
            }
        };
        Self {
            user_id: known(self.user_id, session.user.as_str()),
            connection_id: known(self.connection_id, &session.connection_id),
            device: known(self.device, &session.device.describe()),
            ..self
        }
    }

    /// Sets the address, unless it is empty.
    pub(crate) fn from(self, address: &str) -> Self {
        if address.is_empty() {
            self
        } else {
            Self {
                address: address.to_owned(),
                ..self
            }
        }
    }

    pub(crate) fn on(self, device: &Device) -> Self {
        Self {
            device: device.describe(),
            ..self
        }
    }

    pub(crate) fn because(self, reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            ..self
        }
    }

    /// Logs the same as a structured event, under a separate target, so that it can be sent
    /// elsewhere.
    pub(crate) fn log(&self) {
        let Self {
            event,
            user_id,
            session_id,
            connection_id,
            address,
            device,
            reason,
        } = self;
        let event = event.as_str();
        tracing::info!(
            target: "audit",
            event, user_id, session_id, connection_id, address, device, reason
        );
    }
}
