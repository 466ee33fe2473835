//! `vvs.session.v1.Sessions` over gRPC: who may call, what a request means, what the answer looks
//! like. The store, the keys and the session do the work in between.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tonic::codegen::BoxStream;
use tonic::{Extensions, Request, Response, Status};
use vvs_auth::device::Thumbprint;
use vvs_auth::method::admit;
use vvs_auth::peer::{Peers, Role};
use vvs_auth::proof::{self, Expected, Use};
use vvs_auth::quota::Quota;
use vvs_auth::token;
use vvs_proto::session as wire;
use vvs_proto::session::sessions_server::Sessions;
use vvs_proto::timestamp;
use vvs_runtime::http::Connection;
use vvs_runtime::limit::Reached;
use vvs_runtime::metrics::count;
use vvs_runtime::rpc::{Held, MethodCheck, reason};

use crate::Error;
use crate::audit::{AuditRow, Event};
use crate::clock::clock;
use crate::id::{SessionId, UserId};
use crate::key::SigningKeys;
use crate::limit::Refreshes;
use crate::metric::Counts;
use crate::rpc::feed::Feed;
use crate::session::{self, Seconds, Session, Terms};
use crate::store::{Activated, Cause, Store, Whose};

mod browser;
pub(crate) mod feed;
mod message;
#[cfg(test)]
mod tests;

/// The maximum time of a call, so that no caller waits for a database that does not answer.
const CALL_LIMIT: Duration = Duration::from_secs(4);
/// The maximum number of stale users that one call returns.
const MAX_TAKEN: u32 = 100;
/// The maximum number of sessions that one call activates.
const MAX_ACTIVATED: usize = 100;

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

    async fn refresh(
        &self,
        request: wire::RefreshTokenRequest,
    ) -> Result<wire::RefreshTokenResponse, Error> {
        let id: SessionId = request.session_id.parse()?;
        let address = session::address(request.address)?;
        let shown = Some(request.token.as_str()).filter(|token| !token.is_empty());
        let uses = if shown.is_some() {
            [Use::Authenticate]
        } else {
            [Use::Refresh]
        };

        let expected = Expected {
            audience: &self.terms.issuer,
            nonce: &request.nonce,
            uses: &uses,
            token: shown,
        };
        let key = self.prove(&request.proof, &expected, &id, &address).await?;
        self.refreshes.count(&id, &key)?;
        let now = clock();
        let refreshed = match self
            .store
            .refresh(&id, &key, &address, &self.terms, now)
            .await
        {
            Err(unknown @ (Error::KeyMismatch(_) | Error::SessionUnknown(_))) => {
                let kid = shown
                    .map_or(Some(request.key_id), token::key_id)
                    .and_then(session::key_id);
                return Err(self.unknown(unknown, id, kid).await);
            }
            done => done?,
        };

        self.counts.refreshed.inc();
        if refreshed.activated {
            self.counts.activated.inc();
        }

        let token = self.sign(&refreshed.session, now, refreshed.token_end)?;

        Ok(wire::RefreshTokenResponse {
            token: Some(token),
            session: Some(message::session(refreshed.session)),
        })
    }

    async fn activate(
        &self,
        sessions: Vec<(SessionId, String)>,
    ) -> Result<Vec<(SessionId, Result<Activated, Error>)>, Error> {
        let outcomes = self
            .store
            .activate_all(sessions, &self.terms, clock())
            .await?;
        let new = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.as_ref().is_ok_and(|activated| activated.new))
            .count();
        self.counts.activated.inc_by(new as u64);
        Ok(outcomes)
    }

    /// Reports one of several sessions that was not activated. It is counted and logged like a
    /// separate call.
    fn not_activated(&self, session_id: String, error: Error) -> wire::NotActivated {
        self.counts.failed(&error);
        wire::NotActivated {
            session_id,
            reason: reason(&error.into()),
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

    async fn revoke(&self, role: Role, request: wire::RevokeSessionRequest) -> Result<(), Error> {
        let id: SessionId = request.session_id.parse()?;
        let cause = Cause {
            reason: request.reason.parse()?,
            address: session::address(request.address)?,
        };
        let owner = Some(request.user_id.as_str()).filter(|user| !user.is_empty());
        let owner = owner.map(str::parse::<UserId>).transpose()?;
        let only_pending = request.only_pending;
        let session = match self.store.session(&id).await {
            Err(unknown @ Error::SessionUnknown(_)) if !request.key_id.is_empty() => {
                return Err(self
                    .unknown(unknown, id, session::key_id(request.key_id))
                    .await);
            }
            found => found?,
        };

        if owner.is_some_and(|owner| owner != session.user) {
            return Err(Error::SessionUnknown(id));
        }

        if let (Role::Relay, Some(key), false) = (role, &session.device.key, only_pending) {
            let expected = Expected {
                audience: &self.terms.issuer,
                nonce: &request.nonce,
                uses: &[Use::Logout],
                token: None,
            };
            if self
                .prove(&request.proof, &expected, &id, &cause.address)
                .await?
                != key.thumbprint()
            {
                let kid = session::key_id(request.key_id);
                return Err(self.unknown(Error::KeyMismatch(session.id), id, kid).await);
            }
        }

        let store = self.store.clone();
        let revoking = async move {
            let now = clock();
            if only_pending {
                store.revoke_pending(&id, &cause, now).await
            } else {
                store.revoke(&id, &cause, now).await
            }
        };

        let revoked = self.finish(revoking).await?;
        self.counts.revoked.inc_by(revoked.into());

        Ok(())
    }

    async fn revoke_all(&self, request: wire::RevokeUserSessionsRequest) -> Result<u32, Error> {
        let wire::RevokeUserSessionsRequest {
            user_id,
            reason,
            address,
            identity,
        } = request;
        let cause = Cause {
            reason: reason.parse()?,
            address: session::address(address)?,
        };
        let whose = match identity {
            Some(identity) if user_id.is_empty() && !identity.provider_session.is_empty() => {
                Whose::SignIn(message::sign_in(identity)?)
            }
            identity => match self.user(&user_id, identity).await? {
                Some(user) => Whose::User(user),
                None => return Ok(0),
            },
        };

        let store = self.store.clone();
        let revoked = self
            .finish(async move { store.revoke_all(&whose, &cause, clock()).await })
            .await?;
        self.counts.revoked.inc_by(revoked.into());

        Ok(revoked)
    }

    /// Returns the VVS id of a user that the caller names by it or by the provider's; `None` for an
    /// unknown user.
    async fn user(
        &self,
        user_id: &str,
        identity: Option<wire::Identity>,
    ) -> Result<Option<UserId>, Error> {
        match identity {
            None => Ok(Some(user_id.parse()?)),
            Some(identity) if user_id.is_empty() => {
                self.store.user_of(&message::person(identity)?).await
            }
            Some(_) => Err(Error::Malformed { field: "user_id" }),
        }
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

    async fn audit(&self, role: Role, request: wire::RecordAuditRequest) -> Result<(), Error> {
        let event = match (request.event(), role) {
            (wire::AuditEvent::Denied, Role::Web) => Event::Denied,
            (wire::AuditEvent::ProofRefused, Role::Relay) => Event::ProofRefused,
            (wire::AuditEvent::Unspecified, _) => return Err(Error::Malformed { field: "event" }),
            (wire::AuditEvent::Denied | wire::AuditEvent::ProofRefused, _) => {
                let action = format!("record {}", request.event().as_str_name());
                return Err(Error::NotAllowed(vvs_auth::Error::NotAllowed {
                    peer: role.to_string(),
                    action,
                }));
            }
        };

        let mut entry = AuditRow::new(event).from(&session::address(request.address)?);
        entry.connection_id = session::connection_id(request.connection_id)?;

        if !request.session_id.is_empty() {
            request
                .session_id
                .parse::<SessionId>()?
                .as_str()
                .clone_into(&mut entry.session_id);
        }

        if let Some(device) = request.device {
            entry = entry.on(&message::device(device)?);
        }

        if let Some(identity) = request.identity {
            let identity = message::identity(identity)?;
            match self.store.user_of(&identity).await? {
                Some(user) => user.as_str().clone_into(&mut entry.user_id),
                // Somebody who never approved anything has no id of ours.
                None => entry.reason = format!("by {} of {}", identity.subject, identity.provider),
            }
        }

        self.store.record(entry, clock()).await
    }
}

#[tonic::async_trait]
impl Sessions for Service {
    async fn create_session(
        &self,
        request: Request<wire::CreateSessionRequest>,
    ) -> Result<Response<wire::CreateSessionResponse>, Status> {
        self.answer(async {
            let approval = message::approval(request.into_inner())?;
            let now = clock();
            let created = self.store.create(&approval, &self.terms, now).await?;
            if created.new {
                self.counts.created.inc();
            }

            let session = &created.session;
            let token = self.sign(
                session,
                now,
                self.terms
                    .token_end(&session.device, session.expires_at, now),
            )?;

            Ok(wire::CreateSessionResponse {
                session: Some(message::session(created.session)),
                token: Some(token),
            })
        })
        .await
    }

    async fn activate_session(
        &self,
        request: Request<wire::ActivateSessionRequest>,
    ) -> Result<Response<wire::ActivateSessionResponse>, Status> {
        self.answer(async {
            let (id, address) = message::activation(request.into_inner())?;
            let mut outcomes = self.activate(vec![(id.clone(), address)]).await?;
            let (_, outcome) = outcomes.pop().ok_or(Error::SessionUnknown(id))?;
            Ok(wire::ActivateSessionResponse {
                activated_at: Some(timestamp::seconds(outcome?.at)),
            })
        })
        .await
    }

    async fn activate_sessions(
        &self,
        request: Request<wire::ActivateSessionsRequest>,
    ) -> Result<Response<wire::ActivateSessionsResponse>, Status> {
        self.answer(async {
            let asked = request.into_inner().activations;
            if asked.len() > MAX_ACTIVATED {
                return Err(Error::Malformed {
                    field: "activations",
                });
            }

            let (mut sessions, mut not_activated) = (Vec::new(), Vec::new());
            for one in asked {
                let session_id = one.session_id.clone();
                match message::activation(one) {
                    Ok(session) => sessions.push(session),
                    Err(error) => not_activated.push(self.not_activated(session_id, error)),
                }
            }

            for (id, outcome) in self.activate(sessions).await? {
                if let Err(error) = outcome {
                    not_activated.push(self.not_activated(id.as_str().to_owned(), error));
                }
            }

            Ok(wire::ActivateSessionsResponse { not_activated })
        })
        .await
    }

    async fn get_signing_keys(
        &self,
        _request: Request<wire::GetSigningKeysRequest>,
    ) -> Result<Response<wire::GetSigningKeysResponse>, Status> {
        Ok(Response::new(wire::GetSigningKeysResponse {
            jwks: self.keys.jwks().to_string(),
        }))
    }

    async fn refresh_token(
        &self,
        request: Request<wire::RefreshTokenRequest>,
    ) -> Result<Response<wire::RefreshTokenResponse>, Status> {
        self.answer(self.refresh(request.into_inner())).await
    }

    async fn get_session(
        &self,
        request: Request<wire::GetSessionRequest>,
    ) -> Result<Response<wire::GetSessionResponse>, Status> {
        self.answer(async {
            let session = self
                .store
                .session(&request.into_inner().session_id.parse()?)
                .await?;
            self.terms.check_live(&session, clock())?;
            Ok(wire::GetSessionResponse {
                session: Some(message::session(session)),
            })
        })
        .await
    }

    async fn list_sessions(
        &self,
        request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        self.answer(async {
            let wire::ListSessionsRequest { user_id, identity } = request.into_inner();
            let user = self.user(&user_id, identity).await?;
            let Some(user) = user else {
                return Ok(wire::ListSessionsResponse::default());
            };
            let sessions = self.store.sessions_of(&user, &self.terms, clock()).await?;
            Ok(wire::ListSessionsResponse {
                sessions: sessions.into_iter().map(message::session).collect(),
            })
        })
        .await
    }

    async fn revoke_session(
        &self,
        request: Request<wire::RevokeSessionRequest>,
    ) -> Result<Response<wire::RevokeSessionResponse>, Status> {
        let role = self.role(request.extensions());
        self.answer(async {
            self.revoke(role?, request.into_inner()).await?;
            Ok(wire::RevokeSessionResponse {})
        })
        .await
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<wire::RevokeUserSessionsRequest>,
    ) -> Result<Response<wire::RevokeUserSessionsResponse>, Status> {
        self.answer(async {
            let revoked = self.revoke_all(request.into_inner()).await?;
            Ok(wire::RevokeUserSessionsResponse { revoked })
        })
        .await
    }

    async fn begin_browser_sign_in(
        &self,
        request: Request<wire::BeginBrowserSignInRequest>,
    ) -> Result<Response<wire::BeginBrowserSignInResponse>, Status> {
        self.answer(self.begin_sign_in(request.into_inner())).await
    }

    async fn check_browser_sign_in(
        &self,
        request: Request<wire::CheckBrowserSignInRequest>,
    ) -> Result<Response<wire::CheckBrowserSignInResponse>, Status> {
        self.answer(self.check_sign_in(request.into_inner())).await
    }

    async fn end_browser_sign_ins(
        &self,
        request: Request<wire::EndBrowserSignInsRequest>,
    ) -> Result<Response<wire::EndBrowserSignInsResponse>, Status> {
        self.answer(self.end_sign_ins(request.into_inner())).await
    }

    async fn take_stale_users(
        &self,
        request: Request<wire::TakeStaleUsersRequest>,
    ) -> Result<Response<wire::TakeStaleUsersResponse>, Status> {
        self.answer(async {
            let wire::TakeStaleUsersRequest { provider, limit } = request.into_inner();
            let provider = session::required("provider", provider)?;
            if !(1..=MAX_TAKEN).contains(&limit) {
                return Err(Error::Malformed { field: "limit" });
            }
            let subjects = self
                .store
                .take_stale_users(&provider, limit, clock())
                .await?;
            Ok(wire::TakeStaleUsersResponse { subjects })
        })
        .await
    }

    async fn record_audit(
        &self,
        request: Request<wire::RecordAuditRequest>,
    ) -> Result<Response<wire::RecordAuditResponse>, Status> {
        let role = self.role(request.extensions());
        self.answer(async {
            self.audit(role?, request.into_inner()).await?;
            Ok(wire::RecordAuditResponse {})
        })
        .await
    }

    type WatchRevocationsStream = BoxStream<wire::WatchRevocationsResponse>;

    async fn watch_revocations(
        &self,
        request: Request<wire::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let role = self.role(request.extensions());
        self.answer(async { self.feed.follow(role?, request.into_inner()).await })
            .await
    }
}
