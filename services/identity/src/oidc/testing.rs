//! A provider for the tests, without a socket: it signs people in immediately, and answers wrongly
//! when told to.
#![expect(
    clippy::missing_panics_doc,
    clippy::new_without_default,
    clippy::unwrap_used,
    reason = "only tests use it"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use clap::Parser as _;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use oauth2::url::{Url, form_urlencoded};
use oauth2::{ClientSecret, HttpRequest, HttpResponse};
use serde_json::{Value, json};
use time::OffsetDateTime;
use vvs_auth::key::base64url;

use super::http::Http;
use super::{Oidc, OidcSettings};
use crate::allow::Rule;
use crate::fetch::Failed;
use crate::provider::{Provider, ProviderContext};

pub const ISSUER: &str = "https://id.test/realms/a";
pub const CLIENT_ID: &str = "vvs";
pub const SECRET: &str = "s3cr/et";

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    settings: OidcSettings,
}

/// The provider's behaviour instead of answering.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Down,
    /// This status and text.
    Says(u16, &'static str),
    /// It answers in 4 seconds.
    Late,
    /// It never answers.
    Hangs,
}

/// The provider's state and its requests.
#[derive(Debug)]
pub struct State {
    pub discovery: Value,
    /// Of every ID token, besides those that the protocol requires.
    pub claims: Value,
    pub userinfo: Value,
    /// Paths that fail.
    pub faults: BTreeMap<&'static str, Fault>,
    /// The paths of all requests.
    pub calls: Vec<String>,
    /// The headers and the form of the last call for tokens.
    pub exchange: Option<(HeaderMap, BTreeMap<String, String>)>,
    /// The nonce and challenge of each code that was not used yet.
    codes: BTreeMap<String, (String, String)>,
}

/// The provider.
#[derive(Debug, Clone)]
pub struct Fake {
    pub state: Arc<Mutex<State>>,
    key: Arc<Ed25519KeyPair>,
}

impl Fake {
    pub fn new() -> Self {
        let at = |path: &str| format!("https://id.test{path}");
        let state = State {
            discovery: json!({
                "issuer": ISSUER,
                "authorization_endpoint": at("/authorize"),
                "token_endpoint": at("/token"),
                "jwks_uri": at("/keys"),
                "userinfo_endpoint": at("/userinfo"),
                "end_session_endpoint": at("/end?realm=a"),
                "authorization_response_iss_parameter_supported": true,
            }),
            claims: json!({
                "sub": "ada", "sid": "s-1", "name": "Ada", "email": "ada@example.com", "email_verified": true,
            }),
            userinfo: json!({"sub": "ada"}),
            faults: BTreeMap::new(),
            calls: Vec::new(),
            exchange: None,
            codes: BTreeMap::new(),
        };

        Self {
            state: Arc::new(Mutex::new(state)),
            key: Arc::new(Ed25519KeyPair::generate().unwrap()),
        }
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn fail(&self, path: &'static str, fault: Fault) {
        self.change(|state| {
            state.faults.insert(path, fault);
        });
    }

    pub fn calls(&self, path: &str) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.iter().filter(|call| *call == path).count()
    }

    pub(super) fn http(&self) -> Http {
        let fake = self.clone();
        Http::new(Arc::new(move |request| {
            let fake = fake.clone();
            Box::pin(async move {
                let path = request.uri().path().to_owned();
                let fault = {
                    let mut state = fake.state.lock().unwrap_or_else(PoisonError::into_inner);
                    state.calls.push(path.clone());
                    state.faults.get(&*path).copied()
                };
                let (status, body) = match fault {
                    Some(Fault::Down) => {
                        let (host, cause) = ("id.test".to_owned(), "nobody there".to_owned());
                        return Err(Failed::Unavailable {
                            host,
                            cause,
                            retry_after: None,
                        });
                    }
                    Some(Fault::Hangs) => std::future::pending().await,
                    Some(Fault::Says(status, text)) => (status, text.to_owned()),
                    Some(Fault::Late) => {
                        tokio::time::sleep(Duration::from_secs(4)).await;
                        fake.answer(&path, &request)
                    }
                    None => fake.answer(&path, &request),
                };

                let mut answer = HttpResponse::new(body.into_bytes());
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();

                Ok(answer)
            })
        }))
    }

    /// This server as its client.
    pub fn provider(&self, common: ProviderContext, allow: &[&str]) -> Arc<dyn Provider> {
        let line = [
            "web",
            "--web-oidc-issuer",
            ISSUER,
            "--web-oidc-client-id",
            CLIENT_ID,
            "--web-oidc-name",
            "Example",
        ];
        let allow = allow.iter().map(|rule| rule.parse::<Rule>().unwrap());
        let settings = Line::try_parse_from(line).unwrap().settings;
        let mut oidc = Oidc::over(&settings, allow.collect(), self.http(), common).unwrap();
        oidc.secret = Some(ClientSecret::new(SECRET.to_owned()));

        Arc::new(oidc)
    }

    /// Signs in a browser that was sent here. Returns where it goes back to.
    pub fn sign_in(&self, location: &str) -> String {
        let url: Url = location.parse().unwrap();
        let given: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(given["code_challenge_method"], "S256");

        let code = format!("code of {}", given["state"]);
        let answer = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("code", &*code),
                ("state", &given["state"]),
                ("iss", ISSUER),
            ])
            .finish();
        let codes = (given["nonce"].clone(), given["code_challenge"].clone());
        self.change(|state| {
            state.codes.insert(code, codes);
        });

        format!("/api/auth/oidc?{answer}")
    }

    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| base64url(json.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = base64url(self.key.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }

    /// Returns a current logout token with these claims, without those that are null.
    pub fn logout_token(&self, claims: Value) -> String {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut whole = json!({
            "iss": ISSUER, "aud": CLIENT_ID, "iat": now, "exp": now + 120, "jti": "j-1",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        });
        merge(&mut whole, claims);
        self.token(
            &json!({"alg": "EdDSA", "kid": "k", "typ": "logout+jwt"}),
            &whole,
        )
    }

    fn answer(&self, path: &str, request: &HttpRequest) -> (u16, String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match path {
            "/realms/a/.well-known/openid-configuration" => state.discovery.clone(),
            "/keys" => {
                let x = base64url(self.key.public_key().as_ref());
                json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]})
            }
            "/userinfo" if request.headers()[AUTHORIZATION] == "Bearer the-access-token" => {
                state.userinfo.clone()
            }
            "/token" => {
                let form: BTreeMap<_, _> = form_urlencoded::parse(request.body())
                    .into_owned()
                    .collect();
                state.exchange = Some((request.headers().clone(), form.clone()));
                let used = state.codes.remove(&form["code"]);
                let challenge =
                    base64url(digest(&SHA256, form["code_verifier"].as_bytes()).as_ref());
                let Some((nonce, _)) = used.filter(|(_, expected)| *expected == challenge) else {
                    return (400, r#"{"error":"invalid_grant"}"#.to_owned());
                };

                let now = OffsetDateTime::now_utc().unix_timestamp();
                let mut claims = json!({"iss": ISSUER, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce});
                merge(&mut claims, state.claims.clone());
                let id = self.token(&json!({"alg": "EdDSA", "kid": "k"}), &claims);

                json!({"access_token": "the-access-token", "token_type": "Bearer", "expires_in": 300, "id_token": id})
            }
            _ => return (404, String::new()),
        };

        (200, answer.to_string())
    }
}

fn merge(whole: &mut Value, change: Value) {
    let (Value::Object(whole), Value::Object(change)) = (whole, change) else {
        panic!("not objects")
    };
    for (name, value) in change {
        if value.is_null() {
            whole.remove(&name);
        } else {
            whole.insert(name, value);
        }
    }
}
