//! Servers of others that tests start: NATS and PostgreSQL. Each is private to the test process,
//! and ends with it.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a harness fails by panicking"
)]

pub mod nats;
pub mod port;
pub mod postgres;
pub mod tool;
