//! One sign-in, from connecting to a stored credential, through as many connections as it takes. Prints nothing and
//! opens nothing: it tells a user interface what to show.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use vvs_proto::frame::{EditorFrame, Heartbeat, RefusalReason, RelayFrame, close};

use crate::connection::{Connection, Incoming};
use crate::credential::Credential;
use crate::error::Error;
use crate::server::{Link, Server};
use crate::text::plain;
use crate::tls;

/// Connecting, with everything up to the first frame.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long past its end a login waits for the server to say so.
const GRACE: Duration = Duration::from_secs(5);
/// How often a login may move to a new connection.
const MAX_RECONNECTS: u32 = 8;
/// A server that asks for more waiting, or for a longer login, is not obeyed.
const MAX_DELAY: Duration = Duration::from_secs(10);
const MAX_LOGIN: Duration = Duration::from_hours(24);

/// What a login needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    pub server: Server,
    /// PEM file with the certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Where the credential goes.
    pub state_dir: PathBuf,
}

/// What a user interface should show. All texts are safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Always show `login_url`; open `link` if there is one. There is none when the server's URL leads elsewhere: the
    /// person should know. With `changed` it replaces an earlier one, which is dead.
    Link { login_url: String, link: Option<Link>, user_code: String, left: Duration, changed: bool },
    /// Every second: the whole seconds left.
    Left(Duration),
    /// The connection is gone, and there will be a new one after this time.
    Lost { retry_after: Duration },
    /// Words of the server about this login.
    Notice(String),
}

/// How a login ended. `Display` says it in a sentence or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    SignedIn {
        credential: Box<Credential>,
        file: PathBuf,
    },
    Denied,
    /// By the `cancel` future.
    Cancelled,
    Expired,
    /// The server ended it and did not say why.
    Ended,
}

impl Outcome {
    /// 0 signed in, 3 denied or cancelled, 4 expired.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::SignedIn { .. } => 0,
            Self::Denied | Self::Cancelled | Self::Ended => 3,
            Self::Expired => 4,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignedIn { credential, file } => {
                write!(f, "Signed in as {}.\nThe credential is in {}", credential.who(), file.display())
            }
            Self::Denied => f.write_str("The sign-in was denied in the browser. If that was a slip, sign in again."),
            Self::Cancelled => f.write_str("Cancelled. The link is dead; nothing was stored."),
            Self::Expired => f.write_str("Nobody approved in time, and the link is dead. Sign in again for a new one."),
            Self::Ended => f.write_str("The server ended this sign-in. Sign in again for a new link."),
        }
    }
}

/// Signs in. `cancel` ends it on both sides when it resolves. Dropping the future is as good: the server notices.
pub async fn login(
    options: &Options,
    cancel: impl Future<Output = ()>,
    show: impl FnMut(Event),
) -> Result<Outcome, Error> {
    let tls = tls::client(options.ca_file.as_deref())?;
    // Boxed: a TLS handshake would make the whole future ten times as large.
    let connect = || Box::pin(Connection::open(&options.server, tls.clone()));
    connect_until_done(options, connect, cancel, show).await
}

/// How one connection ended.
#[derive(Debug)]
enum End {
    Done(Outcome),
    /// Go on with a new connection, after this time if the server gave one.
    Lost(Option<Duration>),
}

async fn connect_until_done<S, C>(
    options: &Options,
    mut connect: impl FnMut() -> C,
    cancel: impl Future<Output = ()>,
    mut show: impl FnMut(Event),
) -> Result<Outcome, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Future<Output = Result<Connection<S>, Error>>,
{
    let mut cancel = pin!(cancel);
    let mut changed = false;
    for reconnects in 1..=MAX_RECONNECTS + 1 {
        let started = select! {
            biased;
            () = cancel.as_mut() => return Ok(Outcome::Cancelled),
            started = start(&options.server, connect()) => started,
        };
        let delay = match started {
            Ok(waiting) => {
                show(waiting.event(&options.server, changed));
                changed = true;
                match waiting.attend(options, cancel.as_mut(), &mut show).await? {
                    End::Done(outcome) => return Ok(outcome),
                    End::Lost(delay) => delay,
                }
            }
            Err(error) if reconnects > 1 && error.is_temporary() => None,
            Err(error) => return Err(error),
        };
        if reconnects > MAX_RECONNECTS {
            break;
        }
        let delay = delay.unwrap_or_else(|| back_off(reconnects, RandomState::new().hash_one(reconnects)));
        show(Event::Lost { retry_after: delay });
        select! {
            biased;
            () = cancel.as_mut() => return Ok(Outcome::Cancelled),
            () = sleep(delay) => {}
        }
    }
    Err(Error::Lost { server: options.server.clone() })
}

/// Doubles from try to try, and is cut by up to a half at random, so that editors do not come back all at once.
fn back_off(tries: u32, random: u64) -> Duration {
    let whole = (Duration::from_millis(500) * 2_u32.saturating_pow(tries.saturating_sub(1))).min(MAX_DELAY);
    whole * u32::try_from(512 - random % 256).unwrap_or(512) / 512
}

/// A login that waits for its approval.
struct Waiting<S> {
    connection: Connection<S>,
    login_url: String,
    user_code: String,
    left: Duration,
    /// A connection that is silent for so long is dead.
    silence: Duration,
}

/// Connects, and takes the frame that opens a login.
async fn start<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Server,
    connecting: impl Future<Output = Result<Connection<S>, Error>>,
) -> Result<Waiting<S>, Error> {
    let server = || server.clone();
    let starting = async {
        let mut connection = connecting.await?;
        let frame = loop {
            match connection.next().await {
                Incoming::Frame(frame) => break *frame,
                Incoming::Other => {}
                Incoming::Closed(Some((code, reason))) if code >= close::REVOKED => {
                    return Err(Error::Closed { server: server(), code, reason });
                }
                Incoming::Closed(_) => return Err(Error::Lost { server: server() }),
            }
        };
        let RelayFrame::Connection {
            user_code: Some(user_code),
            login_url: Some(login_url),
            expires_in: Some(expires_in),
            heartbeat: Heartbeat { interval_ms, timeout_ms },
            ..
        } = frame
        else {
            return Err(Error::NotVvs { server: server(), answer: "no login in its first frame".to_owned() });
        };
        // Two pings in a row may be lost. Numbers of a broken server lead neither to a busy loop nor past the clock.
        let silence = Duration::from_millis(interval_ms.saturating_mul(2).saturating_add(timeout_ms));
        let silence = silence.clamp(MAX_DELAY, MAX_LOGIN);
        let left = Duration::from_secs(expires_in).min(MAX_LOGIN);
        Ok(Waiting { connection, login_url, user_code, left, silence })
    };
    let too_slow = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in 10 seconds");
    let unreachable = |_| Err(Error::Unreachable { server: server(), source: too_slow() });
    timeout(CONNECT_TIMEOUT, starting).await.unwrap_or_else(unreachable)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Waiting<S> {
    fn event(&self, server: &Server, changed: bool) -> Event {
        Event::Link {
            login_url: plain(&self.login_url, 2048),
            link: server.link(&self.login_url),
            user_code: plain(&self.user_code, 32),
            left: self.left,
            changed,
        }
    }

    async fn attend(
        self,
        options: &Options,
        mut cancel: Pin<&mut impl Future<Output = ()>>,
        show: &mut impl FnMut(Event),
    ) -> Result<End, Error> {
        let Self { mut connection, left, silence, .. } = self;
        let expiry = Instant::now() + left;
        let mut heard = Instant::now();
        let mut second = interval(Duration::from_secs(1));
        loop {
            let incoming = select! {
                biased;
                () = cancel.as_mut() => {
                    connection.send(&EditorFrame::AuthCancel).await;
                    connection.close().await;
                    return Ok(End::Done(Outcome::Cancelled));
                }
                now = second.tick() => {
                    if now >= expiry + GRACE {
                        connection.close().await;
                        return Ok(End::Done(Outcome::Expired));
                    }
                    let rounded = expiry.duration_since(now) + Duration::from_millis(500);
                    show(Event::Left(Duration::from_secs(rounded.as_secs())));
                    continue;
                }
                incoming = timeout_at(heard + silence, connection.next()) => {
                    incoming.unwrap_or(Incoming::Closed(None))
                }
            };
            heard = Instant::now();
            match incoming {
                Incoming::Frame(frame) => {
                    if let Some(end) = take(*frame, &mut connection, options, show).await.transpose() {
                        connection.close().await;
                        return end;
                    }
                }
                Incoming::Other => {}
                Incoming::Closed(how) => return closed(how, &options.server),
            }
        }
    }
}

/// Does what one frame asks for, and says whether that is the end.
async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    frame: RelayFrame,
    connection: &mut Connection<S>,
    options: &Options,
    show: &mut impl FnMut(Event),
) -> Result<Option<End>, Error> {
    match frame {
        RelayFrame::AuthSuccess { token, user, message_id, session, token_expires_at, .. } => {
            let credential = Credential {
                server: options.server.to_string(),
                user,
                session_id: session.id,
                session_expires_at: session.expires_at,
                token,
                token_expires_at,
            };
            accept(credential, message_id, connection, options).await.map(Some)
        }
        RelayFrame::AuthDenied => Ok(Some(End::Done(Outcome::Denied))),
        RelayFrame::AuthExpired => Ok(Some(End::Done(Outcome::Expired))),
        RelayFrame::Reconnect { after_ms, .. } => {
            Ok(Some(End::Lost(Some(Duration::from_millis(after_ms).min(MAX_DELAY)))))
        }
        RelayFrame::AuthError { message, .. } => {
            show(Event::Notice(plain(&message, 200)));
            Ok(None)
        }
        RelayFrame::Ping => {
            // When it cannot be sent, the next read says so.
            connection.send(&EditorFrame::Pong).await;
            Ok(None)
        }
        RelayFrame::Connection { .. }
        | RelayFrame::HelloOk { .. }
        | RelayFrame::AuthPending { .. }
        | RelayFrame::AuthOk { .. }
        | RelayFrame::AuthFailure { .. }
        | RelayFrame::AuthToken { .. }
        | RelayFrame::SessionRevoked { .. }
        | RelayFrame::SessionExpiring { .. }
        | RelayFrame::SessionEnded
        | RelayFrame::Pong
        | RelayFrame::Error { .. } => Ok(None),
    }
}

/// Stores first and reads on later: the relay sends a ping right behind `auth:success` and takes its pong for an ack,
/// and the next read would answer it.
async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    credential: Credential,
    message_id: String,
    connection: &mut Connection<S>,
    options: &Options,
) -> Result<End, Error> {
    let stored = credential.store(&options.state_dir);
    let reason = stored.is_err().then_some(RefusalReason::StoreFailed);
    let acked = connection.send(&EditorFrame::AuthAck { message_id, ok: stored.is_ok(), reason }).await;
    let file = stored.map_err(|source| Error::Store { dir: options.state_dir.clone(), source })?;
    // The relay does not know that the token was stored, and never activates it.
    if !acked {
        return Ok(End::Lost(None));
    }
    Ok(End::Done(Outcome::SignedIn { credential: Box::new(credential), file }))
}

/// What the end of a connection means for its login.
fn closed(how: Option<(u16, String)>, server: &Server) -> Result<End, Error> {
    match how {
        // No close frame, or one without a code, or one of those that a proxy or a dying server sends.
        None | Some((1001 | 1005 | 1006 | 1011..=1014 | 4000..=4499, _)) => Ok(End::Lost(None)),
        Some((close::NORMAL | close::LOGIN_OVER, _)) => Ok(End::Done(Outcome::Ended)),
        Some((code, reason)) => Err(Error::Closed { server: server.clone(), code, reason }),
    }
}

#[cfg(test)]
mod tests;
