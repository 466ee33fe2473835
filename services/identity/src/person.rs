//! The signed-in person according to a provider, and how long that is believed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::name::clean;

/// A person, as an identity provider has reported them. The browser stores it, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignIn {
    /// The name in sessions: the issuer, or `dev`.
    pub provider: String,
    /// The provider's id of the person.
    pub subject: String,
    /// The provider's session.
    pub provider_session: String,
    pub email: Option<String>,
    /// Whether the provider says that the address belongs to the person.
    pub email_verified: bool,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
    /// When the provider was asked, seconds since 1970.
    pub at: i64,
}

impl SignIn {
    /// Returns whether it is recent enough for an approval.
    pub fn holds(&self, now: OffsetDateTime, ttl: Duration) -> bool {
        is_within(self.at, now, ttl)
    }

    /// Returns whether it was used recently enough to manage one's editors.
    pub fn is_in_use(&self, seen: Option<i64>, now: OffsetDateTime, ttl: Duration) -> bool {
        is_within(self.at.max(seen.unwrap_or(self.at)), now, ttl)
    }

    pub fn is_same_user(&self, other: &Self) -> bool {
        self.provider == other.provider && self.subject == other.subject
    }

    /// Returns the name, made safe to show. A cookie may be older than the current rule for names.
    pub fn shown_name(&self) -> Option<String> {
        self.name.as_deref().and_then(clean)
    }
}

fn is_within(since: i64, now: OffsetDateTime, ttl: Duration) -> bool {
    now.unix_timestamp().saturating_sub(since) < ttl.as_secs().cast_signed()
}

/// The proof that a person has just signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It was made in this request.
    Fresh,
    /// It was made that long ago.
    Aged(Duration),
    /// It was made on a trip that began with this watermark.
    Since(u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev;

    #[test]
    fn a_sign_in_is_believed_until_its_time_is_over() {
        let sign_in = dev::sign_in("ada@example.com", "", "session".to_owned(), 1000).unwrap();
        let holds = |now| {
            sign_in.holds(
                OffsetDateTime::from_unix_timestamp(now).unwrap(),
                Duration::from_mins(15),
            )
        };
        assert!(holds(1000) && holds(1899));
        assert!(!holds(1900));
    }

    #[test]
    fn a_user_is_one_providers_subject() {
        let ada = dev::sign_in("ada@example.com", "", "session".to_owned(), 1000).unwrap();
        assert!(ada.is_same_user(&SignIn {
            provider_session: "other".to_owned(),
            name: None,
            at: 0,
            ..ada.clone()
        }));
        assert!(!ada.is_same_user(&SignIn {
            provider: "https://id.test".to_owned(),
            ..ada.clone()
        }));
        assert!(!ada.is_same_user(&SignIn {
            subject: "bob@example.com".to_owned(),
            ..ada.clone()
        }));
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
