//! Why a process does not start, or why it ends.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Errors before and while roles run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One line for each problem; each names its setting.
    #[error("the settings do not work:\n  {}", .0.join("\n  "))]
    Settings(Vec<String>),
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot listen on {address} for {what}: {source}")]
    Bind {
        what: &'static str,
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] vvs_runtime::tls::Error),
    #[error("{}: {source}", path.display())]
    Key {
        path: PathBuf,
        source: vvs_auth::Error,
    },
    #[error("cannot make a key: {0}")]
    Random(vvs_auth::Error),
    #[error("cannot make certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the editor of the demo could not sign in: {0}")]
    Editor(#[from] vvs_client::Error),
    #[error(transparent)]
    Sessions(#[from] vvs_sessions::Error),
    #[error(transparent)]
    Time(#[from] time::error::Format),
    #[error("the {role} stopped: {cause}")]
    Role {
        role: vvs_auth::peer::Role,
        cause: String,
    },
}
