//! The session of one socket: authenticates the editor, keeps its token fresh, and receives the
//! session's end. It gets frames and time, and answers with frames; another module owns the socket.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::time::Instant;
use vvs_auth::device::Thumbprint;
use vvs_auth::proof::{Proof, Use, signer};
use vvs_auth::token::{self, Claims, Distrust};
use vvs_proto::Secret;
use vvs_proto::frame::RelayFrame;

use crate::authority::{
    Authority, Bearer, Failure, Fresh, Refresh, RefusedProof, SignOut, Untrusted, Watch,
};
use crate::clock;
use crate::login::Receipt;
use crate::pause::retry_after;
use crate::proof::{Proofs, Unproven};

mod frame;

pub(crate) use frame::new_socket;

/// How long a socket may stay open after its token has expired.
const TOKEN_LEEWAY: Duration = Duration::from_mins(1);
/// How long before the end of its session an editor is told.
const NOTICES: [Duration; 3] = [
    Duration::from_hours(7 * 24),
    Duration::from_hours(24),
    Duration::from_hours(1),
];
/// No session lives longer; a clock that says so is wrong.
const FAR: Duration = Duration::from_hours(366 * 24);

/// An effect for the socket to carry out.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "they live for a moment, and most are frames"
)]
pub(crate) enum Effect {
    Send(RelayFrame),
    Close(u16),
    /// It reached the limit of this setting.
    Reached(&'static str),
    /// From here on it counts as signed in, and gives its place back.
    Authorized,
}

/// The call to sessions for this socket; one at a time.
enum Call {
    /// To sign in, with the key that was proven.
    Authenticate(BoxFuture<'static, Result<Fresh, Failure>>, Thumbprint),
    Refresh(BoxFuture<'static, Result<Fresh, Failure>>),
    Logout(BoxFuture<'static, Result<(), Failure>>),
}

enum Answered {
    Authenticate(Result<Fresh, Failure>, Thumbprint),
    Refresh(Result<Fresh, Failure>),
    Logout(Result<(), Failure>),
}

impl Call {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        match self {
            Self::Authenticate(call, key) => call
                .as_mut()
                .poll(cx)
                .map(|answer| Answered::Authenticate(answer, key.clone())),
            Self::Refresh(call) => call.as_mut().poll(cx).map(Answered::Refresh),
            Self::Logout(call) => call.as_mut().poll(cx).map(Answered::Logout),
        }
    }
}

/// The owner of the socket, and its end.
struct Authorization {
    watch: Watch,
    /// The key whose proofs are accepted; `None` for a bearer.
    key: Option<Thumbprint>,
    /// The `kid` of the last token that the editor got or presented here. With it sessions can
    /// distinguish an unknown session from a wrong database.
    key_id: Box<str>,
    until: Instant,
    session_ends: Instant,
    notice: Option<Instant>,
}

/// What a socket has of a session: the wish for one, or one.
pub(crate) struct Session {
    authority: Arc<Authority>,
    address: IpAddr,
    call: Option<Call>,
    authorization: Option<Authorization>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("authorized", &self.is_authorized())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(authority: Arc<Authority>, address: IpAddr) -> Box<Self> {
        Box::new(Self {
            authority,
            address,
            call: None,
            authorization: None,
        })
    }

    pub(crate) fn is_authorized(&self) -> bool {
        self.authorization.is_some()
    }

    /// Returns whether a call to sessions is under way; frames that would start another get
    /// `not_now`.
    pub(crate) fn is_busy(&self) -> bool {
        self.call.is_some()
    }

    /// Handles a token from an editor. A proof with a bearer token is ignored: anyone who has the
    /// token could omit it.
    pub(crate) fn authenticate(
        &mut self,
        proofs: &mut Proofs,
        token: &Secret,
        proof: Option<&Secret>,
    ) -> Vec<Effect> {
        if self.is_authorized() || self.is_busy() {
            return frame::not_now();
        }

        let now = clock::now();

        match self
            .authority
            .check_token(token.expose(), now.unix_timestamp())
        {
            Ok(claims) => self.take(proofs, &claims, token, proof, now),
            Err(Untrusted::Revoked(_)) => frame::failure(Failure::Revoked),
            Err(Untrusted::NotReady | Untrusted::Ending) => frame::failure(Failure::Unavailable),
            Err(Untrusted::StaleFeed) => frame::stale_feed(retry_after()),
            Err(Untrusted::Bad(distrust)) => self.ask_about(proofs, distrust, token, proof),
        }
    }

    /// Signs in with the `Authorization` of the upgrade, which was judged there.
    pub(crate) fn bearer(&mut self, bearer: Bearer) -> Vec<Effect> {
        self.welcome(&bearer.claims, None, bearer.key_id, clock::now())
    }

    fn take(
        &mut self,
        proofs: &mut Proofs,
        claims: &Claims,
        token: &Secret,
        proof: Option<&Secret>,
        now: OffsetDateTime,
    ) -> Vec<Effect> {
        let Some(confirmation) = &claims.cnf else {
            return self.welcome(claims, None, key_id(token), now);
        };

        let key = Some(&confirmation.jkt);

        match self.check_proof(
            proofs,
            proof,
            Use::Authenticate,
            Some(token),
            key,
            (&claims.sid, key),
        ) {
            Ok(proof) => self.welcome(claims, Some(proof.key), key_id(token), now),
            Err(effects) => effects,
        }
    }

    fn welcome(
        &mut self,
        claims: &Claims,
        key: Option<Thumbprint>,
        key_id: Box<str>,
        now: OffsetDateTime,
    ) -> Vec<Effect> {
        let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(now);
        let (token_ends, session_ends) = (time(claims.exp), time(claims.sxp));
        if let Some(over) =
            self.authorize(&claims.sid, key, key_id, (token_ends, session_ends), now)
        {
            return over;
        }

        self.authority
            .shown(claims, self.address, now.unix_timestamp());

        vec![
            Effect::Send(frame::ok(&claims.sub, &claims.sid, session_ends, now)),
            Effect::Authorized,
        ]
    }

    /// Asks sessions about a token that cannot be trusted here. With a proof, sessions decides: the
    /// relay's keys, its issuer or the clock may be wrong.
    fn ask_about(
        &mut self,
        proofs: &mut Proofs,
        distrust: Distrust,
        token: &Secret,
        proof: Option<&Secret>,
    ) -> Vec<Effect> {
        let claims = match distrust {
            Distrust::Expired
            | Distrust::UnknownKey
            | Distrust::BadSignature
            | Distrust::WrongIssuer => token::unverified(token.expose()),
            Distrust::Malformed | Distrust::WrongAudience => None,
        };

        // A session without a key has nothing to prove, and sessions would take the proof for
        // somebody else's.
        let claims = claims.filter(|claims| claims.cnf.is_some());
        let (Some(claims), Some(_)) = (claims, proof) else {
            let soon = distrust == Distrust::UnknownKey;
            return frame::bad_token(distrust, soon.then_some(self.authority.terms().keys_pause));
        };

        // Only a token of ours can say whose session it is.
        let own = claims
            .cnf
            .as_ref()
            .filter(|_| distrust == Distrust::Expired)
            .map(|confirmation| &confirmation.jkt);
        if own.is_some() && !self.authority.has_room(&claims.sid) {
            return frame::too_many_sockets();
        }

        let checked = self.check_proof(
            proofs,
            proof,
            Use::Authenticate,
            Some(token),
            None,
            (&claims.sid, own),
        );

        match (checked, proof) {
            (Ok(checked), Some(proof)) => {
                let call = self.refresh_call(proofs, claims.sid, proof, Some(token));
                self.call = Some(Call::Authenticate(call, checked.key));
                Vec::new()
            }
            (Err(effects), _) => effects,
            (Ok(_), None) => Vec::new(),
        }
    }

    /// Signs in an editor that has acknowledged its token on this socket.
    pub(crate) fn adopt(&mut self, receipt: &Receipt, key: Option<Thumbprint>) -> Vec<Effect> {
        let now = clock::now();
        let ends = (receipt.token_expires_at, receipt.session_expires_at);
        let over = self.authorize(&receipt.session_id, key, receipt.key_id.clone(), ends, now);
        over.unwrap_or_else(|| vec![Effect::Authorized])
    }

    /// Handles a request for a fresh token: `token:refresh`.
    pub(crate) fn refresh(&mut self, proofs: &mut Proofs, proof: &Secret) -> Vec<Effect> {
        let Some((session_id, key)) = self.whose() else {
            return frame::not_now();
        };

        let Some(key) = key else {
            return frame::bearer_is_not_refreshed();
        };

        match self.check_proof(
            proofs,
            Some(proof),
            Use::Refresh,
            None,
            Some(&key),
            (&session_id, Some(&key)),
        ) {
            Ok(_) => {
                self.call = Some(Call::Refresh(
                    self.refresh_call(proofs, session_id, proof, None),
                ));
                Vec::new()
            }
            Err(effects) => effects,
        }
    }

    /// Handles a sign-out: `session:logout`.
    pub(crate) fn logout(&mut self, proofs: &mut Proofs, proof: Option<&Secret>) -> Vec<Effect> {
        let Some((session_id, key)) = self.whose() else {
            return frame::not_now();
        };

        if let Some(key) = &key
            && let Err(effects) = self.check_proof(
                proofs,
                proof,
                Use::Logout,
                None,
                Some(key),
                (&session_id, Some(key)),
            )
        {
            return effects;
        }

        let proof = proof.filter(|_| key.is_some()).cloned();
        let (nonce, key_id, address) = (proofs.nonce().to_owned(), self.key_id(), self.address);
        let call = self.authority.logout(SignOut {
            session_id,
            proof,
            nonce,
            key_id,
            address,
        });
        self.call = Some(Call::Logout(call));

        Vec::new()
    }

    /// Returns the session and key of the socket, when it may make a call.
    fn whose(&self) -> Option<(String, Option<Thumbprint>)> {
        let authorization = self
            .authorization
            .as_ref()
            .filter(|_| self.call.is_none())?;
        Some((
            authorization.watch.session_id().to_owned(),
            authorization.key.clone(),
        ))
    }

    /// Returns the `kid` of the token that authorized the socket, if any.
    fn key_id(&self) -> String {
        self.authorization
            .as_ref()
            .map(|authorization| authorization.key_id.to_string())
            .unwrap_or_default()
    }

    fn refresh_call(
        &self,
        proofs: &Proofs,
        session_id: String,
        proof: &Secret,
        token: Option<&Secret>,
    ) -> BoxFuture<'static, Result<Fresh, Failure>> {
        let (proof, token, nonce) = (proof.clone(), token.cloned(), proofs.nonce().to_owned());
        let (key_id, address) = (self.key_id(), self.address);
        self.authority.refresh(Refresh {
            session_id,
            proof,
            nonce,
            token,
            key_id,
            address,
        })
    }

    /// Accepts a proof about a session, whose own key may be known.
    fn check_proof(
        &self,
        proofs: &mut Proofs,
        proof: Option<&Secret>,
        r#use: Use,
        token: Option<&Secret>,
        key: Option<&Thumbprint>,
        (session_id, own): (&str, Option<&Thumbprint>),
    ) -> Result<Proof, Vec<Effect>> {
        let why = match proof.map(|proof| proofs.take(proof, r#use, token, key)) {
            Some(Ok(proof)) => return Ok(proof),
            Some(Err(Unproven::TooMany)) => return Err(new_socket()),
            Some(Err(Unproven::Bad(why))) => why,
            None => "missing",
        };

        let is_own = own.is_some_and(|own| {
            proof.and_then(|proof| signer(proof.expose())).as_ref() == Some(own)
        });
        self.authority.record_proof_refused(RefusedProof {
            connection_id: String::new(),
            session_id: session_id.to_owned(),
            address: self.address,
            why,
            is_own,
        });

        Err(frame::failure(Failure::BadProof))
    }

    /// Authorizes this socket for the session. Returns other effects when the session is already
    /// over, or has its maximum number of sockets here.
    fn authorize(
        &mut self,
        session_id: &str,
        key: Option<Thumbprint>,
        key_id: Box<str>,
        (token_ends, session_ends): (OffsetDateTime, OffsetDateTime),
        now: OffsetDateTime,
    ) -> Option<Vec<Effect>> {
        // A socket that has its place keeps it.
        let held = self
            .authorization
            .take()
            .map(|authorization| authorization.watch);
        let held = held.filter(|watch| watch.session_id() == session_id);
        let Some(mut watch) = held.or_else(|| self.authority.watch(session_id)) else {
            return Some(frame::too_many_sockets());
        };

        if let Some(reason) = watch.revoked() {
            return Some(frame::revoked(&reason));
        }

        let start = Instant::now();
        let at = |end: OffsetDateTime| {
            start + Duration::try_from(end - now).unwrap_or_default().min(FAR)
        };
        let session_ends = at(session_ends);
        let until = at(token_ends).min(session_ends) + TOKEN_LEEWAY;
        let notice = next_notice(session_ends, start);
        self.authorization = Some(Authorization {
            watch,
            key,
            key_id,
            until,
            session_ends,
            notice,
        });

        None
    }

    /// Resolves when sessions has answered, or has revoked the session.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Effect>> {
        // First, so that nothing is given to an editor whose session is known to be over.
        if let Some(authorization) = &mut self.authorization
            && let Poll::Ready(reason) = authorization.watch.poll(cx)
        {
            self.authorization = None;
            // Its own logout comes back in the feed, maybe before its answer.
            let is_own = matches!(self.call.take(), Some(Call::Logout(_)));
            return Poll::Ready(if is_own {
                frame::ended()
            } else {
                frame::revoked(&reason)
            });
        }

        let Some(call) = &mut self.call else {
            return Poll::Pending;
        };

        let Poll::Ready(answer) = call.poll(cx) else {
            return Poll::Pending;
        };

        self.call = None;

        Poll::Ready(self.answered(answer))
    }

    fn answered(&mut self, answer: Answered) -> Vec<Effect> {
        let now = clock::now();
        match answer {
            Answered::Authenticate(Ok(fresh), key) => {
                let ends = (fresh.token_expires_at, fresh.session_expires_at);
                let over = self.authorize(
                    &fresh.session_id,
                    Some(key),
                    key_id(&fresh.token),
                    ends,
                    now,
                );

                over.unwrap_or_else(|| {
                    vec![
                        Effect::Send(frame::ok_with_token(&fresh, now)),
                        Effect::Authorized,
                    ]
                })
            }
            Answered::Refresh(Ok(fresh)) => {
                let key = self
                    .authorization
                    .as_ref()
                    .and_then(|authorization| authorization.key.clone());
                let ends = (fresh.token_expires_at, fresh.session_expires_at);
                let over = self.authorize(&fresh.session_id, key, key_id(&fresh.token), ends, now);
                over.unwrap_or_else(|| vec![Effect::Send(frame::token(&fresh, now))])
            }
            // There is nothing left to end.
            Answered::Logout(
                Ok(()) | Err(Failure::Revoked | Failure::Expired | Failure::UnknownSession),
            ) => {
                self.authorization = None;
                frame::ended()
            }
            Answered::Authenticate(Err(failure), _)
            | Answered::Refresh(Err(failure))
            | Answered::Logout(Err(failure)) => frame::failure(failure),
        }
    }

    /// Returns when [`Session::on_timer`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let authorization = self.authorization.as_ref()?;
        Some(authorization.notice.map_or(authorization.until, |notice| {
            notice.min(authorization.until)
        }))
    }

    /// Call when [`Session::deadline`] has passed.
    pub(crate) fn on_timer(&mut self, now: Instant) -> Vec<Effect> {
        let Some(authorization) = &mut self.authorization else {
            return Vec::new();
        };

        if authorization.until <= now {
            self.authorization = None;
            return frame::token_expired();
        }

        if authorization.notice.is_none_or(|notice| now < notice) {
            return Vec::new();
        }

        authorization.notice = next_notice(authorization.session_ends, now);

        frame::expiring(authorization.session_ends.saturating_duration_since(now))
    }
}

/// Returns the `kid` of a token; empty for other texts.
fn key_id(token: &Secret) -> Box<str> {
    token::key_id(token.expose()).unwrap_or_default().into()
}

/// Returns the next moment at which the editor is told when its session ends.
fn next_notice(session_ends: Instant, now: Instant) -> Option<Instant> {
    let moments = NOTICES
        .iter()
        .filter_map(|before| session_ends.checked_sub(*before));
    moments.filter(|moment| *moment > now).min()
}

#[cfg(test)]
mod tests;
