//! `GET /.well-known/jwks.json`: the public keys of our tokens, as sessions last said them. A set
//! that is a little old is better than none: a new key is published well before it signs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;
use vvs_runtime::forwarded::REQUEST_ID;

use crate::header::CROSS_ORIGIN_RESOURCE_POLICY;
use crate::{Web, header};

/// How long a set is not asked for again.
const FRESH: Duration = Duration::from_mins(1);
/// The same, when sessions did not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// The last set that was heard of.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Option<Known>>);

#[derive(Clone)]
struct Known {
    set: String,
    fresh_until: Instant,
}

impl Cache {
    fn get(&self) -> Option<Known> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn put(&self, set: String, time: Duration) {
        let known = Known {
            set,
            fresh_until: Instant::now() + time,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

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
            let Some(Known { set, .. }) = known else {
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
