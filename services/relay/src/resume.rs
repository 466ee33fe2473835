//! An editor takes its unfinished login to a new socket: its ticket names the login, its proof
//! shows that it is the same editor, and the holder releases the login.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use vvs_auth::device::DeviceKey;
use vvs_auth::proof::Use;
use vvs_proto::Secret;
use vvs_proto::frame::AuthErrorCode;

use crate::attempt::Attempt;
use crate::backplane::Taken;
use crate::clock;
use crate::proof::{NotTaken, Proofs};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::ticket::Ticket;

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

impl Resume {
    /// Checks ticket and proof, and asks for the login.
    pub(crate) fn start(
        shared: &Shared,
        proofs: &mut Proofs,
        ticket: &Secret,
        proof: &Secret,
    ) -> Result<Self, NotTaken> {
        let ticket = Ticket::open(&shared.keys.ticket, ticket).ok_or(AuthErrorCode::BadTicket)?;
        let facts = ticket.facts().ok_or(AuthErrorCode::BadTicket)?;
        let key =
            DeviceKey::from_json(&ticket.hello.jwk).map_err(|_cause| AuthErrorCode::BadTicket)?;

        // Another relay may have allowed more than this one does, or this one before it was started
        // again.
        if ticket
            .hello
            .return_uri
            .as_deref()
            .is_some_and(|uri| !shared.return_places().allow(uri))
        {
            return Err(AuthErrorCode::BadTicket.into());
        }

        proofs.take(proof, Use::Resume, None, Some(&key.thumbprint()))?;
        if facts.created_at + facts.ttl <= clock::now() {
            return Err(AuthErrorCode::LoginOver.into());
        }

        Ok(Self {
            taking: shared.backplane.take_over(facts.id),
            ticket,
        })
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Taken> {
        self.taking.as_mut().poll(cx)
    }

    /// Takes the login, now that its holder has answered.
    pub(crate) fn take(
        self,
        taken: Taken,
        shared: Arc<Shared>,
    ) -> Result<Box<Attempt>, AuthErrorCode> {
        let handover = match taken {
            Ok(handover) => Some(handover),
            Err(Refusal::Unknown) => None,
            Err(Refusal::Over) => return Err(AuthErrorCode::LoginOver),
            Err(_) => return Err(AuthErrorCode::NotReady),
        };
        Attempt::resume(self.ticket, handover, shared)
    }

    /// Waits for the answer on its own, when the socket that would have waited is gone.
    pub(crate) async fn finish(mut self: Box<Self>, shared: &Arc<Shared>) -> Option<Box<Attempt>> {
        let taken = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.take(taken, shared.clone()).ok()
    }
}
