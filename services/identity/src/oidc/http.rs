//! Calls to the provider, with the interface that `oauth2` requires. Tests put a test provider
//! behind it.

use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Request, StatusCode};
use oauth2::url::Url;
use oauth2::{AccessToken, AsyncHttpClient, HttpRequest, HttpResponse};

use crate::asking::Asking;
use crate::fetch::{Failed, Fetch};

type Transport = dyn Fn(HttpRequest) -> Asking<'static, Result<HttpResponse, Failed>> + Send + Sync;

/// Makes calls.
#[derive(Clone)]
pub(super) struct Http(Arc<Transport>);

impl Http {
    pub(super) fn new(call: Arc<Transport>) -> Self {
        Self(call)
    }

    pub(super) fn over(fetch: Fetch) -> Self {
        Self::new(Arc::new(move |request| {
            let fetch = fetch.clone();
            Box::pin(async move {
                let request = reqwest::Request::try_from(request)
                    .map_err(|_cause| unreadable("", "no URL to call"))?;
                let (status, headers, body) = fetch.send(request).await?;
                let mut answer = HttpResponse::new(body);
                *answer.status_mut() = status;
                *answer.headers_mut() = headers;
                Ok(answer)
            })
        }))
    }

    /// Returns the content of a URL, to be read as JSON.
    pub(super) async fn get(
        &self,
        url: &Url,
        token: Option<&AccessToken>,
    ) -> Result<Vec<u8>, Failed> {
        let mut request = Request::get(url.as_str()).header(ACCEPT, "application/json");
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.secret()))
                .map_err(|_cause| unreadable(host(url), "its access token fits in no header"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }

        let request = request
            .body(Vec::new())
            .map_err(|_cause| unreadable(host(url), "no URL to call"))?;
        let answer = self.call(request).await?;

        if answer.status() == StatusCode::OK {
            Ok(answer.into_body())
        } else {
            Err(refused(url, answer.status(), ""))
        }
    }
}

impl AsyncHttpClient<'_> for Http {
    type Error = Failed;
    type Future = Asking<'static, Result<HttpResponse, Failed>>;

    fn call(&self, request: HttpRequest) -> Self::Future {
        (self.0)(request)
    }
}

pub(super) fn unreadable(host: &str, cause: impl Into<String>) -> Failed {
    Failed::Unreadable {
        host: host.to_owned(),
        cause: cause.into(),
    }
}

pub(super) fn refused(url: &Url, status: StatusCode, code: &str) -> Failed {
    Failed::Refused {
        host: host(url).to_owned(),
        status,
        code: code.to_owned(),
        trace: String::new(),
    }
}

pub(super) fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}
