//! The outcome of a login: the success page, and the state that waiting pages ask for.

use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use vvs_proto::{ConnectionId, Phase};

use crate::clock;
use crate::editor::Editor;
use crate::error::Refusal;
use crate::failure::Reason;
use crate::header;
use crate::login::{Seen, Standing, View, stand};
use crate::page::{Account, Success};
use crate::visit::{Answer, Visit, page, with_headers};

/// `GET /auth-success`.
pub(crate) async fn success(mut visit: Visit) -> Response {
    let answer = succeeded(&mut visit).await;
    visit.finish(answer)
}

async fn succeeded(visit: &mut Visit) -> Result<Answer, Refusal> {
    let id = if visit.names_login() {
        visit.login()?
    } else {
        visit.jar.last_acked().ok_or(Reason::OtherBrowser)?
    };

    let entry = visit
        .jar
        .login(id)
        .filter(|entry| entry.approved.is_some())
        .cloned();
    let entry = entry.ok_or(Reason::OtherBrowser)?;
    visit.count_person()?;
    let found = visit.look(id).await;
    if entry.acked {
        // What the relay still knows is an addition: it forgets a login when its time is over.
        return show(visit, id, found.ok()).await;
    }

    match stand(found, Some(&entry), visit.now)? {
        Standing::Done(view) => show(visit, id, view).await,
        Standing::Open(_) | Standing::Away | Standing::Held | Standing::Approved(_) => {
            // The page may have learned of the acknowledgement from a relay that is now gone.
            let session_id = entry.session.ok_or(Reason::OtherBrowser)?;
            let is_active = visit.web.sessions.is_active(session_id).await?;
            if is_active {
                show(visit, id, None).await
            } else {
                Err(Reason::OtherBrowser.into())
            }
        }
    }
}

/// Returns the success page of a login that an editor has acknowledged. Of several browsers that
/// have approved it only one has the editor: if its own delivery did not say so, its own session
/// does.
pub(crate) async fn show(
    visit: &mut Visit,
    id: ConnectionId,
    view: Option<View>,
) -> Result<Answer, Refusal> {
    let entry = visit.jar.login(id).cloned().ok_or(Reason::OtherBrowser)?;
    if !entry.acked {
        let session_id = entry.session.clone().ok_or(Refusal::Claimed)?;
        if !visit.web.sessions.is_active(session_id).await? {
            return Err(Refusal::Claimed);
        }
        visit.remember(
            id,
            Seen {
                acked: true,
                ..entry
            },
        )?;
    }

    // The account is shown to the person who approved with it, and to no one who uses the browser
    // after them.
    let account = if visit.has_approved(id)? {
        visit.person()?.map(|kept| Account::of(&kept.who))
    } else {
        None
    };

    let editor = view.map_or(
        Editor {
            app: None,
            device: None,
        },
        |view| view.editor,
    );

    Ok(page(&Success {
        shell: visit.shell(),
        account,
        editor,
    }))
}

/// `GET /login/status`: waits for a state other than the one that the page shows, or than the
/// current one.
pub(crate) async fn status(visit: Visit) -> Response {
    let answer = match state(&visit).await {
        Ok(state) => json(StatusCode::OK, &json!({ "state": state.as_str() })),
        Err(refusal) => {
            refusal.log(&visit.request_id);
            json(
                refusal.reason().row().status,
                &json!({ "error": refusal.as_str() }),
            )
        }
    };
    visit.finish(Ok(answer))
}

async fn state(visit: &Visit) -> Result<Phase, Refusal> {
    let id = visit.login()?;
    let entry = visit.jar.login(id).ok_or(Reason::OtherBrowser)?;
    let present = look(visit, id, entry, None).await?;
    let is_news = visit
        .known_state()
        .is_some_and(|known| known != present.as_str());
    if is_news || !present.is_open() {
        return Ok(present);
    }

    // A process that stops must not be held up by those who wait.
    let waiting = visit
        .web
        .stop
        .run_until_cancelled(look(visit, id, entry, Some(present)));

    waiting.await.unwrap_or(Ok(present))
}

async fn look(
    visit: &Visit,
    id: ConnectionId,
    entry: &Seen,
    known: Option<Phase>,
) -> Result<Phase, Refusal> {
    let found = visit.web.relay.look(id, known).await;
    // Not the time of the visit: that may be 20 s ago, and the login over since.
    let now = clock::now();
    match found {
        Ok(view) => Ok(view.state),
        Err(Refusal::EditorAway) => Ok(Phase::Away),
        Err(Refusal::Unknown) if entry.is_live(now) => Ok(Phase::Away),
        Err(Refusal::Unknown) => Ok(Phase::Expired),
        Err(other) => Err(other),
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut headers = header::common();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    with_headers(status, headers, body.to_string())
}
