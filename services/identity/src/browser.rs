//! The browser of a request, as a provider sees it.

use std::time::Duration;

use secrecy::SecretString;

use crate::about::About;
use crate::asking::Asking;
use crate::person::{Freshness, SignIn};
use crate::refusal::Refusal;

/// The browser of a request. The role that shows the pages keeps its cookies.
pub trait Browser: Send {
    /// Sends it on a trip to the provider. The values for its return are kept for this long, under
    /// the `state` that it comes back with.
    fn begin<'a>(
        &'a mut self,
        state: &'a str,
        trip: Trip,
        time: Duration,
    ) -> Asking<'a, Result<(), Refusal>>;

    /// Ends the trip with this `state`, if this browser is on it, whatever the result. Also returns
    /// the proof of when a resulting sign-in was made.
    fn end(&mut self, state: &str) -> Option<(Trip, Freshness)>;

    /// Returns who was signed in when it arrived.
    fn before(&self) -> Option<&SignIn>;

    /// Returns the value for a form that is made for it now.
    fn csrf(&mut self, about: About) -> Result<SecretString, Refusal>;
}

/// A trip to an identity provider, which ends with an answer to exactly this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trip {
    pub about: About,
    /// Returned in the ID token (OpenID Connect Core, section 2).
    pub nonce: String,
    /// Sent with the code (RFC 7636, section 4.1).
    pub verifier: String,
}
