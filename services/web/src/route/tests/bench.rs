//! All routes without a socket: a browser that keeps cookies, and behind the pages a relay and a
//! sessions role with scripted answers, over gRPC in memory.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Mutex as Turn, Notify, mpsc, watch};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Code, Request as Call, Response as Reply, Status};
use tower::{ServiceExt as _, service_fn};
use vvs_auth::key::Keyring;
use vvs_identity::dev::Dev;
use vvs_identity::{People, ProviderContext, SignIn};
use vvs_proto::internal::browsers_server::{self, BrowsersServer};
use vvs_proto::internal::{
    BeginBrowserSignInRequest, BeginBrowserSignInResponse, CheckBrowserSignInRequest,
    CheckBrowserSignInResponse, EndBrowserSignInsRequest, EndBrowserSignInsResponse,
};
use vvs_proto::relay::deliver_auth_response::Outcome;
use vvs_proto::relay::relay_server::{self, RelayServer};
use vvs_proto::relay::{
    Acked, Binding, DeliverAuthRequest, DeliverAuthResponse, DenyLoginRequest, DenyLoginResponse,
    GetLoginRequest, GetLoginResponse, Held, LoginState, Sent,
};
use vvs_proto::session::list_sessions_request::User as Whose;
use vvs_proto::session::revoke_user_sessions_request::Whose as Owner;
use vvs_proto::session::sessions_server::{self, SessionsServer};
use vvs_proto::session::{self as wire, CreateSessionRequest, CreateSessionResponse};
use vvs_proto::token::tokens_server::{self, TokensServer};
use vvs_proto::token::{
    GetSigningKeysRequest, GetSigningKeysResponse, WatchRevocationsRequest,
    WatchRevocationsResponse,
};
use vvs_proto::types::{App, Device, User};
use vvs_runtime::http::Connection;
use vvs_runtime::limit::Reached;
use vvs_runtime::metrics::Metrics;
use vvs_runtime::rpc;
use vvs_runtime::tcp::Cut;
use vvs_runtime::trace::TracedChannel;

use crate::cookie::Jar;
use crate::web::{Channels, Ttls, Web};

pub(super) const ID: &str = "6f1f2f4e-2f0c-4a53-9d0e-8f4f3f0a9b11";
pub(super) const OTHER_ID: &str = "00000000-0000-4000-8000-000000000001";
pub(super) const ORIGIN: &str = "http://127.0.0.1:8080";
/// The one-time code of every delivery that is held.
pub(super) const CODE: &str = "BCDFGHJK";

type Error = (Code, &'static str);

/// The answers of the other roles, and their requests.
pub(super) struct Script {
    /// The state of every login, or the error.
    pub(super) login: watch::Sender<Result<LoginState, Error>>,
    /// The result of a delivery.
    pub(super) delivery: Mutex<Result<LoginState, Error>>,
    /// Where the editor waits for its code, in the view of a login.
    pub(super) return_uri: Mutex<&'static str>,
    /// The same and the minimum binding, in the answer to a held delivery.
    pub(super) way_back: Mutex<(&'static str, Binding)>,
    /// Whether the editor has used its session.
    pub(super) active: Mutex<bool>,
    /// The signed-in editors, by the subject of their user.
    pub(super) installs: Mutex<Vec<(&'static str, wire::Session)>>,
    pub(super) revocations: Mutex<Vec<wire::RevokeSessionRequest>>,
    pub(super) sign_outs: Mutex<Vec<wire::RevokeUserSessionsRequest>>,
    /// The ends of browser sign-ins; their number is the watermark.
    pub(super) ends: Mutex<Vec<EndBrowserSignInsRequest>>,
    pub(super) checks: Mutex<Vec<CheckBrowserSignInRequest>>,
    /// The end that happens as soon as the next session is created.
    pub(super) ends_with_approval: Mutex<Option<EndBrowserSignInsRequest>>,
    pub(super) audit: mpsc::UnboundedSender<wire::RecordAuditRequest>,
    pub(super) sessions: Mutex<Result<(), Error>>,
    pub(super) deliveries: Mutex<Vec<DeliverAuthRequest>>,
    pub(super) created: Mutex<Vec<CreateSessionRequest>>,
    pub(super) denials: Mutex<Vec<String>>,
    /// A call waits for another state.
    pub(super) waits: Notify,
    pub(super) expires_at: Mutex<i64>,
}

#[derive(Clone)]
struct Fake(Arc<Script>);

fn status((code, reason): Error) -> Status {
    if reason.is_empty() {
        Status::new(code, "")
    } else {
        rpc::status(code, reason, None)
    }
}

#[tonic::async_trait]
impl relay_server::Relay for Fake {
    async fn get_login(
        &self,
        request: Call<GetLoginRequest>,
    ) -> Result<Reply<GetLoginResponse>, Status> {
        let (mut login, known) = (self.0.login.subscribe(), request.get_ref().known_state());
        let found = *login.borrow_and_update();
        if found == Ok(known) {
            self.0.waits.notify_one();
            login.wait_for(|found| *found != Ok(known)).await.unwrap();
        }

        let state = login.borrow().map_err(status)?;
        let expires_at = *self.0.expires_at.lock().unwrap();
        let return_uri = *self.0.return_uri.lock().unwrap();

        Ok(Reply::new(GetLoginResponse {
            state: state.into(),
            user_code: "WXBK-RTQH".to_owned(),
            app: Some(App {
                name: "VVS Editor".to_owned(),
                version: "1.4.0".to_owned(),
            }),
            device: Some(Device {
                name: "laptop".to_owned(),
                os: "Debian".to_owned(),
                jwk: "the-key".to_owned(),
            }),
            client_address: "127.0.0.1".to_owned(),
            created_at: Some(prost_types::Timestamp {
                seconds: expires_at - 600,
                nanos: 0,
            }),
            expires_at: Some(prost_types::Timestamp {
                seconds: expires_at,
                nanos: 0,
            }),
            return_uri: return_uri.to_owned(),
        }))
    }

    async fn deliver_auth(
        &self,
        request: Call<DeliverAuthRequest>,
    ) -> Result<Reply<DeliverAuthResponse>, Status> {
        self.0.deliveries.lock().unwrap().push(request.into_inner());
        let state = self.0.delivery.lock().unwrap().map_err(status)?;
        self.0.login.send_modify(|login| *login = Ok(state));
        let outcome = if state == LoginState::Held {
            let (return_uri, min_binding) = *self.0.way_back.lock().unwrap();
            Outcome::Held(Held {
                code: CODE.to_owned(),
                return_uri: return_uri.to_owned(),
                min_binding: min_binding.into(),
            })
        } else if state == LoginState::Sent {
            Outcome::Sent(Sent {})
        } else {
            assert_eq!(state, LoginState::Acked);
            Outcome::Acked(Acked::default())
        };

        Ok(Reply::new(DeliverAuthResponse {
            outcome: Some(outcome),
        }))
    }

    async fn deny_login(
        &self,
        request: Call<DenyLoginRequest>,
    ) -> Result<Reply<DenyLoginResponse>, Status> {
        self.0
            .denials
            .lock()
            .unwrap()
            .push(request.into_inner().connection_id);
        self.0.login.borrow().map_err(status)?;
        Ok(Reply::new(DenyLoginResponse {}))
    }
}

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
impl sessions_server::Sessions for Fake {
    async fn create_session(
        &self,
        request: Call<CreateSessionRequest>,
    ) -> Result<Reply<CreateSessionResponse>, Status> {
        let request = request.into_inner();
        self.0.sessions.lock().unwrap().map_err(status)?;
        let user = User {
            id: "usr_1".to_owned(),
            ..User::default()
        };
        let session = wire::Session {
            user: Some(user),
            ..self.session()
        };
        self.0.created.lock().unwrap().push(request);
        self.0
            .ends
            .lock()
            .unwrap()
            .extend(self.0.ends_with_approval.lock().unwrap().take());
        let token = wire::Token {
            token: "the-token".to_owned(),
            expires_at: None,
        };

        Ok(Reply::new(CreateSessionResponse {
            session: Some(session),
            token: Some(token),
        }))
    }

    async fn get_session(
        &self,
        request: Call<wire::GetSessionRequest>,
    ) -> Result<Reply<wire::GetSessionResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        assert_eq!(request.get_ref().session_id, "ses_1");
        Ok(Reply::new(wire::GetSessionResponse {
            session: Some(self.session()),
        }))
    }

    async fn list_sessions(
        &self,
        request: Call<wire::ListSessionsRequest>,
    ) -> Result<Reply<wire::ListSessionsResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        let Some(Whose::ProviderUser(user)) = request.into_inner().user else {
            panic!("web names people as their provider does");
        };
        let installs = self.0.installs.lock().unwrap();
        let own = installs
            .iter()
            .filter(|(subject, _)| ("dev", *subject) == (&*user.provider, &*user.subject));
        Ok(Reply::new(wire::ListSessionsResponse {
            sessions: own.map(|(_, session)| session.clone()).collect(),
            next_page_token: String::new(),
        }))
    }

    async fn revoke_session(
        &self,
        request: Call<wire::RevokeSessionRequest>,
    ) -> Result<Reply<wire::RevokeSessionResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        let request = request.into_inner();
        self.0
            .installs
            .lock()
            .unwrap()
            .retain(|(_, session)| session.id != request.session_id);
        self.0.revocations.lock().unwrap().push(request);
        Ok(Reply::new(wire::RevokeSessionResponse {}))
    }

    async fn revoke_user_sessions(
        &self,
        request: Call<wire::RevokeUserSessionsRequest>,
    ) -> Result<Reply<wire::RevokeUserSessionsResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        let request = request.into_inner();
        let subject_of_dev = match request.whose.clone().unwrap() {
            Owner::ProviderUser(user) if user.provider == "dev" => user.subject,
            Owner::ProviderUser(_) | Owner::ProviderSession(_) | Owner::UserId(_) => String::new(),
        };
        let mut installs = self.0.installs.lock().unwrap();
        let before = installs.len();
        installs.retain(|(subject, _)| *subject != subject_of_dev);
        let revoked = u32::try_from(before - installs.len()).unwrap();
        self.0.sign_outs.lock().unwrap().push(request);
        Ok(Reply::new(wire::RevokeUserSessionsResponse { revoked }))
    }

    async fn record_audit(
        &self,
        request: Call<wire::RecordAuditRequest>,
    ) -> Result<Reply<wire::RecordAuditResponse>, Status> {
        self.0.audit.send(request.into_inner()).unwrap();
        self.0.sessions.lock().unwrap().map_err(status)?;
        Ok(Reply::new(wire::RecordAuditResponse {}))
    }

    unused! {
        take_stale_users(wire::TakeStaleUsersRequest) -> wire::TakeStaleUsersResponse,
    }
}

#[tonic::async_trait]
impl browsers_server::Browsers for Fake {
    async fn begin_browser_sign_in(
        &self,
        _request: Call<BeginBrowserSignInRequest>,
    ) -> Result<Reply<BeginBrowserSignInResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        let watermark = self.0.ends.lock().unwrap().len().try_into().unwrap();
        Ok(Reply::new(BeginBrowserSignInResponse { watermark }))
    }

    async fn check_browser_sign_in(
        &self,
        request: Call<CheckBrowserSignInRequest>,
    ) -> Result<Reply<CheckBrowserSignInResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        let asked = request.into_inner();
        let ended = self
            .0
            .ends
            .lock()
            .unwrap()
            .iter()
            .enumerate()
            .any(|(number, end)| ends(end, number, &asked));
        self.0.checks.lock().unwrap().push(asked);

        Ok(Reply::new(CheckBrowserSignInResponse { ended }))
    }

    async fn end_browser_sign_ins(
        &self,
        request: Call<EndBrowserSignInsRequest>,
    ) -> Result<Reply<EndBrowserSignInsResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        self.0.ends.lock().unwrap().push(request.into_inner());
        Ok(Reply::new(EndBrowserSignInsResponse {}))
    }
}

#[tonic::async_trait]
impl tokens_server::Tokens for Fake {
    async fn get_signing_keys(
        &self,
        _request: Call<GetSigningKeysRequest>,
    ) -> Result<Reply<GetSigningKeysResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        Ok(Reply::new(GetSigningKeysResponse {
            jwks: r#"{"keys":[]}"#.to_owned(),
        }))
    }

    type WatchRevocationsStream = tonic::codegen::BoxStream<WatchRevocationsResponse>;

    unused! {
        watch_revocations(WatchRevocationsRequest) -> Self::WatchRevocationsStream,
    }
}

/// Returns whether the end with this number applies to this sign-in.
fn ends(end: &EndBrowserSignInsRequest, number: usize, asked: &CheckBrowserSignInRequest) -> bool {
    let (whose, who) = (
        end.identity.as_ref().unwrap(),
        asked.identity.as_ref().unwrap(),
    );
    let is_later = number >= usize::try_from(asked.watermark).unwrap();
    let by_id = !end.sign_in_id.is_empty() && end.sign_in_id == asked.sign_in_id;
    let by_session =
        !whose.provider_session.is_empty() && whose.provider_session == who.provider_session;
    let is_of_all = end.sign_in_id.is_empty() && whose.provider_session.is_empty();
    let by_user = is_of_all && whose.subject == who.subject;
    whose.provider == who.provider && (by_id || (is_later && (by_session || by_user)))
}

impl Fake {
    /// The session of every approval.
    fn session(&self) -> wire::Session {
        let activated_at = self
            .0
            .active
            .lock()
            .unwrap()
            .then(prost_types::Timestamp::default);
        wire::Session {
            id: "ses_1".to_owned(),
            activated_at,
            ..wire::Session::default()
        }
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

/// Returns a limit beyond the requests of every test.
fn people() -> People {
    People::new(NonZeroU32::new(1_000_000).unwrap(), Reached::default())
}

/// Returns the dependencies that this role gives a provider.
pub(super) fn common(web: &Web) -> ProviderContext {
    ProviderContext {
        people: people(),
        public_url: web.public_url.clone(),
        sessions: Arc::new(web.sessions.clone()),
        metrics: Metrics::default(),
        tasks: TaskTracker::new(),
    }
}

fn web(
    script: &Arc<Script>,
    keys: &Keyring,
    metrics: &Metrics,
    sign_in: Duration,
    change: impl FnOnce(&mut Web),
) -> Arc<Web> {
    let tasks = TaskTracker::new();
    let fake = Fake(script.clone());
    let relay = Routes::new(RelayServer::new(fake.clone()))
        .prepare()
        .into_axum_router();
    let sessions = Routes::new(SessionsServer::new(fake.clone()))
        .add_service(BrowsersServer::new(fake.clone()))
        .add_service(TokensServer::new(fake))
        .prepare()
        .into_axum_router();
    let calls = Channels {
        relay: channel(relay, tasks.clone()),
        sessions: channel(sessions, tasks),
    };
    let origin = ORIGIN.parse().unwrap();
    let ttls = Ttls {
        sign_in,
        account: Duration::from_hours(12),
        max: Duration::from_hours(24),
    };
    let (dev, people) = (Arc::new(Dev::new(&origin, None).unwrap()), people());
    let mut web = Web::new(dev, ttls, origin, keys, calls, people, metrics).unwrap();
    change(&mut web);

    Arc::new(web)
}

pub(super) struct Bench {
    pub(super) script: Arc<Script>,
    pub(super) metrics: Metrics,
    pub(super) audit: Turn<mpsc::UnboundedReceiver<wire::RecordAuditRequest>>,
    router: Router,
    web: Arc<Web>,
    keys: Keyring,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Duration::from_mins(15), |_| {})
    }

    pub(super) fn with(sign_in_ttl: Duration, change: impl FnOnce(&mut Web)) -> Self {
        let (audit, heard) = mpsc::unbounded_channel();
        let script = Arc::new(Script {
            login: watch::Sender::new(Ok(LoginState::Waiting)),
            delivery: Mutex::new(Ok(LoginState::Acked)),
            return_uri: Mutex::default(),
            way_back: Mutex::new(("", Binding::Confirm)),
            active: Mutex::default(),
            installs: Mutex::default(),
            revocations: Mutex::default(),
            sign_outs: Mutex::default(),
            ends: Mutex::default(),
            checks: Mutex::default(),
            ends_with_approval: Mutex::default(),
            audit,
            sessions: Mutex::new(Ok(())),
            deliveries: Mutex::default(),
            created: Mutex::default(),
            denials: Mutex::default(),
            waits: Notify::new(),
            expires_at: Mutex::new(time::OffsetDateTime::now_utc().unix_timestamp() + 590),
        });
        let (keys, metrics) = (
            Keyring::parse(&Keyring::generate().unwrap()).unwrap(),
            Metrics::default(),
        );
        let web = web(&script, &keys, &metrics, sign_in_ttl, change);
        let router = crate::route::router(web.clone());

        Self {
            script,
            metrics,
            audit: Turn::new(heard),
            router,
            web,
            keys,
        }
    }

    pub(super) fn web(&self) -> &Web {
        &self.web
    }

    /// Returns another process of the same role, with the same counterparts.
    pub(super) fn twin(&self, change: impl FnOnce(&mut Web)) -> Router {
        let web = web(
            &self.script,
            &self.keys,
            &Metrics::default(),
            self.web.sign_in_ttl,
            change,
        );
        crate::route::router(web)
    }

    /// Returns the cookies that a browser of the previous version has for this person.
    pub(super) fn cookies_before(&self, who: &SignIn) -> BTreeMap<String, String> {
        let mut jar = Jar::default();
        jar.keep_as_before(&self.web.cookies, who).unwrap();
        let lines = jar.into_set().map(|line| line.to_str().unwrap().to_owned());
        lines
            .map(|line| {
                let (name, rest) = line.split_once('=').unwrap();
                (name.to_owned(), rest.split(';').next().unwrap().to_owned())
            })
            .collect()
    }

    pub(super) fn browser(&self) -> Browser {
        Browser {
            router: self.router.clone(),
            cookies: BTreeMap::new(),
            address: "127.0.0.1",
            through: None,
            site: "same-origin",
        }
    }

    /// Returns a browser that is signed in and looks at the approval page.
    pub(super) async fn approver(&self, email: &str) -> (Browser, Seen) {
        let mut browser = self.browser();
        let page = browser.sign_in(email).await;
        (browser, page)
    }

    pub(super) fn login(&self, found: Result<LoginState, Error>) {
        self.script.login.send_modify(|login| *login = found);
    }

    /// Returns an editor that is signed in as this person, since 2026-11-20 09:30 UTC.
    pub(super) fn install(&self, subject: &'static str, id: &str, device: &str) {
        let at = Some(prost_types::Timestamp {
            seconds: 1_795_167_000,
            nanos: 0,
        });
        let session = wire::Session {
            id: id.to_owned(),
            user: Some(User {
                id: format!("usr of {subject}"),
                ..User::default()
            }),
            device: Some(Device {
                name: device.to_owned(),
                ..Device::default()
            }),
            app: Some(App {
                name: "VVS".to_owned(),
                version: "1".to_owned(),
            }),
            created_at: at,
            activated_at: at,
            refreshed_at: at,
            address: "203.0.113.7".to_owned(),
            ..wire::Session::default()
        };
        self.script
            .installs
            .lock()
            .unwrap()
            .push((subject, session));
    }

    pub(super) fn deliveries(&self) -> usize {
        self.script.deliveries.lock().unwrap().len()
    }
}

/// The visible parts of an answer.
pub(super) struct Seen {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Seen {
    pub(super) fn csrf(&self) -> String {
        let (_, rest) = self
            .text
            .split_once("name=\"csrf\" value=\"")
            .expect("a page with a form");
        rest.split('"').next().unwrap().to_owned()
    }

    pub(super) fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.text);
        self.headers[LOCATION].to_str().unwrap()
    }

    pub(super) fn title(&self) -> &str {
        self.text
            .split("<h1>")
            .nth(1)
            .and_then(|rest| rest.split("</h1>").next())
            .unwrap_or_default()
    }
}

#[derive(Clone)]
pub(super) struct Browser {
    pub(super) router: Router,
    pub(super) cookies: BTreeMap<String, String>,
    pub(super) address: &'static str,
    /// The sign of an intermediary on its requests to the gateway.
    pub(super) through: Option<&'static str>,
    /// The site that it names as the cause of a POST.
    pub(super) site: &'static str,
}

impl Browser {
    pub(super) async fn get(&mut self, path: &str) -> Seen {
        self.send(
            Request::get(path)
                .header("sec-fetch-site", self.site)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    pub(super) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Seen {
        let encode = |text: &str| {
            text.replace('%', "%25")
                .replace('&', "%26")
                .replace('+', "%2B")
        };
        let pairs = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect::<Vec<_>>();
        let request = Request::post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", self.site);

        self.send(request.body(Body::from(pairs.join("&"))).unwrap())
            .await
    }

    pub(super) async fn send(&mut self, mut request: Request<Body>) -> Seen {
        let cookies = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>();
        let headers = request.headers_mut();
        headers.insert(COOKIE, cookies.join("; ").parse().unwrap());
        headers.insert("x-forwarded-for", self.address.parse().unwrap());
        if let Some(sign) = self.through {
            headers.insert("x-forwarded-through", sign.parse().unwrap());
        }

        headers.insert("x-request-id", "4bf92f3577b34da6".parse().unwrap());
        let remote = ([127, 0, 0, 1], 50_000).into();
        request.extensions_mut().insert(Connection {
            remote,
            certificate: None,
            guard: Arc::new(()),
            cut: Cut::default(),
        });
        let (parts, body) = self
            .router
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .into_parts();
        assert_eq!(parts.headers["cross-origin-opener-policy"], "same-origin");
        assert!(parts.headers.contains_key("cross-origin-resource-policy"));

        for line in parts.headers.get_all(SET_COOKIE) {
            let (pair, attributes) = line.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            }
        }

        let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();

        Seen {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    /// From the link to the approval page.
    pub(super) async fn sign_in(&mut self, email: &str) -> Seen {
        let page = self.get(&format!("/login?connection_id={ID}")).await;
        let fields = [
            ("connection_id", ID),
            ("csrf", &page.csrf()),
            ("email", email),
            ("name", ""),
        ];
        let next = self
            .post("/dev/sign-in", &fields)
            .await
            .location()
            .to_owned();

        self.get(&next).await
    }

    /// From the account's own sign-in to the page of the person's editors.
    pub(super) async fn sign_in_to_account(&mut self, email: &str) -> Seen {
        let path = self.get("/account/sessions").await.location().to_owned();
        let page = self.get(&path).await;
        let fields = [("csrf", &*page.csrf()), ("email", email), ("name", "")];
        let next = self
            .post("/dev/sign-in", &fields)
            .await
            .location()
            .to_owned();
        self.get(&next).await
    }

    pub(super) async fn approve(&mut self, csrf: &str) -> Seen {
        self.post(
            "/login/approve",
            &[("connection_id", ID), ("csrf", csrf), ("confirmed", "yes")],
        )
        .await
    }
}
