//! The development provider: everyone is whoever they say they are. It checks that what they say
//! can be shown, and not a bit of whether it is true. So it serves nobody but this machine.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::post;
use secrecy::{ExposeSecret as _, SecretString};
use vvs_auth::key::{base64url, random};
use vvs_runtime::origin::Origin;

use super::name::clean;
use super::{Ask, Part, Provider, SignIn};
use crate::Web;
use crate::error::{Error, Refusal};
use crate::failure::Reason;
use crate::kept::Proof;
use crate::route::sign_in::show;
use crate::visit::{ACCOUNT_PATH, About, Answer, Opening, Post, see};

mod key;

pub(crate) use key::{Guess, Key};

/// Where the form goes.
const PATH: &str = "/dev/sign-in";
/// Where a browser shows the key of this installation.
pub(crate) const KEY_PATH: &str = "/dev/key";
/// As sessions keep it.
const PROVIDER: &str = "dev";
/// The longest email address, in bytes (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;

/// The development provider.
pub(crate) struct Dev {
    key: Option<Key>,
}

impl Dev {
    /// Refuses to be where others could reach it.
    pub(crate) fn new(public_url: &Origin, key: Option<Key>) -> Result<Self, Error> {
        if public_url.is_loopback() {
            Ok(Self { key })
        } else {
            Err(Error::DevelopmentOffLoopback(public_url.to_string()))
        }
    }
}

impl Provider for Dev {
    fn name(&self) -> &str {
        PROVIDER
    }

    fn part(&self, ask: &Ask<'_>) -> Part {
        let of = |text: Option<&String>| text.cloned().unwrap_or_default();
        let before = ask.before;
        form(&Form {
            about: ask.about,
            csrf: ask.csrf,
            email: of(before.and_then(|before| before.email.as_ref())),
            name: of(before.and_then(|before| before.name.as_ref())),
            problem: None,
            retry: ask.retry,
        })
    }

    fn routes(self: Arc<Self>) -> Router<Arc<Web>> {
        let routes = Router::new().route(PATH, post(submit));
        if self.key.is_some() {
            routes.route(KEY_PATH, post(show_key))
        } else {
            routes
        }
    }

    fn admits(&self, client: IpAddr, through: Option<&str>) -> Result<(), Reason> {
        match through {
            _ if !client.to_canonical().is_loopback() => Err(Reason::DevelopmentOnly),
            Some(sign) => {
                tracing::info!(
                    sign,
                    "the development sign-in answers nobody through a proxy or a tunnel"
                );
                Err(Reason::DevelopmentThrough)
            }
            None => Ok(()),
        }
    }

    fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    fn is_development(&self) -> bool {
        true
    }
}

#[derive(Template)]
#[template(path = "identity/dev.html")]
pub(crate) struct Form<'a> {
    pub(crate) about: About,
    pub(crate) csrf: &'a SecretString,
    /// What was sent before.
    pub(crate) email: String,
    pub(crate) name: String,
    /// What is wrong with `email`.
    pub(crate) problem: Option<&'static str>,
    pub(crate) retry: bool,
}

pub(crate) fn form(form: &Form<'_>) -> Part {
    Part {
        html: super::html(form),
        is_wrong: form.problem.is_some(),
        ..Part::default()
    }
}

/// `POST /dev/key`.
async fn show_key(Opening(mut post): Opening) -> Response {
    let answer = shown_key(&mut post);
    post.visit.finish(answer)
}

fn shown_key(post: &mut Post) -> Result<Answer, Refusal> {
    let Post { visit, fields } = post;
    let (about, web) = (visit.about()?, visit.web.clone());
    let Some(key) = web.identity.key() else {
        return Err(Reason::NotFound.into());
    };

    let shown = fields.key.take().unwrap_or_default();

    match key.guess(shown.expose_secret()) {
        Guess::Right => {
            visit.jar.show_key(&web.cookies, &key.mark())?;
            Ok(see(&about.path()))
        }
        Guess::Wrong => visit.ask_key(about, true),
        Guess::TooMany => Err(Reason::TooManyGuesses.into()),
    }
}

/// `POST /dev/sign-in`.
async fn submit(Opening(mut post): Opening) -> Response {
    let answer = submitted(&mut post).await;
    post.visit.finish(answer)
}

async fn submitted(post: &mut Post) -> Result<Answer, Refusal> {
    let Post { visit, fields } = post;
    let (email, name) = (
        fields.email.take().unwrap_or_default(),
        fields.name.take().unwrap_or_default(),
    );
    let (about, retry) = (visit.about()?, fields.is_retry());

    match sign_in(
        &email,
        &name,
        base64url(&random::<16>()?),
        visit.now.unix_timestamp(),
    ) {
        Ok(mut sign_in) => {
            // Whoever signs in again is in the same session still: a login in another tab may hang
            // on it.
            if let Some(before) = visit
                .person()?
                .filter(|before| before.who.is_same_user(&sign_in))
            {
                sign_in
                    .provider_session
                    .clone_from(&before.who.provider_session);
            }

            visit.sign_in(sign_in, Proof::Fresh).await?;

            // What the callback would find is known already.
            Ok(see(&if about == About::Account {
                ACCOUNT_PATH.to_owned()
            } else {
                about.callback(retry)
            }))
        }
        Err(problem) => {
            let csrf = visit.csrf(about)?;
            let part = form(&Form {
                about,
                csrf: &csrf,
                email,
                name,
                problem: Some(problem),
                retry,
            });
            show(visit, part, retry).await
        }
    }
}

/// Signs a person in, or says what is wrong with the email.
pub(crate) fn sign_in(
    email: &str,
    name: &str,
    provider_session: String,
    at: i64,
) -> Result<SignIn, &'static str> {
    let email = email.trim();
    let is_whole = match email.split_once('@') {
        Some((local, domain)) => !local.is_empty() && !domain.is_empty() && !domain.contains('@'),
        None => false,
    };

    if !is_whole {
        return Err("Enter a whole email address.");
    }

    // Nothing but ASCII: what can be typed in any script can be made to look like somebody else.
    if email.len() > MAX_EMAIL || !email.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("Enter an email address without spaces and special characters, 254 at most.");
    }

    Ok(SignIn {
        provider: PROVIDER.to_owned(),
        subject: email.to_ascii_lowercase(),
        provider_session,
        email: Some(email.to_owned()),
        // As true as everything else here.
        email_verified: true,
        name: clean(name),
        avatar_url: None,
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(email: &str, name: &str) -> Result<SignIn, &'static str> {
        sign_in(email, name, "session".to_owned(), 0)
    }

    #[test]
    fn an_email_must_be_whole_and_plain() {
        let long = format!("{}@example.com", "a".repeat(243));
        for bad in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "a@b@c",
            "a da@example.com",
            "\u{202e}a@example.com",
            &long,
        ] {
            assert!(person(bad, "").is_err(), "{bad}");
        }

        assert!(person(&long[1..], "").is_ok());
    }

    #[test]
    fn a_person_is_one_however_the_email_is_written() {
        let (one, other) = (
            person(" Ada@Example.com", "").ok().unwrap(),
            person("ada@example.COM", "").ok().unwrap(),
        );
        assert!(one.is_same_user(&other));
        assert_eq!(one.email.as_deref(), Some("Ada@Example.com"));
    }
}
