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
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
pub use tonic_reflection::server::Error as BadDescription;
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::Instrument as _;

use crate::Process;
use crate::channel::Channel;
pub use crate::deadline::deadline;
use crate::http::{Connection, Connector};
use crate::pool::Hosts;
use crate::trace::{TracedChannel, rpc_answered, rpc_span};

/// The `domain` of every ErrorInfo.
pub const ERROR_DOMAIN: &str = "vvs";

/// How soon a caller may retry a call that was UNAVAILABLE or beyond a limit, unless an error says
/// otherwise.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Returns the error that a caller gets: a code and a fixed reason, without internal details.
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

/// Returns `RESOURCE_EXHAUSTED`: the caller has used its allowance until this time is over.
pub fn exhausted(reason: &'static str, retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    details.set_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, reason, details)
}

/// Returns when the caller may retry, if the error says so.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// Returns the reason in an error's ErrorInfo; empty for an error of another domain.
pub fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .filter(|info| info.domain == ERROR_DOMAIN)
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// A value that a call holds until its whole answer is sent, such as its place in a limit.
pub type Held = Box<dyn Any + Send + Sync>;

/// Decides whether the peer may call the method at this path.
pub type MethodCheck = Arc<dyn Fn(&Connection, &str) -> Result<Held, Status> + Send + Sync>;

/// Services behind the guard, with a span around each call. One layer for both, because each of
/// axum's layers costs every call some boxes and copies.
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

/// The services that one port offers.
#[derive(Default)]
pub struct Services {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Services").field(&self.names).finish()
    }
}

impl Services {
    /// Adds one.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: tower::Service<http::Request<tonic::body::Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }
}

impl Calls {
    /// Returns the services with their health and, given a description, reflection. The health is
    /// SERVING until the process stops; then the streams of its watchers end.
    pub async fn serving(
        services: Services,
        description: Option<&'static [u8]>,
        check: MethodCheck,
        process: &Process,
    ) -> Result<Self, BadDescription> {
        let (health, health_service) = health_reporter();
        let Services { mut routes, names } = services;
        for name in &names {
            health
                .set_service_status(*name, ServingStatus::Serving)
                .await;
        }

        routes.add_service(health_service);
        if let Some(description) = description {
            let mut reflection = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(description)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
            for name in &names {
                reflection = reflection.with_service_name(*name);
            }
            routes.add_service(reflection.build_v1()?);
        }

        process
            .tasks
            .spawn(stopped(health, names, process.stop.clone()));

        Ok(Self {
            services: routes.routes().prepare().into_axum_router(),
            check,
        })
    }
}

/// Tells all callers that this process takes no more calls.
async fn stopped(mut health: HealthReporter, services: Vec<&'static str>, stop: CancellationToken) {
    stop.cancelled().await;
    for name in services.into_iter().chain([""]) {
        health
            .set_service_status(name, ServingStatus::NotServing)
            .await;
        // Ends the streams of those who watch, which would hold up the drain.
        health.clear_service_status(name).await;
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

/// Wraps a body so that it holds a value until it is sent or dropped.
fn hold(body: Body, held: Held) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _held = &held;
        frame
    }))
}

/// Creates a channel to the members of `hosts`: HOST:PORT, or several separated by commas. It dials
/// on first use and again whenever the connection is gone.
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
