//! What is written down of who did what, from where, on which device. No secret is among it. The
//! row is written in the transaction of what it tells; the log line follows when that is done.

use crate::id::SessionId;
use crate::session::{Device, Session};

/// What happened.
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
    /// All of a user's.
    BrowsersSignedOut,
}

impl Event {
    /// The name in rows and log lines, which others search for.
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

/// One row. What is not known stays empty.
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

    /// What happened to a session; as long as nobody says from where, where its editor was last.
    pub(crate) fn of(event: Event, session: &Session) -> Self {
        let session_id = session.id.as_str().to_owned();
        Self {
            session_id,
            address: session.address.clone(),
            ..Self::new(event)
        }
        .about(session)
    }

    /// A proof that somebody showed at this address. That need not have been the session's editor.
    pub(crate) fn proof_refused(id: &SessionId, address: &str) -> Self {
        Self {
            session_id: id.as_str().to_owned(),
            ..Self::new(Event::ProofRefused).from(address)
        }
    }

    /// With what the session says of all that was not known, but for the address.
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

    /// An empty address says nothing.
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

    /// The same as a structured event, under a target of its own, so that it can be sent elsewhere.
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
