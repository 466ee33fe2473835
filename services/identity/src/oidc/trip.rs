//! The trip of a browser to the provider and back (OpenID Connect Core, section 3.1): where it
//! starts, which answers it may bring, and the page when it failed.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;
use vvs_auth::key::{base64url, random};
use vvs_runtime::metrics::count;

use super::Oidc;
use super::clock::Clock;
use super::exchange::Departure;
use crate::browser::{Browser, Trip};
use crate::fetch::Failed;
use crate::person::SignIn;
use crate::provider::{BrowserRequest, Reply, Stop};
use crate::refusal::Refusal;

/// How long a person may take at the provider.
const TRIP_TIME: Duration = Duration::from_mins(15);
/// How long all calls to the provider for one request may take together.
const REQUEST_TIME: Duration = Duration::from_secs(15);

/// The parameters with which the provider sends the browser back (RFC 6749, section 4.1.2; RFC
/// 9207).
#[derive(Default, Deserialize)]
struct ProviderAnswer {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

impl Oidc {
    /// `GET /login/oidc`.
    pub(super) async fn start(
        &self,
        call: BrowserRequest<'_>,
        browser: &mut dyn Browser,
    ) -> Result<Reply, Refusal> {
        let about = call.about.ok_or(Refusal::MalformedLink)?;
        let document = self.discovery.document().await?;
        let Departure {
            state,
            nonce,
            verifier,
            url,
        } = self.depart(&document, call.another)?;

        let trip = Trip {
            about,
            nonce,
            verifier,
        };
        browser.begin(&state, trip, TRIP_TIME).await?;

        Ok(Reply::Go(url))
    }

    /// `GET /api/auth/oidc`.
    pub(super) async fn back(
        &self,
        call: BrowserRequest<'_>,
        browser: &mut dyn Browser,
    ) -> Result<Reply, Refusal> {
        // A repeated parameter counts as missing (RFC 6749, section 3.1).
        let answered: ProviderAnswer =
            serde_urlencoded::from_bytes(call.fields).unwrap_or_default();
        let state = answered.state.as_deref().unwrap_or_default();
        let Some((trip, proof)) = browser.end(state) else {
            count(&self.sign_ins, "outcome", "unknown");
            return Ok(self.stopped(Stop::Unknown));
        };

        let redeemed = redeemed(self, answered, &trip, Clock::new(call.now));
        let outcome = match timeout(REQUEST_TIME, redeemed).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(self.down("it takes too long").into()),
        };

        let label = match &outcome {
            Ok(Redeemed::Person(_)) => "signed_in",
            Ok(Redeemed::Nobody(_)) => "declined",
            Err(refusal) => refusal.as_str(),
        };
        count(&self.sign_ins, "outcome", label);

        match outcome? {
            Redeemed::Nobody(stop) => Ok(self.stopped(stop)),
            Redeemed::Person(mut sign_in) => {
                if sign_in.provider_session.is_empty() {
                    sign_in.provider_session = session(browser.before(), &sign_in)?;
                }
                Ok(Reply::SignedIn {
                    sign_in,
                    proof,
                    next: trip.about.callback(false),
                })
            }
        }
    }

    fn stopped(&self, stop: Stop) -> Reply {
        Reply::Stopped {
            stop,
            provider: self.label.clone(),
        }
    }

    fn down(&self, cause: &str) -> Failed {
        Failed::Unavailable {
            host: self.issuer.clone(),
            cause: cause.to_owned(),
            retry_after: None,
        }
    }
}

/// The result of a trip.
enum Redeemed {
    Person(SignIn),
    Nobody(Stop),
}

async fn redeemed(
    oidc: &Oidc,
    answered: ProviderAnswer,
    trip: &Trip,
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
            oidc.redeem(&document, code, trip, clock).await?,
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

/// Returns a session for a provider that names none. A person who signs in again is still in the
/// same one: a login in another tab may depend on it.
fn session(before: Option<&SignIn>, sign_in: &SignIn) -> Result<String, Refusal> {
    match before.filter(|before| before.is_same_user(sign_in)) {
        Some(before) => Ok(before.provider_session.clone()),
        None => Ok(base64url(&random::<16>()?)),
    }
}
