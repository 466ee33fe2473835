//! The whole system, over real sockets: scenarios, one file a theme.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, at whatever it did not expect"
)]

mod bound;
mod browser;
mod build;
mod claims;
mod clock;
mod command;
mod delivery;
mod development;
mod docs;
mod drain;
mod edge;
mod faults;
mod identity;
mod identity_standins;
mod keyring;
mod licences;
mod load;
mod mishap;
mod nats;
mod outage;
mod overload;
mod pages;
mod peers;
mod polyglot;
mod prose;
mod quota;
mod server;
mod session;
mod sessions;
mod sign_in;
mod socket;
mod storm;
mod structure;
mod survive;
mod trace;
