//! What became of a login: the success page, and the state that waiting pages ask for.

use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use time::OffsetDateTime;

use crate::error::Refusal;
use crate::failure::Reason;
use crate::header;
use crate::login::{ConnectionId, Entry, Standing, State, stand};
use crate::route::approval;
use crate::visit::{Answer, Visit, with_headers};

/// `GET /auth-success`.
pub(crate) async fn success(mut visit: Visit) -> Response {
    let answer = succeeded(&mut visit).await;
    visit.finish(answer)
}

async fn succeeded(visit: &mut Visit) -> Result<Answer, Refusal> {
    let id = if visit.names_login() { visit.login()? } else { visit.jar.last_acked().ok_or(Reason::OtherBrowser)? };
    let entry = visit.jar.login(id).filter(|entry| entry.approved.is_some()).cloned();
    let entry = entry.ok_or(Reason::OtherBrowser)?;
    let found = visit.look(id).await;
    if entry.acked {
        // What the relay still knows is an addition: it forgets a login when its time is over.
        return Ok(approval::done(visit, id, found.ok()));
    }
    match stand(found, Some(&entry), visit.now)? {
        Standing::Done(view) => {
            visit.remember(id, Entry { acked: true, ..entry })?;
            Ok(approval::done(visit, id, view))
        }
        Standing::Open(_) | Standing::Away | Standing::Held | Standing::Approved(_) => Err(Reason::OtherBrowser.into()),
    }
}

/// `GET /login/status`: waits for another state than the one that the page shows, or than the present one.
pub(crate) async fn status(visit: Visit) -> Response {
    let answer = match state(&visit).await {
        Ok(state) => json(StatusCode::OK, &json!({ "state": state.as_str() })),
        Err(refusal) => {
            refusal.log(&visit.request_id);
            json(refusal.reason().status(), &json!({ "error": refusal.as_str() }))
        }
    };
    visit.finish(Ok(answer))
}

async fn state(visit: &Visit) -> Result<State, Refusal> {
    let id = visit.login()?;
    let entry = visit.jar.login(id).ok_or(Reason::OtherBrowser)?;
    let present = look(visit, id, entry, None).await?;
    let is_news = visit.known_state().is_some_and(|known| known != present.as_str());
    if is_news || !present.is_open() {
        return Ok(present);
    }
    // A process that stops must not be held up by those who wait.
    let waiting = visit.web.stop.run_until_cancelled(look(visit, id, entry, Some(present)));
    waiting.await.unwrap_or(Ok(present))
}

async fn look(visit: &Visit, id: ConnectionId, entry: &Entry, known: Option<State>) -> Result<State, Refusal> {
    let found = visit.web.relay.look(id, known).await;
    // Not the time of the visit: that may be 20 s ago, and the login over since.
    let now = OffsetDateTime::now_utc();
    match found {
        Ok(view) => Ok(view.state),
        Err(Refusal::EditorAway) => Ok(State::Away),
        Err(Refusal::Unknown) if entry.is_live(now) => Ok(State::Away),
        Err(Refusal::Unknown) => Ok(State::Expired),
        Err(other) => Err(other),
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut headers = header::common();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    with_headers(status, headers, body.to_string())
}
