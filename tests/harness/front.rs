//! A server of a test's own, on a port of its own: it counts what is asked, and fails as it is told
//! to. What is behind it is a function, or a process that it passes everything on to.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Answers one request.
type Answer = dyn Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync;

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// This status, and a page for people.
    Status(u16),
    /// 429, with the seconds after which to come again.
    TooMany { retry_after: u32 },
    /// 200, and JSON by its type, but not by its text.
    Garbage,
    /// What it would answer anyway, after that long.
    Slow(Duration),
    /// The connection ends without an answer.
    Closed,
}

/// What listens.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    url: String,
    seen: Arc<Seen>,
    behind: Mutex<Option<Behind>>,
    /// Keeps the port while nobody listens, so that a connection is refused and does not find
    /// someone else.
    _reserved: TcpSocket,
    serving: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    faults: Mutex<Vec<(String, Fault)>>,
    requests: Mutex<BTreeMap<String, usize>>,
}

#[derive(Clone)]
enum Behind {
    Function(Arc<Answer>),
    Process(SocketAddr),
}

impl std::fmt::Debug for Behind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Function(_) => formatter.write_str("Function"),
            Self::Process(address) => formatter.debug_tuple("Process").field(address).finish(),
        }
    }
}

impl Front {
    /// Has its address, and does not listen yet.
    pub fn new() -> Self {
        let reserved = bound("127.0.0.1:0".parse().unwrap());
        let address = reserved.local_addr().unwrap();
        let (seen, behind, serving) = (Arc::default(), Mutex::default(), Mutex::default());
        Self {
            address,
            url: format!("http://{address}"),
            seen,
            behind,
            _reserved: reserved,
            serving,
        }
    }

    /// Listens, and answers with this function.
    pub fn answer(
        &self,
        answer: impl Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) {
        *self.behind.lock().unwrap() = Some(Behind::Function(Arc::new(answer)));
        self.accept();
    }

    /// Listens, and passes requests on.
    pub fn lead_to(&self, process: SocketAddr) {
        *self.behind.lock().unwrap() = Some(Behind::Process(process));
        self.accept();
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its origin: no slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Requests for paths that begin so go wrong from now on. The last one told counts.
    pub fn fail(&self, path: &str, fault: Fault) {
        self.seen
            .faults
            .lock()
            .unwrap()
            .push((path.to_owned(), fault));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.seen.faults.lock().unwrap().clear();
    }

    /// How many requests have come for paths that begin so, whatever became of them.
    pub fn requests(&self, path: &str) -> usize {
        let requests = self.seen.requests.lock().unwrap();
        requests
            .iter()
            .filter(|(asked, _)| asked.starts_with(path))
            .map(|(_, times)| times)
            .sum()
    }

    /// Closes what is open, and lets the kernel refuse what comes.
    pub async fn refuse(&self) {
        let mut serving = std::mem::take(&mut *self.serving.lock().unwrap());
        serving.shutdown().await;
    }

    /// Ends [`Front::refuse`].
    pub fn accept(&self) {
        let listener = bound(self.address).listen(64).unwrap();
        let (seen, behind) = (
            self.seen.clone(),
            self.behind.lock().unwrap().clone().unwrap(),
        );
        self.serving
            .lock()
            .unwrap()
            .spawn(serve(listener, seen, behind));
    }
}

impl Default for Front {
    fn default() -> Self {
        Self::new()
    }
}

/// Two sockets may have one port as long as one of them at most listens.
pub(crate) fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn serve(listener: TcpListener, seen: Arc<Seen>, behind: Behind) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (seen, behind) = (seen.clone(), behind.clone());
        let service = service_fn(move |request| {
            let (seen, behind) = (seen.clone(), behind.clone());
            async move { seen.meet(request, &behind).await }
        });

        // It ends with an error when the other side, or a fault, ends it.
        connections.spawn(async move {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

impl Seen {
    /// An error closes the connection.
    async fn meet(
        &self,
        request: Request<Incoming>,
        behind: &Behind,
    ) -> Result<Response<Full<Bytes>>, io::Error> {
        let path = request.uri().path().to_owned();
        *self
            .requests
            .lock()
            .unwrap()
            .entry(path.clone())
            .or_default() += 1;
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(
            parts,
            body.collect().await.map_err(io::Error::other)?.to_bytes(),
        );
        let fault = self
            .faults
            .lock()
            .unwrap()
            .iter()
            .rev()
            .find(|(begins, _)| path.starts_with(begins))
            .map(|(_, it)| *it);
        let response = match fault {
            Some(Fault::Closed) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Status(status)) => page(StatusCode::from_u16(status).unwrap()),
            Some(Fault::TooMany { retry_after }) => {
                let mut response = page(StatusCode::TOO_MANY_REQUESTS);
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, retry_after.into());
                response
            }
            Some(Fault::Garbage) => {
                let response = Response::builder().header(CONTENT_TYPE, "application/json");
                response
                    .body(Bytes::from_static(b"{\"keys\": [<html>"))
                    .unwrap()
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                behind.ask(request).await?
            }
            None => behind.ask(request).await?,
        };

        Ok(response.map(Full::new))
    }
}

impl Behind {
    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, io::Error> {
        let target = match self {
            Self::Function(answer) => return Ok(answer(&request)),
            Self::Process(target) => target,
        };

        let stream = TcpStream::connect(target).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let response = sender
            .send_request(request.map(Full::new))
            .await
            .map_err(io::Error::other)?;
        let (parts, body) = response.into_parts();

        Ok(Response::from_parts(
            parts,
            body.collect().await.map_err(io::Error::other)?.to_bytes(),
        ))
    }
}

/// What stands before a service says, in its own words, when that one does not.
fn page(status: StatusCode) -> Response<Bytes> {
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/html")
        .header("cf-ray", "8f0c-TEST");
    response
        .body(Bytes::from(format!(
            "<!doctype html><title>{status}</title>"
        )))
        .unwrap()
}
