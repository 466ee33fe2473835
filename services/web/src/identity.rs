//! Who is signed in to a browser, and for how long that is believed. Knows no login of an editor and no cookie.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::page::Account;

pub(crate) mod dev;

/// A person, as an identity provider has told us. Web seals it and the browser keeps it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignIn {
    pub(crate) provider: String,
    /// The provider's own id of the person.
    pub(crate) subject: String,
    /// The provider's own session.
    pub(crate) provider_session: String,
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    /// When the provider was asked, seconds since 1970.
    pub(crate) at: i64,
}

impl SignIn {
    /// Whether it is young enough to approve with.
    pub(crate) fn holds(&self, now: OffsetDateTime, ttl: Duration) -> bool {
        is_within(self.at, now, ttl)
    }

    /// Whether it was used lately enough to look after one's editors with.
    pub(crate) fn is_in_use(&self, seen: Option<i64>, now: OffsetDateTime, ttl: Duration) -> bool {
        is_within(self.at.max(seen.unwrap_or(self.at)), now, ttl)
    }

    pub(crate) fn is_same_user(&self, other: &Self) -> bool {
        self.provider == other.provider && self.subject == other.subject
    }

    pub(crate) fn account(&self) -> Account {
        Account { name: self.name.clone(), email: self.email.clone() }
    }
}

fn is_within(since: i64, now: OffsetDateTime, ttl: Duration) -> bool {
    now.unix_timestamp().saturating_sub(since) < ttl.as_secs().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_is_believed_until_its_time_is_over() {
        let sign_in = dev::sign_in("ada@example.com", "", "session".to_owned(), 1000).unwrap();
        let holds = |now| sign_in.holds(OffsetDateTime::from_unix_timestamp(now).unwrap(), Duration::from_mins(15));
        assert!(holds(1000) && holds(1899));
        assert!(!holds(1900));
    }

    #[test]
    fn a_sign_in_is_in_use_until_it_has_lain_idle() {
        let sign_in = dev::sign_in("ada@example.com", "", "session".to_owned(), 1000).unwrap();
        let at = |now| OffsetDateTime::from_unix_timestamp(now).unwrap();
        let is_in_use = |seen, now| sign_in.is_in_use(seen, at(now), Duration::from_mins(15));
        assert!(is_in_use(None, 1899) && is_in_use(Some(1899), 2798));
        assert!(!is_in_use(None, 1900) && !is_in_use(Some(1899), 2799));
        // Somebody else's last look, before this sign-in.
        assert!(is_in_use(Some(0), 1899));
    }
}
