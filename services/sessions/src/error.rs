//! The errors of this role, and the only place that decides what callers are told about them: a
//! code and a fixed reason, never a cause.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use tonic::{Code, Status};
use vvs_proto::types::ErrorReason;
use vvs_runtime::rpc::{exhausted, status};

use crate::id::{self, SessionId, UserId};

/// Why sessions does not start, or does not do what a caller asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("VVS_SESSIONS_DATABASE_URL (--sessions-database-url) is not set")]
    NoDatabase,
    #[error(
        "VVS_SESSIONS_DATABASE_URL (--sessions-database-url) must be sqlite:PATH, a file without \
         parameters behind it, or postgres://USER:PASSWORD@HOST/DATABASE"
    )]
    DatabaseUrl,
    #[error(
        "VVS_SESSIONS_DATABASE_URL (--sessions-database-url) has a parameter that is not known: {0}"
    )]
    DatabaseParameter(String),
    #[error(
        "VVS_SESSIONS_DATABASE_URL (--sessions-database-url) leads off this machine and may fall \
         back to no TLS: set sslmode=verify-full (and sslrootcert=FILE for a CA of your own), or \
         sslmode=disable for a network that you trust"
    )]
    DatabaseInClear,
    #[error(
        "the database server of VVS_SESSIONS_DATABASE_URL (--sessions-database-url) cannot be \
         used: {0}; is it running, reachable from here, and are user, password, database and \
         sslmode right?"
    )]
    Server(#[source] sqlx::Error),
    #[error(
        "the database file {path} cannot be opened for reading and writing: {source}; its \
         directory must exist"
    )]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the database has schema {found} and this program knows schemas up to {known}: run a newer \
         program"
    )]
    NewerSchema { found: i64, known: i64 },
    #[error("the database cannot be brought up to date: {0}")]
    Migrate(#[source] MigrateError),
    #[error(
        "VVS_SESSIONS_KEY_FILE (--sessions-key-file) does not open the signing keys in the \
         database: use the key file that they were encrypted with, or add its line to the file as \
         the second one; if it is lost, delete all rows of the table signing_keys, and everybody \
         has to sign in again"
    )]
    WrongKeyFile,
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] vvs_runtime::rpc::BadDescription),

    #[error("{field} is missing or malformed")]
    Malformed { field: &'static str },
    #[error("{0}")]
    NotAllowed(#[source] vvs_auth::Error),
    #[error("there is no session {0}")]
    SessionUnknown(SessionId),
    /// For a session that is unknown here: nobody here can say that it is over.
    #[error(
        "there is no session {0}, and no key ever signed here that signed its token: is this the \
         right database?"
    )]
    KeyUnknown(SessionId),
    #[error("session {0} has expired")]
    SessionExpired(SessionId),
    #[error("session {0} has been revoked")]
    SessionRevoked(SessionId),
    /// The proof is valid, but made with another key, or the session has no key. Callers get the
    /// same answer as for a session that does not exist.
    #[error("session {0} is not bound to this key")]
    KeyMismatch(SessionId),
    #[error("session {id} is refreshed too often; again in {retry_after:?}")]
    RefreshedTooOften {
        id: SessionId,
        retry_after: Duration,
    },
    #[error("the proof does not hold: {0}")]
    BadProof(#[source] vvs_auth::Error),
    #[error("number {0} of the feed is gone, or was never there")]
    SequenceGone(u64),
    #[error("a follower of the feed is too far behind")]
    FollowerSlow,
    /// More followers began at the same time than can be told what they have missed.
    #[error("too many followers want to know at once what they have missed")]
    FollowersBusy,
    /// This process is about to stop.
    #[error("this process is stopping; another one may serve")]
    Stopping,
    #[error("user {0} has as many sessions as there may be, and all are in use")]
    SessionsFull(UserId),
    #[error("as many sessions of user {0} wait for their editors as may")]
    PendingFull(UserId),
    #[error("this request id made session {0}, for somebody else")]
    RequestClaimed(SessionId),
    /// The database cannot be used now; nothing was changed. `kind` is the label of the metric.
    #[error("the database is down ({kind}): {source}")]
    Database {
        kind: &'static str,
        source: sqlx::Error,
    },
    /// The database returned a result that our own queries rule out.
    #[error("the database holds what it should not: {0}")]
    Corrupt(#[source] sqlx::Error),
    #[error("{0}")]
    Crypto(#[from] vvs_auth::Error),
}

impl From<id::Malformed> for Error {
    fn from(id::Malformed { field }: id::Malformed) -> Self {
        Self::Malformed { field }
    }
}

impl Error {
    /// Returns the code and the reason for the caller.
    pub(crate) fn outside(&self) -> (Code, ErrorReason) {
        match self {
            Self::Malformed { .. } => (Code::InvalidArgument, ErrorReason::Malformed),
            Self::NotAllowed(vvs_auth::Error::PeerBusy { .. }) => {
                (Code::ResourceExhausted, ErrorReason::PeerBusy)
            }
            Self::NotAllowed(_) => (Code::PermissionDenied, ErrorReason::PeerNotAllowed),
            Self::SessionUnknown(_) | Self::KeyMismatch(_) => {
                (Code::NotFound, ErrorReason::SessionUnknown)
            }
            Self::KeyUnknown(_) => (Code::Unavailable, ErrorReason::KeyUnknown),
            Self::SessionExpired(_) => (Code::FailedPrecondition, ErrorReason::SessionExpired),
            Self::RequestClaimed(_) => (Code::AlreadyExists, ErrorReason::RequestClaimed),
            Self::SessionRevoked(_) => (Code::FailedPrecondition, ErrorReason::SessionRevoked),
            Self::BadProof(_) => (Code::PermissionDenied, ErrorReason::BadProof),
            Self::RefreshedTooOften { .. } => {
                (Code::ResourceExhausted, ErrorReason::RefreshedTooOften)
            }
            Self::SessionsFull(_) => (Code::ResourceExhausted, ErrorReason::SessionsFull),
            Self::PendingFull(_) => (Code::ResourceExhausted, ErrorReason::PendingFull),
            Self::SequenceGone(_) => (Code::OutOfRange, ErrorReason::SequenceGone),
            Self::FollowerSlow => (Code::ResourceExhausted, ErrorReason::FollowerSlow),
            Self::FollowersBusy => (Code::ResourceExhausted, ErrorReason::FollowersBusy),
            Self::Stopping => (Code::Unavailable, ErrorReason::Draining),
            Self::Database { .. } => (Code::Unavailable, ErrorReason::DatabaseDown),
            Self::Corrupt(_)
            | Self::Crypto(_)
            | Self::NoDatabase
            | Self::DatabaseUrl
            | Self::DatabaseParameter(_)
            | Self::DatabaseInClear
            | Self::Server(_)
            | Self::File { .. }
            | Self::NewerSchema { .. }
            | Self::Migrate(_)
            | Self::WrongKeyFile
            | Self::Reflection(_) => (Code::Internal, ErrorReason::Internal),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.log();
        let (code, reason) = error.outside();
        let reason = reason.word();
        if let Error::RefreshedTooOften { retry_after, .. } = error {
            return exhausted(reason, retry_after);
        }

        let field = if let Error::Malformed { field } = error {
            Some(field)
        } else {
            None
        };

        status(code, reason, field)
    }
}

impl Error {
    /// Logs it. The message can name a session or a peer, so it stays in our own log.
    pub(crate) fn log(&self) {
        let (code, reason) = self.outside();
        let reason = reason.word();
        if code == Code::Internal {
            tracing::error!(reason, detail = %self, "failed");
        } else if self.is_expected() {
            tracing::debug!(reason, detail = %self, "refused");
        } else if code == Code::Unavailable {
            tracing::warn!(reason, detail = %self, "failed");
        } else {
            tracing::info!(reason, detail = %self, "refused");
        }
    }

    /// Returns whether a limit or the end of the process caused it, which is already reported. Of
    /// these there may be any number.
    fn is_expected(&self) -> bool {
        matches!(
            self,
            Self::FollowerSlow
                | Self::FollowersBusy
                | Self::Stopping
                | Self::RefreshedTooOften { .. }
                | Self::NotAllowed(vvs_auth::Error::PeerBusy { .. })
        )
    }

    /// Returns whether the database may answer differently a moment later without anybody's action.
    pub(crate) fn may_pass(&self) -> bool {
        let kind = if let Self::Database { kind, .. } = self {
            Some(*kind)
        } else if let Self::Migrate(MigrateError::Execute(cause)) = self {
            kind(cause)
        } else {
            None
        };
        kind.is_some_and(|kind| ["busy", "conflict", "io", "locked", "slow"].contains(&kind))
    }

    /// Returns the error for a database that did not answer within the time of a call.
    pub(crate) fn slow() -> Self {
        Self::Database {
            kind: "slow",
            source: sqlx::Error::PoolTimedOut,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        match kind(&source) {
            Some(kind) => Self::Database { kind, source },
            None => Self::Corrupt(source),
        }
    }
}

/// Characters of PostgreSQL's codes; SQLite's are shorter.
const SQLSTATE: usize = 5;

/// PostgreSQL, appendix A: a class is two characters.
fn postgres(code: &str) -> Option<&'static str> {
    match (code.get(..2)?, code) {
        (_, "25006") => Some("read_only"),
        (_, "53100") => Some("full"),
        (_, "55P03" | "57014") => Some("locked"),
        // The first two: we stood still for longer than a transaction may, and were cut off.
        (_, "25P03" | "25P04") | ("08" | "57", _) => Some("io"),
        ("53", _) => Some("busy"),
        // Two changes got into each other's way; both can be tried again.
        ("40", _) => Some("conflict"),
        ("28", _) | (_, "3D000") => Some("refused"),
        ("58" | "XX", _) => Some("damaged"),
        _ => None,
    }
}

/// The primary result code is the low byte (SQLite, "Result and Error Codes").
fn sqlite(code: &str) -> &'static str {
    match code.parse::<i32>().map(|code| code & 0xff) {
        Ok(5 | 6) => "locked",
        Ok(8) => "read_only",
        Ok(10) => "io",
        Ok(11 | 26) => "damaged",
        Ok(13) => "full",
        Ok(14) => "missing",
        _ => "other",
    }
}

/// Returns in one word why the database cannot be used; `None` when it can and the fault is ours.
fn kind(error: &sqlx::Error) -> Option<&'static str> {
    if let sqlx::Error::Database(answer) = error {
        if answer.kind() != sqlx::error::ErrorKind::Other {
            return None;
        }
        let code = answer.code()?;
        return if code.len() == SQLSTATE {
            postgres(&code)
        } else {
            Some(sqlite(&code))
        };
    }

    if matches!(error, sqlx::Error::PoolTimedOut) {
        return Some("busy");
    }

    let broken = matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::PoolClosed
            | sqlx::Error::BeginFailed
    );

    broken.then_some("io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_the_server_ends_is_an_outage_and_a_wrong_statement_is_not() {
        for ended in ["08006", "25P03", "25P04", "57P01", "57P05"] {
            assert_eq!(postgres(ended), Some("io"), "{ended}");
        }
        for ours in ["25P01", "25P02", "42601", "42P01"] {
            assert_eq!(postgres(ours), None, "{ours}");
        }
    }
}
