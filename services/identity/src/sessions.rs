//! Who ends sign-ins and sessions when a provider says so.

use crate::asking::Asking;
use crate::refusal::Refusal;

/// Whose sign-ins and sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose<'a> {
    pub provider: &'a str,
    /// Empty with a session at the provider that is enough of a name.
    pub subject: &'a str,
    /// Only what was approved with this session at the provider; empty for all of the subject's.
    pub provider_session: &'a str,
}

/// The sign-ins of all browsers and the sessions of all editors.
pub trait Sessions: Send + Sync {
    /// Ends what a provider's word puts an end to, in browsers and, if so told, in editors; returns
    /// how many sessions of editors.
    fn end<'a>(
        &'a self,
        whose: Whose<'a>,
        editors: bool,
        reason: &'static str,
    ) -> Asking<'a, Result<u32, Refusal>>;

    /// Takes subjects of this provider who use an editor, and whom nobody has asked the provider
    /// about for a day.
    fn take_stale<'a>(
        &'a self,
        provider: &'a str,
        limit: u32,
    ) -> Asking<'a, Result<Vec<String>, Refusal>>;
}
