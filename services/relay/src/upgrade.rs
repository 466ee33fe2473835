//! `GET /ws`: decides whether a request becomes an editor's WebSocket (RFC 6455, section 4.2), and
//! starts its login.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ORIGIN, RETRY_AFTER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use vvs_auth::key::{base64url, random};
use vvs_auth::method;
use vvs_proto::ConnectionId;
use vvs_proto::frame::SUBPROTOCOL;
use vvs_runtime::forwarded::client_address;
use vvs_runtime::http::Connection;
use vvs_runtime::metrics::count;

use crate::attempt::Attempt;
use crate::authority::{Bearer, BearerRefused};
use crate::clock;
use crate::code::user_code;
use crate::limit::{Full, LoginPlace};
use crate::pause::retry_after;
use crate::shared::Shared;
use crate::socket::{self, Start};
use crate::ticket::Facts;

/// The editor's own origin; a browser page has another one.
const EDITOR_ORIGIN: &str = "vscode-file://vscode-app";

#[derive(serde::Deserialize)]
pub(crate) struct Purpose {
    r#for: Option<String>,
}

/// Why there is no WebSocket.
struct NoSocket {
    status: StatusCode,
    /// The value of the metric's label.
    reason: &'static str,
    message: &'static str,
    retry_after: Option<Duration>,
}

fn refused(status: StatusCode, reason: &'static str, message: &'static str) -> NoSocket {
    NoSocket {
        status,
        reason,
        message,
        retry_after: None,
    }
}

impl From<Full> for NoSocket {
    fn from(full: Full) -> Self {
        let (status, message) = if full.own_doing {
            let message = "Too many sign-ins from this address; finish or close some, or wait.\n";
            (StatusCode::TOO_MANY_REQUESTS, message)
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "This server is full; try again later.\n",
            )
        };

        Self {
            retry_after: Some(full.retry_after),
            ..refused(status, full.reason, message)
        }
    }
}

pub(crate) async fn upgrade(
    State(shared): State<Arc<Shared>>,
    Query(purpose): Query<Purpose>,
    request: Request,
) -> Response {
    match accept(&shared, &purpose, request) {
        Ok(response) => response,
        Err(refused) => {
            count(&shared.metrics.handshakes_refused, "reason", refused.reason);
            let mut response = (refused.status, refused.message).into_response();
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );

            if refused.status == StatusCode::UPGRADE_REQUIRED {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }

            if refused.status == StatusCode::UNAUTHORIZED {
                headers.insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer error=\"invalid_token\""),
                );
            }

            if let Some(time) = refused.retry_after {
                headers.insert(RETRY_AFTER, HeaderValue::from(time.as_secs().max(1)));
            }

            response
        }
    }
}

fn accept(
    shared: &Arc<Shared>,
    purpose: &Purpose,
    mut request: Request,
) -> Result<Response, NoSocket> {
    let connection = request.extensions().get::<Connection>().cloned();
    let connection =
        connection.ok_or_else(|| refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", ""))?;
    if let Some(peers) = &shared.gateways
        && method::authorize_hop(peers, connection.certificate.as_deref()).is_err()
    {
        return Err(refused(
            StatusCode::FORBIDDEN,
            "peer",
            "Only the gateway may connect here.\n",
        ));
    }

    let key = handshake_key(request.headers())?;
    check_origin(request.headers(), &shared.settings.allowed_origins)?;
    let starts_login = match purpose.r#for.as_deref() {
        None => true,
        Some("session") => false,
        Some(_) => {
            let message = "Connect to /ws to sign in, or to /ws?for=session with what you have.\n";
            return Err(refused(StatusCode::BAD_REQUEST, "purpose", message));
        }
    };

    let bearer = bearer(request.headers(), shared)?;
    let address = client_address(request.headers()).unwrap_or_else(|| connection.remote.ip());
    let (limits, now) = (&shared.limits, Instant::now());

    // First, so that nobody is charged for a relay that is full.
    let connection_place = limits.connection(address)?;

    // An editor that shows a token has come for a session, and is signed in already.
    let handshake = if bearer.is_none() {
        Some(limits.handshake(address, now)?)
    } else {
        None
    };

    let login_place = if starts_login && bearer.is_none() {
        Some(limits.login(address, now)?)
    } else {
        None
    };

    let internal = |_cause| {
        refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Try again later.\n",
        )
    };
    let id = ConnectionId::mint();
    let nonce = base64url(&random::<16>().map_err(internal)?);
    let attempt = login_place
        .map(|place| open(shared, id, address, place))
        .transpose()
        .map_err(internal)?;
    let bearer = bearer.map(Box::new);

    // On the heap: it moves from task to task, and each would have room for it.
    let cut = connection.cut.clone();
    let start = Box::new(Start {
        id,
        nonce,
        address,
        attempt,
        bearer,
        connection_place,
        cut,
        handshake,
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);

    if offers_subprotocol(request.headers()) {
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
    }

    let (tasks, shared) = (shared.tasks.clone(), shared.clone());

    // Without the peer's certificate, which is no longer needed.
    let guard = connection.guard;
    let upgraded = hyper::upgrade::on(&mut request);
    tasks.spawn(shared.clone().held.track_future(async move {
        match upgraded.await {
            Ok(io) => socket::run(TokioIo::new(io), start, shared).await,
            Err(cause) => tracing::debug!(%cause, "the upgrade was not completed"),
        }
        drop(guard);
    }));

    Ok(response)
}

fn open(
    shared: &Arc<Shared>,
    id: ConnectionId,
    client_address: IpAddr,
    place: LoginPlace,
) -> Result<Box<Attempt>, vvs_auth::Error> {
    let created_at = clock::now();
    let facts = Facts {
        id,
        user_code: user_code()?,
        client_address,
        created_at,
        ttl: shared.settings.login_ttl,
    };
    tracing::info!(connection_id = %id, "an editor asks to sign in");
    Ok(Attempt::open(facts, place, shared.clone()))
}

/// Returns the token of an editor without a device key, if one came with the upgrade.
fn bearer(headers: &HeaderMap, shared: &Shared) -> Result<Option<Bearer>, NoSocket> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };

    let now = clock::now().unix_timestamp();

    match shared
        .authority
        .check_bearer(value.to_str().unwrap_or_default(), now)
    {
        Ok(bearer) => Ok(Some(bearer)),
        Err(BearerRefused::Bad) => {
            let message =
                "This token is no good here; send one that needs a proof with authenticate.\n";
            Err(refused(StatusCode::UNAUTHORIZED, "authorization", message))
        }
        Err(BearerRefused::NotNow) => Err(NoSocket {
            retry_after: Some(retry_after()),
            ..refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "authorization_not_now",
                "Tokens cannot be checked now.\n",
            )
        }),
    }
}

/// Returns the answer to the client's key, if the request is a complete WebSocket handshake.
fn handshake_key(headers: &HeaderMap) -> Result<HeaderValue, NoSocket> {
    let has = |name, wanted: &str| {
        let values = headers
            .get_all(name)
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    if !has(UPGRADE, "websocket")
        || !has(CONNECTION, "upgrade")
        || !has(SEC_WEBSOCKET_VERSION, "13")
    {
        let message = "This is a WebSocket (RFC 6455, version 13); connect with an upgrade.\n";
        return Err(refused(StatusCode::UPGRADE_REQUIRED, "no_upgrade", message));
    }

    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let key = key.ok_or_else(|| {
        refused(
            StatusCode::BAD_REQUEST,
            "bad_key",
            "Sec-WebSocket-Key is malformed.\n",
        )
    })?;

    HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_cause| {
        refused(
            StatusCode::BAD_REQUEST,
            "bad_key",
            "Sec-WebSocket-Key is malformed.\n",
        )
    })
}

/// Checks the origin. A page in a browser may not open a login, from any site; an editor has no
/// origin, or its own.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), NoSocket> {
    let mut origins = headers.get_all(ORIGIN).into_iter();
    let known = origins.all(|origin| {
        origin.to_str().is_ok_and(|origin| {
            origin == EDITOR_ORIGIN || allowed.iter().any(|allowed| allowed == origin)
        })
    });

    if known {
        Ok(())
    } else {
        Err(refused(
            StatusCode::FORBIDDEN,
            "origin",
            "This origin may not connect.\n",
        ))
    }
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    let offers = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    offers
        .flat_map(|value| value.split(','))
        .any(|offer| offer.trim() == SUBPROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_foreign_origin_is_refused_and_null_is_foreign() {
        let allowed = ["https://ide.example".to_owned()];
        let check = |origin| check_origin(&headers(&[("origin", origin)]), &allowed).is_ok();
        assert!(check("vscode-file://vscode-app") && check("https://ide.example"));

        for foreign in [
            "null",
            "https://evil.example",
            "https://ide.example.evil.example",
            "",
            "vscode-file://other",
        ] {
            assert!(!check(foreign), "{foreign}");
        }

        assert!(check_origin(&HeaderMap::new(), &allowed).is_ok());
    }

    #[test]
    fn a_plain_request_is_told_to_upgrade() {
        let whole = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];

        // The example of RFC 6455, section 1.3.
        assert_eq!(
            handshake_key(&headers(&whole)).ok().unwrap(),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );

        for missing in 0..3 {
            let mut part = whole.to_vec();
            part.remove(missing);
            assert_eq!(
                handshake_key(&headers(&part)).err().unwrap().status,
                StatusCode::UPGRADE_REQUIRED
            );
        }

        assert_eq!(
            handshake_key(&headers(&whole[..3])).err().unwrap().status,
            StatusCode::BAD_REQUEST
        );
    }
}
