//! The trait of an identity provider. A provider is a module with everything that belongs to it;
//! nothing else knows which one it is.

use std::fmt;
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;
use time::OffsetDateTime;
use tokio_util::task::TaskTracker;
use vvs_runtime::metrics::Metrics;
use vvs_runtime::origin::Origin;

use crate::about::About;
use crate::asking::Asking;
use crate::browser::Browser;
use crate::dev_key::DevKey;
use crate::people::People;
use crate::person::{Freshness, SignIn};
use crate::refusal::Refusal;
use crate::sessions::Sessions;
use crate::source::{Nonce, Sources};

/// The dependencies of every provider.
#[derive(Clone)]
pub struct ProviderContext {
    pub people: People,
    pub public_url: Origin,
    pub sessions: Arc<dyn Sessions>,
    pub metrics: Metrics,
    pub tasks: TaskTracker,
}

impl fmt::Debug for ProviderContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderContext").finish_non_exhaustive()
    }
}

/// A page that asks the person to sign in.
#[derive(Debug)]
pub struct Ask<'a> {
    pub about: About,
    /// For a form of the provider.
    pub csrf: &'a SecretString,
    pub nonce: &'a Nonce,
    /// The person who signed in to this browser before.
    pub before: Option<&'a SignIn>,
    /// The browser came back from here without a sign-in.
    pub retry: bool,
    /// The person wants to use another account, or none.
    pub another: bool,
    /// The person has just signed out of this browser.
    pub signed_out: bool,
}

/// A provider's part of a page.
#[derive(Debug, Default)]
pub struct Part {
    pub html: String,
    /// The sources that it needs besides our own files.
    pub sources: Sources,
    /// The last input has to be corrected.
    pub is_wrong: bool,
}

/// Renders a provider's text for a page.
pub(crate) fn html(template: &impl Template) -> String {
    template.render().unwrap_or_else(|cause| {
        tracing::error!(%cause, "a part of a page could not be rendered");
        String::new()
    })
}

/// The result of a request to the callback.
#[derive(Debug)]
pub enum Arrival {
    /// Nothing new: the provider has already reported the person, who is in the browser's cookie.
    Before,
    SignedIn(SignIn, Freshness),
    /// Nobody is signed in, or the browser has to fetch newer proof of it.
    Stale,
}

/// A path of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// A name in braces stands for one segment.
    pub path: &'static str,
    pub kind: PathKind,
}

/// Who asks for a path, and with which method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A browser opens it: a GET.
    Page,
    /// A browser sends the form of the provider's part: a POST that a page of ours has caused.
    Form,
    /// A file: a GET by anybody.
    File,
    /// Another party sends a message: a POST of at most this many bytes.
    Message(usize),
}

/// A browser's request for a [`PathKind::Page`] or to a [`PathKind::Form`].
#[derive(Debug, Clone, Copy)]
pub struct BrowserRequest<'a> {
    pub path: &'a str,
    /// Names and values, as the address or the form has them.
    pub fields: &'a [u8],
    pub about: Option<About>,
    /// The browser came back from here without a sign-in.
    pub retry: bool,
    /// The person wants to use another account.
    pub another: bool,
    pub now: OffsetDateTime,
}

/// The answer to a browser's [`BrowserRequest`].
#[derive(Debug)]
pub enum Reply {
    /// It goes to this address.
    Go(String),
    /// The person is signed in, and the browser goes to this path of ours.
    SignedIn {
        sign_in: SignIn,
        proof: Freshness,
        next: String,
    },
    /// The page on which the person signs in, with this part.
    Ask(Part),
    /// Nobody has signed in, though nothing is broken.
    Stopped {
        stop: Stop,
        /// The name that people use for the provider.
        provider: String,
    },
}

/// Why a trip failed without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Not a trip of this browser, or one that took too long or is over.
    Unknown,
    /// The person stopped, or the provider refused them.
    Declined,
    /// The provider reports an error.
    Failed,
}

/// A request of any client for a [`PathKind::File`] or to a [`PathKind::Message`].
#[derive(Debug, Clone, Copy)]
pub struct PlainRequest<'a> {
    pub path: &'a str,
    /// The values of the names in braces in the path.
    pub segments: &'a [String],
    pub headers: &'a HeaderMap,
    /// `None` when it is longer than the path accepts.
    pub body: Option<&'a Bytes>,
    pub request_id: &'a str,
    pub now: OffsetDateTime,
}

/// The answer to the sender of a [`PlainRequest`]. It is not cached, unless its headers say how
/// long.
pub type Response = http::Response<Bytes>;

/// An answer without a text.
pub(crate) fn bare(status: StatusCode) -> Response {
    let mut answer = Response::default();
    *answer.status_mut() = status;
    answer
}

/// An identity provider.
pub trait Provider: Send + Sync {
    /// Returns the name in sessions.
    fn name(&self) -> &str;

    /// Returns its part of the pages on which a person signs in. It leads to the callback.
    fn part(&self, ask: &Ask<'_>) -> Part;

    /// Returns its own paths.
    fn paths(&self) -> Vec<Path>;

    /// Answers a browser at one of its paths.
    fn serve<'a>(
        &'a self,
        _call: BrowserRequest<'a>,
        _browser: &'a mut dyn Browser,
    ) -> Asking<'a, Result<Reply, Refusal>> {
        Box::pin(ready(Err(Refusal::NotFound)))
    }

    /// Answers anybody else at one of its paths.
    fn answer<'a>(&'a self, _request: PlainRequest<'a>) -> Asking<'a, Response> {
        Box::pin(ready(bare(StatusCode::NOT_FOUND)))
    }

    /// Returns who has signed in, according to the callback's request.
    fn arrive<'a>(
        &'a self,
        _headers: &'a HeaderMap,
        _now: OffsetDateTime,
    ) -> Asking<'a, Result<Arrival, Refusal>> {
        Box::pin(ready(Ok(Arrival::Before)))
    }

    /// Asks whether a sign-in is still valid, right before it is used to approve.
    fn confirm<'a>(&'a self, _sign_in: &'a SignIn) -> Asking<'a, Result<(), Refusal>> {
        Box::pin(ready(Ok(())))
    }

    /// Runs its background work, until it is dropped.
    fn watch(self: Arc<Self>) -> Asking<'static, ()> {
        Box::pin(ready(()))
    }

    /// Returns whether a browser at this address is served at all, when its request came straight
    /// here or through an intermediary.
    fn admits(&self, _client: IpAddr, _through: Option<&str>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Returns the key that each browser has to enter once before it is served.
    fn key(&self) -> Option<&DevKey> {
        None
    }

    /// Returns whether it signs in anyone as anyone, so that every page has to say so.
    fn is_development(&self) -> bool {
        false
    }
}
