//! The browser that asks, as far as a provider deals with it.

use std::time::Duration;

use secrecy::SecretString;

use crate::about::About;
use crate::asking::Asking;
use crate::person::{Proof, SignIn};
use crate::refusal::Refusal;

/// The browser that asks. Whoever shows the pages keeps its cookies.
pub trait Browser: Send {
    /// Sends it on a trip to the provider: what it has to come back to is kept for this long, under
    /// the `state` that it comes back with.
    fn begin<'a>(
        &'a mut self,
        state: &'a str,
        trip: Trip,
        time: Duration,
    ) -> Asking<'a, Result<(), Refusal>>;

    /// Ends the trip with this `state`, if this browser is on it. It is over with that, whatever
    /// comes of it. Returns also what shows when a sign-in that comes of it was made.
    fn end(&mut self, state: &str) -> Option<(Trip, Proof)>;

    /// Returns who was signed in when it came.
    fn before(&self) -> Option<&SignIn>;

    /// Returns the value that a form has to carry that is made for it now.
    fn csrf(&mut self, about: About) -> Result<SecretString, Refusal>;
}

/// A trip to an identity provider, from which the browser comes back with an answer to exactly
/// this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trip {
    pub about: About,
    /// Comes back in the ID token (OpenID Connect Core, section 2).
    pub nonce: String,
    /// Goes with the code (RFC 7636, section 4.1).
    pub verifier: String,
}
