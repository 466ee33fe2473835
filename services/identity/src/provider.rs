//! The trait behind which an identity provider stands. A provider is a module with all that belongs
//! to it; nothing else knows which one it is.

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
use crate::dev_key::Key;
use crate::people::People;
use crate::person::{Proof, SignIn};
use crate::refusal::Refusal;
use crate::sessions::Sessions;
use crate::source::{Nonce, Sources};

/// What every provider gets.
#[derive(Clone)]
pub struct Common {
    pub people: People,
    pub public_url: Origin,
    pub sessions: Arc<dyn Sessions>,
    pub metrics: Metrics,
    pub tasks: TaskTracker,
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").finish_non_exhaustive()
    }
}

/// A page that asks the person to say who they are.
#[derive(Debug)]
pub struct Ask<'a> {
    pub about: About,
    /// For a form of the provider's.
    pub csrf: &'a SecretString,
    pub nonce: &'a Nonce,
    /// Who signed in to this browser before.
    pub before: Option<&'a SignIn>,
    /// The browser came back from here without a sign-in.
    pub retry: bool,
    /// The person wants to be somebody else than before, or nobody.
    pub another: bool,
    /// The person has just signed out of this browser.
    pub signed_out: bool,
}

/// A provider's part of a page.
#[derive(Debug, Default)]
pub struct Part {
    pub html: String,
    /// What it needs beside our own files.
    pub sources: Sources,
    /// What was sent before has to be mended.
    pub is_wrong: bool,
}

/// A provider's own text for a page.
pub(crate) fn html(template: &impl Template) -> String {
    template.render().unwrap_or_else(|cause| {
        tracing::error!(%cause, "a part of a page could not be rendered");
        String::new()
    })
}

/// What a request to the callback shows.
#[derive(Debug)]
pub enum Arrival {
    /// Nothing: the provider has told us before, and the browser's cookie says what.
    Before,
    SignedIn(SignIn, Proof),
    /// Nobody is signed in, or the browser has to fetch newer proof of it.
    Stale,
}

/// A path of a provider's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// A name in braces stands for one segment.
    pub path: &'static str,
    pub kind: Kind,
}

/// Who asks for a path, and with which method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A browser opens it: a GET.
    Page,
    /// A browser sends the form of the provider's part: a POST that a page of ours has caused.
    Form,
    /// A file: a GET by anybody.
    File,
    /// Others say something: a POST of so many bytes at most.
    Message(usize),
}

/// What a browser asks of a [`Kind::Page`] or sends to a [`Kind::Form`].
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub path: &'a str,
    /// Names and values, as the address or the form has them.
    pub fields: &'a [u8],
    pub about: Option<About>,
    /// The browser came back from here without a sign-in.
    pub retry: bool,
    /// The person wants to be somebody else than before.
    pub another: bool,
    pub now: OffsetDateTime,
}

/// What a browser gets for its [`Call`].
#[derive(Debug)]
pub enum Reply {
    /// It goes to this address.
    Go(String),
    /// The person is signed in, and the browser goes to this path of ours.
    SignedIn {
        sign_in: SignIn,
        proof: Proof,
        next: String,
    },
    /// The page on which the person says who they are, with this part.
    Ask(Part),
    /// Nobody has signed in, though nothing is broken.
    Stopped {
        stop: Stop,
        /// What people call the provider.
        provider: String,
    },
}

/// Why a trip came to nothing, though nothing is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// No trip of this browser, or one that took too long or is over.
    Unknown,
    /// The person did not want to, or the provider did not let them.
    Declined,
    /// The provider says that something is wrong.
    Failed,
}

/// What anybody asks of a [`Kind::File`] or says to a [`Kind::Message`].
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub path: &'a str,
    /// What stands in the path for the names in braces.
    pub segments: &'a [String],
    pub headers: &'a HeaderMap,
    /// `None` when it is longer than the path takes.
    pub body: Option<&'a Bytes>,
    pub request_id: &'a str,
    pub now: OffsetDateTime,
}

/// What the sender of a [`Request`] gets. Nobody keeps it, unless its headers say how long.
pub type Response = http::Response<Bytes>;

/// An answer without a text.
pub(crate) fn bare(status: StatusCode) -> Response {
    let mut answer = Response::default();
    *answer.status_mut() = status;
    answer
}

/// An identity provider.
pub trait Provider: Send + Sync {
    /// As sessions keep it.
    fn name(&self) -> &str;

    /// Its part of the pages on which a person says who they are. It leads to the callback.
    fn part(&self, ask: &Ask<'_>) -> Part;

    /// Paths of its own.
    fn paths(&self) -> Vec<Path>;

    /// Answers a browser at one of its paths.
    fn serve<'a>(
        &'a self,
        _call: Call<'a>,
        _browser: &'a mut dyn Browser,
    ) -> Asking<'a, Result<Reply, Refusal>> {
        Box::pin(ready(Err(Refusal::NotFound)))
    }

    /// Answers anybody else at one of its paths.
    fn answer<'a>(&'a self, _request: Request<'a>) -> Asking<'a, Response> {
        Box::pin(ready(bare(StatusCode::NOT_FOUND)))
    }

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

    /// What it does beside the requests, until it is dropped.
    fn watch(self: Arc<Self>) -> Asking<'static, ()> {
        Box::pin(ready(()))
    }

    /// Returns whether a browser at this address is served at all, when its request came straight
    /// here or through other hands.
    fn admits(&self, _client: IpAddr, _through: Option<&str>) -> Result<(), Refusal> {
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
