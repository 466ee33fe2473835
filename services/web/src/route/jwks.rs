//! `GET /.well-known/jwks.json`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;
use vvs_runtime::forwarded::REQUEST_ID;

use crate::header;
use crate::header::CROSS_ORIGIN_RESOURCE_POLICY;
use crate::jwks::PublishedKeys;
use crate::web::Web;

/// How long a set is not fetched again.
const FRESH: Duration = Duration::from_mins(1);
/// The same, when sessions did not answer.
const PAUSE: Duration = Duration::from_secs(5);

pub(crate) async fn show(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let known = web.jwks.get();
    if let Some(known) = &known
        && Instant::now() < known.fresh_until
    {
        return answer(known.set.clone());
    }

    match (web.sessions.signing_keys().await, known) {
        (Ok(set), _) => {
            web.jwks.put(set.clone(), FRESH);
            answer(set)
        }
        (Err(refusal), known) => {
            let request_id = headers
                .get(REQUEST_ID)
                .and_then(|id| id.to_str().ok())
                .unwrap_or_default();
            refusal.log(request_id);
            let Some(PublishedKeys { set, .. }) = known else {
                let retry = [(RETRY_AFTER, HeaderValue::from(PAUSE.as_secs()))];
                return (StatusCode::SERVICE_UNAVAILABLE, header::common(), retry).into_response();
            };
            web.jwks.put(set.clone(), PAUSE);
            answer(set)
        }
    }
}

fn answer(set: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "public, max-age=300"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Public keys are for everybody.
        (CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin"),
    ];
    (headers, set).into_response()
}
