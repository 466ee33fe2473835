//! gRPC plumbing for both ends: the guard in front of every method, errors with google.rpc details, deadlines, channels.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::channel::Channel;
use crate::http::{Connection, Connector};
use crate::pool::Hosts;
use crate::trace::{TracedChannel, rpc_server};

/// The `domain` of every ErrorInfo.
pub const ERROR_DOMAIN: &str = "vvs";

/// How soon a caller may try again what was UNAVAILABLE, unless an error says otherwise.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What a caller is told: a code, a fixed reason, and nothing of what happened inside.
pub fn status(code: Code, reason: &'static str, field: Option<&'static str>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    if let Some(field) = field {
        details.add_bad_request_violation(field, "is missing or malformed");
    }
    if code == Code::Unavailable {
        details.set_retry_info(Some(RETRY_DELAY));
    }
    Status::with_error_details(code, reason, details)
}

/// The reason in an error's ErrorInfo; empty when it has none of ours.
pub fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .filter(|info| info.domain == ERROR_DOMAIN)
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// Decides whether whoever is at the other end may call the method at this path.
pub type MethodCheck = Arc<dyn Fn(&Connection, &str) -> Result<(), Status> + Send + Sync>;

/// The services behind the guard, with a span around each call.
pub fn router(routes: Routes, check: MethodCheck) -> axum::Router {
    routes.prepare().into_axum_router().layer(from_fn_with_state(check, guard)).layer(from_fn(rpc_server))
}

async fn guard(State(check): State<MethodCheck>, request: Request, next: Next) -> Response {
    let checked = match request.extensions().get::<Connection>() {
        Some(connection) => check(connection, request.uri().path()),
        None => Err(Status::internal("")),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(status) => status.into_http::<axum::body::Body>().into_response(),
    }
}

/// The time that the caller gives this call (gRPC over HTTP/2, "Timeout"); `None` when it set none, or an unreadable one.
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

/// A channel to the members of `hosts`: HOST:PORT, or several with commas between them. It dials when it is first used and
/// again whenever the connection is gone.
pub fn channel(hosts: &str, connector: Connector) -> Result<TracedChannel, tonic::transport::Error> {
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
        assert!(status(Code::NotFound, "X", None).get_details_retry_info().is_none());
    }
}
