//! A stored sign-in in use: authenticates with it, keeps it fresh, and forgets it when the server
//! says that it is over. Prints nothing.

mod answer;
mod hold;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};
use vvs_proto::frame::{EditorFrame, FailureCode};

use self::answer::{Answer, Cut, SignedOn, connected, listen, sign_on};
use self::hold::Hold;
use crate::connection::{Connection, Socket};
use crate::credential::Credential;
use crate::error::Error;
use crate::key::Use;
use crate::line::{Dial, Line, PATIENCE};
use crate::profile::{Profile, blocking};
use crate::server::{Purpose, Server};
use crate::tls;

/// How long the client retries when a server cannot answer now. It is less than the time that the
/// server allows a socket without a session.
const ASKED_FOR: Duration = Duration::from_secs(8);

/// A change of a held connection; `Serialize` makes the lines of `vvs connect --json`. All texts
/// are safe to print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Change {
    SignedIn {
        user: String,
        session: String,
        /// Seconds until the session ends, unless it is used meanwhile.
        expires_in: u64,
    },
    /// There is a fresh token, valid for this many seconds.
    Refreshed { expires_in: u64 },
    /// The session ends soon, and only a new sign-in can follow it.
    Expiring { expires_in: u64 },
    /// The connection is lost, or could not be made; it will be retried after this time.
    Lost { retry_after_ms: u64, why: String },
    /// The server refused the credential, and may accept it later.
    Refused { code: FailureCode, message: String },
    /// A fresh token could not be stored. The previous one still works for authenticating.
    NotStored { why: String },
}

/// How it ended permanently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The `stop` future resolved. The credential is unchanged.
    Stopped,
    /// There is no credential, or no longer: another program signed out.
    NotSignedIn,
    /// The server has ended the session. The credential is deleted, and only a new sign-in can
    /// follow.
    Over { why: String },
}

/// The state of a session, according to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    SignedIn {
        credential: Box<Credential>,
        expires_in: u64,
    },
    NotSignedIn,
    /// The credential is deleted.
    Over {
        why: String,
    },
}

/// The result of a sign-out. On this machine it always succeeds.
#[derive(Debug)]
pub enum SignedOut {
    WasNot,
    /// The server knows, or had ended the session before.
    Everywhere,
    /// The session lives on there until it expires, or its user ends it on the server's page.
    HereOnly {
        server: String,
        why: String,
    },
}

/// Holds a connection with the stored credential until `stop` resolves, or the server ends the
/// session.
pub async fn connect(
    profile: &Profile,
    ca_file: Option<PathBuf>,
    stop: impl Future<Output = ()>,
    show: impl FnMut(Change) + Send,
) -> Result<End, Error> {
    let Some(door) = Door::of(profile, ca_file).await? else {
        return Ok(End::NotSignedIn);
    };

    let dial = |purpose| door.knock(purpose);
    let mut line = Line::new(&door.server, &dial, Purpose::Session);

    Hold {
        profile,
        server: &door.server,
        line: &mut line,
        show,
    }
    .until(stop)
    .await
}

/// Asks the server about the stored credential.
pub async fn status(profile: &Profile, ca_file: Option<PathBuf>) -> Result<Status, Error> {
    let Some(door) = Door::of(profile, ca_file).await? else {
        return Ok(Status::NotSignedIn);
    };
    let dial = |purpose| door.knock(purpose);
    ask(profile, door.credential.clone(), &door.server, &dial).await
}

/// Forgets the stored credential, then tries to tell the server.
pub async fn logout(profile: &Profile, ca_file: Option<PathBuf>) -> Result<SignedOut, Error> {
    let Some(door) = Door::of(profile, ca_file).await? else {
        return Ok(SignedOut::WasNot);
    };
    let dial = |purpose| door.knock(purpose);
    leave(profile, &door.credential, &door.server, &dial).await
}

/// The values needed to call the server of a profile.
struct Door {
    credential: Credential,
    server: Server,
    tls: Arc<ClientConfig>,
}

impl Door {
    async fn of(profile: &Profile, ca_file: Option<PathBuf>) -> Result<Option<Self>, Error> {
        let ca_file = match ca_file {
            Some(file) => Some(file),
            None => profile.record()?.ca_file,
        };

        let Some(credential) = load(profile).await? else {
            return Ok(None);
        };

        let (server, tls) = (credential.server.parse()?, tls::client(ca_file.as_deref())?);

        Ok(Some(Self {
            credential,
            server,
            tls,
        }))
    }

    fn knock(&self, purpose: Purpose) -> BoxFuture<'_, Result<Connection<Socket>, Error>> {
        Box::pin(Connection::open(&self.server, purpose, self.tls.clone()))
    }
}

async fn load(profile: &Profile) -> Result<Option<Credential>, Error> {
    let profile = profile.clone();
    blocking(move || profile.load()).await
}

async fn forget(profile: &Profile, session_id: &str) -> Result<(), Error> {
    let (profile, session_id) = (profile.clone(), session_id.to_owned());
    blocking(move || profile.forget(&session_id)).await
}

/// Authenticates for a person who waits at a prompt. Retries, until `due`, when a server cannot
/// answer now.
async fn first_sign_on<S>(
    line: &mut Line<'_, S>,
    server: &Server,
    credential: &Credential,
    due: Instant,
) -> Result<SignedOn, Cut>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connected(line, server).await?;
    loop {
        match sign_on(line, server, credential.clone()).await {
            Err(Cut::Refused {
                retry_after: Some(pause),
                ..
            }) if Instant::now() + pause < due => sleep(pause).await,
            done => return done,
        }
    }
}

async fn ask<'a, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    profile: &Profile,
    credential: Credential,
    server: &'a Server,
    dial: Dial<'a, S>,
) -> Result<Status, Error> {
    let session_id = credential.session_id.clone();
    let mut line = Line::new(server, dial, Purpose::Session);
    let answer = first_sign_on(&mut line, server, &credential, Instant::now() + ASKED_FOR).await;
    line.close().await;

    match answer {
        Ok(signed_on) => {
            let (profile, credential) = (profile.clone(), signed_on.credential.clone());
            blocking(move || profile.renew(&credential)).await?;
            let (credential, expires_in) =
                (Box::new(signed_on.credential), signed_on.session.expires_in);
            Ok(Status::SignedIn {
                credential,
                expires_in,
            })
        }
        Err(Cut::Over(why)) => {
            forget(profile, &session_id).await?;
            Ok(Status::Over { why })
        }
        Err(Cut::Refused { message, .. }) => Err(Error::NotNow {
            server: server.clone(),
            message,
        }),
        Err(Cut::Lost(error, _)) => Err(error),
    }
}

async fn leave<'a, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    profile: &Profile,
    credential: &Credential,
    server: &'a Server,
    dial: Dial<'a, S>,
) -> Result<SignedOut, Error> {
    // First: whatever goes wrong on the way to the server, this machine is signed out.
    forget(profile, &credential.session_id).await?;
    let mut line = Line::new(server, dial, Purpose::Session);
    let telling = tell(&mut line, server, credential);
    let told = timeout(PATIENCE * 2, telling)
        .await
        .unwrap_or_else(|_elapsed| Err("it does not answer".to_owned()));
    line.close().await;

    Ok(match told {
        Ok(()) => SignedOut::Everywhere,
        Err(why) => SignedOut::HereOnly {
            server: server.to_string(),
            why,
        },
    })
}

/// Ends the session on the server; the error is for a person.
async fn tell<S>(
    line: &mut Line<'_, S>,
    server: &Server,
    credential: &Credential,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let outcome = |cut| match cut {
        // It had ended before.
        Cut::Over(_) => Ok(()),
        Cut::Refused { message, .. } => Err(message),
        Cut::Lost(error, _) => Err(error.to_string()),
    };
    let due = Instant::now() + ASKED_FOR;
    if let Err(cut) = first_sign_on(line, server, credential, due).await {
        return outcome(cut);
    }

    loop {
        match sign_off(line, server, credential).await {
            Err(Cut::Refused {
                retry_after: Some(pause),
                ..
            }) if Instant::now() + pause < due => sleep(pause).await,
            done => return done.or_else(outcome),
        }
    }
}

/// Ends the session on an authenticated line.
async fn sign_off<S>(
    line: &mut Line<'_, S>,
    server: &Server,
    credential: &Credential,
) -> Result<(), Cut>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let proof = credential
        .device_key
        .proof(Use::Logout, &server.to_string(), line.nonce(), None);
    line.send(&EditorFrame::SessionLogout { proof: Some(proof) })
        .await;

    loop {
        match listen(line, server).await {
            Answer::Ended => return Ok(()),
            Answer::Cut(cut) => return Err(cut),
            Answer::Connected
            | Answer::SignedOn { .. }
            | Answer::Fresh(_)
            | Answer::Expiring(_)
            | Answer::Other => {}
        }
    }
}

#[cfg(test)]
mod tests;
