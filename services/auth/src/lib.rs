//! Decides who a caller is: peer names, the method table, tokens of ours and of identity providers,
//! and the sealing of what we hand to strangers to keep. No I/O, no async, no clock: times and
//! randomness come in as arguments or from the operating system's generator.

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
