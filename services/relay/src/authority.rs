//! The state that this relay gets from the sessions role, so that it can judge a token by itself,
//! and the calls to sessions when it cannot. It knows no socket and no frame.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use vvs_auth::token::{self, Claims, Distrust};
use vvs_proto::Secret;
use vvs_proto::types::RevocationReason;
use vvs_runtime::metrics::count;

use crate::pause::backoff;

mod activation;
mod client;
#[cfg(test)]
pub(crate) mod fake;
mod follow;
mod known;

use activation::Activations;
pub(crate) use client::{CALL_TIME, Client, ToSessions};
pub(crate) use known::{Known, Lag, Watch};

/// How long a session may wait for its editor before it is deleted; after that, activating it is
/// useless.
const PENDING_WINDOW: Duration = Duration::from_mins(90);
/// The first pause between two tries, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How the relay follows the sessions role, and how many calls it makes to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How often the keys are fetched, and the minimum pause between two fetches.
    pub(crate) keys_interval: Duration,
    pub(crate) keys_pause: Duration,
    /// How long the feed may be silent before bearer tokens are no longer accepted.
    pub(crate) feed_silence: Duration,
    /// Calls for editors in flight at the same time.
    pub(crate) calls_at_once: usize,
    /// How long an editor's call waits for its turn.
    pub(crate) turn_time: Duration,
    /// Sessions whose end is being requested at the same time.
    pub(crate) ends_at_once: usize,
    pub(crate) audits_per_minute: NonZeroU32,
    /// The maximum number of proofs that one socket accepts.
    pub(crate) proofs_per_socket: usize,
    /// The maximum number of sockets that are signed in with one session.
    pub(crate) sockets_per_session: usize,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Untrusted {
    /// This relay has no keys yet, or does not know all revocations.
    NotReady,
    /// Sessions has said so, with this reason.
    Revoked(Arc<str>),
    /// Its login failed, and sessions does not know that yet.
    Ending,
    /// The relay has received no revocations for too long, and a bearer token has no proof.
    StaleFeed,
    Bad(Distrust),
}

/// A valid token that came with an upgrade.
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(crate) claims: Claims,
    /// Its `kid`.
    pub(crate) key_id: Box<str>,
}

/// Why an upgrade with an `Authorization` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BearerRefused {
    /// Not a bearer token that is valid here: 401.
    Bad,
    /// This relay cannot judge it now; as far as the relay knows, the token is valid: 503.
    NotNow,
}

/// Why a call to sessions failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The sessions role itself has decided: it is permanent.
    Revoked,
    Expired,
    /// The session may also belong to a key other than the proven one.
    UnknownSession,
    BadProof,
    /// Sessions cannot read the session in the token.
    BadToken,
    /// The editor asks too often; it must wait for this time.
    TooOften(Duration),
    Unavailable,
}

/// The sessions role did not activate the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotActivated {
    /// Sessions does not answer now.
    NotYet,
    /// The session is unknown to sessions, or over.
    Never,
}

/// Resolves when sessions has answered.
pub(crate) type Activation = BoxFuture<'static, Result<(), NotActivated>>;

/// An editor's request for a fresh token.
#[derive(Debug)]
pub(crate) struct Refresh {
    pub(crate) session_id: String,
    pub(crate) proof: Secret,
    pub(crate) nonce: String,
    /// The token that was presented with a proof for `authenticate`.
    pub(crate) token: Option<Secret>,
    /// The `kid` of the token that authorized the socket, when no token is presented.
    pub(crate) key_id: String,
    pub(crate) address: IpAddr,
}

/// An editor's request to sign out.
#[derive(Debug)]
pub(crate) struct SignOut {
    pub(crate) session_id: String,
    /// `None` for a bearer.
    pub(crate) proof: Option<Secret>,
    pub(crate) nonce: String,
    /// The `kid` of the token that authorized the socket.
    pub(crate) key_id: String,
    pub(crate) address: IpAddr,
}

/// A fresh token.
#[derive(Debug, PartialEq)]
pub(crate) struct Fresh {
    pub(crate) user_id: String,
    pub(crate) session_id: String,
    pub(crate) session_expires_at: OffsetDateTime,
    pub(crate) token: Secret,
    pub(crate) token_expires_at: OffsetDateTime,
}

/// A proof that a relay refused. Unknown members stay empty.
#[derive(Debug, Clone)]
pub(crate) struct RefusedProof {
    pub(crate) connection_id: String,
    pub(crate) session_id: String,
    pub(crate) address: IpAddr,
    pub(crate) why: &'static str,
    /// Whether the session's own key signed it. Anybody can make any other proof, about any
    /// session.
    pub(crate) is_own: bool,
}

/// The relay's view of the sessions role.
pub(crate) struct Authority {
    known: Arc<Known>,
    client: Client,
    terms: Terms,
    stop: CancellationToken,
    tasks: TaskTracker,
    activations: Activations,
    /// Places for activations in the background, which no editor waits for: half as many as for
    /// editors.
    background: Arc<Semaphore>,
    /// Ends the tasks that follow sessions when the last socket is gone, and not before: a session
    /// that is revoked while this relay drains is reported immediately.
    _following: DropGuard,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Starts to follow sessions.
    pub(crate) fn follow(
        known: Arc<Known>,
        client: Client,
        terms: Terms,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let following = CancellationToken::new();
        let keys = follow::keys(known.clone(), client.clone(), terms);
        let feed = follow::feed(known.clone(), client.clone());
        tasks.spawn(following.clone().run_until_cancelled_owned(keys));
        tasks.spawn(following.clone().run_until_cancelled_owned(feed));
        let (activations, carrying) = Activations::new(client.clone());
        tasks.spawn(carrying);
        let background = Arc::new(Semaphore::new(terms.calls_at_once.div_ceil(2)));
        let tasks = tasks.clone();

        Arc::new(Self {
            known,
            client,
            terms,
            stop,
            tasks,
            activations,
            background,
            _following: following.drop_guard(),
        })
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Returns the public origin: the issuer of tokens and the audience of proofs.
    pub(crate) fn origin(&self) -> &str {
        self.known.issuer()
    }

    /// Returns once the relay has keys and knows all revocations.
    pub(crate) async fn ready(&self) {
        self.known.ready().await;
    }

    /// Judges a token at a time in seconds since 1970, without a call.
    pub(crate) fn check_token(&self, token: &str, now: i64) -> Result<Claims, Untrusted> {
        self.known.check_token(token, now)
    }

    /// Judges the `Authorization` of an upgrade: `Bearer` (RFC 6750, section 2.1) and a token
    /// without a device key, because no proof can come with it.
    pub(crate) fn check_bearer(
        &self,
        authorization: &str,
        now: i64,
    ) -> Result<Bearer, BearerRefused> {
        let (scheme, token) = authorization.split_once(' ').ok_or(BearerRefused::Bad)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(BearerRefused::Bad);
        }

        let token = token.trim();

        match self.check_token(token, now) {
            Ok(claims) if claims.cnf.is_none() => Ok(Bearer {
                claims,
                key_id: token::key_id(token).unwrap_or_default().into(),
            }),
            Err(
                Untrusted::NotReady
                | Untrusted::Ending
                | Untrusted::StaleFeed
                | Untrusted::Bad(Distrust::UnknownKey),
            ) => Err(BearerRefused::NotNow),
            Ok(_) | Err(Untrusted::Revoked(_) | Untrusted::Bad(_)) => Err(BearerRefused::Bad),
        }
    }

    /// Watches for the end of a session. One that is already over resolves immediately. `None` when
    /// the session has its maximum number of sockets here.
    pub(crate) fn watch(&self, session_id: &str) -> Option<Watch> {
        Known::watch(&self.known, session_id, self.terms.sockets_per_session)
    }

    /// Returns whether one more socket of this session may watch for its end.
    pub(crate) fn has_room(&self, session_id: &str) -> bool {
        self.known
            .has_room(session_id, self.terms.sockets_per_session)
    }

    /// Requests a fresh token. Dropping the future ends the call.
    pub(crate) fn refresh(&self, wish: Refresh) -> BoxFuture<'static, Result<Fresh, Failure>> {
        let client = self.client.clone();
        Box::pin(async move { client.refresh(wish).await })
    }

    /// Ends a session at its editor's request. The call continues even if nobody waits for it any
    /// longer.
    pub(crate) fn logout(&self, wish: SignOut) -> BoxFuture<'static, Result<(), Failure>> {
        let client = self.client.clone();
        let call = self.tasks.spawn(async move { client.logout(wish).await });
        Box::pin(async move { call.await.unwrap_or(Err(Failure::Unavailable)) })
    }

    /// Ends a session whose login failed, in the background, for as long as it may be pending.
    /// Meanwhile this relay refuses its token, because presenting it would replace the missing
    /// acknowledgement.
    pub(crate) fn end_pending(
        &self,
        session_id: String,
        address: IpAddr,
        reason: RevocationReason,
    ) {
        let has_room = self.known.start_end(&session_id, self.terms.ends_at_once);
        let (client, known, stop) = (self.client.clone(), self.known.clone(), self.stop.clone());
        let until = Instant::now() + PENDING_WINDOW;
        self.tasks.spawn(async move {
            for tried in 0.. {
                if client.end(&session_id, address, reason).await != Err(Failure::Unavailable) {
                    break;
                }

                if !has_room || Instant::now() >= until {
                    tracing::warn!(
                        session_id,
                        reason = reason.word(),
                        "a pending session was not ended; it is left to the sweep"
                    );
                    break;
                }

                if !pause(&stop, tried).await {
                    // To the last of its sockets, a relay that stops does not take the token.
                    return;
                }
            }

            known.finish_end(&session_id);
        });
    }

    /// Records that a proof was refused: in the log and, if the session's own key signed it, also
    /// in the audit log, as far as the rate allows.
    pub(crate) fn record_proof_refused(&self, refused: RefusedProof) {
        let RefusedProof {
            connection_id,
            session_id,
            address,
            why,
            is_own,
        } = &refused;
        tracing::info!(
            event = "proof_refused",
            connection_id,
            session_id,
            %address,
            why,
            is_own,
            "audit"
        );
        count(
            &self.client.proofs_refused,
            "key",
            if *is_own { "own" } else { "other" },
        );

        if *is_own && self.client.may_record() {
            let client = self.client.clone();
            self.tasks
                .spawn(async move { client.record_proof_refused(refused).await });
        }
    }

    /// Tells sessions that the editor of this session, at this address, has its token.
    pub(crate) fn activate(&self, session_id: String, address: IpAddr) -> Activation {
        let activations = self.activations.clone();
        Box::pin(async move { activations.activate(session_id, address).await })
    }

    /// Handles a valid token from an editor at this address. If its acknowledgement may have been
    /// lost, it is repeated in the background. This costs nothing if the token, or the known state
    /// of its session, shows that it is no longer pending.
    pub(crate) fn shown(&self, claims: &Claims, address: IpAddr, now: i64) {
        let window = i64::try_from(PENDING_WINDOW.as_secs()).unwrap_or(i64::MAX);
        let left = claims.iat.saturating_add(window).saturating_sub(now);
        let Ok(left @ 1..) = u64::try_from(left) else {
            return;
        };

        if !claims.pending || !self.known.start_activation(&claims.sid, claims.iat) {
            return;
        }

        let (activations, known, stop) = (
            self.activations.clone(),
            self.known.clone(),
            self.stop.clone(),
        );
        let (session_id, until) = (
            claims.sid.clone(),
            Instant::now() + Duration::from_secs(left),
        );
        let background = self.background.clone();
        self.tasks.spawn(async move {
            for tried in 0.. {
                let place = background.acquire().await;
                let outcome = activations.activate(session_id.clone(), address).await;
                drop(place);
                if outcome != Err(NotActivated::NotYet)
                    || Instant::now() >= until
                    || !pause(&stop, tried).await
                {
                    break;
                }
            }

            known.end_activation(&session_id);
        });
    }
}

/// Waits before the next try, longer each time; `false` when the process stops meanwhile.
async fn pause(stop: &CancellationToken, tried: u32) -> bool {
    stop.run_until_cancelled(tokio::time::sleep(backoff(PAUSE, tried)))
        .await
        .is_some()
}

#[cfg(test)]
mod tests;
