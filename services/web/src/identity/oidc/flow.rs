//! The trip of a browser to the provider and back (OpenID Connect Core, section 3.1): where it
//! starts, what it may come back with, and what the person reads when it came to nothing.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};
use vvs_auth::key::{base64url, random};
use vvs_runtime::metrics::count;

use super::Oidc;
use crate::cookie::Flow;
use crate::error::Refusal;
use crate::failure::Reason;
use crate::fetch::Failed;
use crate::header::Kind;
use crate::identity::SignIn;
use crate::kept::Proof;
use crate::page::{Page, Shell};
use crate::visit::{About, Answer, Visit, page, see};

/// How long a person may take at the provider.
const FLOW_TIME: Duration = Duration::from_mins(15);
/// How long all calls to the provider may take that one request leads to.
const REQUEST_TIME: Duration = Duration::from_secs(15);

/// `GET /login/oidc`.
pub(super) async fn start(Extension(oidc): Extension<Arc<Oidc>>, mut visit: Visit) -> Response {
    let answer = started(&oidc, &mut visit).await;
    visit.finish(answer)
}

async fn started(oidc: &Oidc, visit: &mut Visit) -> Result<Answer, Refusal> {
    let login = match visit.about()? {
        About::Login(id) => Some(id.to_string()),
        About::Account => None,
    };

    let document = oidc.discovery.document().await?;
    let watermark = visit.web.sessions.begin_sign_in(None).await?;
    let now = visit.now.unix_timestamp();
    let departure = oidc.depart(&document, visit.is_another())?;
    let flow = Flow {
        login,
        nonce: departure.nonce,
        verifier: departure.verifier,
        watermark,
        expires_at: now.saturating_add(FLOW_TIME.as_secs().cast_signed()),
    };
    visit
        .jar
        .begin(&visit.web.cookies, &departure.state, flow, now)?;

    Ok(see(&departure.url))
}

/// What the provider sends the browser back with (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Default, Deserialize)]
pub(super) struct Answered {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// `GET /api/auth/oidc`.
pub(super) async fn back(
    Extension(oidc): Extension<Arc<Oidc>>,
    uri: Uri,
    mut visit: Visit,
) -> Response {
    // Twice the same parameter is none at all (RFC 6749, section 3.1).
    let Query(answered) = Query::<Answered>::try_from_uri(&uri).unwrap_or_default();
    let answer = returned(&oidc, &mut visit, answered).await;
    visit.finish(answer)
}

async fn returned(oidc: &Oidc, visit: &mut Visit, answered: Answered) -> Result<Answer, Refusal> {
    let state = answered.state.as_deref().unwrap_or_default();
    let Some(flow) = visit
        .jar
        .end(&visit.web.cookies, state, visit.now.unix_timestamp())
    else {
        count(&oidc.sign_ins, "outcome", "unknown");
        return Ok(stopped(oidc, visit, Stop::Unknown));
    };

    let about = about(&flow)?;
    visit.about = Some(about);
    let outcome = match timeout(
        REQUEST_TIME,
        redeemed(oidc, answered, &flow, Clock::new(visit.now)),
    )
    .await
    {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(oidc.down("it takes too long").into()),
    };

    let label = match &outcome {
        Ok(Redeemed::Person(_)) => "signed_in",
        Ok(Redeemed::Nobody(_)) => "declined",
        Err(refusal) => refusal.as_str(),
    };

    count(&oidc.sign_ins, "outcome", label);

    match outcome? {
        Redeemed::Nobody(stop) => Ok(stopped(oidc, visit, stop)),
        Redeemed::Person(mut sign_in) => {
            if sign_in.provider_session.is_empty() {
                sign_in.provider_session = session(visit, &sign_in)?;
            }
            visit.sign_in(sign_in, Proof::Since(flow.watermark)).await?;
            Ok(see(&about.callback(false)))
        }
    }
}

impl Oidc {
    fn down(&self, cause: &str) -> Failed {
        Failed::Unavailable {
            host: self.issuer.clone(),
            cause: cause.to_owned(),
            retry_after: None,
        }
    }
}

/// What a trip came to.
enum Redeemed {
    Person(SignIn),
    Nobody(Stop),
}

/// The time while a request goes on: what a slow provider has just made is not from the future.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    began_at: OffsetDateTime,
    began: Instant,
}

impl Clock {
    fn new(now: OffsetDateTime) -> Self {
        Self {
            began_at: now,
            began: Instant::now(),
        }
    }

    /// Seconds since 1970.
    pub(super) fn now(self) -> i64 {
        (self.began_at + self.began.elapsed()).unix_timestamp()
    }
}

async fn redeemed(
    oidc: &Oidc,
    answered: Answered,
    flow: &Flow,
    clock: Clock,
) -> Result<Redeemed, Refusal> {
    let document = oidc.discovery.document().await?;
    // An answer of another provider, with a code that this one must not get (RFC 9207, section
    // 2.4).
    match answered.iss {
        Some(issuer) if issuer != oidc.issuer => {
            return Err(Refusal::NotBelieved(
                "the answer is another issuer's".to_owned(),
            ));
        }
        None if document.names_itself => {
            return Err(Refusal::NotBelieved(
                "the answer does not say whose it is".to_owned(),
            ));
        }
        Some(_) | None => {}
    }

    match (answered.error.as_deref(), answered.code) {
        (None, Some(code)) => Ok(Redeemed::Person(
            oidc.redeem(&document, code, flow, clock).await?,
        )),
        (Some("server_error" | "temporarily_unavailable"), _) => {
            Err(oidc.down("it has sent the browser back").into())
        }
        (Some("access_denied"), _) => Ok(Redeemed::Nobody(Stop::Declined)),
        (Some(error), _) => {
            // Anybody can write it into an address, so nobody has to act on it.
            let error: String = error
                .chars()
                .filter(char::is_ascii_graphic)
                .take(64)
                .collect();
            tracing::warn!(error, "the provider has answered with an error");
            Ok(Redeemed::Nobody(Stop::Failed))
        }
        (None, None) => Err(Refusal::NotBelieved(
            "the answer holds neither a code nor an error".to_owned(),
        )),
    }
}

/// What the cookie says; it is ours, so that it can be read.
fn about(flow: &Flow) -> Result<About, Refusal> {
    match &flow.login {
        Some(id) => id
            .parse()
            .map(About::Login)
            .map_err(|_malformed| Reason::MalformedLink.into()),
        None => Ok(About::Account),
    }
}

/// For a provider that names no session. Whoever signs in again is in the same one still: a login
/// in another tab may hang on it.
fn session(visit: &Visit, sign_in: &SignIn) -> Result<String, Refusal> {
    match visit
        .person()?
        .filter(|before| before.who.is_same_user(sign_in))
    {
        Some(before) => Ok(before.who.provider_session.clone()),
        None => Ok(base64url(&random::<16>()?)),
    }
}

/// Why a trip came to nothing, though nothing is broken.
#[derive(Clone, Copy)]
enum Stop {
    /// No trip of this browser, or one that took too long or is over.
    Unknown,
    /// The person did not want to, or the provider did not let them.
    Declined,
    /// The provider says that something is wrong.
    Failed,
}

fn stopped(oidc: &Oidc, visit: &Visit, stop: Stop) -> Answer {
    page(&Stopped {
        shell: visit.shell(),
        stop,
        name: &oidc.label,
        again: visit.about.map(About::another),
    })
}

#[derive(Template)]
#[template(path = "identity/oidc-stopped.html")]
struct Stopped<'a> {
    shell: Shell,
    stop: Stop,
    /// What people call the provider.
    name: &'a str,
    /// Where the sign-in begins again, a path of ours.
    again: Option<String>,
}

impl Page for Stopped<'_> {
    const KIND: Kind = Kind::Text;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}
