//! What this role serves over gRPC: who may call, what a request means, what the answer looks like.
//! The store, the keys and the session do the work in between.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tonic::{Extensions, Response, Status};
use vvs_auth::device::Thumbprint;
use vvs_auth::method::admit;
use vvs_auth::peer::{Peers, Role};
use vvs_auth::proof::{self, Expected};
use vvs_auth::quota::Quota;
use vvs_proto::session as wire;
use vvs_runtime::http::Connection;
use vvs_runtime::limit::Reached;
use vvs_runtime::metrics::count;
use vvs_runtime::rpc::{Held, MethodCheck};

use crate::Error;
use crate::audit::AuditRow;
use crate::clock::clock;
use crate::id::SessionId;
use crate::key::SigningKeys;
use crate::limit::Refreshes;
use crate::metric::Counts;
use crate::rpc::feed::Feed;
use crate::session::{Seconds, Session, Terms};
use crate::store::{Cause, Store};

mod browsers;
mod editors;
pub(crate) mod feed;
mod message;
mod sessions;
#[cfg(test)]
mod tests;
mod tokens;

/// The maximum time of a call, so that no caller waits for a database that does not answer.
const CALL_LIMIT: Duration = Duration::from_secs(4);

/// Checks the method table, and counts the calls of each peer under way.
pub(crate) fn check(peers: Arc<Peers>, quota: Quota, reached: Reached) -> MethodCheck {
    Arc::new(move |connection, path| {
        match admit(&peers, &quota, connection.certificate.as_deref(), path) {
            Ok(place) => Ok(Box::new(place) as Held),
            Err(refusal) => {
                if let vvs_auth::Error::PeerBusy { peer, setting } = &refusal {
                    reached.tell_of(setting, Some(peer));
                }
                Err(Error::NotAllowed(refusal).into())
            }
        }
    })
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) keys: Arc<SigningKeys>,
    pub(crate) terms: Terms,
    pub(crate) refreshes: Arc<Refreshes>,
    pub(crate) counts: Counts,
    pub(crate) feed: Feed,
    pub(crate) peers: Arc<Peers>,
    pub(crate) tasks: TaskTracker,
}

impl Service {
    async fn answer<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let done = tokio::time::timeout(CALL_LIMIT, work).await;
        done.unwrap_or_else(|_elapsed| Err(Error::slow()))
            .map(Response::new)
            .map_err(|error| {
                self.counts.failed(&error);
                error.into()
            })
    }

    /// Returns the caller's role; the method table has already admitted it.
    fn role(&self, extensions: &Extensions) -> Result<Role, Error> {
        let connection = extensions.get::<Connection>();
        let certificate = connection.and_then(|connection| connection.certificate.as_deref());
        let peer = certificate
            .ok_or(vvs_auth::Error::Certificate)
            .and_then(|leaf| self.peers.identify(leaf));
        peer.map(|peer| peer.role).map_err(Error::NotAllowed)
    }

    fn sign(&self, session: &Session, now: Seconds, end: Seconds) -> Result<wire::Token, Error> {
        let claims = self.terms.claims(session, now, end)?;
        Ok(message::token(&self.keys.sign(&claims)?, claims.exp))
    }

    /// Returns the key that a proof proves. An invalid proof is recorded only if the session's own
    /// key signed it, because anybody can make one about any other session and with any other key.
    async fn prove(
        &self,
        compact: &str,
        expected: &Expected<'_>,
        id: &SessionId,
        address: &str,
    ) -> Result<Thumbprint, Error> {
        let cause = match proof::check(compact, expected) {
            Ok(proof) => return Ok(proof.key),
            Err(cause) => cause,
        };

        count(&self.counts.proofs_refused, "reason", "BAD_PROOF");

        if let Some(signer) = proof::signer(compact)
            && let Ok(session) = self.store.session(id).await
            && session.is_bound_to(&signer)
        {
            self.record(AuditRow::proof_refused(id, address).because("BAD_PROOF"))
                .await;
        }

        Err(Error::BadProof(cause))
    }

    /// Records an event that led to no change. The refusal does not depend on it.
    async fn record(&self, entry: AuditRow) {
        let event = entry.event.as_str();
        if let Err(error) = self.store.record(entry, clock()).await {
            self.counts.failed(&error);
            tracing::warn!(detail = %error, event, "the audit log misses an entry");
        }
    }

    /// Returns the error for an unknown session. With a token that was signed here, the session is
    /// over. With any other token, this may be the wrong database, and a wrong setting must sign
    /// nobody out. A session of another key gets exactly the same treatment, so that nobody learns
    /// which sessions exist.
    async fn unknown(&self, error: Error, id: SessionId, kid: Option<String>) -> Error {
        if matches!(error, Error::KeyMismatch(_)) {
            count(&self.counts.proofs_refused, "reason", "KEY_MISMATCH");
        }
        let Some(kid) = kid else {
            return Error::KeyUnknown(id);
        };
        match self.store.has_known_key(&kid).await {
            Ok(true) => error,
            Ok(false) => Error::KeyUnknown(id),
            Err(error) => error,
        }
    }

    /// Ends a session, or only if it is pending.
    async fn end(&self, id: SessionId, cause: Cause, only_pending: bool) -> Result<(), Error> {
        let store = self.store.clone();
        let ending = async move {
            let now = clock();
            if only_pending {
                store.revoke_pending(&id, &cause, now).await
            } else {
                store.revoke(&id, &cause, now).await
            }
        };

        let revoked = self.finish(ending).await?;
        self.counts.revoked.inc_by(revoked.into());

        Ok(())
    }

    /// Completes work that must not stop between the commit and the notice to those who wait for
    /// it, whether the caller stays or not.
    async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.tasks
            .spawn(work)
            .await
            .unwrap_or_else(|_panicked| Err(Error::slow()))
    }
}
