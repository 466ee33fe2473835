//! A scripted sessions role, which records its calls; and an editor's device key.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::digest;
use futures_channel::mpsc;
use futures_util::{StreamExt as _, stream};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prost_types::Timestamp;
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status};
use tower::ServiceExt;
use vvs_auth::device::{DeviceKey, Thumbprint};
use vvs_auth::key::base64url;
use vvs_auth::token::{Claims, Confirmation, JwkSet, SigningKey, random_id};
use vvs_proto::session as wire;
use vvs_proto::session::sessions_server::{Sessions, SessionsServer};
use vvs_proto::session::watch_revocations_response::Event;
use vvs_runtime::rpc;

use super::{Authority, Client, Known, NotActivated, Terms, ToSessions};

pub(crate) const ORIGIN: &str = "https://auth.example.com";
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

type Told = Result<wire::WatchRevocationsResponse, Status>;

#[derive(Default)]
pub(crate) struct Script {
    /// The keys that are published; the last one signs.
    pub(crate) keys: Vec<SigningKey>,
    /// A code and reason for every call, as if sessions were down.
    pub(crate) down: Option<(Code, &'static str)>,
    /// The reason that a method answers with.
    pub(crate) refusals: BTreeMap<&'static str, (Code, &'static str)>,
    /// How long a method takes.
    pub(crate) delays: BTreeMap<&'static str, Duration>,
    /// All calls.
    pub(crate) calls: Vec<&'static str>,
    pub(crate) at_once: usize,
    pub(crate) most_at_once: usize,
    pub(crate) refreshes: Vec<wire::RefreshTokenRequest>,
    /// The token that a refresh returns, when it matters.
    pub(crate) fresh: Option<vvs_proto::Secret>,
    pub(crate) ends: Vec<wire::RevokeSessionRequest>,
    pub(crate) activations: Vec<wire::ActivateSessionRequest>,
    /// The answers to one activation after the other, the last forever; when empty, all activations
    /// succeed.
    pub(crate) answers: Vec<Answer>,
    /// Sessions that cannot be activated, and why.
    pub(crate) not_activatable: BTreeMap<String, &'static str>,
    pub(crate) audits: Vec<wire::RecordAuditRequest>,
    pub(crate) feed: Vec<wire::Revocation>,
    pub(crate) database_id: String,
    /// Numbers up to this one are deleted.
    pub(crate) forgotten: u64,
    pub(crate) pending_since: Option<i64>,
    /// Whether a new watcher is told that it has everything.
    pub(crate) never_caught_up: bool,
    /// The number from which each watcher asked.
    pub(crate) asked_from: Vec<u64>,
    watchers: Vec<mpsc::UnboundedSender<Told>>,
}

/// The answer of the sessions role to an activation.
pub(crate) type Answer = Result<(), NotActivated>;

/// A scripted sessions role.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<Script>>);

impl Default for Fake {
    fn default() -> Self {
        let fake = Self(Arc::default());
        fake.rotate();
        fake
    }
}

pub(crate) fn terms() -> Terms {
    Terms {
        keys_interval: Duration::from_mins(1),
        keys_pause: Duration::from_secs(10),
        feed_silence: Duration::from_mins(1),
        calls_at_once: 32,
        ends_at_once: 100,
        turn_time: Duration::from_secs(30),
        audits_per_minute: NonZeroU32::MIN.saturating_add(59),
        proofs_per_socket: 128,
        sockets_per_session: 10_000,
    }
}

pub(crate) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

impl Fake {
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    pub(crate) fn client(&self, terms: Terms) -> Client {
        let service = SessionsServer::new(self.clone());
        Client::new(
            ToSessions::new(
                ServiceExt::<axum::http::Request<tonic::body::Body>>::map_err(service, |never| {
                    match never {}
                }),
            ),
            terms,
        )
    }

    /// A relay's view of this sessions role.
    pub(crate) fn authority(&self, terms: Terms) -> Arc<Authority> {
        self.authority_that_stops(terms, CancellationToken::new(), &TaskTracker::new())
    }

    pub(crate) fn authority_that_stops(
        &self,
        terms: Terms,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> Arc<Authority> {
        let known = Known::new(ORIGIN.to_owned(), "vvs".to_owned(), terms.feed_silence);
        Authority::follow(known, self.client(terms), terms, stop, tasks)
    }

    /// Creates a relay's view of this sessions role that is up to date.
    pub(crate) async fn ready(&self, terms: Terms) -> Arc<Authority> {
        let authority = self.authority(terms);
        authority.ready().await;
        authority
    }

    /// Signs with a new key from now on; the old ones still verify.
    pub(crate) fn rotate(&self) {
        let kid = random_id().unwrap();
        let key = SigningKey::from_pkcs8(&kid, &SigningKey::generate().unwrap()).unwrap();
        self.script().keys.push(key);
    }

    /// Returns the `kid` of the key that signs.
    pub(crate) fn key_id(&self) -> String {
        self.script().keys.last().unwrap().public().kid.clone()
    }

    pub(crate) fn sign(&self, claims: &Claims) -> vvs_proto::Secret {
        use secrecy::ExposeSecret as _;
        let script = self.script();
        vvs_proto::Secret::new(
            script
                .keys
                .last()
                .unwrap()
                .sign(claims)
                .unwrap()
                .expose_secret(),
        )
    }

    pub(crate) fn revoke(&self, session_id: &str) {
        let mut script = self.script();
        let sequence = script
            .feed
            .last()
            .map_or(script.forgotten, |last| last.sequence)
            + 1;
        let revocation = wire::Revocation {
            sequence,
            session_id: session_id.to_owned(),
            reason: "signed_out_by_user".to_owned(),
            tokens_expire_at: Some(in_an_hour()),
        };
        script.feed.push(revocation.clone());
        script.tell(&Event::Revocation(revocation));
    }

    pub(crate) fn heartbeat(&self) {
        self.script().tell(&Event::Heartbeat(0));
    }

    /// Ends all streams.
    pub(crate) fn cut_off(&self) {
        self.script().watchers.clear();
    }

    pub(crate) fn called(&self, method: &str) -> usize {
        self.script()
            .calls
            .iter()
            .filter(|call| **call == method)
            .count()
    }

    /// Returns the sessions that were activated, in that order.
    pub(crate) fn activated(&self) -> Vec<String> {
        self.script()
            .activations
            .iter()
            .map(|asked| asked.session_id.clone())
            .collect()
    }

    /// Waits until the paused clock has nothing more to do before `time` is over.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn call(&self, method: &'static str) -> Result<InFlight, Status> {
        let (refusal, delay) = {
            let mut script = self.script();
            script.calls.push(method);
            script.at_once += 1;
            script.most_at_once = script.most_at_once.max(script.at_once);
            (
                script.down.or_else(|| script.refusals.get(method).copied()),
                script.delays.get(method).copied(),
            )
        };
        let in_flight = InFlight(self.clone());
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }

        match refusal {
            Some((Code::ResourceExhausted, reason)) => {
                Err(rpc::exhausted(reason, Duration::from_secs(7)))
            }
            Some((code, reason)) => Err(rpc::status(code, reason, None)),
            None => Ok(in_flight),
        }
    }
}

struct InFlight(Fake);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.script().at_once -= 1;
    }
}

impl Script {
    fn tell(&mut self, event: &Event) {
        let response = self.response(event.clone());
        self.watchers
            .retain(|watcher| watcher.unbounded_send(Ok(response.clone())).is_ok());
    }

    fn response(&self, event: Event) -> wire::WatchRevocationsResponse {
        wire::WatchRevocationsResponse {
            event: Some(event),
            database_id: self.database_id.clone(),
        }
    }
}

fn in_an_hour() -> Timestamp {
    Timestamp {
        seconds: now() + 3600,
        nanos: 0,
    }
}

#[tonic::async_trait]
impl Sessions for Fake {
    async fn refresh_token(
        &self,
        request: Request<wire::RefreshTokenRequest>,
    ) -> Result<Response<wire::RefreshTokenResponse>, Status> {
        let request = request.into_inner();
        let session_id = request.session_id.clone();
        let is_over = self
            .script()
            .feed
            .iter()
            .any(|entry| entry.session_id == session_id);
        self.script().refreshes.push(request);
        let _in_flight = self.call("RefreshToken").await?;
        if is_over {
            return Err(rpc::status(
                Code::FailedPrecondition,
                "SESSION_REVOKED",
                None,
            ));
        }

        let token = self
            .script()
            .fresh
            .as_ref()
            .map_or("fresh", |fresh| fresh.expose())
            .to_owned();
        let token = wire::Token {
            token,
            expires_at: Some(in_an_hour()),
        };
        let user = wire::User {
            id: "usr_1".to_owned(),
            ..wire::User::default()
        };
        let expires_at = Some(Timestamp {
            seconds: now() + 30 * 24 * 3600,
            nanos: 0,
        });
        let session = wire::Session {
            id: session_id,
            user: Some(user),
            expires_at,
            ..wire::Session::default()
        };

        Ok(Response::new(wire::RefreshTokenResponse {
            token: Some(token),
            session: Some(session),
        }))
    }

    async fn revoke_session(
        &self,
        request: Request<wire::RevokeSessionRequest>,
    ) -> Result<Response<wire::RevokeSessionResponse>, Status> {
        self.script().ends.push(request.into_inner());
        let _in_flight = self.call("RevokeSession").await?;
        Ok(Response::new(wire::RevokeSessionResponse {}))
    }

    async fn activate_sessions(
        &self,
        request: Request<wire::ActivateSessionsRequest>,
    ) -> Result<Response<wire::ActivateSessionsResponse>, Status> {
        let _in_flight = self.call("ActivateSessions").await?;
        let mut script = self.script();
        let answer = if script.answers.len() > 1 {
            script.answers.remove(0)
        } else {
            script.answers.first().copied().unwrap_or(Ok(()))
        };
        let refused = match answer {
            Ok(()) => None,
            Err(NotActivated::NotYet) => return Err(Status::unavailable("")),
            Err(NotActivated::Never) => Some("SESSION_REVOKED"),
        };

        let (
            mut not_activated,
            Script {
                not_activatable,
                activations,
                ..
            },
        ) = (Vec::new(), &mut *script);
        for asked in request.into_inner().activations {
            match refused.or(not_activatable.get(&asked.session_id).copied()) {
                None => activations.push(asked),
                Some(reason) => not_activated.push(wire::NotActivated {
                    session_id: asked.session_id,
                    reason: reason.to_owned(),
                }),
            }
        }

        Ok(Response::new(wire::ActivateSessionsResponse {
            not_activated,
        }))
    }

    async fn record_audit(
        &self,
        request: Request<wire::RecordAuditRequest>,
    ) -> Result<Response<wire::RecordAuditResponse>, Status> {
        let _in_flight = self.call("RecordAudit").await?;
        self.script().audits.push(request.into_inner());
        Ok(Response::new(wire::RecordAuditResponse {}))
    }

    async fn get_signing_keys(
        &self,
        _request: Request<wire::GetSigningKeysRequest>,
    ) -> Result<Response<wire::GetSigningKeysResponse>, Status> {
        let _in_flight = self.call("GetSigningKeys").await?;
        let set = JwkSet {
            keys: self
                .script()
                .keys
                .iter()
                .map(|key| key.public().clone())
                .collect(),
        };
        Ok(Response::new(wire::GetSigningKeysResponse {
            jwks: serde_json::to_string(&set).unwrap(),
        }))
    }

    type WatchRevocationsStream = BoxStream<wire::WatchRevocationsResponse>;

    async fn watch_revocations(
        &self,
        request: Request<wire::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let wire::WatchRevocationsRequest {
            after_sequence: after,
            database_id,
        } = request.into_inner();
        let _in_flight = self.call("WatchRevocations").await?;
        let mut script = self.script();
        script.asked_from.push(after);
        let is_foreign = !database_id.is_empty() && database_id != script.database_id;
        if after != 0 && (after < script.forgotten || is_foreign) {
            return Err(rpc::status(Code::OutOfRange, "SEQUENCE_GONE", None));
        }

        let (sender, live) = mpsc::unbounded();
        script.watchers.push(sender);
        let missed = script
            .feed
            .iter()
            .filter(|entry| entry.sequence > after)
            .cloned()
            .map(Event::Revocation);
        let since = script
            .pending_since
            .map(|seconds| Event::PendingSince(Timestamp { seconds, nanos: 0 }));
        let newest = script.feed.last().map_or(0, |last| last.sequence);
        let done = (!script.never_caught_up).then_some(Event::CaughtUp(newest));
        let snapshot: Vec<Told> = missed
            .chain(since)
            .chain(done)
            .map(|event| Ok(script.response(event)))
            .collect();

        Ok(Response::new(Box::pin(stream::iter(snapshot).chain(live))))
    }

    async fn begin_browser_sign_in(
        &self,
        _request: Request<wire::BeginBrowserSignInRequest>,
    ) -> Result<Response<wire::BeginBrowserSignInResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn check_browser_sign_in(
        &self,
        _request: Request<wire::CheckBrowserSignInRequest>,
    ) -> Result<Response<wire::CheckBrowserSignInResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn end_browser_sign_ins(
        &self,
        _request: Request<wire::EndBrowserSignInsRequest>,
    ) -> Result<Response<wire::EndBrowserSignInsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn create_session(
        &self,
        _request: Request<wire::CreateSessionRequest>,
    ) -> Result<Response<wire::CreateSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn activate_session(
        &self,
        _request: Request<wire::ActivateSessionRequest>,
    ) -> Result<Response<wire::ActivateSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_session(
        &self,
        _request: Request<wire::GetSessionRequest>,
    ) -> Result<Response<wire::GetSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_sessions(
        &self,
        _request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn take_stale_users(
        &self,
        _request: Request<wire::TakeStaleUsersRequest>,
    ) -> Result<Response<wire::TakeStaleUsersResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn revoke_user_sessions(
        &self,
        _request: Request<wire::RevokeUserSessionsRequest>,
    ) -> Result<Response<wire::RevokeUserSessionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Returns a token's claims, valid for an hour, of a session that ends in 30 days.
pub(crate) fn claims(session_id: &str, key: Option<&Key>) -> Claims {
    Claims {
        iss: ORIGIN.to_owned(),
        sub: "usr_1".to_owned(),
        aud: "vvs".to_owned(),
        sid: session_id.to_owned(),
        jti: random_id().unwrap(),
        iat: now() - 60,
        exp: now() + 3600,
        sxp: now() + 30 * 24 * 3600,
        cnf: key.map(|key| Confirmation {
            jkt: key.thumbprint(),
        }),
        pending: false,
    }
}

/// An editor's device key.
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn new() -> Self {
        Self(SigningKey::generate().unwrap())
    }

    pub(crate) fn jwk(&self) -> Jwk {
        let mut jwk =
            Jwk::from_encoding_key(&EncodingKey::from_ec_der(&self.0), Algorithm::ES256).unwrap();
        jwk.common = jsonwebtoken::jwk::CommonParameters::default();
        jwk
    }

    pub(crate) fn thumbprint(&self) -> Thumbprint {
        DeviceKey::from_value(&serde_json::to_value(self.jwk()).unwrap())
            .unwrap()
            .thumbprint()
    }

    /// Returns a proof over the nonce `nonce`, never the same twice.
    pub(crate) fn proof(
        &self,
        purpose: &str,
        token: Option<&vvs_proto::Secret>,
    ) -> vvs_proto::Secret {
        self.proof_over("nonce", purpose, token)
    }

    pub(crate) fn proof_over(
        &self,
        nonce: &str,
        purpose: &str,
        token: Option<&vvs_proto::Secret>,
    ) -> vvs_proto::Secret {
        let ath = token.map(|token| {
            base64url(digest::digest(&digest::SHA256, token.expose().as_bytes()).as_ref())
        });
        let payload = json!({"aud": ORIGIN, "nonce": nonce, "jti": random_id().unwrap(), "use": purpose, "ath": ath});
        let header = Header {
            typ: Some("vvs-pop+jwt".to_owned()),
            jwk: Some(self.jwk()),
            ..Header::new(Algorithm::ES256)
        };
        let key = EncodingKey::from_ec_der(&self.0);
        vvs_proto::Secret::new(jsonwebtoken::encode(&header, &payload, &key).unwrap())
    }
}
