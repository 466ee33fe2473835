//! The routes, and the checks in front of all of them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::StatusCode;
use vvs_auth::method;
use vvs_identity::{ACCOUNT_PATH, CALLBACK_PATH, SIGN_IN_PATH};
use vvs_runtime::http::Connection;
use vvs_runtime::trace;

use crate::asset::ASSETS;
use crate::failure::Reason;
use crate::header;
use crate::visit::{KEY_PATH, Visit};
use crate::web::Web;

mod account;
mod approval;
mod dev_key;
mod jwks;
mod outcome;
mod provider;
mod sign_in;

/// The longest form, in bytes.
const MAX_FORM: usize = 16 * 1024;

pub(crate) fn router(web: Arc<Web>) -> Router {
    let mut router = Router::new()
        .route("/login", get(sign_in::login))
        .route("/login/another", post(sign_in::another))
        .route(CALLBACK_PATH, get(approval::callback))
        .route("/login/approve", post(approval::approve))
        .route("/login/deny", post(approval::deny))
        .route("/login/status", get(outcome::status))
        .route("/auth-success", get(outcome::success))
        .route(ACCOUNT_PATH, get(account::sessions))
        .route("/account/sessions/{sid}/revoke", post(account::revoke))
        .route("/account/sessions/revoke-all", post(account::revoke_all))
        .route(SIGN_IN_PATH, get(account::sign_in))
        .route("/account/sign-out", post(account::sign_out))
        .route("/.well-known/jwks.json", get(jwks::show));
    for asset in &ASSETS {
        router = router.route(asset.path, get((asset.headers(), asset.text)));
    }

    if web.identity.key().is_some() {
        router = router.route(KEY_PATH, post(dev_key::show));
    }

    router
        .merge(provider::routes(&web))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(from_fn(trace::http_server))
        .layer(from_fn_with_state(web.clone(), hop))
        .layer(map_response(isolate))
        .with_state(web)
}

async fn isolate(mut answer: Response) -> Response {
    header::isolate(answer.headers_mut());
    answer
}

async fn not_found(visit: Visit) -> Response {
    visit.finish(Err(Reason::NotFound.into()))
}

async fn wrong_method(visit: Visit) -> Response {
    visit.finish(Err(Reason::WrongMethod.into()))
}

/// Admits only the gateway: it says where the client is, and which trace the request is part of.
async fn hop(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let certificate = request
        .extensions()
        .get::<Connection>()
        .and_then(|connection| connection.certificate.as_deref());
    if let Some(peers) = &web.gateways
        && let Err(cause) = method::authorize_hop(peers, certificate)
    {
        tracing::info!(%cause, "refused");
        return (StatusCode::FORBIDDEN, header::common()).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests;
