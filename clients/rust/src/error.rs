//! Why a login could not come to an end, what the person can do about it, and the exit code that says so to scripts.

use std::io;
use std::path::PathBuf;

use crate::server::Server;

/// Every message ends with what to do next. Texts that came from the server are without control characters.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is not the address of a server. Give scheme and host, such as https://vvs.example.org")]
    Address(String),
    #[error(
        "`{0}` is not this machine, and over http anyone on the way could read the token. Use https \
         (http is for localhost, 127.0.0.1 and [::1] only)"
    )]
    Cleartext(String),
    #[error("cannot read CA certificates from {file}: {cause}. Give a PEM file with --ca-file", file = file.display())]
    CaFile { file: PathBuf, cause: String },
    #[error("TLS cannot be set up: {0}. This is a fault of this program; report it")]
    Tls(#[from] rustls::Error),
    #[error("cannot reach {server}: {source}. Check that the server runs and that --server names it")]
    Unreachable { server: Server, source: io::Error },
    #[error("no trusted TLS connection to {server}: {cause}. If it has a private CA, give that with --ca-file")]
    Untrusted { server: Server, cause: String },
    #[error("{server} answers, but not as a VVS server does ({answer}). Check --server")]
    NotVvs { server: Server, answer: String },
    #[error("{server} takes no sign-in right now (HTTP {status}). Try again {when}")]
    Busy { server: Server, status: u16, when: String },
    #[error("the connection to {server} was lost. Check the network, then sign in again")]
    Lost { server: Server },
    #[error("{server} ended the connection ({code} {reason}). Update this editor, then sign in again")]
    Closed { server: Server, code: u16, reason: String },
    #[error(
        "cannot store the credential in {dir}: {source}. Make room there or choose another folder with --state-dir, \
         then sign in again",
        dir = dir.display()
    )]
    Store { dir: PathBuf, source: io::Error },
}

impl Error {
    /// 5: there is no server to talk to. 1: anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::NotVvs { .. }
            | Self::Busy { .. }
            | Self::Lost { .. } => 5,
            Self::Address(_)
            | Self::Cleartext(_)
            | Self::CaFile { .. }
            | Self::Tls(_)
            | Self::Closed { .. }
            | Self::Store { .. } => 1,
        }
    }

    /// Whether an editor that was connected before may hope that the next try works.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::Lost { .. })
    }
}
