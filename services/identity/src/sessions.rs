//! The trait that ends sign-ins and sessions when a provider says so.

use vvs_proto::types::RevocationReason;

use crate::asking::Asking;
use crate::refusal::Refusal;

/// The owner of sign-ins and sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose<'a> {
    pub provider: &'a str,
    /// Empty when a session at the provider is enough.
    pub subject: &'a str,
    /// Only sessions that were approved with this session at the provider; empty for all of the
    /// subject's.
    pub provider_session: &'a str,
}

/// The sign-ins of all browsers and the sessions of all editors.
pub trait Sessions: Send + Sync {
    /// Ends the sign-ins that a provider says are over, in browsers and, if asked to, in editors.
    /// Returns the number of editor sessions.
    fn end<'a>(
        &'a self,
        whose: Whose<'a>,
        editors: bool,
        reason: RevocationReason,
    ) -> Asking<'a, Result<u32, Refusal>>;

    /// Takes subjects of this provider who use an editor, and who have not been checked with the
    /// provider for a day.
    fn take_stale<'a>(
        &'a self,
        provider: &'a str,
        limit: u32,
    ) -> Asking<'a, Result<Vec<String>, Refusal>>;
}
