//! Calls to an identity provider over HTTP, with a deadline, a limit and no redirects, and the
//! meaning of its refusals.

use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, Request, RequestBuilder, Response};

/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long a call may take in all.
const CALL_TIME: Duration = Duration::from_secs(5);
/// More than any provider sends, in bytes.
const MAX_ANSWER: usize = 512 * 1024;
/// How much of a trace id is logged, in characters.
const MAX_TRACE: usize = 64;

/// Makes calls. Uses the system's proxy settings and trusted certificates.
#[derive(Clone, Debug)]
pub(crate) struct Fetch(Client);

/// A call that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failed {
    /// A repeated call may succeed: no connection, no time, too many calls, a fault of the
    /// provider's.
    #[error("no answer from {host}: {cause}")]
    Unavailable {
        host: String,
        cause: String,
        retry_after: Option<Duration>,
    },
    /// The provider has answered and refuses.
    #[error("{host} answers {status}: {code} (trace {trace})")]
    Refused {
        host: String,
        status: StatusCode,
        code: String,
        trace: String,
    },
    /// The provider has answered something unexpected.
    #[error("{host} answers what cannot be read: {cause}")]
    Unreadable { host: String, cause: String },
}

impl Failed {
    /// Returns the error for a call that was not made because the last one was just now.
    pub(crate) fn paused(time: Duration) -> Self {
        Self::Unavailable {
            host: "the provider".to_owned(),
            cause: "it did not answer just now".to_owned(),
            retry_after: Some(time),
        }
    }
}

impl Fetch {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .user_agent(concat!("vvs-web/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIME)
            .timeout(CALL_TIME);
        Ok(Self(client.build()?))
    }

    pub(crate) fn get(&self, url: &str) -> RequestBuilder {
        self.0.get(url)
    }

    /// Returns the answer unchanged, unless it says that a later one will be better.
    pub(crate) async fn send(
        &self,
        request: Request,
    ) -> Result<(StatusCode, http::HeaderMap, Vec<u8>), Failed> {
        let host = host(&request);
        let answer = self
            .0
            .execute(request)
            .await
            .map_err(|cause| failed(&host, &cause.without_url()))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let retry_after = headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse().ok());
            let retry_after = retry_after.map(Duration::from_secs);

            // For support at the provider.
            let ray = headers
                .get("cf-ray")
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let trace: String = ray
                .chars()
                .filter(char::is_ascii_graphic)
                .take(MAX_TRACE)
                .collect();
            let cause = if trace.is_empty() {
                status.to_string()
            } else {
                format!("{status} (trace {trace})")
            };

            return Err(Failed::Unavailable {
                host,
                cause,
                retry_after,
            });
        }

        let body = body(answer).await.map_err(|cause| Failed::Unavailable {
            host,
            cause,
            retry_after: None,
        })?;

        Ok((status, headers, body))
    }
}

async fn body(mut answer: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|cause| cause.without_url().to_string())?
    {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("more than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }

    Ok(body)
}

fn host(request: &Request) -> String {
    request.url().host_str().unwrap_or_default().to_owned()
}

fn failed(host: &str, cause: &reqwest::Error) -> Failed {
    let mut text = cause.to_string();
    let mut source = std::error::Error::source(cause);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    Failed::Unavailable {
        host: host.to_owned(),
        cause: text,
        retry_after: None,
    }
}
