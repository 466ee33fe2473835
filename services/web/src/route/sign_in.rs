//! `/login` and what its form does: a person says who they are.

use axum::response::Response;
use vvs_auth::key::{base64url, random};

use crate::error::Refusal;
use crate::identity::{SignIn, dev};
use crate::login::{ConnectionId, Standing, View, stand};
use crate::page::{Login, UserCode};
use crate::route::{account, approval};
use crate::visit::{ACCOUNT_PATH, About, Answer, Post, Visit, page, see};

/// Always a page of ours and never a redirect: its script has to take the state out of the address.
pub(crate) async fn show(mut visit: Visit) -> Response {
    let answer = login(&mut visit).await;
    visit.finish(answer)
}

async fn login(visit: &mut Visit) -> Result<Answer, Refusal> {
    let id = visit.login()?;
    let found = visit.look(id).await;
    match stand(found, visit.jar.login(id), visit.now)? {
        Standing::Open(view) => {
            let (email, name) = known(visit.jar.sign_in.as_ref());
            let retry = visit.is_retry();
            form(visit, id, view, Said { email, name, problem: None, retry })
        }
        standing @ (Standing::Away | Standing::Held | Standing::Approved(_) | Standing::Done(_)) => {
            approval::show(visit, id, standing)
        }
    }
}

/// `POST /dev/sign-in`.
pub(crate) async fn development(mut post: Post) -> Response {
    let answer = signed_in(&mut post).await;
    post.visit.finish(answer)
}

async fn signed_in(post: &mut Post) -> Result<Answer, Refusal> {
    let Post { visit, fields } = post;
    let (email, name) = (fields.email.take().unwrap_or_default(), fields.name.take().unwrap_or_default());
    let retry = fields.is_retry();
    match dev::sign_in(&email, &name, base64url(&random::<16>()?), visit.now.unix_timestamp()) {
        Ok(sign_in) => {
            remember(visit, sign_in)?;
            let retry = if retry { "&retry=1" } else { "" };
            Ok(match visit.about {
                Some(About::Account) => see(ACCOUNT_PATH),
                Some(About::Login(_)) | None => {
                    see(&format!("/api/auth/callback?connection_id={}{retry}", visit.login()?))
                }
            })
        }
        Err(problem) if visit.about == Some(About::Account) => account::form(visit, email, name, Some(problem)),
        Err(problem) => {
            let id = visit.login()?;
            let found = visit.look(id).await;
            match stand(found, visit.jar.login(id), visit.now)? {
                Standing::Open(view) => form(visit, id, view, Said { email, name, problem: Some(problem), retry }),
                standing @ (Standing::Away | Standing::Held | Standing::Approved(_) | Standing::Done(_)) => {
                    approval::show(visit, id, standing)
                }
            }
        }
    }
}

fn remember(visit: &mut Visit, mut sign_in: SignIn) -> Result<(), Refusal> {
    // Whoever signs in again is in the same session still: a login in another tab may hang on it.
    if let Some(before) = visit.jar.sign_in.take_if(|before| before.is_same_user(&sign_in)) {
        sign_in.provider_session = before.provider_session;
    }
    tracing::info!(provider = sign_in.provider, address = %visit.from.address, "signed in");
    Ok(visit.jar.sign_in(&visit.web.cookies, sign_in)?)
}

/// `POST /login/another`: to the sign-in again, as nobody.
pub(crate) async fn another(mut post: Post) -> Response {
    post.visit.jar.sign_out(&post.visit.web.cookies);
    let answer = post.visit.login().map(|id| see(&About::Login(id).path()));
    post.visit.finish(answer)
}

/// What a person has said so far, and what is wrong with it.
struct Said {
    email: String,
    name: String,
    problem: Option<&'static str>,
    retry: bool,
}

fn form(visit: &mut Visit, id: ConnectionId, view: View, said: Said) -> Result<Answer, Refusal> {
    Ok(page(&Login {
        shell: visit.shell(),
        connection_id: id.to_string(),
        csrf: visit.csrf(About::Login(id))?,
        expires_in: view.expires_at - visit.now,
        user_code: UserCode(view.user_code),
        email: said.email,
        name: said.name,
        problem: said.problem,
        retry: said.retry,
    }))
}

fn known(sign_in: Option<&SignIn>) -> (String, String) {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    sign_in.map(|sign_in| (of(&sign_in.email), of(&sign_in.name))).unwrap_or_default()
}
