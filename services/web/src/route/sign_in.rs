//! `/login`: a person signs in, in the way of the identity provider.

use axum::response::Response;
use vvs_identity::{About, Ask, Part};

use crate::error::Refusal;
use crate::login::{Standing, stand};
use crate::page::{AccountSignIn, LoginPage, UserCode};
use crate::route::approval;
use crate::visit::{Answer, Post, Visit, page, see};

/// Always one of our pages and never a redirect: its script has to take the state out of the
/// address.
pub(crate) async fn login(mut visit: Visit) -> Response {
    let answer = asked(&mut visit).await;
    visit.finish(answer)
}

async fn asked(visit: &mut Visit) -> Result<Answer, Refusal> {
    let part = part(visit)?;
    let retry = visit.is_retry();
    show(visit, part, retry).await
}

/// Returns the provider's part of the page.
pub(crate) fn part(visit: &mut Visit) -> Result<Part, Refusal> {
    let about = visit.about()?;
    let csrf = visit.csrf(about)?;

    Ok(visit.web.identity.part(&Ask {
        about,
        csrf: &csrf,
        nonce: visit.nonce(),
        // Only to save typing: while nobody can say who is signed in, the form stays empty.
        before: visit.person().ok().flatten().map(|kept| &kept.who),
        retry: visit.is_retry(),
        another: visit.is_another(),
        signed_out: visit.has_signed_out(),
    }))
}

/// Returns the page on which a person signs in, if that is still necessary.
pub(crate) async fn show(visit: &mut Visit, part: Part, retry: bool) -> Result<Answer, Refusal> {
    let About::Login(id) = visit.about()? else {
        return Ok(account_page(visit, part));
    };

    let found = visit.look(id).await;

    match stand(found, visit.jar.login(id), visit.now)? {
        Standing::Open(view) => Ok(page(&LoginPage {
            shell: visit.shell(),
            part,
            expires_in: view.expires_at - visit.now,
            user_code: UserCode(view.user_code),
            retry,
        })),
        standing
        @ (Standing::Away | Standing::Held | Standing::Approved(_) | Standing::Done(_)) => {
            approval::show(visit, id, standing).await
        }
    }
}

/// Does the same for the pages about the account.
pub(crate) fn account_page(visit: &Visit, part: Part) -> Answer {
    page(&AccountSignIn {
        shell: visit.shell(),
        part,
        notice: visit.notice(),
        retry: visit.is_retry(),
    })
}

/// `POST /login/another`: leads to the sign-in again, with nobody signed in.
pub(crate) async fn another(mut post: Post) -> Response {
    let answer = become_nobody(&mut post.visit).await;
    post.visit.finish(answer)
}

async fn become_nobody(visit: &mut Visit) -> Result<Answer, Refusal> {
    visit.sign_out().await?;
    Ok(see(&About::Login(visit.login()?).another()))
}
