//! gRPC plumbing for both ends: the guard in front of every method, errors with google.rpc details,
//! deadlines, channels.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http_body_util::BodyExt as _;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::Instrument as _;

use crate::channel::Channel;
use crate::http::{Connection, Connector};
use crate::pool::Hosts;
use crate::trace::{TracedChannel, rpc_answered, rpc_span};

/// The `domain` of every ErrorInfo.
pub const ERROR_DOMAIN: &str = "vvs";

/// How soon a caller may try again what was UNAVAILABLE or too much, unless an error says
/// otherwise.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What a caller is told: a code, a fixed reason, and nothing of what happened inside.
pub fn status(code: Code, reason: &'static str, field: Option<&'static str>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    if let Some(field) = field {
        details.add_bad_request_violation(field, "is missing or malformed");
    }
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(RETRY_DELAY));
    }
    Status::with_error_details(code, reason, details)
}

/// `RESOURCE_EXHAUSTED`: the caller has had all that it may have, until this time is over.
pub fn exhausted(reason: &'static str, retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, reason, details)
}

/// When an error says that the caller may try again.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// The reason in an error's ErrorInfo; empty when it has none of ours.
pub fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .filter(|info| info.domain == ERROR_DOMAIN)
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// Whatever a call holds until its answer is sent whole, such as its place in a limit.
pub type Held = Box<dyn Any + Send + Sync>;

/// Decides whether whoever is at the other end may call the method at this path.
pub type MethodCheck = Arc<dyn Fn(&Connection, &str) -> Result<Held, Status> + Send + Sync>;

/// Services behind the guard, with a span around each call. One layer for both, because each of
/// axum's costs every call some boxes and copies.
#[derive(Clone)]
pub struct Calls {
    services: axum::Router,
    check: MethodCheck,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Calls {
    pub fn new(routes: Routes, check: MethodCheck) -> Self {
        Self {
            services: routes.prepare().into_axum_router(),
            check,
        }
    }
}

impl tower::Service<Request> for Calls {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let span = rpc_span(&request);
        let answer = span.in_scope(|| {
            let connection = request
                .extensions()
                .get::<Connection>()
                .ok_or_else(|| Status::internal(""))?;
            let held = (self.check)(connection, request.uri().path())?;
            Ok::<_, Status>((self.services.call(request), held))
        });

        Box::pin(async move {
            let answer = match answer {
                Ok((answer, held)) => {
                    let answer = answer.instrument(span.clone()).await?;
                    answer.map(|body| hold(body, held))
                }
                Err(status) => status.into_http(),
            };
            rpc_answered(&span, answer.headers());
            Ok(answer)
        })
    }
}

/// A body that holds something until it is sent or dropped.
fn hold(body: Body, held: Held) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _held = &held;
        frame
    }))
}

/// The time that the caller gives this call (gRPC over HTTP/2, "Timeout"); `None` when it set none,
/// or an unreadable one.
pub fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    time(metadata.get("grpc-timeout")?.to_str().ok()?)
}

pub(crate) fn time(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }

    let amount: u64 = digits.parse().ok()?;

    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// A channel to the members of `hosts`: HOST:PORT, or several with commas between them. It dials
/// when it is first used and again whenever the connection is gone.
pub fn channel(
    hosts: &str,
    connector: Connector,
) -> Result<TracedChannel, tonic::transport::Error> {
    let hosts = match hosts.parse::<Hosts>() {
        Ok(hosts) => hosts,
        Err(bad) => {
            // It is no URI either, which is the error that callers know.
            Endpoint::from_shared(bad.to_string())?;
            Hosts::default()
        }
    };
    Ok(TracedChannel::new(Channel::new(hosts, connector)))
}

/// Sets the time that a call may take, for both ends.
pub fn within<T>(message: T, time: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(time);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_in_every_unit_of_the_specification() {
        let read = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(read("1H"), Some(Duration::from_hours(1)));
        for bad in ["", "S", "123456789S", "-1S", "5x", "5"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_unavailable_error_says_when_to_come_back() {
        let told = status(Code::Unavailable, "DRAINING", None);
        assert_eq!(reason(&told), "DRAINING");
        assert!(told.get_details_retry_info().is_some());
        assert!(
            status(Code::ResourceExhausted, "PEER_BUSY", None)
                .get_details_retry_info()
                .is_some()
        );
        assert!(
            status(Code::NotFound, "X", None)
                .get_details_retry_info()
                .is_none()
        );
    }

    #[test]
    fn an_exhausted_caller_hears_when_there_is_more() {
        let wait = Duration::from_secs(3);
        let told = exhausted("REFRESHED_TOO_OFTEN", wait);
        assert_eq!(
            (told.code(), reason(&told).as_str()),
            (Code::ResourceExhausted, "REFRESHED_TOO_OFTEN")
        );
        assert_eq!(retry_after(&told), Some(wait));
    }
}
