//! Asks one member whether it can serve: `OPTIONS *` (RFC 9110, section 9.3.7) over a separate
//! connection, whose end is an answer as well. Every server of the mesh answers it on every port
//! that peers call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};

use super::{Member, Word};
use crate::http::Connector;

/// How often a member is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const TIME: Duration = Duration::from_secs(1);
/// The time before reconnecting: after an answer, after the first failure, and at most; the time
/// doubles with each failure.
const PAUSE: (Duration, Duration, Duration) = (
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
);

pub(super) fn connector(of_calls: &Connector) -> Connector {
    Connector {
        alpn: b"http/1.1",
        timeout: TIME,
        ..of_calls.clone()
    }
}

/// Keeps the member's health up to date, forever.
pub(super) async fn watch<T>(member: Arc<Member<T>>, connector: Connector) {
    let mut failures = 0;
    loop {
        let (answered, cause) = talk(&member, &connector).await;
        member.judge(Word::Silent);
        tracing::debug!(member = %member.address, %cause, "a member does not answer");
        let (soon, first, longest) = PAUSE;
        let pause = if answered {
            soon
        } else {
            longest.min(first * 2_u32.pow(failures))
        };
        failures = if answered { 0 } else { 8.min(failures + 1) };
        sleep(pause).await;
    }
}

/// Asks over one connection until that ends. Returns whether there was an answer, and why the
/// connection ended.
async fn talk<T>(
    member: &Member<T>,
    connector: &Connector,
) -> (bool, Box<dyn std::error::Error + Send + Sync>) {
    let mut answered = false;
    let talking = async {
        let stream = connector.connect(&member.address.to_string()).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::select! {
            // First, so that a connection that has ended is not asked.
            biased;
            ended = connection => {
                ended?;
                Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())
            }
            failed = ask(member, sender, &mut answered) => failed,
        }
    };

    match talking.await {
        Ok(never) => match never {},
        Err(cause) => (answered, cause),
    }
}

async fn ask<T>(
    member: &Member<T>,
    mut sender: SendRequest<Empty<Bytes>>,
    answered: &mut bool,
) -> Result<std::convert::Infallible, Box<dyn std::error::Error + Send + Sync>> {
    loop {
        let question = Request::builder()
            .method(Method::OPTIONS)
            .uri(Uri::from_static("*"))
            .header(HOST, member.address.to_string())
            .body(Empty::new())?;
        let answer = timeout(TIME, async {
            sender.ready().await?;
            let mut answer = sender.send_request(question).await?;
            while let Some(frame) = answer.frame().await {
                frame?;
            }
            Ok::<_, hyper::Error>(answer.status())
        });
        let status = answer.await??;
        if !std::mem::replace(answered, true) {
            member.reached();
        }

        // A member that does not know the question can still serve.
        member.judge(if status == StatusCode::SERVICE_UNAVAILABLE {
            Word::Refuses
        } else {
            Word::Ready
        });
        sleep(INTERVAL).await;
    }
}
