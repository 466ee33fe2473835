//! A Backend API on loopback and a sessions role in memory, both of which answer what a test tells
//! them to.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Parser as _;
use http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Request as Call, Response as Reply, Status};
use tower::service_fn;
use vvs_auth::key::Keyring;
use vvs_proto::session::sessions_server::{self, SessionsServer};
use vvs_proto::session::{self as wire};
use vvs_runtime::metrics::Metrics;
use vvs_runtime::trace::TracedChannel;

use super::*;
use crate::fetch::Fetch;
use crate::person::People;
use crate::{Calls, Ttls};

/// Names the instance `clerk.example.com`.
const KEY: &str = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k";
pub(super) const ISSUER: &str = "https://clerk.example.com";
pub(super) const ORIGIN: &str = "https://auth.example.com";
pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const WEBHOOK_SECRET: [u8; 24] = [7; 24];

/// The instance's key, and a stranger's.
pub(super) static KEYS: LazyLock<[KeyPair; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap())
});

/// An answer of the Backend API: status, headers, body.
pub(super) type Answer = (u16, Vec<(&'static str, &'static str)>, String);

/// What is answered, and what was asked.
#[derive(Default)]
pub(super) struct Script {
    pub(super) answers: Mutex<HashMap<String, Answer>>,
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) sessions_down: Mutex<bool>,
    pub(super) stale: Mutex<Vec<String>>,
    pub(super) revoked: Mutex<Vec<wire::RevokeUserSessionsRequest>>,
    pub(super) ended: Mutex<Vec<wire::EndBrowserSignInsRequest>>,
}

impl Script {
    pub(super) fn answer(&self, path: &str, status: u16, body: &impl ToString) {
        self.answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), (status, Vec::new(), body.to_string()));
    }

    pub(super) fn count(&self, path: &str) -> usize {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|asked| *asked == path)
            .count()
    }
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let header = |name| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    assert_eq!(header("authorization"), Some("Bearer sk_live_secret"));
    assert_eq!(header("clerk-api-version"), Some("2026-05-12"));
    assert!(request.uri().query().is_none());

    let path = request.uri().path().to_owned();
    script.asked.lock().unwrap().push(path.clone());
    let found = script.answers.lock().unwrap().get(&path).cloned();
    let (status, headers, body) = found.unwrap_or_else(|| (404, Vec::new(), unknown()));
    let response = headers.into_iter().fold(
        Response::builder().status(status),
        |response, (name, value)| response.header(name, value),
    );

    response.body(Body::from(body)).unwrap()
}

/// What Clerk says of what it does not have.
pub(super) fn unknown() -> String {
    json!({"errors": [{"code": "resource_not_found", "message": "not found"}], "clerk_trace_id": "trace-1"}).to_string()
}

#[derive(Clone)]
struct Sessions(Arc<Script>);

macro_rules! unused {
    ($($method:ident($request:ty) -> $response:ty),+ $(,)?) => {$(
        fn $method<'a: 'b, 'b>(&'a self, _request: Call<$request>)
            -> std::pin::Pin<Box<dyn Future<Output = Result<Reply<$response>, Status>> + Send + 'b>>
        where
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("")) })
        }
    )+};
}

#[tonic::async_trait]
impl sessions_server::Sessions for Sessions {
    async fn revoke_user_sessions(
        &self,
        request: Call<wire::RevokeUserSessionsRequest>,
    ) -> Result<Reply<wire::RevokeUserSessionsResponse>, Status> {
        if *self.0.sessions_down.lock().unwrap() {
            return Err(Status::unavailable(""));
        }
        self.0.revoked.lock().unwrap().push(request.into_inner());
        Ok(Reply::new(wire::RevokeUserSessionsResponse { revoked: 2 }))
    }

    async fn end_browser_sign_ins(
        &self,
        request: Call<wire::EndBrowserSignInsRequest>,
    ) -> Result<Reply<wire::EndBrowserSignInsResponse>, Status> {
        if *self.0.sessions_down.lock().unwrap() {
            return Err(Status::unavailable(""));
        }
        self.0.ended.lock().unwrap().push(request.into_inner());
        Ok(Reply::new(wire::EndBrowserSignInsResponse {}))
    }

    async fn take_stale_users(
        &self,
        request: Call<wire::TakeStaleUsersRequest>,
    ) -> Result<Reply<wire::TakeStaleUsersResponse>, Status> {
        let wire::TakeStaleUsersRequest { provider, limit } = request.into_inner();
        assert_eq!(provider, ISSUER);
        let mut stale = self.0.stale.lock().unwrap();
        let count = stale.len().min(limit as usize);
        Ok(Reply::new(wire::TakeStaleUsersResponse {
            subjects: stale.drain(..count).collect(),
        }))
    }

    type WatchRevocationsStream = tonic::codegen::BoxStream<wire::WatchRevocationsResponse>;

    unused! {
        create_session(wire::CreateSessionRequest) -> wire::CreateSessionResponse,
        begin_browser_sign_in(wire::BeginBrowserSignInRequest) -> wire::BeginBrowserSignInResponse,
        check_browser_sign_in(wire::CheckBrowserSignInRequest) -> wire::CheckBrowserSignInResponse,
        activate_session(wire::ActivateSessionRequest) -> wire::ActivateSessionResponse,
        activate_sessions(wire::ActivateSessionsRequest) -> wire::ActivateSessionsResponse,
        refresh_token(wire::RefreshTokenRequest) -> wire::RefreshTokenResponse,
        get_session(wire::GetSessionRequest) -> wire::GetSessionResponse,
        list_sessions(wire::ListSessionsRequest) -> wire::ListSessionsResponse,
        revoke_session(wire::RevokeSessionRequest) -> wire::RevokeSessionResponse,
        watch_revocations(wire::WatchRevocationsRequest) -> Self::WatchRevocationsStream,
        record_audit(wire::RecordAuditRequest) -> wire::RecordAuditResponse,
        get_signing_keys(wire::GetSigningKeysRequest) -> wire::GetSigningKeysResponse,
    }
}

/// A channel to a router in this process.
fn channel(router: Router, tasks: TaskTracker) -> TracedChannel {
    let connector = service_fn(move |_: Uri| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let service = TowerToHyperService::new(router.clone());
        tasks.spawn(async move {
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(far), service)
                .await
                .ok();
        });
        async { Ok::<_, io::Error>(TokioIo::new(near)) }
    });
    TracedChannel::new(Endpoint::from_static("http://role").connect_with_connector_lazy(connector))
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

/// Clerk as a provider, with what it speaks to.
pub(super) struct Stand {
    pub(super) script: Arc<Script>,
    pub(super) clerk: Arc<Clerk>,
    pub(super) metrics: Metrics,
    channel: TracedChannel,
    _files: TempDir,
}

impl Stand {
    pub(super) async fn new() -> Self {
        Self::with(&[], &[], false).await
    }

    /// With flags and rules of its own; perhaps with the key in a file.
    pub(super) async fn with(flags: &[&str], allow: &[&str], is_pinned: bool) -> Self {
        let (script, tasks) = (Arc::new(Script::default()), TaskTracker::new());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let api_url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(script.clone());
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                });
            }
        });
        let jwk = serde_json::to_value(
            Jwk::from_encoding_key(&signing(&KEYS[0]), Algorithm::RS256).unwrap(),
        )
        .unwrap();
        let jwk = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "ins_1", "n": jwk["n"], "e": jwk["e"]});
        script.answer("/v1/jwks", 200, &json!({"keys": [jwk]}));
        script.answer("/v1/users/user_1", 200, &user(&json!({})));
        script.answer("/v1/sessions/sess_1", 200, &session(&json!({})));

        let files = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let secret = file("secret", "sk_live_secret\n");
        let webhook = file(
            "webhook",
            &format!("whsec_{}", BASE64_STANDARD.encode(WEBHOOK_SECRET)),
        );
        let pem = file("pem", &KEYS[0].public_key_pem());
        let mut line = vec![
            "web",
            "--web-clerk-publishable-key",
            KEY,
            "--web-clerk-secret-key-file",
            &secret,
        ];
        line.extend([
            "--web-clerk-api-url",
            &api_url,
            "--web-clerk-webhook-secret-file",
            &webhook,
        ]);
        line.extend(
            is_pinned
                .then_some(["--web-clerk-jwt-key-file", &pem])
                .into_iter()
                .flatten(),
        );
        line.extend(flags);
        let settings = Line::try_parse_from(line).unwrap().settings;

        let sessions = Routes::new(SessionsServer::new(Sessions(script.clone())))
            .prepare()
            .into_axum_router();
        let (metrics, channel) = (Metrics::default(), channel(sessions, tasks));
        let common = Common {
            people: People::default(),
            tasks: TaskTracker::new(),
            public_url: ORIGIN.parse().unwrap(),
            allow: allow.iter().map(|rule| rule.parse().unwrap()).collect(),
            fetch: Fetch::new().unwrap(),
            sessions: crate::call::Sessions::new(channel.clone(), Duration::from_hours(24)),
            metrics: metrics.clone(),
        };
        let clerk = Arc::new(Clerk::new(&settings, &common).unwrap());

        Self {
            script,
            clerk,
            metrics,
            channel,
            _files: files,
        }
    }

    /// The role with Clerk in it.
    pub(super) fn router(&self) -> Router {
        let calls = Calls {
            relay: self.channel.clone(),
            sessions: self.channel.clone(),
        };
        let keys = Keyring::parse(&Keyring::generate().unwrap()).unwrap();
        let ttls = Ttls {
            sign_in: Duration::from_mins(15),
            account: Duration::from_hours(12),
            max: Duration::from_hours(24),
        };
        let origin = ORIGIN.parse().unwrap();
        let web = Web::new(
            self.clerk.clone(),
            ttls,
            origin,
            &keys,
            calls,
            People::default(),
            &Metrics::default(),
        )
        .unwrap();

        crate::route::router(Arc::new(web))
    }

    /// The callback with these cookies.
    pub(super) async fn arrive(&self, cookies: &str) -> Result<Arrival, Refusal> {
        let headers = [(COOKIE, cookies.parse().unwrap())].into_iter().collect();
        self.clerk
            .arrive(&headers, OffsetDateTime::from_unix_timestamp(NOW).unwrap())
            .await
    }

    /// The callback with a good token.
    pub(super) async fn arrive_well(&self) -> Result<SignIn, Refusal> {
        let token = token(&json!({}), &json!({}));
        self.arrive(&format!("__session={token}"))
            .await
            .map(|arrival| match arrival {
                Arrival::SignedIn(sign_in, _) => sign_in,
                Arrival::Stale | Arrival::Before => panic!("a good token is stale"),
            })
    }
}

fn signing(key: &KeyPair) -> EncodingKey {
    EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap()
}

/// A session token with changes.
pub(super) fn token(header: &Value, claims: &Value) -> String {
    signed(&KEYS[0], header, claims)
}

/// The same by whoever has this key.
pub(super) fn signed(key: &KeyPair, header: &Value, claims: &Value) -> String {
    let mut whole = json!({"alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": "ins_1", "oiat": NOW, "typ": "JWT"});
    let mut all = json!({
        "azp": ORIGIN, "exp": NOW + 60, "iat": NOW, "nbf": NOW - 10, "iss": ISSUER, "sub": "user_1", "sid": "sess_1",
        "sts": "active", "v": 2,
    });
    merge(&mut whole, header);
    merge(&mut all, claims);
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&whole), part(&all));
    let signature = crypto::sign(signed.as_bytes(), &signing(key), Algorithm::RS256).unwrap();
    format!("{signed}.{signature}")
}

fn merge(into: &mut Value, change: &Value) {
    let into = into.as_object_mut().unwrap();
    into.extend(change.as_object().unwrap().clone());
    into.retain(|_, value| !value.is_null());
}

pub(super) fn user(change: &Value) -> Value {
    let mut user = json!({
        "id": "user_1", "object": "user", "first_name": "Ada", "last_name": "Lovelace", "username": "ada",
        "image_url": "https://img.clerk.com/ada", "banned": false, "locked": false, "primary_email_address_id": "idn_2",
        "email_addresses": [
            {"id": "idn_1", "email_address": "first@example.com", "verification": {"status": "verified"}},
            {"id": "idn_2", "email_address": "ada@example.com", "verification": {"status": "verified"}},
        ],
    });
    merge(&mut user, change);
    user
}

pub(super) fn session(change: &Value) -> Value {
    let mut session =
        json!({"id": "sess_1", "object": "session", "user_id": "user_1", "status": "active"});
    merge(&mut session, change);
    session
}
