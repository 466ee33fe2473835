//! The Backend API, as far as a server needs it to sign people in: users, sessions, keys.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::Instance;
use super::key::jwks;

impl Instance {
    pub(super) fn backend(&self, request: &Request<Bytes>, path: &[&str]) -> Response<Bytes> {
        let expected = format!("Bearer {}", self.secret_key);
        if request
            .headers()
            .get(AUTHORIZATION)
            .is_none_or(|it| it != expected.as_str())
        {
            return refusal(
                StatusCode::UNAUTHORIZED,
                "clerk_key_invalid",
                "The provided Clerk Secret Key is invalid.",
            );
        }

        let mut state = self.state.lock().unwrap();
        let found = match (request.method(), path) {
            (&Method::GET, ["jwks"]) => Some(jwks(&state.keys)),
            (&Method::GET, ["users", id]) => state.users.get(*id).map(super::state::User::json),
            (&Method::GET, ["sessions", id]) => {
                state.sessions.get(*id).map(super::state::Session::json)
            }
            (&Method::POST, ["sessions", id, "revoke"]) => {
                state.sessions.get_mut(*id).map(|session| {
                    "revoked".clone_into(&mut session.status);
                    session.json()
                })
            }
            _ => None,
        };

        found.map_or_else(not_found, |it| answer(&it))
    }
}

pub(super) fn answer(body: &Value) -> Response<Bytes> {
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header("cache-control", "no-store");
    response.body(Bytes::from(body.to_string())).unwrap()
}

pub(super) fn not_found() -> Response<Bytes> {
    refusal(
        StatusCode::NOT_FOUND,
        "resource_not_found",
        "Resource not found",
    )
}

pub(super) fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let error = json!({"message": message, "long_message": message, "code": code, "meta": {}});
    let mut response =
        answer(&json!({"errors": [error], "clerk_trace_id": "trace-of-the-stand-in"}));
    *response.status_mut() = status;
    response
}
