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
        now.unix_timestamp().saturating_sub(self.at) < ttl.as_secs().cast_signed()
    }

    pub(crate) fn is_same_user(&self, other: &Self) -> bool {
        self.provider == other.provider && self.subject == other.subject
    }

    pub(crate) fn account(&self) -> Account {
        Account { name: self.name.clone(), email: self.email.clone() }
    }
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
}
