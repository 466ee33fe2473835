//! gRPC calls to the ready and less busy member of a pool, over one HTTP/2 connection to each
//! member. A stream stays with its member, and ends when the member goes away.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;

use crate::deadline;
use crate::http::Connector;
use crate::pool::{Busy, Hosts, Member, Pool, TRIES};

#[cfg(test)]
mod tests;

/// The connection to one member.
#[derive(Default)]
struct Lane(Mutex<LastDial>);

#[derive(Default)]
struct LastDial {
    connection: Option<SendRequest<Body>>,
    /// When the last attempt to connect failed, and why.
    failure: Option<(Instant, Arc<io::Error>)>,
}

/// A channel with the interface of a generated client.
#[derive(Clone)]
pub(crate) struct Channel(Arc<Exchange>);

struct Exchange {
    pool: Pool<Lane>,
    connector: Connector,
    /// Tasks that nobody waits for: a connection ends with its last call.
    tasks: TaskTracker,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.0.pool).finish()
    }
}

impl Channel {
    pub(crate) fn new(hosts: Hosts, connector: Connector) -> Self {
        let pool = Pool::new(hosts, &connector);
        Self(Arc::new(Exchange {
            pool,
            connector,
            tasks: TaskTracker::new(),
        }))
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            // The deadline is for the other end too, but what cannot be reached keeps none.
            let time = request
                .headers()
                .get("grpc-timeout")
                .and_then(|time| deadline::time(time.to_str().ok()?));
            let Some(time) = time else {
                return shared.send(request).await;
            };
            timeout(time, shared.send(request))
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer came")))
        })
    }
}

impl Exchange {
    /// Offers the call to one member after the other, until a part of it was sent.
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        self.pool.known().await;
        let mut tried = Vec::new();
        let mut failure = None;
        for _ in 0..TRIES {
            let member = match self.pool.pick(&tried) {
                Ok(member) => member,
                Err(cause) => {
                    return Err(failure.unwrap_or_else(|| Status::unavailable(cause.to_string())));
                }
            };

            let mut connection = match self.connection(&member).await {
                Ok(connection) => connection,
                Err(cause) => {
                    self.pool.failed(&member);
                    tried.push(member.address);
                    failure = Some(Status::unavailable(format!(
                        "{} cannot be reached: {cause}",
                        member.address
                    )));
                    continue;
                }
            };

            address(&mut request, &member)?;
            let mut error = match connection.try_send_request(request).await {
                Ok(answer) => return Ok(held(answer, member)),
                Err(error) => error,
            };

            let unsent = error.take_message();
            let status = Status::unavailable(format!(
                "{} did not answer: {}",
                member.address,
                error.into_error()
            ));

            // It came to a connection that had just ended: the same member may have a new one.
            let Some(unsent) = unsent else {
                return Err(status);
            };

            (request, failure) = (unsent, Some(status));
        }

        Err(failure.unwrap_or_else(|| Status::unavailable("")))
    }

    /// Returns the member's connection, or opens a new one. A caller that waited for an attempt
    /// that failed does not repeat it.
    async fn connection(&self, member: &Member<Lane>) -> Result<SendRequest<Body>, Arc<io::Error>> {
        let asked = Instant::now();
        let mut dial = member.kept.0.lock().await;
        if let Some(connection) = dial
            .connection
            .as_ref()
            .filter(|connection| !connection.is_closed())
        {
            return Ok(connection.clone());
        }

        if let Some((at, cause)) = dial.failure.as_ref()
            && *at >= asked
        {
            return Err(cause.clone());
        }

        match self.dial(member).await {
            Ok(connection) => {
                member.reached();
                *dial = LastDial {
                    connection: Some(connection.clone()),
                    failure: None,
                };
                Ok(connection)
            }
            Err(cause) => {
                let cause = Arc::new(cause);
                *dial = LastDial {
                    connection: None,
                    failure: Some((Instant::now(), cause.clone())),
                };
                Err(cause)
            }
        }
    }

    async fn dial(&self, member: &Member<Lane>) -> io::Result<SendRequest<Body>> {
        let stream = self.connector.connect(&member.address.to_string()).await?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let address = member.address;
        self.tasks.spawn(async move {
            if let Err(cause) = connection.await {
                tracing::debug!(member = %address, %cause, "a connection ended early");
            }
        });

        Ok(sender)
    }
}

/// Sets the host of the request, as HTTP/2 requires (RFC 9113, section 8.3.1).
fn address(request: &mut Request<Body>, member: &Member<Lane>) -> Result<(), Status> {
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    (target.scheme, target.authority) = (Some(Scheme::HTTP), Some(member.host.clone()));
    *request.uri_mut() =
        Uri::from_parts(target).map_err(|cause| Status::internal(cause.to_string()))?;
    Ok(())
}

/// Returns the answer; its member counts as busy until the whole answer has arrived.
fn held(answer: Response<hyper::body::Incoming>, member: Busy<Lane>) -> Response<Body> {
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _busy = &member;
            frame
        }))
    })
}
