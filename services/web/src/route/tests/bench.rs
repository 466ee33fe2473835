//! All routes without a socket: a browser that keeps cookies, and behind the pages a relay and a sessions role that
//! answer what a test tells them to, over gRPC in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Code, Request as Call, Response as Reply, Status};
use tower::{ServiceExt as _, service_fn};
use vvs_auth::key::Keyring;
use vvs_proto::relay::relay_server::{self, RelayServer};
use vvs_proto::relay::{
    DeliverAuthRequest, DeliverAuthResponse, DenyLoginRequest, DenyLoginResponse, GetLoginRequest, GetLoginResponse,
    LoginState,
};
use vvs_proto::session::sessions_server::{self, SessionsServer};
use vvs_proto::session::{self as wire, CreateSessionRequest, CreateSessionResponse};
use vvs_runtime::http::Connection;
use vvs_runtime::metrics::Metrics;
use vvs_runtime::rpc;
use vvs_runtime::trace::TracedChannel;

use crate::{Calls, IdentityKind, Web};

pub(super) const ID: &str = "6f1f2f4e-2f0c-4a53-9d0e-8f4f3f0a9b11";
pub(super) const OTHER_ID: &str = "00000000-0000-4000-8000-000000000001";
pub(super) const ORIGIN: &str = "http://127.0.0.1:8080";

type Error = (Code, &'static str);

/// What the other roles answer, and what they were asked.
pub(super) struct Script {
    /// The state of every login, or why there is nothing to say of it.
    pub(super) login: watch::Sender<Result<LoginState, Error>>,
    /// What a delivery comes to.
    pub(super) delivery: Mutex<Result<LoginState, Error>>,
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
    if reason.is_empty() { Status::new(code, "") } else { rpc::status(code, reason, None) }
}

#[tonic::async_trait]
impl relay_server::Relay for Fake {
    async fn get_login(&self, request: Call<GetLoginRequest>) -> Result<Reply<GetLoginResponse>, Status> {
        let (mut login, known) = (self.0.login.subscribe(), request.get_ref().known_state());
        let found = *login.borrow_and_update();
        if found == Ok(known) {
            self.0.waits.notify_one();
            login.wait_for(|found| *found != Ok(known)).await.unwrap();
        }
        let state = login.borrow().map_err(status)?;
        let expires_at = *self.0.expires_at.lock().unwrap();
        Ok(Reply::new(GetLoginResponse {
            state: state.into(),
            user_code: "WXBK-RTQH".to_owned(),
            client_address: "127.0.0.1".to_owned(),
            created_at: Some(prost_types::Timestamp { seconds: expires_at - 600, nanos: 0 }),
            expires_at: Some(prost_types::Timestamp { seconds: expires_at, nanos: 0 }),
            ..GetLoginResponse::default()
        }))
    }

    async fn deliver_auth(&self, request: Call<DeliverAuthRequest>) -> Result<Reply<DeliverAuthResponse>, Status> {
        self.0.deliveries.lock().unwrap().push(request.into_inner());
        let state = self.0.delivery.lock().unwrap().map_err(status)?;
        self.0.login.send_modify(|login| *login = Ok(state));
        Ok(Reply::new(DeliverAuthResponse { state: state.into(), ..DeliverAuthResponse::default() }))
    }

    async fn deny_login(&self, request: Call<DenyLoginRequest>) -> Result<Reply<DenyLoginResponse>, Status> {
        self.0.denials.lock().unwrap().push(request.into_inner().connection_id);
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
        let user = wire::User { id: "usr_1".to_owned(), ..wire::User::default() };
        let session = wire::Session { id: "ses_1".to_owned(), user: Some(user), ..wire::Session::default() };
        self.0.created.lock().unwrap().push(request);
        let token = wire::Token { token: "the-token".to_owned(), expires_at: None };
        Ok(Reply::new(CreateSessionResponse { session: Some(session), token: Some(token) }))
    }

    async fn get_signing_keys(
        &self,
        _request: Call<wire::GetSigningKeysRequest>,
    ) -> Result<Reply<wire::GetSigningKeysResponse>, Status> {
        self.0.sessions.lock().unwrap().map_err(status)?;
        Ok(Reply::new(wire::GetSigningKeysResponse { jwks: r#"{"keys":[]}"#.to_owned() }))
    }

    type WatchRevocationsStream = tonic::codegen::BoxStream<wire::WatchRevocationsResponse>;

    unused! {
        activate_session(wire::ActivateSessionRequest) -> wire::ActivateSessionResponse,
        refresh_token(wire::RefreshTokenRequest) -> wire::RefreshTokenResponse,
        get_session(wire::GetSessionRequest) -> wire::GetSessionResponse,
        list_sessions(wire::ListSessionsRequest) -> wire::ListSessionsResponse,
        revoke_session(wire::RevokeSessionRequest) -> wire::RevokeSessionResponse,
        revoke_user_sessions(wire::RevokeUserSessionsRequest) -> wire::RevokeUserSessionsResponse,
        watch_revocations(wire::WatchRevocationsRequest) -> Self::WatchRevocationsStream,
    }
}

/// A channel to a router in this process.
fn channel(router: Router, tasks: TaskTracker) -> TracedChannel {
    let connector = service_fn(move |_: Uri| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let service = TowerToHyperService::new(router.clone());
        tasks.spawn(async move {
            auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(far), service).await.ok();
        });
        async { Ok::<_, io::Error>(TokioIo::new(near)) }
    });
    TracedChannel(Endpoint::from_static("http://role").connect_with_connector_lazy(connector))
}

pub(super) struct Bench {
    pub(super) script: Arc<Script>,
    pub(super) metrics: Metrics,
    router: Router,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Duration::from_mins(15), |_| {})
    }

    pub(super) fn with(sign_in_ttl: Duration, change: impl FnOnce(&mut Web)) -> Self {
        let script = Arc::new(Script {
            login: watch::Sender::new(Ok(LoginState::Waiting)),
            delivery: Mutex::new(Ok(LoginState::Acked)),
            sessions: Mutex::new(Ok(())),
            deliveries: Mutex::default(),
            created: Mutex::default(),
            denials: Mutex::default(),
            waits: Notify::new(),
            expires_at: Mutex::new(time::OffsetDateTime::now_utc().unix_timestamp() + 590),
        });
        let tasks = TaskTracker::new();
        let fake = Fake(script.clone());
        let relay = Routes::new(RelayServer::new(fake.clone())).prepare().into_axum_router();
        let sessions = Routes::new(SessionsServer::new(fake)).prepare().into_axum_router();
        let calls = Calls { relay: channel(relay, tasks.clone()), sessions: channel(sessions, tasks) };
        let keys = Keyring::parse(&Keyring::generate().unwrap()).unwrap();
        let metrics = Metrics::default();
        let origin = ORIGIN.parse().unwrap();
        let mut web = Web::new(IdentityKind::Dev, sign_in_ttl, origin, &keys, calls, &metrics).unwrap();
        change(&mut web);
        Self { script, metrics, router: crate::route::router(Arc::new(web)) }
    }

    pub(super) fn browser(&self) -> Browser {
        Browser { router: self.router.clone(), cookies: BTreeMap::new(), address: "127.0.0.1", site: "same-origin" }
    }

    /// A browser that is signed in and looks at the approval page.
    pub(super) async fn approver(&self, email: &str) -> (Browser, Seen) {
        let mut browser = self.browser();
        let page = browser.sign_in(email).await;
        (browser, page)
    }

    pub(super) fn login(&self, found: Result<LoginState, Error>) {
        self.script.login.send_modify(|login| *login = found);
    }

    pub(super) fn deliveries(&self) -> usize {
        self.script.deliveries.lock().unwrap().len()
    }
}

/// What an answer shows.
pub(super) struct Seen {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Seen {
    pub(super) fn csrf(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"csrf\" value=\"").expect("a page with a form");
        rest.split('"').next().unwrap().to_owned()
    }

    pub(super) fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.text);
        self.headers[LOCATION].to_str().unwrap()
    }

    pub(super) fn title(&self) -> &str {
        self.text.split("<h1>").nth(1).and_then(|rest| rest.split("</h1>").next()).unwrap_or_default()
    }
}

#[derive(Clone)]
pub(super) struct Browser {
    router: Router,
    pub(super) cookies: BTreeMap<String, String>,
    pub(super) address: &'static str,
    /// What it says about the site that caused a POST.
    pub(super) site: &'static str,
}

impl Browser {
    pub(super) async fn get(&mut self, path: &str) -> Seen {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Seen {
        let encode = |text: &str| text.replace('%', "%25").replace('&', "%26").replace('+', "%2B");
        let pairs = fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>();
        let request = Request::post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", self.site);
        self.send(request.body(Body::from(pairs.join("&"))).unwrap()).await
    }

    pub(super) async fn send(&mut self, mut request: Request<Body>) -> Seen {
        let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let headers = request.headers_mut();
        headers.insert(COOKIE, cookies.join("; ").parse().unwrap());
        headers.insert("x-forwarded-for", self.address.parse().unwrap());
        headers.insert("x-request-id", "4bf92f3577b34da6".parse().unwrap());
        let remote = ([127, 0, 0, 1], 50_000).into();
        request.extensions_mut().insert(Connection { remote, certificate: None, guard: Arc::new(()) });
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        for line in parts.headers.get_all(SET_COOKIE) {
            let (pair, attributes) = line.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            }
        }
        let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
        Seen { status: parts.status, headers: parts.headers, text }
    }

    /// From the link to the approval page.
    pub(super) async fn sign_in(&mut self, email: &str) -> Seen {
        let page = self.get(&format!("/login?connection_id={ID}")).await;
        let fields = [("connection_id", ID), ("csrf", &page.csrf()), ("email", email), ("name", "")];
        let next = self.post("/dev/sign-in", &fields).await.location().to_owned();
        self.get(&next).await
    }

    pub(super) async fn approve(&mut self, csrf: &str) -> Seen {
        self.post("/login/approve", &[("connection_id", ID), ("csrf", csrf), ("confirmed", "yes")]).await
    }
}
