//! The calls that a relay makes to sessions, each with a deadline, and what their errors mean for
//! an editor.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Response, Status, Streaming};
use tower::util::BoxCloneSyncService;
use vvs_proto::session::sessions_client::SessionsClient;
use vvs_proto::session::{
    self as wire, ActivateSessionRequest, ActivateSessionsRequest, AuditEvent,
    GetSigningKeysRequest, RecordAuditRequest, RefreshTokenRequest, RefreshTokenResponse,
    RevokeSessionRequest, WatchRevocationsRequest, WatchRevocationsResponse,
};
use vvs_proto::{Secret, timestamp};
use vvs_runtime::metrics::Counters;
use vvs_runtime::{rpc, trace};

use super::{Failure, Fresh, Logout, Refresh, RefusedProof, Terms, retry_after};

/// How long a call may take.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(5);
/// What an editor hears as `reason` on its other sockets when it signs out itself.
const LOGOUT: &str = "logout";

/// Where calls go: a channel to the sessions role, or a service that plays it.
pub(crate) type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// The sessions role, as a relay sees it.
#[derive(Clone)]
pub(crate) struct Client {
    sessions: SessionsClient<Channel>,
    /// Editors' calls that may be in flight.
    places: Arc<Semaphore>,
    turn_time: Duration,
    audits: Arc<DefaultDirectRateLimiter>,
    /// Proofs that this relay has refused.
    pub(crate) proofs_refused: Counters,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    pub(crate) fn new(channel: Channel, terms: Terms) -> Self {
        Self {
            sessions: SessionsClient::new(channel),
            places: Arc::new(Semaphore::new(terms.calls_at_once)),
            turn_time: terms.turn_time,
            audits: Arc::new(RateLimiter::direct(Quota::per_minute(
                terms.audits_per_minute,
            ))),
            proofs_refused: Counters::default(),
        }
    }

    /// An editor's call waits for its turn, so that a storm of them reaches sessions as a stream.
    async fn in_turn<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let Ok(Ok(_place)) = timeout(self.turn_time, self.places.acquire()).await else {
            return Err(Failure::Unavailable);
        };
        within_time(call).await.map_err(|status| failure(&status))
    }

    pub(super) async fn refresh(&self, wish: Refresh) -> Result<Fresh, Failure> {
        let mut sessions = self.sessions.clone();
        let asked = wish.session_id.clone();
        let request = RefreshTokenRequest {
            session_id: wish.session_id,
            proof: wish.proof.expose().to_owned(),
            nonce: wish.nonce,
            token: wish
                .token
                .map(|token| token.expose().to_owned())
                .unwrap_or_default(),
            address: wish.address.to_string(),
            key_id: wish.key_id,
        };
        let answer = self
            .in_turn(sessions.refresh_token(rpc::within(request, CALL_TIME)))
            .await?;

        fresh(answer)
            .filter(|fresh| fresh.session_id == asked)
            .ok_or_else(|| {
                tracing::error!("sessions answered a refresh with something else");
                Failure::Unavailable
            })
    }

    pub(super) async fn logout(&self, wish: Logout) -> Result<(), Failure> {
        let mut sessions = self.sessions.clone();
        let request = RevokeSessionRequest {
            session_id: wish.session_id,
            reason: LOGOUT.to_owned(),
            proof: wish
                .proof
                .map(|proof| proof.expose().to_owned())
                .unwrap_or_default(),
            nonce: wish.nonce,
            address: wish.address.to_string(),
            key_id: wish.key_id,
            ..RevokeSessionRequest::default()
        };
        self.in_turn(sessions.revoke_session(rpc::within(request, CALL_TIME)))
            .await
            .map(drop)
    }

    /// Ends a session, as long as it is pending: its editor may have shown its token elsewhere
    /// meanwhile.
    pub(super) async fn end(
        &self,
        session_id: &str,
        address: IpAddr,
        reason: &str,
    ) -> Result<(), Failure> {
        let mut sessions = self.sessions.clone();
        let request = RevokeSessionRequest {
            session_id: session_id.to_owned(),
            reason: reason.to_owned(),
            address: address.to_string(),
            only_pending: true,
            ..RevokeSessionRequest::default()
        };
        let ended = within_time(sessions.revoke_session(rpc::within(request, CALL_TIME))).await;
        ended.map(drop).map_err(|status| failure(&status))
    }

    /// Activates all of these; those that were not, and why.
    pub(super) async fn activate(
        &self,
        activations: Vec<ActivateSessionRequest>,
    ) -> Result<Vec<wire::NotActivated>, Status> {
        let mut sessions = self.sessions.clone();
        let request = rpc::within(ActivateSessionsRequest { activations }, CALL_TIME);
        Ok(within_time(sessions.activate_sessions(request))
            .await?
            .not_activated)
    }

    /// Whether the rate still allows a row in the audit log.
    pub(super) fn may_record(&self) -> bool {
        self.audits.check().is_ok()
    }

    pub(super) async fn record_proof_refused(&self, refused: RefusedProof) {
        let mut sessions = self.sessions.clone();
        let request = RecordAuditRequest {
            event: AuditEvent::ProofRefused.into(),
            connection_id: refused.connection_id,
            session_id: refused.session_id,
            address: refused.address.to_string(),
            ..RecordAuditRequest::default()
        };

        if let Err(status) =
            within_time(sessions.record_audit(rpc::within(request, CALL_TIME))).await
        {
            tracing::warn!(
                code = trace::code_name(status.code()),
                "a refused proof is not in the audit log"
            );
        }
    }

    /// The keys as JSON.
    pub(super) async fn signing_keys(&self) -> Result<String, Status> {
        let mut sessions = self.sessions.clone();
        let call = sessions.get_signing_keys(rpc::within(GetSigningKeysRequest {}, CALL_TIME));
        Ok(within_time(call).await?.jwks)
    }

    /// The feed behind this number. Only its beginning has a deadline.
    pub(super) async fn watch(
        &self,
        after_sequence: u64,
        database_id: String,
    ) -> Result<Streaming<WatchRevocationsResponse>, Status> {
        let mut sessions = self.sessions.clone();
        within_time(sessions.watch_revocations(WatchRevocationsRequest {
            after_sequence,
            database_id,
        }))
        .await
    }
}

/// The deadline in the request is for the other end; this one also counts the time that it takes to
/// get there.
async fn within_time<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(CALL_TIME, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("")),
    }
}

/// Only a reason that sessions itself has given is its verdict.
fn failure(status: &Status) -> Failure {
    let reason = rpc::reason(status);
    match reason.as_str() {
        "SESSION_REVOKED" => Failure::Revoked,
        "SESSION_EXPIRED" => Failure::Expired,
        // The second is what sessions of an earlier version says.
        "SESSION_UNKNOWN" | "KEY_MISMATCH" => Failure::UnknownSession,
        "BAD_PROOF" => Failure::BadProof,
        "MALFORMED" => Failure::BadToken,
        "REFRESHED_TOO_OFTEN" => {
            Failure::TooOften(rpc::retry_after(status).unwrap_or_else(retry_after))
        }
        _ => {
            tracing::warn!(
                code = trace::code_name(status.code()),
                reason,
                "sessions did not answer an editor's call"
            );
            Failure::Unavailable
        }
    }
}

fn fresh(answer: RefreshTokenResponse) -> Option<Fresh> {
    let (token, session) = (answer.token?, answer.session?);
    Some(Fresh {
        user_id: session.user?.id,
        session_id: session.id,
        session_expires_at: timestamp::read(session.expires_at)?,
        token_expires_at: timestamp::read(token.expires_at)?,
        token: Secret::new(token.token),
    })
}
