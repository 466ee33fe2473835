//! A connection that reconnects. Knows nothing of logins and sessions.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use vvs_proto::frame::{EditorFrame, Heartbeat, RelayFrame, close};

use crate::chance::back_off;
use crate::connection::{Connection, Incoming};
use crate::error::Error;
use crate::server::{Purpose, Server};

/// Connecting, with everything up to the first frame; and how long to wait for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause that the client accepts from a server.
const MAX_DELAY: Duration = Duration::from_mins(1);
/// Limits the numbers of a broken server, so that they do not overflow the clock.
pub(crate) const MAX_TIME: Duration = Duration::from_hours(24);

/// Opens a connection.
pub(crate) type Dial<'a, S> =
    &'a (dyn Fn(Purpose) -> BoxFuture<'a, Result<Connection<S>, Error>> + Send + Sync);

pub(crate) struct Line<'a, S> {
    server: &'a Server,
    dial: Dial<'a, S>,
    state: LineState<'a, S>,
    tries: u32,
    nonce: String,
}

enum LineState<'a, S> {
    Dialling(BoxFuture<'a, Result<Greeted<S>, Error>>),
    Opened(Box<Opened<S>>),
    /// No new connection was requested.
    Down,
}

struct Opened<S> {
    connection: Connection<S>,
    heard: Instant,
    /// A connection that is silent for this long is dead.
    silence: Duration,
}

type Greeted<S> = (Opened<S>, RelayFrame);

/// An event of a line.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A new connection's first frame is a frame like any other, and always `connection`.
    Frame(Box<RelayFrame>),
    /// The connection is over; with code and reason when the server gave them. `None` when it was
    /// lost, or silent for too long.
    Closed(Option<(u16, String)>),
    /// The connection could not be made.
    Failed(Error),
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Line<'a, S> {
    pub(crate) fn new(server: &'a Server, dial: Dial<'a, S>, purpose: Purpose) -> Self {
        let mut line = Self {
            server,
            dial,
            state: LineState::Down,
            tries: 0,
            nonce: String::new(),
        };
        line.connect(purpose, Duration::ZERO);
        line
    }

    fn connect(&mut self, purpose: Purpose, delay: Duration) {
        let (server, dial) = (self.server, self.dial);
        self.state = LineState::Dialling(Box::pin(async move {
            sleep(delay).await;
            let too_slow =
                || std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in 10 seconds");
            let unreachable = |_| {
                Err(Error::Unreachable {
                    server: server.clone(),
                    source: too_slow(),
                })
            };

            timeout(PATIENCE, greet(server, dial(purpose)))
                .await
                .unwrap_or_else(unreachable)
        }));
    }

    /// Drops the connection, and makes a new one after a pause that grows from try to try, and is
    /// not shorter than the server asked for. Returns the pause.
    pub(crate) fn again(
        &mut self,
        purpose: Purpose,
        asked: Option<Duration>,
        most: Duration,
    ) -> Duration {
        self.tries += 1;
        let own = back_off(self.tries, most);

        // `reconnect` comes with a pause of the server's choice for each editor: nothing is to be
        // added.
        let delay = asked
            .map_or(own, |asked| {
                if self.tries > 1 {
                    asked.max(own)
                } else {
                    asked
                }
            })
            .min(MAX_DELAY);
        self.connect(purpose, delay);

        delay
    }

    /// Resets the pause: the connection works.
    pub(crate) fn settled(&mut self) {
        self.tries = 0;
    }

    /// Returns the nonce for proofs.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Returns the next event. Dropping the future loses nothing. After [`Heard::Closed`] and
    /// [`Heard::Failed`] no further event comes until [`Line::again`].
    pub(crate) async fn next(&mut self) -> Heard {
        let heard = match &mut self.state {
            LineState::Dialling(dialling) => match dialling.await {
                Ok((up, frame)) => {
                    self.state = LineState::Opened(Box::new(up));
                    Heard::Frame(Box::new(frame))
                }
                Err(error) => Heard::Failed(error),
            },
            LineState::Opened(up) => loop {
                let incoming = timeout_at(up.heard + up.silence, up.connection.next()).await;
                up.heard = Instant::now();
                match incoming.unwrap_or(Incoming::Closed(None)) {
                    Incoming::Frame(frame) => break Heard::Frame(frame),
                    Incoming::Other => {}
                    Incoming::Closed(how) => break Heard::Closed(how),
                }
            },
            LineState::Down => std::future::pending().await,
        };

        match &heard {
            Heard::Frame(frame) => {
                if let RelayFrame::Connection { nonce, .. } = &**frame {
                    self.nonce.clone_from(nonce);
                }
            }
            Heard::Closed(_) | Heard::Failed(_) => self.state = LineState::Down,
        }

        heard
    }

    /// Returns whether the frame could be handed to the network. If not, the next [`Line::next`]
    /// returns the reason.
    pub(crate) async fn send(&mut self, frame: &EditorFrame) -> bool {
        match &mut self.state {
            LineState::Opened(up) => up.connection.send(frame).await,
            LineState::Dialling(_) | LineState::Down => false,
        }
    }

    /// Returns whether the server has read everything that was sent, and sent its close frame.
    pub(crate) async fn close(&mut self) -> bool {
        match std::mem::replace(&mut self.state, LineState::Down) {
            LineState::Opened(up) => up.connection.close().await,
            LineState::Dialling(_) | LineState::Down => false,
        }
    }
}

/// Reads the frame that comes first on every connection.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Server,
    connecting: BoxFuture<'_, Result<Connection<S>, Error>>,
) -> Result<Greeted<S>, Error> {
    let mut connection = connecting.await?;
    let frame = loop {
        match connection.next().await {
            Incoming::Frame(frame) => break *frame,
            Incoming::Other => {}
            Incoming::Closed(how) => return Err(farewell(how, server)),
        }
    };

    let RelayFrame::Connection {
        heartbeat: Heartbeat {
            interval_ms,
            timeout_ms,
        },
        ..
    } = frame
    else {
        return Err(Error::NotVvs {
            server: server.clone(),
            answer: "another first frame than `connection`".to_owned(),
        });
    };

    // Two pings in a row may be lost. Small numbers of a broken server do not lead to a busy loop.
    let silence = Duration::from_millis(interval_ms.saturating_mul(2).saturating_add(timeout_ms));

    Ok((
        Opened {
            connection,
            heard: Instant::now(),
            silence: silence.clamp(PATIENCE, MAX_TIME),
        },
        frame,
    ))
}

/// Returns what the end of a connection means, when no frame on it has said more.
pub(crate) fn farewell(how: Option<(u16, String)>, server: &Server) -> Error {
    match how {
        // No close frame, or one without a code, or one of those that a proxy or a dying server
        // sends.
        None | Some((close::NORMAL | 1001 | 1005 | 1006 | 1011..=1014 | 4000..=4499, _)) => {
            Error::Lost {
                server: server.clone(),
            }
        }
        Some((code, reason)) => Error::Closed {
            server: server.clone(),
            code,
            reason,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_say_whether_to_come_back() {
        let server: Server = "https://vvs.example.org".parse().unwrap();
        let temporary = |code: Option<u16>| {
            farewell(code.map(|code| (code, String::new())), &server).is_temporary()
        };
        for code in [
            None,
            Some(1000),
            Some(1001),
            Some(1006),
            Some(1011),
            Some(1012),
            Some(4000),
            Some(4003),
            Some(4499),
        ] {
            assert!(temporary(code), "{code:?}");
        }

        for code in [1002, 1008, 1009, 4500, 4501, 4502, 4503, 4999] {
            assert!(!temporary(Some(code)), "{code}");
        }
    }
}
