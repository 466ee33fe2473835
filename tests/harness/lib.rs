//! Everything a test of the whole system needs.
//!
//! [`Stack::start`] is a separate installation: all roles in this process, a fresh CA, ports that
//! nobody else has, captured logs and spans. When it is dropped, the test fails on an unexpected
//! line of level ERROR, and on any secret in logs, spans or addresses. [`Editor`] and [`Browser`]
//! speak for an editor and a browser, [`Chromium`] is a real browser, and [`cluster`] starts
//! processes that can be killed. Providers are played by [`clerk`] and [`oidc`].
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::wildcard_enum_match_arm,
    reason = "a harness fails by panicking, at whatever it did not expect"
)]

use std::path::Path;

mod browser;
mod chromium;
pub mod clerk;
pub mod cluster;
pub mod command;
pub mod crowd;
pub mod database;
mod editor;
mod front;
mod install;
pub mod nginx;
pub mod oidc;
mod peer;
mod secrets;
pub mod split;
pub mod stack;
pub mod terminal;
mod wire;

pub use browser::{Browser, Page, tls_client};
pub use chromium::Chromium;
pub use editor::{Editor, introduction};
pub use front::{Fault, Front};
pub use install::Install;
pub use peer::{Authority, Caller};
pub use secrets::Secrets;
pub use stack::Stack;
pub use vvs_test_servers::{nats, port, postgres, tool};
pub use wire::Wire;

/// The repository's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
