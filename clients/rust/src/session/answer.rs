//! The server's frames to a session, and authenticating with it.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use vvs_proto::frame::{EditorFrame, FailureCode, RelayFrame, Secret, Session, close};

use crate::credential::Credential;
use crate::error::Error;
use crate::key::Use;
use crate::line::{Heard, Line, PATIENCE, farewell};
use crate::server::Server;
use crate::text::plain;

pub(super) enum Answer {
    Connected,
    SignedOn {
        session: Session,
        server_time: String,
        fresh: Option<Fresh>,
    },
    Fresh(Fresh),
    Expiring(u64),
    Ended,
    Cut(Cut),
    /// Not relevant to a session.
    Other,
}

/// A token, with its end by the server's clock and the seconds until then.
pub(super) struct Fresh {
    pub(super) token: Secret,
    pub(super) expires_at: String,
    pub(super) expires_in: u64,
}

/// Why a session cannot continue unchanged.
pub(super) enum Cut {
    /// The sessions role itself says that the session is over.
    Over(String),
    /// The server may accept it later.
    Refused {
        code: FailureCode,
        message: String,
        retry_after: Option<Duration>,
    },
    /// The connection is lost, and the server may have said when to come back.
    Lost(Error, Option<Duration>),
}

/// An authenticated session.
pub(super) struct SignedOn {
    pub(super) credential: Credential,
    pub(super) session: Session,
    pub(super) token_lasts: Duration,
}

/// Returns the next message of the server. Dropping the future loses only the answer to a ping.
pub(super) async fn listen<S>(line: &mut Line<'_, S>, server: &Server) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let frame = match line.next().await {
        Heard::Frame(frame) => *frame,
        // The frame that says so may have been lost on the way.
        Heard::Closed(Some((close::REVOKED, reason))) => return Answer::Cut(Cut::Over(reason)),
        Heard::Closed(how) => return Answer::Cut(Cut::Lost(farewell(how, server), None)),
        Heard::Failed(error) => return Answer::Cut(Cut::Lost(error, None)),
    };

    match frame {
        RelayFrame::Connection { .. } => Answer::Connected,
        RelayFrame::AuthOk {
            session,
            server_time,
            token,
            token_expires_at,
            token_expires_in,
            ..
        } => {
            let fresh = token.zip(token_expires_at).zip(token_expires_in);
            let fresh = fresh.map(|((token, expires_at), expires_in)| Fresh {
                token,
                expires_at,
                expires_in,
            });
            Answer::SignedOn {
                session,
                server_time,
                fresh,
            }
        }
        RelayFrame::AuthToken {
            token,
            token_expires_at: expires_at,
            token_expires_in: expires_in,
        } => Answer::Fresh(Fresh {
            token,
            expires_at,
            expires_in,
        }),
        RelayFrame::AuthFailure {
            message,
            terminal: true,
            ..
        } => Answer::Cut(Cut::Over(plain(&message, 200))),
        RelayFrame::AuthFailure {
            code,
            message,
            retry_after_ms,
            ..
        } => {
            let retry_after = retry_after_ms.map(Duration::from_millis);
            Answer::Cut(Cut::Refused {
                code,
                message: plain(&message, 200),
                retry_after,
            })
        }
        RelayFrame::SessionRevoked { reason } => Answer::Cut(Cut::Over(plain(&reason, 200))),
        RelayFrame::SessionExpiring { expires_in } => Answer::Expiring(expires_in),
        RelayFrame::SessionEnded => Answer::Ended,
        RelayFrame::Reconnect { after_ms, .. } => {
            let error = Error::Lost {
                server: server.clone(),
            };
            Answer::Cut(Cut::Lost(error, Some(Duration::from_millis(after_ms))))
        }
        RelayFrame::Ping => {
            line.send(&EditorFrame::Pong).await;
            Answer::Other
        }
        RelayFrame::HelloOk { .. }
        | RelayFrame::AuthPending { .. }
        | RelayFrame::AuthSuccess { .. }
        | RelayFrame::AuthDenied
        | RelayFrame::AuthExpired
        | RelayFrame::AuthError { .. }
        | RelayFrame::Pong
        | RelayFrame::Error { .. } => Answer::Other,
    }
}

/// Waits for the line to be up.
pub(super) async fn connected<S>(line: &mut Line<'_, S>, server: &Server) -> Result<(), Cut>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        match listen(line, server).await {
            Answer::Connected => return Ok(()),
            Answer::Cut(cut) => return Err(cut),
            Answer::SignedOn { .. }
            | Answer::Fresh(_)
            | Answer::Expiring(_)
            | Answer::Ended
            | Answer::Other => {}
        }
    }
}

/// Presents the credential on a line that is up.
pub(super) async fn sign_on<S>(
    line: &mut Line<'_, S>,
    server: &Server,
    mut credential: Credential,
) -> Result<SignedOn, Cut>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let token = credential.token.clone();
    let (key, audience) = (&credential.device_key, server.to_string());
    let proof = Some(key.proof(
        Use::Authenticate,
        &audience,
        line.nonce(),
        Some(token.expose()),
    ));
    line.send(&EditorFrame::Authenticate { token, proof }).await;
    let due = Instant::now() + PATIENCE;

    loop {
        let silent = |_elapsed| {
            Answer::Cut(Cut::Lost(
                Error::Lost {
                    server: server.clone(),
                },
                None,
            ))
        };
        match timeout_at(due, listen(line, server))
            .await
            .unwrap_or_else(silent)
        {
            Answer::SignedOn {
                session,
                server_time,
                fresh,
            } => {
                credential
                    .session_expires_at
                    .clone_from(&session.expires_at);
                let token_lasts = match fresh {
                    Some(fresh) => {
                        (credential.token, credential.token_expires_at) =
                            (fresh.token, fresh.expires_at);
                        Duration::from_secs(fresh.expires_in)
                    }
                    None => apart(&server_time, &credential.token_expires_at),
                };

                return Ok(SignedOn {
                    credential,
                    session,
                    token_lasts,
                });
            }
            Answer::Cut(cut) => return Err(cut),
            Answer::Connected
            | Answer::Fresh(_)
            | Answer::Expiring(_)
            | Answer::Ended
            | Answer::Other => {}
        }
    }
}

/// Returns the time between two of the server's times, so that a wrong clock on this machine
/// changes nothing. Zero when they cannot be parsed.
fn apart(from: &str, to: &str) -> Duration {
    let time = |text| OffsetDateTime::parse(text, &Rfc3339).ok();
    let apart = time(to)
        .zip(time(from))
        .and_then(|(to, from)| (to - from).try_into().ok());
    apart.unwrap_or_default()
}
