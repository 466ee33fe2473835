//! Who is signed in to a browser, how long that is believed, and the trait behind which an identity
//! provider stands. A provider is a module of its own with all that belongs to it; nothing else in
//! this role knows which one it is.

use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use http::HeaderMap;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;
use vvs_runtime::metrics::Metrics;
use vvs_runtime::origin::Origin;

use self::allow::Rule;
use self::dev::Key;
use crate::Web;
use crate::call::Sessions;
use crate::error::Refusal;
use crate::failure::Reason;
use crate::fetch::Fetch;
use crate::header::{Nonce, Sources};
use crate::kept::Proof;
use crate::page::Account;
use crate::person::People;
use crate::route::Routes;
use crate::visit::About;

pub(crate) mod allow;
pub(crate) mod clerk;
pub(crate) mod dev;
mod keys;
mod name;
pub(crate) mod oidc;

/// A person, as an identity provider has told us. Web seals it and the browser keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignIn {
    /// As sessions keep it: the issuer, or `dev`.
    pub(crate) provider: String,
    /// The provider's own id of the person.
    pub(crate) subject: String,
    /// The provider's own session.
    pub(crate) provider_session: String,
    pub(crate) email: Option<String>,
    /// Whether the provider says that the address is the person's.
    pub(crate) email_verified: bool,
    pub(crate) name: Option<String>,
    pub(crate) avatar_url: Option<String>,
    /// When the provider was asked, seconds since 1970.
    pub(crate) at: i64,
}

impl SignIn {
    /// Whether it is young enough to approve with.
    pub(crate) fn holds(&self, now: OffsetDateTime, ttl: Duration) -> bool {
        is_within(self.at, now, ttl)
    }

    /// Whether it was used lately enough to look after one's editors with.
    pub(crate) fn is_in_use(&self, seen: Option<i64>, now: OffsetDateTime, ttl: Duration) -> bool {
        is_within(self.at.max(seen.unwrap_or(self.at)), now, ttl)
    }

    pub(crate) fn is_same_user(&self, other: &Self) -> bool {
        self.provider == other.provider && self.subject == other.subject
    }

    pub(crate) fn account(&self) -> Account {
        let Self {
            name,
            email,
            email_verified,
            ..
        } = self.clone();

        // A cookie may be older than today's rule for names.
        Account {
            name: name.as_deref().and_then(name::clean),
            email,
            email_verified,
        }
    }
}

fn is_within(since: i64, now: OffsetDateTime, ttl: Duration) -> bool {
    now.unix_timestamp().saturating_sub(since) < ttl.as_secs().cast_signed()
}

/// What every provider gets.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) people: People,
    pub(crate) public_url: Origin,
    /// Who may sign in.
    pub(crate) allow: Vec<Rule>,
    pub(crate) fetch: Fetch,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: TaskTracker,
}

/// What a provider takes its time for.
pub(crate) type Asking<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A page that asks the person to say who they are.
pub(crate) struct Ask<'a> {
    pub(crate) about: About,
    /// For a form of the provider's own.
    pub(crate) csrf: &'a SecretString,
    pub(crate) nonce: &'a Nonce,
    /// Who signed in to this browser before.
    pub(crate) before: Option<&'a SignIn>,
    /// The browser came back from here without a sign-in.
    pub(crate) retry: bool,
    /// The person wants to be somebody else than before, or nobody.
    pub(crate) another: bool,
    /// The person has just signed out of this browser.
    pub(crate) signed_out: bool,
}

/// A provider's part of a page.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) html: String,
    /// What it needs beside our own files.
    pub(crate) sources: Sources,
    /// What was sent before has to be mended.
    pub(crate) is_wrong: bool,
}

/// A provider's own text for a page.
pub(crate) fn html(template: &impl Template) -> String {
    template.render().unwrap_or_else(|cause| {
        tracing::error!(%cause, "a part of a page could not be rendered");
        String::new()
    })
}

/// What a request to the callback shows.
pub(crate) enum Arrival {
    /// Nothing: the provider has told us before, and the browser's cookie says what.
    Before,
    SignedIn(SignIn, Proof),
    /// Nobody is signed in, or the browser has to fetch newer proof of it.
    Stale,
}

/// An identity provider.
pub(crate) trait Provider: Send + Sync {
    /// As sessions keep it.
    fn name(&self) -> &str;

    /// Its part of the pages on which a person says who they are. It leads to the callback.
    fn part(&self, ask: &Ask<'_>) -> Part;

    /// Paths of its own.
    fn routes(self: Arc<Self>) -> Routes;

    /// Who has signed in, as far as the callback's request shows it.
    fn arrive<'a>(
        &'a self,
        _headers: &'a HeaderMap,
        _now: OffsetDateTime,
    ) -> Asking<'a, Result<Arrival, Refusal>> {
        Box::pin(ready(Ok(Arrival::Before)))
    }

    /// Asks whether a sign-in still holds, right before it is used to approve.
    fn confirm<'a>(&'a self, _sign_in: &'a SignIn) -> Asking<'a, Result<(), Refusal>> {
        Box::pin(ready(Ok(())))
    }

    /// What it does beside the requests, until this role stops.
    fn watch(self: Arc<Self>, _web: Arc<Web>) -> Asking<'static, ()> {
        Box::pin(ready(()))
    }

    /// Whether a browser at this address is served at all, when its request came straight here or
    /// through other hands.
    fn admits(&self, _client: IpAddr, _through: Option<&str>) -> Result<(), Reason> {
        Ok(())
    }

    /// What each browser has to show once before it is served.
    fn key(&self) -> Option<&Key> {
        None
    }

    /// Lets in anyone as anyone, and every page has to say so.
    fn is_development(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_is_believed_until_its_time_is_over() {
        let sign_in = dev::sign_in("ada@example.com", "", "session".to_owned(), 1000).unwrap();
        let holds = |now| {
            sign_in.holds(
                OffsetDateTime::from_unix_timestamp(now).unwrap(),
                Duration::from_mins(15),
            )
        };
        assert!(holds(1000) && holds(1899));
        assert!(!holds(1900));
    }

    #[test]
    fn a_user_is_one_providers_subject() {
        let ada = dev::sign_in("ada@example.com", "", "session".to_owned(), 1000).unwrap();
        assert!(ada.is_same_user(&SignIn {
            provider_session: "other".to_owned(),
            name: None,
            at: 0,
            ..ada.clone()
        }));
        assert!(!ada.is_same_user(&SignIn {
            provider: "https://id.test".to_owned(),
            ..ada.clone()
        }));
        assert!(!ada.is_same_user(&SignIn {
            subject: "bob@example.com".to_owned(),
            ..ada.clone()
        }));
    }

    #[test]
    fn a_sign_in_is_in_use_until_it_has_lain_idle() {
        let sign_in = dev::sign_in("ada@example.com", "", "session".to_owned(), 1000).unwrap();
        let at = |now| OffsetDateTime::from_unix_timestamp(now).unwrap();
        let is_in_use = |seen, now| sign_in.is_in_use(seen, at(now), Duration::from_mins(15));
        assert!(is_in_use(None, 1899) && is_in_use(Some(1899), 2798));
        assert!(!is_in_use(None, 1900) && !is_in_use(Some(1899), 2799));
        // Somebody else's last look, before this sign-in.
        assert!(is_in_use(Some(0), 1899));
    }
}
