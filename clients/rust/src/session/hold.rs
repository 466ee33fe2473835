//! A held session: it moves from connection to connection, and keeps its token fresh.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::{Instant, sleep_until};
use vvs_proto::frame::EditorFrame;

use super::answer::{Answer, Cut, Fresh, SignedOn, connected, listen, sign_on};
use super::{Change, End, forget, load};
use crate::chance::between;
use crate::credential::Credential;
use crate::error::Error;
use crate::key::Use;
use crate::line::{Line, MAX_TIME, PATIENCE};
use crate::profile::{Profile, blocking};
use crate::server::{Purpose, Server};
use crate::text::plain;

/// The longest pause between two tries that the client chooses itself.
const MAX_PAUSE: Duration = Duration::from_mins(1);
/// The pause before the retry of a refresh that failed or was never answered; it may become twice
/// as long.
const REFRESH_PAUSE: Duration = Duration::from_secs(30);

pub(super) struct Hold<'a, 'l, S, F> {
    pub(super) profile: &'a Profile,
    pub(super) server: &'a Server,
    pub(super) line: &'a mut Line<'l, S>,
    pub(super) show: F,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static, F: FnMut(Change) + Send>
    Hold<'_, '_, S, F>
{
    pub(super) async fn until(mut self, stop: impl Future<Output = ()>) -> Result<End, Error> {
        let ended = select! {
            biased;
            () = stop => Ok(End::Stopped),
            ended = self.follow() => ended,
        };
        self.line.close().await;
        ended
    }

    /// Reconnects until the session is over.
    async fn follow(&mut self) -> Result<End, Error> {
        let (mut known, mut session_id) = (false, String::new());
        loop {
            // Another window may sign out before the line is up, or while it comes up.
            if self.stored().await?.is_none() {
                return Ok(End::NotSignedIn);
            }

            let cut = match connected(self.line, self.server).await {
                Ok(()) => {
                    let Some(credential) = self.stored().await? else {
                        return Ok(End::NotSignedIn);
                    };
                    session_id.clone_from(&credential.session_id);
                    match sign_on(self.line, self.server, credential).await {
                        Ok(signed_on) => {
                            known = true;
                            self.signed_on(signed_on).await
                        }
                        Err(cut) => cut,
                    }
                }
                Err(cut) => cut,
            };

            let (asked, why) = match cut {
                Cut::Over(why) => {
                    forget(self.profile, &session_id).await?;
                    return Ok(End::Over { why });
                }
                Cut::Refused {
                    code,
                    message,
                    retry_after,
                } => {
                    (self.show)(Change::Refused {
                        code,
                        message: message.clone(),
                    });
                    (retry_after, message)
                }
                Cut::Lost(error @ Error::Closed { .. }, _) => return Err(error),
                // An editor that was connected once has the right server: its proxy may answer
                // oddly while it restarts.
                Cut::Lost(error, asked) if known || error.is_temporary() => {
                    (asked, error.to_string())
                }
                Cut::Lost(error, _) => return Err(error),
            };

            let pause = self.line.again(Purpose::Session, asked, MAX_PAUSE);
            let retry_after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            (self.show)(Change::Lost {
                retry_after_ms,
                why,
            });
        }
    }

    /// Reads the credential each time: another window may have refreshed it, or signed out.
    async fn stored(&mut self) -> Result<Option<Credential>, Error> {
        let stored = load(self.profile).await?;
        Ok(stored.filter(|found| found.server == self.server.to_string()))
    }

    async fn signed_on(
        &mut self,
        SignedOn {
            credential,
            session,
            token_lasts,
        }: SignedOn,
    ) -> Cut {
        self.line.settled();
        self.keep(&credential).await;
        (self.show)(Change::SignedIn {
            user: credential.who(),
            session: plain(&session.id, 100),
            expires_in: session.expires_in,
        });
        self.stay(credential, token_lasts).await
    }

    /// Stays signed in until the connection ends.
    async fn stay(&mut self, mut credential: Credential, token_lasts: Duration) -> Cut {
        let again = || Instant::now() + between(REFRESH_PAUSE, REFRESH_PAUSE * 2);
        let mut due = refresh_at(token_lasts);

        loop {
            let answer = select! {
                answer = listen(self.line, self.server) => answer,
                () = sleep_until(due) => {
                    let (audience, nonce) = (self.server.to_string(), self.line.nonce());
                    let key = &credential.device_key;
                    let proof = key.proof(Use::Refresh, &audience, nonce, None);
                    self.line.send(&EditorFrame::TokenRefresh { proof }).await;
                    due = again();
                    continue;
                }
            };
            match answer {
                Answer::Fresh(Fresh {
                    token,
                    expires_at,
                    expires_in,
                }) => {
                    (credential.token, credential.token_expires_at) = (token, expires_at);
                    self.keep(&credential).await;
                    (self.show)(Change::Refreshed { expires_in });
                    due = refresh_at(Duration::from_secs(expires_in));
                }
                // The connection goes on, or a close follows.
                Answer::Cut(Cut::Refused {
                    code,
                    message,
                    retry_after,
                }) => {
                    (self.show)(Change::Refused { code, message });
                    due =
                        again().max(Instant::now() + retry_after.unwrap_or_default().min(MAX_TIME));
                }
                Answer::Cut(cut) => return cut,
                Answer::Expiring(expires_in) => (self.show)(Change::Expiring { expires_in }),
                Answer::Connected | Answer::SignedOn { .. } | Answer::Ended | Answer::Other => {}
            }
        }
    }

    /// Stores a credential. A token that cannot be stored is no reason to stop: the stored one can
    /// still be refreshed.
    async fn keep(&mut self, credential: &Credential) {
        let (profile, credential) = (self.profile.clone(), credential.clone());
        if let Err(error) = blocking(move || profile.renew(&credential)).await {
            (self.show)(Change::NotStored {
                why: error.to_string(),
            });
        }
    }
}

/// Returns a random moment in the second half of the remaining time, with a tenth of it to spare.
fn refresh_at(token_lasts: Duration) -> Instant {
    let lasts = token_lasts.clamp(PATIENCE, MAX_TIME);
    Instant::now() + between(lasts / 2, lasts * 9 / 10)
}
