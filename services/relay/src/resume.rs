//! An editor takes its unfinished login to a new socket: its ticket says which, its proof that it is the same editor, and
//! whoever holds the login lets go of it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use vvs_auth::device::DeviceKey;
use vvs_auth::proof::{Expected, Use};
use vvs_proto::Secret;
use vvs_proto::frame::AuthErrorCode;

use crate::Shared;
use crate::attempt::Attempt;
use crate::backplane::Handover;
use crate::proof;
use crate::refusal::Refusal;
use crate::ticket::Ticket;

/// What the login's holder said.
pub(crate) type Taken = Result<Handover, Refusal>;

/// A login on its way to this socket.
pub(crate) struct Resume {
    ticket: Ticket,
    taking: BoxFuture<'static, Taken>,
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resume")
    }
}

/// Why a login was not taken to this socket, and what exactly was wrong with a proof.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: AuthErrorCode,
    pub(crate) why: &'static str,
}

impl Resume {
    /// Checks ticket and proof, and asks for the login.
    pub(crate) fn start(shared: &Shared, nonce: &str, ticket: &Secret, proof: &Secret) -> Result<Self, Refused> {
        let refused = |code, why| Refused { code, why };
        let ticket = Ticket::open(&shared.keys.ticket, ticket);
        let ticket = ticket.ok_or_else(|| refused(AuthErrorCode::BadTicket, "not a ticket of ours"))?;
        let facts = ticket.facts().ok_or_else(|| refused(AuthErrorCode::BadTicket, "not a ticket of ours"))?;
        let audience = shared.public_url.to_string();
        let expected = Expected { audience: &audience, nonce, uses: &[Use::Resume], token: None };
        let key = DeviceKey::from_json(&ticket.hello.jwk).map(|key| key.thumbprint());
        let key = key.map_err(|_cause| refused(AuthErrorCode::BadTicket, "not a ticket of ours"))?;
        proof::check(proof, &expected, Some(&key)).map_err(|why| refused(AuthErrorCode::BadProof, why))?;
        if facts.created_at + facts.ttl <= OffsetDateTime::now_utc() {
            return Err(refused(AuthErrorCode::LoginOver, "its time is over"));
        }
        Ok(Self { taking: shared.backplane.take_over(facts.id), ticket })
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Taken> {
        self.taking.as_mut().poll(cx)
    }

    /// The login, now that its holder has answered.
    pub(crate) fn take(self, taken: Taken, shared: Arc<Shared>) -> Result<Box<Attempt>, AuthErrorCode> {
        let handover = match taken {
            Ok(handover) => Some(handover),
            Err(Refusal::Unknown) => None,
            Err(Refusal::Over) => return Err(AuthErrorCode::LoginOver),
            Err(_) => return Err(AuthErrorCode::NotReady),
        };
        Attempt::resume(self.ticket, handover, shared).ok_or(AuthErrorCode::LoginOver)
    }

    /// Waits for the answer after all, when there is no socket any more that would.
    pub(crate) async fn finish(mut self: Box<Self>, shared: &Arc<Shared>) -> Option<Box<Attempt>> {
        let taken = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.take(taken, shared.clone()).ok()
    }
}
