//! The decision: the callback that shows it, and the approval or denial that makes it. Only a POST
//! ever delivers.

use std::sync::Arc;

use axum::response::Response;
use http::HeaderMap;
use tracing::Instrument as _;
use vvs_identity::{ACCOUNT_PATH, About, Arrival, SignIn};
use vvs_proto::ConnectionId;
use vvs_runtime::metrics::count;

use crate::call::{self, Delivered};
use crate::error::Refusal;
use crate::failure::{Reason, Trouble};
use crate::kept::Kept;
use crate::login::{Seen, Standing, View, may_deliver, or_away, request_id, stand};
use crate::page::{
    Account, ApprovalPage, Delivery, Denial, Denied, HandBackPage, HeldPage, Nearness, UserCode,
    WaitingPage,
};
use crate::route::outcome;
use crate::visit::{Answer, Post, Visit, page, see};
use crate::web::Web;

/// `GET /api/auth/callback`.
pub(crate) async fn callback(mut visit: Visit, headers: HeaderMap) -> Response {
    let answer = arrived(&mut visit, &headers).await;
    visit.finish(answer)
}

async fn arrived(visit: &mut Visit, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let about = visit.about()?;
    let arrival = visit
        .web
        .clone()
        .identity
        .arrive(headers, visit.now)
        .await?;
    let is_stale = match arrival {
        Arrival::Before => false,
        Arrival::Stale => true,
        Arrival::SignedIn(who, proof) => match visit.sign_in(who, proof).await {
            // The proof is from before the end, and the browser may get a newer one.
            Err(refusal) if refusal.ends_sign_in() => true,
            signed_in => {
                signed_in?;
                false
            }
        },
    };

    // Behind the one round, what the browser keeps of ours is good: the page may be loaded again a
    // minute later.
    if (is_stale && !visit.is_retry()) || visit.signed_in()?.is_none() {
        // Once: a browser that keeps no cookies would go in circles.
        return if visit.is_retry() {
            Err(Reason::NotSignedIn.into())
        } else {
            Ok(see(&about.sign_in_again()))
        };
    }

    let About::Login(id) = about else {
        return Ok(see(ACCOUNT_PATH));
    };

    let found = visit.look(id).await;

    match stand(found, visit.jar.login(id), visit.now)? {
        Standing::Open(view) => question(visit, id, view, false),
        Standing::Done(_) => Ok(see(&success_path(id))),
        standing @ (Standing::Away | Standing::Held | Standing::Approved(_)) => {
            show(visit, id, standing).await
        }
    }
}

/// `POST /login/approve`.
pub(crate) async fn approve(mut post: Post) -> Response {
    let answer = approved(&mut post).await;
    post.visit.finish(answer)
}

async fn approved(post: &mut Post) -> Result<Answer, Refusal> {
    let Post { visit, fields, .. } = post;
    let id = visit.login()?;
    if visit.jar.login(id).is_some_and(|entry| entry.acked) {
        return Ok(see(&success_path(id)));
    }

    let kept = match visit.signed_in() {
        Ok(Some(kept)) => kept.clone(),
        Ok(None) => return Ok(see(&About::Login(id).sign_in_again())),
        // The page sends the same approval again until somebody can say whether it is still theirs
        // to give.
        Err(refusal) if fields.is_confirmed() => return unsettled(visit, id, refusal),
        Err(refusal) => return Err(refusal),
    };

    visit.count_person()?;
    let found = visit.look(id).await;
    if !fields.is_confirmed() {
        return match stand(found, visit.jar.login(id), visit.now)? {
            Standing::Open(view) => question(visit, id, view, true),
            standing @ (Standing::Away
            | Standing::Held
            | Standing::Approved(_)
            | Standing::Done(_)) => show(visit, id, standing).await,
        };
    }

    let outcome = match may_deliver(found, visit.jar.login(id), visit.now) {
        Ok(view) => deliver(visit, id, &kept, &view).await,
        Err(refusal) => settled(visit, id, refusal).await,
    };

    let label = outcome
        .as_ref()
        .map_or_else(Refusal::as_str, Delivered::as_str);
    count(&visit.web.approvals, "outcome", label);
    if outcome.as_ref().is_err_and(Refusal::ends_sign_in) {
        visit.sign_out_by_provider().await;
    }

    match outcome {
        Ok(Delivered::Held(handback)) => Ok(page(&HandBackPage {
            shell: visit.shell(),
            connection_id: id.to_string(),
            csrf: visit.csrf(About::Login(id))?,
            handback,
        })),
        Ok(Delivered::Acked) => Ok(see(&success_path(id))),
        Ok(Delivered::Sent) => again(visit, id, Trouble::Unacknowledged),
        Err(refusal) => unsettled(visit, id, refusal),
    }
}

/// Returns the page that repeats the same approval, when it may still succeed.
fn unsettled(visit: &mut Visit, id: ConnectionId, refusal: Refusal) -> Result<Answer, Refusal> {
    let Some(trouble) = refusal.trouble() else {
        return Err(refusal);
    };
    refusal.log(&visit.request_id);
    again(visit, id, trouble)
}

/// Creates the session and delivers it. The same approval again gives the same session and the same
/// delivery.
async fn deliver(
    visit: &mut Visit,
    id: ConnectionId,
    kept: &Kept,
    view: &View,
) -> Result<Delivered, Refusal> {
    let (web, sign_in) = (visit.web.clone(), &kept.who);
    let request_id = request_id(&web.requests, id, sign_in);
    let granted = web
        .sessions
        .create(request_id, id, sign_in, view, &visit.from)
        .await?;
    let (user_id, session_id) = (
        granted.user_id().to_owned(),
        granted.session_id().to_owned(),
    );

    // Behind the session's beginning: what ends the sign-in before finds no session to end and is
    // heard here, and what ends it later ends the session.
    if let Err(refusal) = still_holds(&web, kept).await {
        if refusal.ends_sign_in() {
            web.sessions
                .take_back(&session_id, &user_id, false, &visit.from)
                .await?;
        }
        return Err(refusal);
    }

    let delivered = if granted.is_active() {
        // The editor has it already, whether a relay still knows that or not.
        Ok(Delivered::Acked)
    } else {
        let delivered = web.relay.deliver(id, request_id, granted).await;
        or_away(delivered, visit.jar.login(id), visit.now)
    };

    let outcome = delivered
        .as_ref()
        .map_or_else(Refusal::as_str, Delivered::as_str);
    let address = visit.from.address;
    tracing::info!(connection_id = %id, user_id, session_id, %address, outcome, "approved");
    let is_ours = match &delivered {
        Ok(_) | Err(Refusal::UnsafeReturn) => true,
        // Nobody knows how far it got, so this browser stays responsible for it.
        Err(refusal) => refusal.trouble().is_some(),
    };

    let approved = Some(request_id.to_string());
    let was_ours = visit
        .jar
        .login(id)
        .is_some_and(|entry| entry.approved == approved);
    if is_ours {
        let acked = matches!(delivered, Ok(Delivered::Acked));
        let session = Some(session_id);
        visit.remember(
            id,
            Seen {
                approved,
                session,
                acked,
                ..Seen::new(view)
            },
        )?;
    } else if !was_ours {
        take_back(&web, &session_id, &user_id, &visit.from).await;
    }

    delivered
}

/// Ends a session that no relay has accepted, so that no editor ever has its token. If this fails,
/// the sweep finds it.
async fn take_back(web: &Web, session_id: &str, user_id: &str, from: &call::Requester) {
    let taken_back = web.sessions.take_back(session_id, user_id, true, from);
    if let Err(cause) = taken_back.await {
        tracing::warn!(session_id, %cause, "a session that nobody has taken stays for now");
    }
}

/// Refuses a sign-in that was ended, or that the provider no longer confirms.
async fn still_holds(web: &Web, kept: &Kept) -> Result<(), Refusal> {
    if web.checks.has_ended_by_now(kept).await? {
        return Err(Refusal::sign_in_over("it was ended while it was used"));
    }
    Ok(web.identity.confirm(&kept.who).await?)
}

/// Checks whether a login that no relay can report has still succeeded: its relay was killed right
/// after the acknowledgement, or the editor has used its token on another relay. Otherwise returns
/// the refusal.
async fn settled(
    visit: &mut Visit,
    id: ConnectionId,
    refusal: Refusal,
) -> Result<Delivered, Refusal> {
    let Some(entry) = visit.jar.login(id).cloned() else {
        return Err(refusal);
    };

    if !visit.has_approved(id)? {
        return Err(refusal);
    }

    let Some(session_id) = entry.session.clone() else {
        return Err(refusal);
    };

    match visit.web.sessions.is_active(session_id).await {
        Ok(true) => {
            visit.remember(
                id,
                Seen {
                    acked: true,
                    ..entry
                },
            )?;
            Ok(Delivered::Acked)
        }
        Ok(false) | Err(_) => Err(refusal),
    }
}

/// `POST /login/deny`.
pub(crate) async fn deny(mut post: Post) -> Response {
    let answer = denied(&mut post.visit).await;
    post.visit.finish(answer)
}

async fn denied(visit: &mut Visit) -> Result<Answer, Refusal> {
    let id = visit.login()?;
    visit.count_person()?;
    let told = visit.web.relay.deny(id).await;
    if let Err(refusal) = or_away(told, visit.jar.login(id), visit.now) {
        let Some(trouble) = refusal.trouble() else {
            return Err(refusal);
        };
        refusal.log(&visit.request_id);
        let (connection_id, csrf) = (id.to_string(), visit.csrf(About::Login(id))?);
        return Ok(page(&Denial {
            shell: visit.shell(),
            connection_id,
            csrf,
            trouble,
        }));
    }

    count(&visit.web.approvals, "outcome", "denied");
    tracing::info!(connection_id = %id, address = %visit.from.address, "denied");
    let place = call::Requester {
        address: visit.from.address,
    };
    let who = visit.person().ok().flatten().map(|kept| kept.who.clone());
    let record = record_denial(visit.web.clone(), id, who, place);

    // The person need not wait for it: the editor has been told.
    visit.web.tasks.spawn(record.in_current_span());

    Ok(page(&Denied {
        shell: visit.shell(),
    }))
}

/// Best effort: a denial is not undone because it could not be recorded.
async fn record_denial(
    web: Arc<Web>,
    id: ConnectionId,
    sign_in: Option<SignIn>,
    from: call::Requester,
) {
    let view = web.relay.look(id, None).await.ok();
    if let Err(cause) = web
        .sessions
        .record_denial(id, sign_in.as_ref(), view.as_ref(), &from)
        .await
    {
        tracing::warn!(connection_id = %id, %cause, "a denial is missing in the audit log");
    }
}

/// Asks for the decision.
fn question(
    visit: &mut Visit,
    id: ConnectionId,
    view: View,
    unconfirmed: bool,
) -> Result<Answer, Refusal> {
    let account = visit
        .signed_in()?
        .map(|kept| Account::of(&kept.who))
        .ok_or(Reason::NotSignedIn)?;
    Ok(page(&ApprovalPage {
        shell: visit.shell(),
        connection_id: id.to_string(),
        csrf: visit.csrf(About::Login(id))?,
        account,
        user_code: UserCode(view.user_code),
        editor: view.editor,
        return_uri: view.return_uri,
        address: view.address,
        place: Nearness::compare(view.address, visit.from.address),
        created_at: view.created_at,
        now: visit.now,
        unconfirmed,
    }))
}

/// Returns the page for the current state of a login.
pub(crate) async fn show(
    visit: &mut Visit,
    id: ConnectionId,
    standing: Standing,
) -> Result<Answer, Refusal> {
    match standing {
        Standing::Open(view) => question(visit, id, view, false),
        Standing::Away => Ok(page(&WaitingPage {
            shell: visit.shell(),
            connection_id: id.to_string(),
        })),
        Standing::Held | Standing::Approved(_) if !visit.has_approved(id)? => Err(Refusal::Claimed),
        Standing::Held => {
            let (connection_id, csrf) = (id.to_string(), visit.csrf(About::Login(id))?);
            Ok(page(&HeldPage {
                shell: visit.shell(),
                connection_id,
                csrf,
            }))
        }
        Standing::Approved(trouble) => again(visit, id, trouble),
        Standing::Done(view) => outcome::show(visit, id, view).await,
    }
}

fn again(visit: &mut Visit, id: ConnectionId, trouble: Trouble) -> Result<Answer, Refusal> {
    Ok(page(&Delivery {
        shell: visit.shell(),
        connection_id: id.to_string(),
        csrf: visit.csrf(About::Login(id))?,
        trouble,
        request_id: visit.request_id.clone(),
    }))
}

fn success_path(id: ConnectionId) -> String {
    format!("/auth-success?connection_id={id}")
}
