//! The development provider: it signs in everybody under any name. It checks that the input can be
//! shown, and not whether it is true. So it serves only this machine.

use std::future::ready;
use std::net::IpAddr;

use askama::Template;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use vvs_auth::key::{base64url, random};
use vvs_runtime::origin::Origin;

use crate::about::{ACCOUNT_PATH, About};
use crate::asking::Asking;
use crate::browser::Browser;
use crate::dev_key::DevKey;
use crate::error::Error;
use crate::name::clean;
use crate::person::{Freshness, SignIn};
use crate::provider::{Ask, BrowserRequest, Part, Path, PathKind, Provider, Reply, html};
use crate::refusal::Refusal;

/// The target of the form.
const PATH: &str = "/dev/sign-in";
/// The name in sessions.
const PROVIDER: &str = "dev";
/// The longest email address, in bytes (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;

/// The development provider.
#[derive(Debug)]
pub struct Dev {
    key: Option<DevKey>,
}

impl Dev {
    /// Refuses an address that others could reach.
    pub fn new(public_url: &Origin, key: Option<DevKey>) -> Result<Self, Error> {
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
        form(&DevForm {
            about: ask.about,
            csrf: ask.csrf,
            email: of(before.and_then(|before| before.email.as_ref())),
            name: of(before.and_then(|before| before.name.as_ref())),
            problem: None,
            retry: ask.retry,
        })
    }

    fn paths(&self) -> Vec<Path> {
        vec![Path {
            path: PATH,
            kind: PathKind::Form,
        }]
    }

    fn serve<'a>(
        &'a self,
        call: BrowserRequest<'a>,
        browser: &'a mut dyn Browser,
    ) -> Asking<'a, Result<Reply, Refusal>> {
        Box::pin(ready(submitted(&call, browser)))
    }

    fn admits(&self, client: IpAddr, through: Option<&str>) -> Result<(), Refusal> {
        match through {
            _ if !client.to_canonical().is_loopback() => Err(Refusal::DevelopmentOnly),
            Some(sign) => {
                tracing::info!(
                    sign,
                    "the development sign-in answers nobody through a proxy or a tunnel"
                );
                Err(Refusal::DevelopmentThrough)
            }
            None => Ok(()),
        }
    }

    fn key(&self) -> Option<&DevKey> {
        self.key.as_ref()
    }

    fn is_development(&self) -> bool {
        true
    }
}

/// The content of the form.
#[derive(Debug, Template)]
#[template(path = "dev.html")]
pub struct DevForm<'a> {
    pub about: About,
    pub csrf: &'a SecretString,
    /// The previous input.
    pub email: String,
    pub name: String,
    /// The problem with `email`.
    pub problem: Option<&'static str>,
    pub retry: bool,
}

/// Returns the part of the pages on which a person signs in.
pub fn form(form: &DevForm<'_>) -> Part {
    Part {
        html: html(form),
        is_wrong: form.problem.is_some(),
        ..Part::default()
    }
}

/// The fields of the form.
#[derive(Default, Deserialize)]
struct DevFields {
    #[serde(default)]
    email: String,
    #[serde(default)]
    name: String,
}

/// `POST /dev/sign-in`.
fn submitted(call: &BrowserRequest<'_>, browser: &mut dyn Browser) -> Result<Reply, Refusal> {
    let DevFields { email, name } = serde_urlencoded::from_bytes(call.fields).unwrap_or_default();
    let about = call.about.ok_or(Refusal::MalformedLink)?;

    let session = base64url(&random::<16>()?);
    match sign_in(&email, &name, session, call.now.unix_timestamp()) {
        Ok(mut sign_in) => {
            // A person who signs in again is still in the same session: a login in another tab may
            // depend on it.
            if let Some(before) = browser.before().filter(|who| who.is_same_user(&sign_in)) {
                sign_in
                    .provider_session
                    .clone_from(&before.provider_session);
            }

            Ok(Reply::SignedIn {
                sign_in,
                proof: Freshness::Fresh,
                // What the callback would find is known already.
                next: match about {
                    About::Login(_) => about.callback(call.retry),
                    About::Account => ACCOUNT_PATH.to_owned(),
                },
            })
        }
        Err(problem) => Ok(Reply::Ask(form(&DevForm {
            about,
            csrf: &browser.csrf(about)?,
            email,
            name,
            problem: Some(problem),
            retry: call.retry,
        }))),
    }
}

/// Signs a person in, or returns the problem with the email.
pub fn sign_in(
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

    // Only ASCII: a name in any script could be made to look like somebody else's.
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
    use time::OffsetDateTime;

    use super::*;
    use crate::testing::TestBrowser;

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

    /// Submits a form of a browser. Returns the reply.
    async fn submit(browser: &mut TestBrowser, fields: &str) -> Reply {
        let dev = Dev::new(&"http://127.0.0.1:8080".parse().unwrap(), None).unwrap();
        let call = BrowserRequest {
            path: PATH,
            fields: fields.as_bytes(),
            about: Some(About::Account),
            retry: false,
            another: false,
            now: OffsetDateTime::UNIX_EPOCH,
        };
        dev.serve(call, browser).await.unwrap()
    }

    #[tokio::test]
    async fn a_form_signs_in_or_says_what_is_wrong_with_it() {
        let mut browser = TestBrowser::default();
        let Reply::Ask(part) = submit(&mut browser, "csrf=x&email=ada&name=Ada%20L").await else {
            panic!("half an address signs in")
        };
        assert!(part.is_wrong && part.html.contains(r#"value="csrf of account""#));
        assert!(part.html.contains(r#"value="ada""#) && part.html.contains(r#"value="Ada L""#));

        let mut sessions = Vec::new();
        for _ in 0..2 {
            let Reply::SignedIn {
                sign_in,
                proof,
                next,
            } = submit(&mut browser, "email=ada%40example.com").await
            else {
                panic!("nobody has signed in")
            };
            assert_eq!((proof, &*next), (Freshness::Fresh, ACCOUNT_PATH));
            sessions.push(sign_in.provider_session.clone());
            browser.before = Some(sign_in);
        }
        assert_eq!(sessions[0], sessions[1]);
    }
}
