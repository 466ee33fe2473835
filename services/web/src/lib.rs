//! The web role: pages, identity providers and the approval. Holds no socket, no signing key and no database.

#![cfg_attr(not(test), expect(dead_code, reason = "the routes come with the next change"))]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use vvs_auth::key::Keyring;
use vvs_auth::peer::Peers;
use vvs_runtime::Process;
use vvs_runtime::http::{Limits, Listener};
use vvs_runtime::origin::Origin;

mod asset;
mod error;
mod failure;
mod header;
mod page;

pub use error::Error;

/// Web's settings.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Web")]
#[group(skip)]
pub struct Settings {
    /// Where the gateway reaches this role's pages
    #[arg(id = "web-http-addr", long, env = "VVS_WEB_HTTP_ADDR")]
    pub http_addr: Option<SocketAddr>,
    /// Who signs people in
    #[arg(id = "web-identity", long, env = "VVS_WEB_IDENTITY", value_enum)]
    pub identity: Option<IdentityKind>,
    /// File with the key that seals cookies: base64 of 32 random bytes, and perhaps a second line with the key before it
    #[arg(id = "web-key-file", long, env = "VVS_WEB_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// Where the relay is called (gRPC), as HOST:PORT
    #[arg(id = "web-relay-addr", long, env = "VVS_WEB_RELAY_ADDR")]
    pub relay_addr: Option<String>,
    /// Where the sessions role is called (gRPC), as HOST:PORT
    #[arg(id = "web-sessions-addr", long, env = "VVS_WEB_SESSIONS_ADDR")]
    pub sessions_addr: Option<String>,
    /// How long after signing in to the browser a person may approve
    #[arg(id = "web-sign-in-ttl", long, env = "VVS_WEB_SIGN_IN_TTL", default_value = "15m", value_parser = humantime::parse_duration)]
    pub sign_in_ttl: Duration,
}

/// Which identity provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum IdentityKind {
    /// Anyone is whoever they say; only while everything is on loopback
    Dev,
}

/// Serves until stopped. A port without TLS takes the client's address from anybody, so it must be on loopback.
pub async fn serve(
    settings: Settings,
    http: Listener,
    peers: Arc<Peers>,
    public_url: Origin,
    keyring: Keyring,
    process: Process,
) -> Result<(), Error> {
    process.tasks.spawn(process.server(Limits::default()).serve(http, Router::new()));
    process.readiness.set(true);
    process.stop.cancelled().await;
    process.readiness.set(false);
    Ok(())
}
