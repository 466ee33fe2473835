//! Decides who a caller is. No I/O, no async, no clock: times come in as arguments, and randomness
//! from the operating system's generator.
//!
//! - [`peer`] turns a certificate into a role, [`method`] is the table of who may call what, and
//!   [`quota`] bounds what one peer holds at once.
//! - [`token`] has the tokens that we sign, [`proof`] the editor's proof that it holds its
//!   [`device`] key.
//! - [`provider`] verifies the tokens of identity providers, against keys that are passed in.
//! - [`key`] seals what strangers keep for us.
//!
//! Everything that decides about a right is here, so that it can be read in one sitting and tested
//! without a server.

pub mod device;
mod error;
pub mod key;
pub mod method;
#[cfg(test)]
mod mutation;
pub mod peer;
pub mod proof;
pub mod provider;
pub mod quota;
pub mod token;

pub use error::Error;
