//! Everything that can go wrong in this role, and the one place that decides what callers are told of it: a code and a
//! fixed reason, never a cause.

use std::io;
use std::path::PathBuf;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use vvs_runtime::rpc::{ERROR_DOMAIN, status};

use crate::session::SessionId;

/// Why sessions does not start, or does not do what a caller asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("VVS_SESSIONS_DATABASE_URL (--sessions-database-url) is not set")]
    NoDatabase,
    #[error(
        "VVS_SESSIONS_DATABASE_URL (--sessions-database-url) must be sqlite:PATH: a file, and no parameters behind it"
    )]
    DatabaseUrl,
    #[error("the database file {path} cannot be opened for reading and writing: {source}; its directory must exist")]
    File { path: PathBuf, source: io::Error },
    #[error("the database has schema {found} and this program knows schemas up to {known}: run a newer program")]
    NewerSchema { found: i64, known: i64 },
    #[error("the database cannot be brought up to date: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error(
        "VVS_SESSIONS_KEY_FILE (--sessions-key-file) does not open the signing keys in the database: use the key file that \
         they were encrypted with, or add its line to the file as the second one; if it is lost, delete all rows of the table \
         signing_keys, and everybody has to sign in again"
    )]
    WrongKeyFile,
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),

    #[error("{field} is missing or malformed")]
    Malformed { field: &'static str },
    #[error("{0}")]
    NotAllowed(#[source] vvs_auth::Error),
    #[error("there is no session {0}")]
    SessionUnknown(SessionId),
    #[error("session {0} has expired")]
    SessionExpired(SessionId),
    #[error("this request id made session {0}, for somebody else")]
    RequestClaimed(SessionId),
    #[error("{0} is not implemented in this version")]
    NotImplemented(&'static str),
    /// The database cannot be used now; nothing was changed. `kind` is what the metric calls it.
    #[error("the database is down ({kind}): {source}")]
    Database { kind: &'static str, source: sqlx::Error },
    /// The database answers, with something that our own queries do not allow for.
    #[error("the database holds what it should not: {0}")]
    Corrupt(#[source] sqlx::Error),
    #[error("{0}")]
    Crypto(#[from] vvs_auth::Error),
}

impl Error {
    /// What a caller is told.
    fn outside(&self) -> (Code, &'static str) {
        match self {
            Self::Malformed { .. } => (Code::InvalidArgument, "MALFORMED"),
            Self::NotAllowed(_) => (Code::PermissionDenied, "PEER_NOT_ALLOWED"),
            Self::SessionUnknown(_) => (Code::NotFound, "SESSION_UNKNOWN"),
            Self::SessionExpired(_) => (Code::FailedPrecondition, "SESSION_EXPIRED"),
            Self::RequestClaimed(_) => (Code::AlreadyExists, "REQUEST_CLAIMED"),
            Self::NotImplemented(_) => (Code::Unimplemented, "NOT_IMPLEMENTED"),
            Self::Database { .. } => (Code::Unavailable, "DATABASE_DOWN"),
            Self::Corrupt(_)
            | Self::Crypto(_)
            | Self::NoDatabase
            | Self::DatabaseUrl
            | Self::File { .. }
            | Self::NewerSchema { .. }
            | Self::Migrate(_)
            | Self::WrongKeyFile
            | Self::Reflection(_) => (Code::Internal, "INTERNAL"),
        }
    }
}

/// The message can name a session or a peer, so it stays in our own log.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, reason) = error.outside();
        if code == Code::Internal {
            tracing::error!(reason, detail = %error, "failed");
        } else if code == Code::Unavailable {
            tracing::warn!(reason, detail = %error, "failed");
        } else {
            tracing::info!(reason, detail = %error, "refused");
        }
        if let Error::NotImplemented(_) = error {
            return Self::with_error_details(
                code,
                error.to_string(),
                ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []),
            );
        }
        let field = if let Error::Malformed { field } = error { Some(field) } else { None };
        status(code, reason, field)
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

/// In one word, why the database cannot be used; `None` when it can and the fault is ours.
fn kind(error: &sqlx::Error) -> Option<&'static str> {
    if let sqlx::Error::Database(answer) = error {
        if answer.kind() != sqlx::error::ErrorKind::Other {
            return None;
        }
        // The primary result code is the low byte (SQLite, "Result and Error Codes").
        let code = answer.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
        return Some(match code {
            Some(5 | 6) => "locked",
            Some(8) => "read_only",
            Some(10) => "io",
            Some(11 | 26) => "damaged",
            Some(13) => "full",
            Some(14) => "missing",
            _ => "other",
        });
    }
    if matches!(error, sqlx::Error::PoolTimedOut) {
        return Some("busy");
    }
    let broken = matches!(
        error,
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::PoolClosed | sqlx::Error::BeginFailed
    );
    broken.then_some("io")
}
