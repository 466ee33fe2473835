//! Handles every request: identifies the client, checks limits, chooses the role, and logs the
//! result.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use prometheus_client::metrics::family::Family;
use tracing::Instrument as _;
use vvs_auth::key::random;
use vvs_auth::peer::{Peers, Role};
use vvs_runtime::Process;
use vvs_runtime::http::Connection;
use vvs_runtime::limit::Reached;
use vvs_runtime::metrics::{Counters, count};
use vvs_runtime::origin::Origin;
use vvs_runtime::trace;

use crate::edge::Edge;
use crate::error::{Error, Refusal};
use crate::forward::Hop;
use crate::header::{self, Caller};
use crate::limit::Limits;
use crate::settings::Settings;
use crate::{address, forward, member, through};

/// The only path that leads to the relay.
const WS: &str = "/ws";

/// The edge, and the roles that it passes requests on to.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) edge: Arc<Edge>,
    relay: Hop,
    web: Hop,
    refused: Counters,
    reached: Reached,
}

impl Routes {
    pub(crate) fn new(
        settings: Settings,
        peers: &Arc<Peers>,
        public_url: Origin,
        process: &Process,
    ) -> Result<Self, Error> {
        let hop =
            |role, setting, addr| Hop::new(role, setting, addr, process.identity.clone(), peers);
        let relay = hop(
            Role::Relay,
            "VVS_GATEWAY_RELAY_ADDR",
            settings.relay_addr.as_deref(),
        )?;
        let web = hop(
            Role::Web,
            "VVS_GATEWAY_WEB_ADDR",
            settings.web_addr.as_deref(),
        )?;
        let limits = Limits::new(settings.bounds());
        let refused: Counters = Family::default();
        process.metrics.register(
            "vvs_gateway_refused",
            "Requests that the edge did not pass on, by reason",
            refused.clone(),
        );
        let reached = process.metrics.reached.clone();
        member::register(
            &process.metrics,
            [&relay, &web].map(|hop| (hop.role, hop.pool.clone())),
        );

        Ok(Self {
            edge: Arc::new(Edge {
                limits,
                settings,
                public_url,
                tasks: process.tasks.clone(),
            }),
            relay,
            web,
            refused,
            reached,
        })
    }

    async fn pass(
        &self,
        request: Request,
        caller: &Caller,
        connection: Connection,
    ) -> Result<Response, Refusal> {
        let place = self
            .edge
            .check(&request, connection.remote.ip(), caller.address)?;
        if request.uri().path() == WS {
            let held = Arc::new((connection.guard, place));
            return forward::websocket(&self.edge, &self.relay, request, caller, held).await;
        }
        forward::page(&self.edge, &self.web, request, caller).await
    }
}

/// Routes every path through one handler; a separate route could add an answer that is not checked.
pub(crate) fn router(routes: Arc<Routes>) -> Router {
    Router::new().fallback(serve).with_state(routes)
}

async fn serve(
    State(routes): State<Arc<Routes>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    let (began, edge) = (Instant::now(), &routes.edge);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());

    // The root of a trace: what a stranger says about traces is not adopted.
    let span = trace::http_span(&method, if path == WS { WS } else { "" }, &path);
    let (remote, headers) = (connection.remote.ip(), request.headers());
    let address = address::client(remote, headers, &edge.settings.trusted_proxies);
    let through =
        through::through(request.version(), headers, edge.is_proxy(remote)).map(str::to_owned);
    let (request_id, answer) = match random::<16>() {
        Ok(id) => {
            let caller = Caller {
                address,
                request_id: format!("{:032x}", u128::from_be_bytes(id)),
                through,
            };
            let answer = routes
                .pass(request, &caller, connection)
                .instrument(span.clone())
                .await;
            (caller.request_id, answer)
        }
        Err(cause) => (String::new(), Err(cause.into())),
    };

    let mut is_flood = false;
    let (mut response, reason) = match answer {
        Ok(response) => (response, None),
        Err(refusal) => {
            count(&routes.refused, "reason", refusal.reason());
            if let Some(setting) = refusal.setting() {
                routes.reached.tell(setting);
            } else if refusal.is_ours() {
                tracing::warn!(request_id, "{refusal}");
            }
            is_flood = matches!(refusal, Refusal::Rate { .. });
            (refusal.answer(), Some(refusal.reason()))
        }
    };

    header::sign(response.headers_mut(), &request_id, &edge.public_url);
    trace::answered(&span, response.status());

    if is_flood {
        // Of these there may be any number, and of the others no more than of these are let
        // through.
        return response;
    }

    tracing::info!(
        method = method.as_str(),
        path,
        status = response.status().as_u16(),
        duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        client = %address,
        request_id,
        refused = reason,
        "request"
    );

    response
}
