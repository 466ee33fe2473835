//! Every byte that crosses a process boundary, and what of a stranger's text may be shown. Knows
//! nothing of what it is used for.
//!
//! - [`relay`], [`session`], [`token`], [`types`] and [`internal`] are generated from `proto/vvs`:
//!   what is said over gRPC. The code is checked in, and a test fails when it is out of date.
//! - [`frame`] has the JSON frames of the editor's WebSocket. They are written by hand, and
//!   `proto/golden` has a file for each shape, from which other people's clients are made.
//! - [`ConnectionId`], [`RequestId`], [`Phase`] and [`timestamp`] are the words of the contracts
//!   that more than one role reads.
//! - [`text`] makes words of strangers safe to show, and [`ReturnUri`] an address that a browser
//!   may be led back to.
//!
//! Old readers ignore members that they do not know; so a member never gets a new meaning.

pub mod frame;
mod generated;
mod id;
mod phase;
mod reason;
mod return_uri;
mod secret;
pub mod text;
pub mod timestamp;

pub use id::{ConnectionId, NotAnId, RequestId};
pub use phase::Phase;
pub use return_uri::{ReturnUri, Unsafe};
pub use secret::Secret;

/// `vvs.internal.v1`: what the roles of one version say to each other.
pub use generated::internal::v1 as internal;
/// `vvs.relay.v1`: what a web app asks of a relay.
pub use generated::relay::v1 as relay;
/// `vvs.session.v1`: users and sessions, for a web app.
pub use generated::session::v1 as session;
/// `vvs.token.v1`: signing keys and revocations, for a back end.
pub use generated::token::v1 as token;
/// `vvs.type.v1`: the messages that several contracts use.
pub use generated::r#type::v1 as types;

/// The compiled contracts, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/vvs.fds.bin");
