//! `/account`: a person sees the editors that they are signed in with, and ends their sessions.

use axum::extract::Path;
use axum::response::Response;
use vvs_identity::{ACCOUNT_PATH, About, SIGN_IN_PATH, SignIn};

use crate::account::{Install, Notice};
use crate::error::Refusal;
use crate::failure::Reason;
use crate::page::{Account, AccountSessions};
use crate::route::sign_in;
use crate::visit::{Answer, Post, Visit, page, see};

/// `GET /account/sessions`.
pub(crate) async fn sessions(mut visit: Visit) -> Response {
    visit.about = Some(About::Account);
    let answer = listed(&mut visit).await;
    visit.finish(answer)
}

async fn listed(visit: &mut Visit) -> Result<Answer, Refusal> {
    let Some(sign_in) = visit.account().await? else {
        return Ok(see(SIGN_IN_PATH));
    };

    let installs = visit.web.sessions.list(&sign_in).await?;

    Ok(page(&AccountSessions {
        shell: visit.shell(),
        csrf: visit.csrf(About::Account)?,
        account: Account::of(&sign_in),
        installs,
        notice: visit.notice(),
        now: visit.now,
    }))
}

/// `POST /account/sessions/{sid}/revoke`.
pub(crate) async fn revoke(Path(sid): Path<String>, mut post: Post) -> Response {
    let answer = revoked(&mut post.visit, &sid).await;
    post.visit.finish(answer)
}

async fn revoked(visit: &mut Visit, sid: &str) -> Result<Answer, Refusal> {
    let Some(sign_in) = signed_in(visit).await? else {
        return Ok(see(SIGN_IN_PATH));
    };

    // What is not among the person's own is answered like what has ended, so that nobody learns
    // what there is.
    let Some(install) = visit
        .web
        .sessions
        .list(&sign_in)
        .await?
        .into_iter()
        .find(|install| install.id == sid)
    else {
        return Ok(with_notice(ACCOUNT_PATH, Notice::WasGone));
    };

    visit.web.sessions.revoke(&install, &visit.from).await?;
    let Install {
        id: session_id,
        user_id,
        ..
    } = install;
    tracing::info!(session_id, user_id, address = %visit.from.address, "revoked");

    Ok(with_notice(ACCOUNT_PATH, Notice::EndedOne))
}

/// `POST /account/sessions/revoke-all`.
pub(crate) async fn revoke_all(mut post: Post) -> Response {
    let answer = all_revoked(&mut post.visit).await;
    post.visit.finish(answer)
}

async fn all_revoked(visit: &mut Visit) -> Result<Answer, Refusal> {
    let Some(sign_in) = signed_in(visit).await? else {
        return Ok(see(SIGN_IN_PATH));
    };
    // Of all browsers this one too. Not by what the list shows: it may be behind, and an empty one
    // still ends the sessions.
    let revoked = visit.web.sessions.revoke_all(&sign_in, &visit.from).await?;
    tracing::info!(revoked, address = %visit.from.address, "revoked all");
    visit.forget();
    Ok(with_notice(SIGN_IN_PATH, Notice::EndedAll(revoked)))
}

/// Returns the sender of a form that was made for their account.
async fn signed_in(visit: &mut Visit) -> Result<Option<SignIn>, Refusal> {
    if visit.about == Some(About::Account) {
        visit.account().await
    } else {
        Err(Reason::StaleForm.into())
    }
}

/// `GET /account/sign-in`.
pub(crate) async fn sign_in(mut visit: Visit) -> Response {
    visit.about = Some(About::Account);
    let part = sign_in::part(&mut visit);
    let answer = part.map(|part| sign_in::account_page(&visit, part));
    visit.finish(answer)
}

/// `POST /account/sign-out`: this browser forgets who was signed in, and every copy of its cookies
/// becomes worthless. It ends no editor's session.
pub(crate) async fn sign_out(mut post: Post) -> Response {
    let ended = post.visit.sign_out().await;
    post.visit
        .finish(ended.map(|()| with_notice(SIGN_IN_PATH, Notice::SignedOut)))
}

fn with_notice(path: &str, notice: Notice) -> Answer {
    see(&format!("{path}?done={notice}"))
}
