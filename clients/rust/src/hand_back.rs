//! The loopback page to which a browser brings the completion code after its person has approved.
//! Decides nothing about the code; its caller does.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use vvs_proto::frame::Secret;

/// The page needs a script, because no browser sends the part behind `#` to a server.
const SCRIPT: &str = include_str!("hand_back.js");
const PAGE: (&str, &str) = (include_str!("hand_back.head.html"), "</script>\n");
const FORM: &str = "application/x-www-form-urlencoded";
/// The three fields are about 100 bytes.
const MAX_BODY: usize = 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The fields that a browser brought. `answer` tells its person whether they were ours.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) connection_id: String,
    pub(crate) state: Secret,
    pub(crate) code: Secret,
    pub(crate) answer: oneshot::Sender<bool>,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct HandBack {
    address: SocketAddr,
    brought: mpsc::Receiver<Brought>,
    _listening: JoinSet<()>,
}

impl HandBack {
    pub(crate) async fn listen() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (sender, brought) = mpsc::channel(1);
        let mut listening = JoinSet::new();
        listening.spawn(serve(listener, Arc::new(Landing { address, sender })));
        Ok(Self {
            address,
            brought,
            _listening: listening,
        })
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Returns the next delivery. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Brought {
        match self.brought.recv().await {
            Some(brought) => brought,
            None => std::future::pending().await,
        }
    }
}

struct Landing {
    address: SocketAddr,
    sender: mpsc::Sender<Brought>,
}

async fn serve(listener: TcpListener, page: Arc<Landing>) {
    // In here, so that they end with the listener. A browser may open connections that it never
    // uses.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let page = page.clone();
                let service = service_fn(move |request| {
                    let page = page.clone();
                    async move { Ok::<_, Infallible>(page.answer(request).await) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                connections.spawn(async move {
                    builder.serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Landing {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());

        // Any other name for this address is somebody's attempt to make a browser confuse it with a
        // site of theirs.
        if host != Some(&self.address.to_string()) {
            return page(StatusCode::MISDIRECTED_REQUEST, "text/plain", "Not here.");
        }

        match (
            request.method(),
            request.uri().path(),
            request.uri().query(),
        ) {
            (&Method::GET, "/", None) => page(
                StatusCode::OK,
                "text/html; charset=utf-8",
                &[PAGE.0, SCRIPT, PAGE.1].concat(),
            ),
            (&Method::POST, "/", None) if self.is_own(request.headers()) => {
                self.take(request).await
            }
            (&Method::POST, "/", None) => page(
                StatusCode::FORBIDDEN,
                "text/plain",
                "Only this page may do that.",
            ),
            (_, "/", None) => page(
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain",
                "That cannot be done here.",
            ),
            _ => page(StatusCode::NOT_FOUND, "text/plain", "Nothing is here."),
        }
    }

    /// Returns whether our own page sent this, and not another one that is open in the same
    /// browser.
    fn is_own(&self, headers: &HeaderMap) -> bool {
        let is = |name: header::HeaderName, value: &str| {
            headers.get(name).is_some_and(|found| found == value)
        };
        let site = headers
            .get("sec-fetch-site")
            .is_none_or(|site| site == "same-origin");
        is(header::ORIGIN, &format!("http://{}", self.address))
            && is(header::CONTENT_TYPE, FORM)
            && site
    }

    async fn take(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let refused = |text| page(StatusCode::BAD_REQUEST, "text/plain", text);
        let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
            return refused("That is too much.");
        };

        let body = body.to_bytes();
        let field = |name: &str| {
            let mut found = url::form_urlencoded::parse(&body).filter(|(key, _)| key == name);
            found
                .next()
                .map(|(_, value)| value.into_owned())
                .filter(|_| found.next().is_none())
        };
        let (Some(connection_id), Some(state), Some(code)) =
            (field("connection_id"), field("state"), field("code"))
        else {
            return refused(
                "Something is missing from this link. Go back to the page that you came from and \
                 try again.",
            );
        };

        let (answer, ours) = oneshot::channel();
        let brought = Brought {
            connection_id,
            state: Secret::new(state),
            code: Secret::new(code),
            answer,
        };

        if self.sender.send(brought).await.is_ok() && ours.await.unwrap_or(false) {
            page(
                StatusCode::OK,
                "text/plain",
                "Done. You may close this window and go back to your editor.",
            )
        } else {
            refused(
                "This link does not belong to the sign-in that your editor is waiting for, so \
                 nothing was done. If somebody sent it to you, they may be trying to get into your \
                 account.",
            )
        }
    }
}

fn page(status: StatusCode, content_type: &'static str, text: &str) -> Response<Full<Bytes>> {
    let hash = BASE64_STANDARD.encode(digest(&SHA256, SCRIPT.as_bytes()));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{hash}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, &policy),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }

    response
}

#[cfg(test)]
pub(crate) mod tests;
