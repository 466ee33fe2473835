//! The whole system, over real sockets: scenarios, one file a theme.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, at whatever it did not expect"
)]

mod bound;
mod browser;
mod command;
mod delivery;
mod edge;
mod faults;
mod keyring;
mod pages;
mod peers;
mod polyglot;
mod session;
mod sessions;
mod sign_in;
mod socket;
mod structure;
mod survive;
mod trace;
