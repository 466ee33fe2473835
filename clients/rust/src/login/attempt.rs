//! Handles each event of a login.

mod person;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval};
use vvs_proto::frame::{
    AuthErrorCode, Binding, EditorFrame, RefusalReason, RelayFrame, Secret, Session, User, close,
};

use super::{Event, Input, Options, Outcome};
use crate::chance;
use crate::credential::Credential;
use crate::error::Error;
use crate::hand_back::{Brought, HandBack};
use crate::key::{DeviceKey, Use};
use crate::line::{Dial, Heard, Line, MAX_TIME, PATIENCE, farewell};
use crate::profile::blocking;
use crate::server::Purpose;
use crate::text::plain;

/// How long after its end a login waits for the server to say so.
const GRACE: Duration = Duration::from_secs(5);
/// The longest pause between two tries that the client chooses itself.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How often a login may start again before it has a ticket.
const MAX_BEGINNINGS: u32 = 4;
/// How long the client tries to tell the server that a sign-in is stored.
const MAX_CONFIRMING: Duration = Duration::from_secs(30);

/// The next step.
enum Next {
    Wait,
    /// Reconnect, after this time if the server gave one.
    Reconnect(Option<Duration>),
    Done(Outcome),
}

struct Attempt<'a, S, F> {
    options: &'a Options,
    line: Line<'a, S>,
    show: F,
    key: DeviceKey,
    state: Secret,
    hand_back: Option<HandBack>,
    inputs: Option<mpsc::Receiver<Input>>,
    second: Interval,
    /// Set from the first frame on.
    login: Option<Login>,
    /// Set from `hello:ok` on: moves this login to another connection.
    ticket: Option<Secret>,
    beginnings: u32,
    /// When the answer to `hello` or `resume` is due.
    answer_due: Option<Instant>,
    /// The length of the code, while the server waits for it.
    pending: Option<u8>,
    /// The code that the browser brought; kept, because the connection may be lost before the
    /// server has read it.
    code: Option<Secret>,
    stored: Option<(Outcome, Instant)>,
}

struct Login {
    id: String,
    user_code: String,
    url: String,
    expiry: Instant,
}

enum Happened {
    Input(Option<Input>),
    Brought(Brought),
    Second(Instant),
    Heard(Heard),
}

pub(super) async fn run<'a, S>(
    options: &'a Options,
    dial: Dial<'a, S>,
    inputs: mpsc::Receiver<Input>,
    show: impl FnMut(Event) + Send,
) -> Result<Outcome, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let profile = options.profile.clone();
    blocking(move || profile.check()).await?;
    let mut attempt = Attempt {
        options,
        line: Line::new(&options.server, dial, Purpose::Login),
        show,
        key: DeviceKey::generate()?,
        state: Secret::new(chance::secret()?),
        // Without it the person types the code.
        hand_back: if options.typed {
            None
        } else {
            HandBack::listen().await.ok()
        },
        inputs: Some(inputs),
        second: interval(Duration::from_secs(1)),
        login: None,
        ticket: None,
        beginnings: 0,
        answer_due: None,
        pending: None,
        code: None,
        stored: None,
    };

    loop {
        let happened = attempt.next().await;
        match attempt.take(happened).await? {
            Next::Wait => {}
            Next::Done(outcome) => {
                attempt.line.close().await;
                return Ok(outcome);
            }
            Next::Reconnect(asked) => attempt.reconnect(asked)?,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static, F: FnMut(Event) + Send> Attempt<'_, S, F> {
    async fn next(&mut self) -> Happened {
        let input = async {
            match &mut self.inputs {
                Some(inputs) => inputs.recv().await,
                None => std::future::pending().await,
            }
        };

        let brought = async {
            match &mut self.hand_back {
                Some(hand_back) => hand_back.next().await,
                None => std::future::pending().await,
            }
        };

        select! {
            biased;
            input = input => Happened::Input(input),
            now = self.second.tick() => Happened::Second(now),
            heard = self.line.next() => Happened::Heard(heard),
            brought = brought => Happened::Brought(brought),
        }
    }

    async fn take(&mut self, happened: Happened) -> Result<Next, Error> {
        match happened {
            Happened::Input(Some(Input::Cancel)) => Ok(self.cancel().await),
            Happened::Input(Some(Input::Code(code))) => {
                self.typed(&code).await;
                Ok(Next::Wait)
            }
            Happened::Input(None) => {
                self.inputs = None;
                Ok(Next::Wait)
            }
            Happened::Second(now) => Ok(self.tick(now)),
            Happened::Brought(brought) => {
                self.brought(brought).await;
                Ok(Next::Wait)
            }
            Happened::Heard(Heard::Frame(frame)) => self.frame(*frame).await,
            Happened::Heard(Heard::Closed(how)) => self.closed(how),
            Happened::Heard(Heard::Failed(error)) => {
                // A server that was never there is not tried again.
                let known = self.login.is_some() && error.is_temporary() || self.stored.is_some();
                if known {
                    Ok(Next::Reconnect(None))
                } else {
                    Err(error)
                }
            }
        }
    }

    fn reconnect(&mut self, asked: Option<Duration>) -> Result<(), Error> {
        (self.pending, self.answer_due) = (None, None);

        if self.ticket.is_none() {
            self.beginnings += 1;
            if self.beginnings >= MAX_BEGINNINGS {
                return Err(Error::Lost {
                    server: self.options.server.clone(),
                });
            }
        }

        let purpose = if self.ticket.is_some() {
            Purpose::Session
        } else {
            Purpose::Login
        };

        let retry_after = self.line.again(purpose, asked, MAX_PAUSE);
        (self.show)(Event::Lost { retry_after });

        Ok(())
    }

    fn tick(&mut self, now: Instant) -> Next {
        if let Some((outcome, until)) = &self.stored {
            // It is good as it is: a first `authenticate` tells the server as well.
            return if now >= *until {
                Next::Done(outcome.clone())
            } else {
                Next::Wait
            };
        }

        if self.answer_due.is_some_and(|due| now >= due) {
            return Next::Reconnect(None);
        }

        let Some(login) = self.login.as_ref().filter(|_| self.ticket.is_some()) else {
            return Next::Wait;
        };

        if now >= login.expiry + GRACE {
            return Next::Done(Outcome::Expired);
        }

        let rounded = login.expiry.duration_since(now) + Duration::from_millis(500);
        (self.show)(Event::Left(Duration::from_secs(rounded.as_secs())));

        Next::Wait
    }

    async fn frame(&mut self, frame: RelayFrame) -> Result<Next, Error> {
        match frame {
            RelayFrame::Connection {
                resumed: Some(true),
                expires_in,
                ..
            } => {
                if let (Some(login), Some(seconds)) = (&mut self.login, expires_in) {
                    login.expiry = Instant::now() + Duration::from_secs(seconds).min(MAX_TIME);
                }
                Ok(Next::Wait)
            }
            RelayFrame::Connection {
                connection_id,
                user_code,
                login_url,
                expires_in,
                ..
            } => {
                self.connected(connection_id, user_code.zip(login_url).zip(expires_in))
                    .await
            }
            RelayFrame::HelloOk { binding, ticket } => {
                self.settled(binding, ticket);
                Ok(Next::Wait)
            }
            RelayFrame::AuthPending {
                code_length,
                attempts_left,
                ..
            } => {
                self.pending = Some(code_length);
                (self.show)(Event::Pending {
                    link: self.hand_back.is_some(),
                    attempts_left,
                });
                self.complete_by_link().await;
                Ok(Next::Wait)
            }
            RelayFrame::AuthSuccess {
                token,
                user,
                message_id,
                session,
                token_expires_at,
                ..
            } => {
                self.accept(
                    self.credential(token, user, session, token_expires_at),
                    message_id,
                )
                .await
            }
            RelayFrame::AuthDenied => Ok(Next::Done(Outcome::Denied)),
            RelayFrame::AuthExpired => Ok(self.over(Outcome::Expired)),
            RelayFrame::Reconnect { after_ms, .. } => {
                Ok(Next::Reconnect(Some(Duration::from_millis(after_ms))))
            }
            RelayFrame::AuthError {
                code,
                message,
                retryable,
                retry_after_ms,
                attempts_left,
            } => {
                let retry_after =
                    retryable.then(|| Duration::from_millis(retry_after_ms.unwrap_or(0)));
                self.refused(code, &plain(&message, 200), retry_after, attempts_left)
                    .await
            }
            RelayFrame::Ping => {
                self.line.send(&EditorFrame::Pong).await;
                Ok(Next::Wait)
            }
            RelayFrame::Error { message, .. } if self.answer_due.is_some() => Err(Error::TooOld {
                server: self.options.server.clone(),
                answer: plain(&message, 200),
            }),
            RelayFrame::AuthOk { .. }
            | RelayFrame::AuthFailure { .. }
            | RelayFrame::AuthToken { .. }
            | RelayFrame::SessionRevoked { .. }
            | RelayFrame::SessionExpiring { .. }
            | RelayFrame::SessionEnded
            | RelayFrame::Pong
            | RelayFrame::Error { .. } => Ok(Next::Wait),
        }
    }

    async fn connected(
        &mut self,
        id: String,
        login: Option<((String, String), u64)>,
    ) -> Result<Next, Error> {
        self.answer_due = Some(Instant::now() + PATIENCE);

        if let Some(ticket) = self.ticket.clone() {
            let proof = self.proof(Use::Resume);
            self.line.send(&EditorFrame::Resume { ticket, proof }).await;
            return Ok(Next::Wait);
        }

        let Some(((user_code, url), seconds)) = login else {
            let answer = "no login in its first frame".to_owned();
            return Err(Error::NotVvs {
                server: self.options.server.clone(),
                answer,
            });
        };

        let expiry = Instant::now() + Duration::from_secs(seconds).min(MAX_TIME);
        self.login = Some(Login {
            id,
            user_code,
            url,
            expiry,
        });
        self.hello().await;

        Ok(Next::Wait)
    }

    async fn hello(&mut self) {
        let hello = EditorFrame::Hello {
            app: self.options.app.clone(),
            device: self.options.device.clone(),
            device_key: self.key.jwk(),
            return_uri: self.hand_back.as_ref().map(HandBack::uri),
            locale: None,
            proof: self.proof(Use::Hello),
        };
        self.line.send(&hello).await;
    }

    fn proof(&self, r#use: Use) -> Secret {
        self.key.proof(
            r#use,
            &self.options.server.to_string(),
            self.line.nonce(),
            None,
        )
    }

    /// The server has accepted the `hello`, or the `resume`. The link is not shown before that,
    /// because `hello` is refused once somebody has opened it.
    fn settled(&mut self, binding: Binding, ticket: Secret) {
        self.answer_due = None;
        self.line.settled();
        if self.ticket.replace(ticket).is_some() {
            (self.show)(Event::Resumed);
            return;
        }

        if binding != Binding::Link {
            self.hand_back = None;
        }

        let Some(Login {
            user_code,
            url,
            expiry,
            ..
        }) = &self.login
        else {
            return;
        };

        let state = self
            .hand_back
            .as_ref()
            .map(|_| format!("#state={}", self.state.expose()));
        let url = format!("{url}{}", state.unwrap_or_default());
        (self.show)(Event::Link {
            link: self.options.server.link(&url),
            login_url: plain(&url, 2048),
            user_code: plain(user_code, 32),
            left: expiry.duration_since(Instant::now()),
            changed: self.beginnings > 0,
        });
    }

    async fn refused(
        &mut self,
        code: AuthErrorCode,
        message: &str,
        retry_after: Option<Duration>,
        attempts_left: Option<u8>,
    ) -> Result<Next, Error> {
        let answer_due = self.answer_due.is_some();
        match code {
            AuthErrorCode::BadCode => {
                let attempts_left = attempts_left.unwrap_or(0);
                self.code = None;
                (self.show)(Event::WrongCode { attempts_left });
                Ok(if attempts_left == 0 {
                    Next::Done(Outcome::Burned)
                } else {
                    Next::Wait
                })
            }
            // It was not taken, so that another may follow.
            AuthErrorCode::BadReturnUri if answer_due && self.hand_back.take().is_some() => {
                self.hello().await;
                Ok(Next::Wait)
            }
            AuthErrorCode::BadTicket | AuthErrorCode::LoginOver => Ok(self.over(Outcome::Ended)),
            AuthErrorCode::TooLate
            | AuthErrorCode::BadReturnUri
            | AuthErrorCode::BadDeviceKey
            | AuthErrorCode::BadProof
            | AuthErrorCode::NotReady
                if answer_due =>
            {
                if retry_after.is_some() {
                    return Ok(Next::Reconnect(retry_after));
                }
                let error = Error::Refused {
                    server: self.options.server.clone(),
                    message: message.to_owned(),
                };
                self.stored
                    .take()
                    .map_or(Err(error), |(stored, _)| Ok(Next::Done(stored)))
            }
            AuthErrorCode::TooLate
            | AuthErrorCode::BadReturnUri
            | AuthErrorCode::BadDeviceKey
            | AuthErrorCode::BadProof
            | AuthErrorCode::NotReady => {
                (self.show)(Event::Notice(format!("The server says: {message}")));
                Ok(Next::Wait)
            }
        }
    }

    /// Handles the end of the login on the server; with a stored credential it has succeeded.
    fn over(&mut self, outcome: Outcome) -> Next {
        Next::Done(self.stored.take().map_or(outcome, |(stored, _)| stored))
    }

    fn credential(
        &self,
        token: Secret,
        user: User,
        session: Session,
        token_expires_at: String,
    ) -> Credential {
        Credential {
            server: self.options.server.to_string(),
            user,
            session_id: session.id,
            session_expires_at: session.expires_at,
            token,
            token_expires_at,
            device_key: self.key.clone(),
        }
    }

    /// Stores the credential before it reads on: the relay sends a ping right behind `auth:success`
    /// and accepts its pong as an acknowledgement, and the next read would answer it. The same
    /// message may come again, and is stored and acknowledged again.
    async fn accept(&mut self, credential: Credential, message_id: String) -> Result<Next, Error> {
        let (profile, ca_file, stored) = (
            self.options.profile.clone(),
            self.options.ca_file.clone(),
            credential.clone(),
        );
        let place = blocking(move || profile.store(&stored, ca_file.as_deref())).await;
        let reason = place.is_err().then_some(RefusalReason::StoreFailed);
        self.line
            .send(&EditorFrame::AuthAck {
                message_id,
                ok: place.is_ok(),
                reason,
            })
            .await;

        // The answer to our goodbye says that the server has read the ack.
        let confirmed = self.line.close().await;
        let outcome = Outcome::SignedIn {
            credential: Box::new(credential),
            place: place?,
        };
        if confirmed {
            return Ok(Next::Done(outcome));
        }

        let until = Instant::now() + MAX_CONFIRMING;
        self.stored.get_or_insert((outcome, until));

        Ok(Next::Reconnect(None))
    }

    fn closed(&mut self, how: Option<(u16, String)>) -> Result<Next, Error> {
        if let Some((close::NORMAL | close::LOGIN_OVER, _)) = how {
            return Ok(self.over(Outcome::Ended));
        }
        let error = farewell(how, &self.options.server);
        if error.is_temporary() {
            Ok(Next::Reconnect(None))
        } else {
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
