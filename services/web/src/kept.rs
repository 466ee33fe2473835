//! A sign-in as the browser stores it: who it is, which one it is, and how long it can last. Knows
//! no call and no cookie.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use vvs_auth::Error;
use vvs_auth::key::{base64url, random};

use vvs_identity::SignIn;

/// Names one sign-in of one browser: 128 random bits, base64url.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(crate) struct SignInId(String);

impl SignInId {
    pub(crate) fn mint() -> Result<Self, Error> {
        Ok(Self(base64url(&random::<16>()?)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The stored part of a sign-in. Members that a cookie of an earlier version lacks are empty, and
/// that sign-in is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    #[serde(flatten)]
    pub(crate) who: SignIn,
    /// Stays the same when the same person signs in to this browser again, so that its end ends
    /// every copy.
    #[serde(default)]
    pub(crate) id: SignInId,
    /// When it is over, however often it is used, in seconds since 1970.
    #[serde(default)]
    pub(crate) expires_at: i64,
    /// Its position among all ends: a number from sessions.
    #[serde(default)]
    pub(crate) watermark: u64,
}

impl Kept {
    /// Returns whether it can still be believed; a lowered setting applies immediately.
    pub(crate) fn is_live(&self, now: OffsetDateTime, max_ttl: Duration) -> bool {
        let end = self
            .expires_at
            .min(self.who.at.saturating_add(max_ttl.as_secs().cast_signed()));
        !self.id.as_str().is_empty() && now.unix_timestamp() < end
    }

    /// Returns how long its end has to be stored.
    pub(crate) fn remaining(&self, now: OffsetDateTime) -> Duration {
        Duration::from_secs(
            self.expires_at
                .saturating_sub(now.unix_timestamp())
                .max(0)
                .unsigned_abs(),
        )
    }
}

/// The person that a browser's cookie names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Person {
    /// Nobody, or somebody whose sign-in has expired.
    Nobody,
    SignedIn(Kept),
    /// Somebody whose sign-in was ended.
    Ended,
    /// It is unknown whether the sign-in was ended, and why.
    Unknown(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use vvs_identity::dev;

    const DAY: Duration = Duration::from_hours(24);

    fn kept() -> Kept {
        let who = dev::sign_in("ada@example.com", "", "s".to_owned(), 1000).unwrap();
        Kept {
            who,
            id: SignInId::mint().unwrap(),
            expires_at: 1000 + 86_400,
            watermark: 7,
        }
    }

    fn at(now: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(now).unwrap()
    }

    #[test]
    fn a_sign_in_is_over_a_day_after_it_was_made() {
        let kept = kept();
        assert!(kept.is_live(at(1000 + 86_399), DAY) && !kept.is_live(at(1000 + 86_400), DAY));
        assert!(
            !kept.is_live(at(1000 + 86_400), DAY * 2),
            "a setting prolongs what was made before"
        );
        assert!(
            !kept.is_live(at(4600), Duration::from_hours(1)),
            "a lower setting does not count"
        );
        assert_eq!(
            (kept.remaining(at(1000)), kept.remaining(at(200_000))),
            (DAY, Duration::ZERO)
        );
    }

    #[test]
    fn a_sign_in_of_the_version_before_is_over() {
        let before = serde_json::to_string(&kept().who).unwrap();
        let read: Kept = serde_json::from_str(&before).unwrap();
        assert_eq!(read.who, kept().who);
        assert!(!read.is_live(at(1000), DAY));
        let whole = kept();
        let read: Kept = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        assert!(read == whole && read.is_live(at(1000), DAY));
    }

    #[test]
    fn two_sign_ins_have_two_ids_of_128_bits() {
        let (one, other) = (SignInId::mint().unwrap(), SignInId::mint().unwrap());
        assert_ne!(one, other);
        assert_eq!(
            vvs_auth::key::from_base64url(one.as_str()).unwrap().len(),
            16
        );
    }
}
