//! The administration port: liveness, readiness, metrics. It is plain HTTP, because its callers are
//! kubelets and scrapers; it shows nothing secret and changes nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderName, StatusCode, Version};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Whether a part of the process can serve. A part is not ready until it says so.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<bool>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.send_replace(ready);
    }

    pub fn get(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the part is ready.
    pub async fn wait(&self) {
        // Fails only without a sender, and we hold one.
        self.0.subscribe().wait_for(|ready| *ready).await.ok();
    }
}

/// A host name, without a port, that the port answers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// The text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host name such as relay-0.vvs.svc: letters, digits, dots and hyphens, without \
     a port"
)]
pub struct NotAHostName(String);

impl FromStr for HostName {
    type Err = NotAHostName;

    fn from_str(text: &str) -> Result<Self, NotAHostName> {
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if text.len() <= 253 && text.split('.').all(is_label) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(NotAHostName(text.chars().take(80).collect()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks that a request is for this port. A page whose own name points at our address (DNS
/// rebinding) sends that name. The port therefore accepts any address, `localhost`, and the
/// configured names.
fn check_host(request: &Request, names: &[HostName]) -> Result<(), (StatusCode, &'static str)> {
    let malformed = (
        StatusCode::BAD_REQUEST,
        "One Host header must name this port.\n",
    );
    let lines: Vec<_> = request
        .headers()
        .get_all(HOST)
        .iter()
        .map(|host| host.to_str().ok())
        .collect();
    let hosts = lines.into_iter().chain(
        request
            .uri()
            .authority()
            .map(|authority| Some(authority.as_str())),
    );
    let hosts: Vec<&str> = hosts.collect::<Option<_>>().ok_or(malformed)?;

    if request.headers().get_all(HOST).iter().count() > 1 {
        return Err(malformed);
    }

    if hosts.is_empty() {
        // Balancers ask so. Browsers do not.
        return if request.version() == Version::HTTP_10 {
            Ok(())
        } else {
            Err(malformed)
        };
    }

    let is_ours = |host: &&str| {
        host.parse::<Authority>()
            .is_ok_and(|host| is_own(host.host(), names))
    };
    if hosts.iter().all(is_ours) {
        return Ok(());
    }

    let other =
        "This port answers to addresses, to localhost and to the names in VVS_ADMIN_HOSTS.\n";

    Err((StatusCode::MISDIRECTED_REQUEST, other))
}

fn is_own(host: &str, names: &[HostName]) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| host.eq_ignore_ascii_case(&name.0))
}

async fn guard(request: Request, next: Next, names: Arc<[HostName]>) -> Response {
    let answer = match check_host(&request, &names) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };

    let headers = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    (headers, answer).into_response()
}

/// Serves `/livez`, `/readyz` (503 until every part is ready) and `/metrics`, for callers that use
/// an address, `localhost` or one of these names.
pub fn router(
    parts: Vec<(&'static str, Readiness)>,
    metrics: Metrics,
    names: Vec<HostName>,
) -> Router {
    let names: Arc<[HostName]> = names.into();
    let readyz = move || {
        let waiting: Vec<_> = parts
            .iter()
            .filter(|(_, part)| !part.get())
            .map(|(name, _)| *name)
            .collect();
        async move {
            if waiting.is_empty() {
                return (StatusCode::OK, "ready\n".to_owned());
            }
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {}\n", waiting.join(", ")),
            )
        }
    };
    let scrape = move || async move {
        (
            [(
                "content-type",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            metrics.scrape(),
        )
    };

    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .layer(from_fn(move |request, next| {
            guard(request, next, names.clone())
        }))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    async fn status(version: Version, target: &str, hosts: &[&str]) -> StatusCode {
        let names = ["relay-0.vvs.svc", "Prometheus.Example"].map(|name| name.parse().unwrap());
        let mut request = Request::get(target).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }

        let answers = router(Vec::new(), Metrics::default(), names.to_vec());
        let answer = answers
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");

        answer.status()
    }

    #[tokio::test]
    async fn the_port_answers_to_addresses_localhost_and_the_names_in_the_setting_alone() {
        for good in [
            "127.0.0.1:9090",
            "127.0.0.1",
            "10.1.2.3:9090",
            "[::1]:9090",
            "[2001:db8::1]",
            "localhost:1",
            "LOCALHOST",
            "relay-0.vvs.svc:9090",
            "prometheus.example",
        ] {
            assert_eq!(
                status(Version::HTTP_11, "/metrics", &[good]).await,
                StatusCode::OK,
                "{good}"
            );
        }

        for bad in [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "relay-0.vvs.svc.evil.example",
            "vvs.svc",
            "localhost.",
            "localhost@evil.example",
            "127.0.0.1@evil.example:9090",
            "0x7f000001",
            "",
        ] {
            for path in ["/metrics", "/livez", "/readyz", "/nowhere"] {
                let refused = status(Version::HTTP_11, path, &[bad]).await;
                assert_eq!(
                    refused,
                    StatusCode::MISDIRECTED_REQUEST,
                    "{path} of {bad:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_host_is_looked_at_wherever_it_stands() {
        let ours = ["127.0.0.1:9090"];
        let other = status(Version::HTTP_11, "http://evil.example/metrics", &ours).await;
        assert_eq!(other, StatusCode::MISDIRECTED_REQUEST);

        let other = status(Version::HTTP_2, "http://evil.example/metrics", &[]).await;
        assert_eq!(other, StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(
            status(Version::HTTP_2, "http://127.0.0.1:9090/metrics", &[]).await,
            StatusCode::OK
        );

        let two = status(Version::HTTP_11, "/metrics", &["127.0.0.1", "evil.example"]).await;
        assert_eq!(two, StatusCode::BAD_REQUEST);
        assert_eq!(
            status(Version::HTTP_11, "/metrics", &[]).await,
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            status(Version::HTTP_10, "/metrics", &[]).await,
            StatusCode::OK
        );
    }

    #[test]
    fn a_host_name_has_no_port_and_no_scheme() {
        assert_eq!(
            "Relay-0.vvs".parse::<HostName>().unwrap().to_string(),
            "relay-0.vvs"
        );
        for bad in [
            "", "a:9090", "http://a", "a/b", "a..b", ".a", "*.a", "a b", "[::1]",
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?} was taken");
        }
    }
}
