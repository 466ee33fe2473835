//! Every byte that crosses a process boundary, and what of a stranger's text may be shown. Knows
//! nothing of what it is used for.
//!
//! - [`relay`] and [`session`] are generated from `proto/vvs`: what the roles say to each other
//!   over gRPC. The code is checked in, and a test fails when it is out of date.
//! - [`frame`] has the JSON frames of the editor's WebSocket. They are written by hand, and
//!   `proto/golden` has a file for each shape, from which other people's clients are made.
//! - [`ConnectionId`], [`RequestId`], [`Phase`] and [`timestamp`] are the words of the contracts
//!   that more than one role reads.
//! - [`text`] makes words of strangers safe to show, and [`ReturnUri`] an address that a browser
//!   may be led back to.
//!
//! Old readers ignore members that they do not know; so a member never gets a new meaning.

pub mod frame;
mod id;
mod phase;
mod return_uri;
mod secret;
pub mod text;
pub mod timestamp;

pub use id::{ConnectionId, NotAnId, RequestId};
pub use phase::Phase;
pub use return_uri::{ReturnUri, Unsafe};
pub use secret::Secret;

/// `vvs.relay.v1`: what other roles may ask of a relay.
#[allow(
    clippy::all,
    clippy::pedantic,
    reason = "generated from proto/vvs/relay/v1"
)]
pub mod relay {
    include!("gen/vvs.relay.v1.rs");
}

/// `vvs.session.v1`: users, sessions and signing keys.
#[allow(
    clippy::all,
    clippy::pedantic,
    reason = "generated from proto/vvs/session/v1"
)]
pub mod session {
    include!("gen/vvs.session.v1.rs");
}

/// The compiled contracts, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/vvs.fds.bin");
