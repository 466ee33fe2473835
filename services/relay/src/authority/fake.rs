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
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tower::ServiceExt;
use vvs_auth::device::{DeviceKey, Thumbprint};
use vvs_auth::key::base64url;
use vvs_auth::token::{Claims, Confirmation, JwkSet, SigningKey, random_id};
use vvs_proto::internal::editors_server::{Editors, EditorsServer};
use vvs_proto::internal::{
    ActivateSessionsRequest, ActivateSessionsResponse, Activation, EndSessionRequest,
    EndSessionResponse, RecordRefusedProofRequest, RecordRefusedProofResponse, RefreshTokenRequest,
    RefreshTokenResponse,
};
use vvs_proto::token::tokens_server::{Tokens, TokensServer};
use vvs_proto::token::watch_revocations_response::Event;
use vvs_proto::token::{
    CaughtUp, GetSigningKeysRequest, GetSigningKeysResponse, Heartbeat, Revocation,
    WatchRevocationsRequest, WatchRevocationsResponse,
};
use vvs_proto::types::{ErrorReason, RevocationReason, User};
use vvs_proto::{internal, session};
use vvs_runtime::rpc;

use super::{Authority, Client, Known, NotActivated, Terms, ToSessions};

pub(crate) const ORIGIN: &str = "https://auth.example.com";
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

type Told = Result<WatchRevocationsResponse, Status>;

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
    pub(crate) refreshes: Vec<RefreshTokenRequest>,
    /// The token that a refresh returns, when it matters.
    pub(crate) fresh: Option<vvs_proto::Secret>,
    pub(crate) ends: Vec<EndSessionRequest>,
    pub(crate) activations: Vec<Activation>,
    /// The answers to one activation after the other, the last forever; when empty, all activations
    /// succeed.
    pub(crate) answers: Vec<Answer>,
    /// Sessions that cannot be activated, and why.
    pub(crate) not_activatable: BTreeMap<String, ErrorReason>,
    pub(crate) audits: Vec<RecordRefusedProofRequest>,
    pub(crate) feed: Vec<Revocation>,
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
        let service = Routes::new(EditorsServer::new(self.clone()))
            .add_service(TokensServer::new(self.clone()));
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
        let revocation = Revocation {
            sequence,
            session_id: session_id.to_owned(),
            reason: RevocationReason::SignedOutByUser.into(),
            tokens_expire_at: Some(in_an_hour()),
            user_id: "usr_1".to_owned(),
        };
        script.feed.push(revocation.clone());
        script.tell(&Event::Revocation(revocation));
    }

    pub(crate) fn heartbeat(&self) {
        self.script().tell(&Event::Heartbeat(Heartbeat {}));
    }

    /// Ends all streams, as a sessions role that stops.
    pub(crate) fn cut_off(&self) {
        for watcher in self.script().watchers.drain(..) {
            let stopping = rpc::status(Code::Unavailable, "DRAINING", None);
            watcher.unbounded_send(Err(stopping)).ok();
        }
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

    fn response(&self, event: Event) -> WatchRevocationsResponse {
        let is_of_an_entry = matches!(event, Event::Revocation(_));
        let pending_since = self
            .pending_since
            .filter(|_| !is_of_an_entry)
            .map(|seconds| Timestamp { seconds, nanos: 0 });
        WatchRevocationsResponse {
            event: Some(event),
            database_id: self.database_id.clone(),
            newest_sequence: self
                .feed
                .last()
                .map_or(self.forgotten, |last| last.sequence),
            pending_since,
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
impl Editors for Fake {
    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<RefreshTokenResponse>, Status> {
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
        let token = session::Token {
            token,
            expires_at: Some(in_an_hour()),
        };
        let user = User {
            id: "usr_1".to_owned(),
            ..User::default()
        };
        let expires_at = Some(Timestamp {
            seconds: now() + 30 * 24 * 3600,
            nanos: 0,
        });
        let session = session::Session {
            id: session_id,
            user: Some(user),
            expires_at,
            ..session::Session::default()
        };

        Ok(Response::new(RefreshTokenResponse {
            token: Some(token),
            session: Some(session),
        }))
    }

    async fn end_session(
        &self,
        request: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        self.script().ends.push(request.into_inner());
        let _in_flight = self.call("EndSession").await?;
        Ok(Response::new(EndSessionResponse {}))
    }

    async fn activate_sessions(
        &self,
        request: Request<ActivateSessionsRequest>,
    ) -> Result<Response<ActivateSessionsResponse>, Status> {
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
            Err(NotActivated::Never) => Some(ErrorReason::SessionRevoked),
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
                Some(reason) => not_activated.push(internal::NotActivated {
                    session_id: asked.session_id,
                    reason: reason.into(),
                }),
            }
        }

        Ok(Response::new(ActivateSessionsResponse { not_activated }))
    }

    async fn record_refused_proof(
        &self,
        request: Request<RecordRefusedProofRequest>,
    ) -> Result<Response<RecordRefusedProofResponse>, Status> {
        let _in_flight = self.call("RecordRefusedProof").await?;
        self.script().audits.push(request.into_inner());
        Ok(Response::new(RecordRefusedProofResponse {}))
    }
}

#[tonic::async_trait]
impl Tokens for Fake {
    async fn get_signing_keys(
        &self,
        _request: Request<GetSigningKeysRequest>,
    ) -> Result<Response<GetSigningKeysResponse>, Status> {
        let _in_flight = self.call("GetSigningKeys").await?;
        let set = JwkSet {
            keys: self
                .script()
                .keys
                .iter()
                .map(|key| key.public().clone())
                .collect(),
        };
        Ok(Response::new(GetSigningKeysResponse {
            jwks: serde_json::to_string(&set).unwrap(),
        }))
    }

    type WatchRevocationsStream = BoxStream<WatchRevocationsResponse>;

    async fn watch_revocations(
        &self,
        request: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let WatchRevocationsRequest {
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
        let done = (!script.never_caught_up).then_some(Event::CaughtUp(CaughtUp {}));
        let snapshot: Vec<Told> = missed
            .chain(done)
            .map(|event| Ok(script.response(event)))
            .collect();

        Ok(Response::new(Box::pin(stream::iter(snapshot).chain(live))))
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
