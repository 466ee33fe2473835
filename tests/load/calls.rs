//! gRPC over mutual TLS with nothing around it, and a sessions role that says yes to whatever it is
//! asked.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use vvs_runtime::tls::Identity;

use crate::Failure;

/// How a call ended (gRPC over HTTP/2, "Status").
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// One message with nothing in it (gRPC over HTTP/2, "Length-Prefixed-Message").
const EMPTY: &[u8] = &[0; 5];

/// Serves until it is dropped.
pub(crate) async fn serve<S>(
    tcp: TcpListener,
    identity: &Arc<Identity>,
    service: S,
) -> Result<(), Failure>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = tcp.accept().await?;
        connections.spawn(connection(
            stream,
            TlsAcceptor::from(identity.server()),
            service.clone(),
        ));
    }
}

async fn connection<S>(stream: TcpStream, tls: TlsAcceptor, service: S) -> Result<(), Failure>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(tls.accept(stream).await?);
    Ok(http2::Builder::new(TokioExecutor::new())
        .serve_connection(stream, service)
        .await?)
}

/// Sessions, as far as a relay needs it that delivers: every answer is good and says nothing.
pub(crate) async fn say_yes(tcp: TcpListener, identity: Arc<Identity>) -> Result<(), Failure> {
    serve(tcp, &identity, service_fn(yes)).await
}

async fn yes(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    // Read to its end, or its sender is told that it was not wanted.
    request.into_body().collect().await.ok();
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from_static(EMPTY)).with_trailers(async { Some(Ok(trailers)) });
    let mut answer = Response::new(Body::new(body));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(answer)
}
