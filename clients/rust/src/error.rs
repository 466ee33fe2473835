//! Errors, what the person can do about them, and the exit codes that tell scripts.

use std::io;
use std::path::PathBuf;

use crate::server::{BadServer, Server};

/// Every message ends with what to do next. Texts from the server have no control characters.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Server(#[from] BadServer),
    #[error(
        "cannot read CA certificates from {file}: {cause}. Give a PEM file with --ca-file",
        file = file.display()
    )]
    CaFile { file: PathBuf, cause: String },
    #[error("TLS cannot be set up: {0}. This is a fault of this program; report it")]
    Tls(#[from] rustls::Error),
    #[error("this is no device key, or none can be made here. Sign in again")]
    Crypto,
    #[error(
        "cannot reach {server}: {source}. Check that the server runs and that --server names it"
    )]
    Unreachable { server: Server, source: io::Error },
    #[error(
        "no trusted TLS connection to {server}: {cause}. If it has a private CA, give that with \
         --ca-file"
    )]
    Untrusted { server: Server, cause: String },
    #[error("{server} answers, but not as a VVS server does ({answer}). Check --server")]
    NotVvs { server: Server, answer: String },
    #[error("{server} takes no sign-in right now (HTTP {status}). Try again {when}")]
    Busy {
        server: Server,
        status: u16,
        when: String,
    },
    #[error(
        "{server} does not take this editor's device key ({answer}). Update the server, or ask who \
         runs it"
    )]
    TooOld { server: Server, answer: String },
    #[error(
        "{server} refused this editor: {message}. Check that --server is the address that the \
         server itself uses"
    )]
    Refused { server: Server, message: String },
    #[error(
        "{server} cannot say whether this editor is signed in: {message}. Try again in a minute"
    )]
    NotNow { server: Server, message: String },
    #[error(
        "`{0}` cannot be the name of a profile. Use up to 32 lower-case letters, digits, - and _"
    )]
    Profile(String),
    #[error(
        "the system's keyring cannot be used: {0}. Unlock it, or keep the credential in a file \
         with --store file"
    )]
    Keyring(String),
    #[error("the connection to {server} was lost. Check the network, then try again")]
    Lost { server: Server },
    #[error(
        "{server} ended the connection ({code} {reason}). Update this editor, then sign in again"
    )]
    Closed {
        server: Server,
        code: u16,
        reason: String,
    },
    #[error(
        "cannot keep the credential in {dir}: {source}. Make room there or choose another folder \
         with --state-dir, then try again",
        dir = dir.display()
    )]
    Store { dir: PathBuf, source: io::Error },
}

impl Error {
    /// Returns 5 when there is no server to talk to, and 1 for any other error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::NotVvs { .. }
            | Self::TooOld { .. }
            | Self::NotNow { .. }
            | Self::Busy { .. }
            | Self::Lost { .. } => 5,
            Self::Server(_)
            | Self::CaFile { .. }
            | Self::Tls(_)
            | Self::Crypto
            | Self::Refused { .. }
            | Self::Profile(_)
            | Self::Keyring(_)
            | Self::Closed { .. }
            | Self::Store { .. } => 1,
        }
    }

    /// Returns whether the next try of an editor that was connected before may succeed.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Lost { .. }
        )
    }
}
