//! Why the edge does not start, and why it does not pass a request on. It does not decide how
//! others answer the requests that it passes on.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use vvs_runtime::pool::BadHost;
use vvs_runtime::share::Full;

use crate::class::Class;

/// Why the edge cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{setting} is missing: it must say where the edge finds this role, as HOST:PORT, or \
         several with commas"
    )]
    NoAddress { setting: &'static str },
    #[error("{setting}: {source}")]
    BadAddress {
        setting: &'static str,
        source: BadHost,
    },
}

/// Why a request goes no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("too many requests from one address")]
    Rate {
        setting: &'static str,
        wait: Duration,
    },
    #[error("too many connections a minute from one address")]
    ConnectionRate,
    #[error("all places are taken: {0:?}, {1:?}")]
    Full(Class, Full),
    #[error("no host was named")]
    NoHost,
    #[error("another host was asked for")]
    ForeignHost,
    #[error("the method is not one of ours")]
    Method,
    #[error("the request is malformed")]
    Malformed,
    #[error("the body is too large")]
    BodyTooLarge,
    #[error("the body came too slowly")]
    BodySlow,
    #[error("{role}: {cause}")]
    NoneReady { role: &'static str, cause: String },
    #[error("{role} cannot be reached: {cause}")]
    Unreachable { role: &'static str, cause: String },
    #[error("{role} answered badly: {cause}")]
    BadAnswer { role: &'static str, cause: String },
    #[error("{role} did not answer in time")]
    NoAnswer { role: &'static str },
    #[error("the random generator failed: {0}")]
    Random(#[from] vvs_auth::Error),
}

impl Refusal {
    /// Returns the reason for log lines and the metric, the status, and the text for a person: what
    /// is wrong, and what to do.
    fn outside(&self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Rate { .. } => (
                "request_rate",
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests. Wait, then try again.",
            ),
            // Nobody is told: the connection is closed before anything is said.
            Self::ConnectionRate => ("connection_rate", StatusCode::TOO_MANY_REQUESTS, ""),
            Self::Full(pool, Full::Everyone) => (
                pool.names().0,
                StatusCode::SERVICE_UNAVAILABLE,
                "This service has too much to do. Try again in a few seconds.",
            ),
            Self::Full(pool, Full::Address) => (
                pool.names().1,
                StatusCode::TOO_MANY_REQUESTS,
                "Too much is under way from your network. Close some pages or editors, then try \
                 again.",
            ),
            Self::Full(_, Full::Ipv4Net24 | Full::Ipv6Net56 | Full::Ipv6Net48) => (
                "network",
                StatusCode::TOO_MANY_REQUESTS,
                "This service has much to do, and most of it from networks like yours. Try again \
                 in a few seconds.",
            ),
            Self::NoHost => (
                "no_host",
                StatusCode::BAD_REQUEST,
                "The request names no host. Send a Host header.",
            ),
            Self::ForeignHost => (
                "foreign_host",
                StatusCode::MISDIRECTED_REQUEST,
                "This server does not serve the host that was asked for. Use its public address.",
            ),
            Self::Method => (
                "method",
                StatusCode::METHOD_NOT_ALLOWED,
                "Only GET, HEAD and POST are understood here.",
            ),
            Self::Malformed => (
                "malformed",
                StatusCode::BAD_REQUEST,
                "The request could not be read. Send it again.",
            ),
            Self::BodyTooLarge => (
                "body_size",
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request is too large. Send less.",
            ),
            Self::BodySlow => (
                "body_slow",
                StatusCode::REQUEST_TIMEOUT,
                "The request came too slowly. Try again.",
            ),
            Self::NoneReady { .. } => (
                "none_ready",
                StatusCode::SERVICE_UNAVAILABLE,
                "A part of this service is not ready. Try again in a few seconds.",
            ),
            Self::Unreachable { .. } => (
                "unreachable",
                StatusCode::SERVICE_UNAVAILABLE,
                "A part of this service cannot be reached. Try again in a few seconds.",
            ),
            Self::BadAnswer { .. } => (
                "bad_answer",
                StatusCode::BAD_GATEWAY,
                "A part of this service stopped while it was answering. Try again in a few \
                 seconds.",
            ),
            Self::NoAnswer { .. } => (
                "no_answer",
                StatusCode::GATEWAY_TIMEOUT,
                "A part of this service did not answer in time. Try again in a few seconds.",
            ),
            Self::Random(_) => (
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong. Try again.",
            ),
        }
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.outside().0
    }

    /// Returns the setting whose limit this is.
    pub(crate) fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Rate { setting, .. } => Some(setting),
            Self::ConnectionRate => Some("VVS_GATEWAY_CONNECTIONS_PER_MINUTE"),
            Self::Full(pool, Full::Everyone) => Some(pool.settings().0),
            Self::Full(pool, Full::Address) => Some(pool.settings().1),
            Self::Full(_, Full::Ipv4Net24) => Some("VVS_GATEWAY_PLACES_PER_24"),
            Self::Full(_, Full::Ipv6Net56) => Some("VVS_GATEWAY_PLACES_PER_56"),
            Self::Full(_, Full::Ipv6Net48) => Some("VVS_GATEWAY_PLACES_PER_48"),
            Self::BodyTooLarge => Some("VVS_GATEWAY_MAX_BODY_BYTES"),
            Self::BodySlow => Some("VVS_GATEWAY_BODY_TIMEOUT"),
            Self::NoHost
            | Self::ForeignHost
            | Self::Method
            | Self::Malformed
            | Self::NoneReady { .. }
            | Self::Unreachable { .. }
            | Self::BadAnswer { .. }
            | Self::NoAnswer { .. }
            | Self::Random(_) => None,
        }
    }

    /// Returns whether the fault is ours and not the client's.
    pub(crate) fn is_ours(&self) -> bool {
        self.outside().1.is_server_error()
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rate { wait, .. } => Some(*wait),
            Self::Full(Class::Connections, Full::Address) => Some(Duration::from_secs(30)),
            Self::Full(..)
            | Self::NoneReady { .. }
            | Self::Unreachable { .. }
            | Self::BadAnswer { .. } => Some(Duration::from_secs(5)),
            Self::ConnectionRate
            | Self::NoHost
            | Self::ForeignHost
            | Self::Method
            | Self::Malformed
            | Self::BodyTooLarge
            | Self::BodySlow
            | Self::NoAnswer { .. }
            | Self::Random(_) => None,
        }
    }

    pub(crate) fn answer(&self) -> Response {
        let (_, status, text) = self.outside();
        let headers = [
            (CONTENT_TYPE, "text/plain; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        let mut response = (status, headers, format!("{text}\n")).into_response();
        if let Some(wait) = self.retry_after() {
            // Rounded up: a client that obeys must not come too early.
            response.headers_mut().insert(
                RETRY_AFTER,
                HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            );
        }

        if matches!(self, Self::Method) {
            response.headers_mut().insert(
                http::header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST"),
            );
        }

        response
    }
}

impl Class {
    /// Returns the reasons for refusing a request when all places are taken, and when one address
    /// has its share of them.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Connections => ("connections", "connections_per_address"),
            Self::Bodies => ("bodies", "bodies_per_address"),
            Self::Requests => ("requests", "requests_per_address"),
            Self::Polls => ("polls", "polls_per_address"),
            Self::Hooks => ("hooks", "hooks_per_address"),
        }
    }

    /// Returns the settings of these limits.
    fn settings(self) -> (&'static str, &'static str) {
        match self {
            Self::Connections => (
                "VVS_GATEWAY_MAX_CONNECTIONS",
                "VVS_GATEWAY_MAX_CONNECTIONS_PER_ADDRESS",
            ),
            Self::Bodies => (
                "VVS_GATEWAY_MAX_BODIES",
                "VVS_GATEWAY_MAX_BODIES_PER_ADDRESS",
            ),
            Self::Requests => (
                "VVS_GATEWAY_MAX_REQUESTS",
                "VVS_GATEWAY_MAX_REQUESTS_PER_ADDRESS",
            ),
            Self::Polls => ("VVS_GATEWAY_MAX_POLLS", "VVS_GATEWAY_MAX_POLLS_PER_ADDRESS"),
            Self::Hooks => ("VVS_GATEWAY_MAX_HOOKS", "VVS_GATEWAY_MAX_HOOKS_PER_ADDRESS"),
        }
    }
}
