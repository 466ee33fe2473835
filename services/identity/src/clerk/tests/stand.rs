//! A Backend API on loopback with scripted answers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, LazyLock, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use clap::Parser as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use vvs_runtime::metrics::Metrics;

use super::*;
use crate::fetch::Fetch;
use crate::testing::{RecordedSessions, common};

/// Names the instance `clerk.example.com`.
const KEY: &str = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k";
pub(super) const ISSUER: &str = "https://clerk.example.com";
pub(super) use crate::testing::ORIGIN;
pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const WEBHOOK_SECRET: [u8; 24] = [7; 24];

/// The instance's key, and a stranger's.
pub(super) static KEYS: LazyLock<[KeyPair; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap())
});

/// An answer of the Backend API: status, headers, body.
pub(super) type Answer = (u16, Vec<(&'static str, &'static str)>, String);

/// The scripted answers, and the requests.
#[derive(Default)]
pub(super) struct Script {
    pub(super) answers: Mutex<HashMap<String, Answer>>,
    pub(super) asked: Mutex<Vec<String>>,
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

fn answer(script: &Script, request: &http::Request<Incoming>) -> http::Response<Full<Bytes>> {
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
        http::Response::builder().status(status),
        |response, (name, value)| response.header(name, value),
    );

    response.body(Full::from(body)).unwrap()
}

/// Returns Clerk's answer for an unknown object.
pub(super) fn unknown() -> String {
    json!({"errors": [{"code": "resource_not_found", "message": "not found"}], "clerk_trace_id": "trace-1"}).to_string()
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    settings: ClerkSettings,
}

/// Clerk as a provider, with its counterparts.
pub(super) struct Stand {
    pub(super) script: Arc<Script>,
    pub(super) sessions: Arc<RecordedSessions>,
    pub(super) clerk: Arc<Clerk>,
    pub(super) metrics: Metrics,
    _files: TempDir,
}

impl Stand {
    pub(super) async fn new() -> Self {
        Self::with(&[], &[], false).await
    }

    /// Creates it with these flags and rules; if asked, with the key in a file.
    pub(super) async fn with(flags: &[&str], allow: &[&str], is_pinned: bool) -> Self {
        let (script, tasks) = (Arc::new(Script::default()), TaskTracker::new());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let api_url = format!("http://{}", listener.local_addr().unwrap());
        let (connections, answers) = (tasks.clone(), script.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = answers.clone();
                let service = service_fn(move |request| {
                    ready(Ok::<_, Infallible>(answer(&script, &request)))
                });
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

        let sessions = Arc::new(RecordedSessions::default());
        let common = common(sessions.clone());
        let metrics = common.metrics.clone();
        let allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
        let clerk = Clerk::new(&settings, allow, Fetch::new().unwrap(), common).unwrap();

        Self {
            script,
            sessions,
            clerk: Arc::new(clerk),
            metrics,
            _files: files,
        }
    }

    /// Sets the users that were not checked with Clerk recently.
    pub(super) fn stale(&self, subjects: &[&str]) {
        let subjects = subjects.iter().map(|id| (*id).to_owned()).collect();
        let mut stale = self.sessions.stale.lock().unwrap();
        stale.insert(ISSUER.to_owned(), subjects);
    }

    /// Calls the callback with these cookies.
    pub(super) async fn arrive(&self, cookies: &str) -> Result<Arrival, Refusal> {
        let headers = [(COOKIE, cookies.parse().unwrap())].into_iter().collect();
        self.clerk
            .arrive(&headers, OffsetDateTime::from_unix_timestamp(NOW).unwrap())
            .await
    }

    /// Calls the callback with a valid token.
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

/// Returns a session token with changes.
pub(super) fn token(header: &Value, claims: &Value) -> String {
    signed(&KEYS[0], header, claims)
}

/// Returns one signed with this key.
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
