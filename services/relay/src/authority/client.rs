//! The calls that a relay makes to sessions, each with a deadline, and the meaning of their errors
//! for an editor.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Code, Response, Status, Streaming};
use tower::util::BoxCloneSyncService;
use vvs_proto::internal::editors_client::EditorsClient;
use vvs_proto::internal::{
    ActivateSessionsRequest, Activation, EndSessionRequest, RecordRefusedProofRequest,
    RefreshTokenRequest, RefreshTokenResponse,
};
use vvs_proto::token::tokens_client::TokensClient;
use vvs_proto::token::watch_revocations_response::Event as WireEvent;
use vvs_proto::token::{GetSigningKeysRequest, WatchRevocationsRequest, WatchRevocationsResponse};
use vvs_proto::types::{ErrorReason, RevocationReason};
use vvs_proto::{Secret, timestamp};
use vvs_runtime::metrics::Counters;
use vvs_runtime::{rpc, trace};

use super::known::News;
use super::{Failure, Fresh, Refresh, RefusedProof, SignOut, Terms};
use crate::pause::retry_after;

/// How long a call may take.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(5);
/// A feed that is silent for this long is dead: three heartbeats.
const SILENCE: Duration = Duration::from_secs(15);
/// The `reason` that an editor receives on its other sockets when it signs out itself.
const LOGOUT: RevocationReason = RevocationReason::Logout;

/// The target of calls: a channel to the sessions role, or a test service.
pub(crate) type ToSessions = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// The sessions role, as a relay sees it.
#[derive(Clone)]
pub(crate) struct Client {
    editors: EditorsClient<ToSessions>,
    tokens: TokensClient<ToSessions>,
    /// Places for editors' calls in flight.
    places: Arc<Semaphore>,
    turn_time: Duration,
    audits: Arc<DefaultDirectRateLimiter>,
    /// Proofs that this relay has refused.
    pub(crate) proofs_refused: Counters,
}

/// Why sessions gave no answer.
pub(super) struct Unanswered {
    pub(super) code: &'static str,
    pub(super) reason: String,
    /// The feed has deleted the requested entries.
    pub(super) is_gone: bool,
}

impl From<Status> for Unanswered {
    fn from(status: Status) -> Self {
        Self {
            code: trace::code_name(status.code()),
            reason: rpc::reason(&status),
            is_gone: status.code() == Code::OutOfRange,
        }
    }
}

/// The feed of revocations, as it comes in.
pub(super) struct RevocationStream(Streaming<WatchRevocationsResponse>);

impl RevocationStream {
    /// Returns the news of the next message, and the database that it belongs to.
    pub(super) async fn next(&mut self) -> Result<([Option<News>; 2], String), Unanswered> {
        match timeout(SILENCE, self.0.message()).await {
            Ok(Ok(Some(mut told))) => {
                let database_id = std::mem::take(&mut told.database_id);
                Ok((news(told), database_id))
            }
            Ok(Ok(None)) => Err(Status::unavailable("").into()),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(Status::deadline_exceeded("").into()),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    pub(crate) fn new(channel: ToSessions, terms: Terms) -> Self {
        Self {
            editors: EditorsClient::new(channel.clone()),
            tokens: TokensClient::new(channel),
            places: Arc::new(Semaphore::new(terms.calls_at_once)),
            turn_time: terms.turn_time,
            audits: Arc::new(RateLimiter::direct(Quota::per_minute(
                terms.audits_per_minute,
            ))),
            proofs_refused: Counters::default(),
        }
    }

    /// Waits for a turn for an editor's call, so that a storm of calls reaches sessions as a
    /// stream.
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
        let mut editors = self.editors.clone();
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
            .in_turn(editors.refresh_token(rpc::within(request, CALL_TIME)))
            .await?;

        fresh(answer)
            .filter(|fresh| fresh.session_id == asked)
            .ok_or_else(|| {
                tracing::error!("sessions answered a refresh with something else");
                Failure::Unavailable
            })
    }

    pub(super) async fn logout(&self, wish: SignOut) -> Result<(), Failure> {
        let mut editors = self.editors.clone();
        let request = EndSessionRequest {
            session_id: wish.session_id,
            reason: LOGOUT.into(),
            proof: wish
                .proof
                .map(|proof| proof.expose().to_owned())
                .unwrap_or_default(),
            nonce: wish.nonce,
            address: wish.address.to_string(),
            only_pending: false,
            key_id: wish.key_id,
        };
        self.in_turn(editors.end_session(rpc::within(request, CALL_TIME)))
            .await
            .map(drop)
    }

    /// Ends a session if it is pending: its editor may have presented its token elsewhere
    /// meanwhile.
    pub(super) async fn end(
        &self,
        session_id: &str,
        address: IpAddr,
        reason: RevocationReason,
    ) -> Result<(), Failure> {
        let mut editors = self.editors.clone();
        let request = EndSessionRequest {
            session_id: session_id.to_owned(),
            reason: reason.into(),
            address: address.to_string(),
            only_pending: true,
            ..EndSessionRequest::default()
        };
        let ended = within_time(editors.end_session(rpc::within(request, CALL_TIME))).await;
        ended.map(drop).map_err(|status| failure(&status))
    }

    /// Activates all of these. Returns those that were not activated, and why.
    pub(super) async fn activate(
        &self,
        activations: impl Iterator<Item = (&str, IpAddr)>,
    ) -> Result<BTreeMap<String, String>, Unanswered> {
        let mut editors = self.editors.clone();
        let activation = |(session_id, address): (&str, IpAddr)| Activation {
            session_id: session_id.to_owned(),
            address: address.to_string(),
        };
        let activations = activations.map(activation).collect();
        let request = rpc::within(ActivateSessionsRequest { activations }, CALL_TIME);
        let answer = within_time(editors.activate_sessions(request)).await?;
        let not_activated = answer.not_activated.into_iter();
        Ok(not_activated
            .map(|not| {
                let reason = not.reason().word().to_owned();
                (not.session_id, reason)
            })
            .collect())
    }

    /// Returns whether the rate still allows a row in the audit log.
    pub(super) fn may_record(&self) -> bool {
        self.audits.check().is_ok()
    }

    pub(super) async fn record_proof_refused(&self, refused: RefusedProof) {
        let mut editors = self.editors.clone();
        let request = RecordRefusedProofRequest {
            connection_id: refused.connection_id,
            session_id: refused.session_id,
            address: refused.address.to_string(),
        };

        if let Err(status) =
            within_time(editors.record_refused_proof(rpc::within(request, CALL_TIME))).await
        {
            tracing::warn!(
                code = trace::code_name(status.code()),
                "a refused proof is not in the audit log"
            );
        }
    }

    /// Returns the keys as JSON.
    pub(super) async fn signing_keys(&self) -> Result<String, Unanswered> {
        let mut tokens = self.tokens.clone();
        let call = tokens.get_signing_keys(rpc::within(GetSigningKeysRequest {}, CALL_TIME));
        Ok(within_time(call).await?.jwks)
    }

    /// Returns the feed after this number. Only its beginning has a deadline.
    pub(super) async fn watch(
        &self,
        after_sequence: u64,
        database_id: String,
    ) -> Result<RevocationStream, Unanswered> {
        let mut tokens = self.tokens.clone();
        let request = WatchRevocationsRequest {
            after_sequence,
            database_id,
        };
        Ok(RevocationStream(
            within_time(tokens.watch_revocations(request)).await?,
        ))
    }
}

/// Limits the time of a call. The deadline in the request is for the other end; this one also
/// counts the time until the request gets there.
async fn within_time<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(CALL_TIME, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("")),
    }
}

/// Converts an error. Only a reason that sessions itself has given is final.
fn failure(status: &Status) -> Failure {
    let reason = rpc::reason(status);
    match ErrorReason::from_word(&reason) {
        Some(ErrorReason::SessionRevoked) => Failure::Revoked,
        Some(ErrorReason::SessionExpired) => Failure::Expired,
        Some(ErrorReason::SessionUnknown) => Failure::UnknownSession,
        Some(ErrorReason::BadProof) => Failure::BadProof,
        Some(ErrorReason::Malformed) => Failure::BadToken,
        Some(ErrorReason::RefreshedTooOften) => {
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

/// Converts an event; nothing for one that this version does not know.
fn news(told: WatchRevocationsResponse) -> [Option<News>; 2] {
    let pending_since = told.pending_since.map(|at| News::PendingSince(at.seconds));
    match told.event {
        Some(WireEvent::Revocation(revocation)) => {
            let reason = revocation.reason().word();
            let revoked = News::Revoked {
                sequence: revocation.sequence,
                session_id: revocation.session_id,
                reason,
                // Without its time it is kept.
                tokens_expire_at: revocation
                    .tokens_expire_at
                    .map_or(i64::MAX, |at| at.seconds),
            };
            [Some(revoked), None]
        }
        // First: a relay that has caught up asks less, and must know which sessions may be pending.
        Some(WireEvent::CaughtUp(_)) => [pending_since, Some(News::CaughtUp(told.newest_sequence))],
        Some(WireEvent::Heartbeat(_)) => [Some(News::Heartbeat), pending_since],
        None => [None, None],
    }
}
