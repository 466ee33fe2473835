//! Browser sign-ins, as web names them, and the events that end them. Knows no database and no
//! wire.

use std::time::Duration;

use crate::Error;
use crate::session::{Seconds, required, text};

/// Milliseconds since 1970.
pub(crate) type Millis = i64;

/// Characters of web's id of a sign-in.
const MAX_ID: usize = 64;
/// The longest that a sign-in can last.
const MAX_AGE: Duration = Duration::from_hours(31 * 24);
/// How much longer an end is stored, for web processes whose clocks are slow.
const LATE_CLOCKS: Seconds = 300;

/// A person at a provider, and the session there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) provider: String,
    /// Empty when the provider names only its session.
    pub(crate) subject: String,
    /// Empty when the provider has no sessions, or for all of them.
    pub(crate) provider_session: String,
}

/// One sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignIn {
    pub(crate) id: String,
    pub(crate) whose: Whose,
    /// The number of the newest end that does not apply to it.
    pub(crate) watermark: i64,
}

impl SignIn {
    pub(crate) fn new(id: String, whose: Whose, watermark: u64) -> Result<Self, Error> {
        let watermark =
            i64::try_from(watermark).map_err(|_cause| Error::Malformed { field: "watermark" })?;
        let whose = Whose {
            subject: required("identity.subject", whose.subject)?,
            ..whose
        };
        Ok(Self {
            id: sign_in_id(required("sign_in_id", id)?)?,
            whose,
            watermark,
        })
    }
}

/// The sign-ins to end, and for how long the end must be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// Empty for all that were made with the session at the provider, or all of the user.
    pub(crate) sign_in_id: String,
    pub(crate) whose: Whose,
    remember_for: Seconds,
}

impl End {
    pub(crate) fn new(id: String, whose: Whose, remember_for: Duration) -> Result<Self, Error> {
        if whose.subject.is_empty() && (whose.provider_session.is_empty() || !id.is_empty()) {
            return Err(Error::Malformed {
                field: "identity.subject",
            });
        }

        if remember_for.is_zero() || remember_for > MAX_AGE {
            return Err(Error::Malformed {
                field: "remember_for",
            });
        }

        let remember_for = remember_for.as_secs().cast_signed() + 1;

        Ok(Self {
            sign_in_id: sign_in_id(id)?,
            whose,
            remember_for,
        })
    }

    /// Returns whether it ends all sign-ins of the user.
    pub(crate) fn is_of_all(&self) -> bool {
        self.sign_in_id.is_empty() && self.whose.provider_session.is_empty()
    }

    /// Returns the end of all sign-ins of the same user.
    pub(crate) fn of_all(&self) -> Self {
        let whose = Whose {
            provider_session: String::new(),
            ..self.whose.clone()
        };
        Self {
            sign_in_id: String::new(),
            whose,
            remember_for: self.remember_for,
        }
    }

    /// Returns when it may be deleted.
    pub(crate) fn forget_at(&self, now: Millis) -> Seconds {
        (now / 1000)
            .saturating_add(self.remember_for)
            .saturating_add(LATE_CLOCKS)
    }
}

impl Whose {
    pub(crate) fn new(
        provider: String,
        subject: String,
        provider_session: String,
    ) -> Result<Self, Error> {
        Ok(Self {
            provider: required("identity.provider", provider)?,
            subject: text("identity.subject", subject, crate::session::SHORT)?,
            provider_session: text(
                "identity.provider_session",
                provider_session,
                crate::session::SHORT,
            )?,
        })
    }
}

fn sign_in_id(id: String) -> Result<String, Error> {
    let is_plain = id.len() <= MAX_ID
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_plain {
        Ok(id)
    } else {
        Err(Error::Malformed {
            field: "sign_in_id",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn whose(subject: &str, provider_session: &str) -> Whose {
        Whose::new(
            "dev".to_owned(),
            subject.to_owned(),
            provider_session.to_owned(),
        )
        .unwrap()
    }

    #[test]
    fn an_end_names_a_sign_in_a_session_at_the_provider_or_a_user() {
        let end = |id: &str, whose| End::new(id.to_owned(), whose, DAY);
        assert!(!end("a-_9", whose("ada", "")).unwrap().is_of_all());
        assert!(!end("", whose("", "s-1")).unwrap().is_of_all());
        assert!(end("", whose("ada", "")).unwrap().is_of_all());
        assert!(end("", whose("", "s-1")).unwrap().of_all().is_of_all());

        for (id, whose) in [
            ("", whose("", "")),
            ("a", whose("", "s-1")),
            ("a b", whose("ada", "")),
        ] {
            assert!(
                matches!(end(id, whose), Err(Error::Malformed { .. })),
                "{id}"
            );
        }

        assert!(end(&"a".repeat(MAX_ID + 1), whose("ada", "")).is_err());
    }

    #[test]
    fn an_end_is_remembered_longer_than_any_sign_in_lasts_and_not_for_ever() {
        let end = |remember_for| End::new("a".to_owned(), whose("ada", ""), remember_for);
        assert_eq!(
            end(Duration::from_millis(1500)).unwrap().forget_at(10_999),
            10 + 2 + LATE_CLOCKS
        );
        assert!(end(MAX_AGE).is_ok());

        for bad in [Duration::ZERO, MAX_AGE + Duration::from_nanos(1)] {
            assert!(
                matches!(
                    end(bad),
                    Err(Error::Malformed {
                        field: "remember_for"
                    })
                ),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_sign_in_has_an_id_a_subject_and_a_watermark_that_can_be_kept() {
        assert!(SignIn::new("a".to_owned(), whose("ada", ""), 7).is_ok());
        assert!(SignIn::new(String::new(), whose("ada", ""), 7).is_err());
        assert!(SignIn::new("a".to_owned(), whose("", "s-1"), 7).is_err());
        assert!(SignIn::new("a".to_owned(), whose("ada", ""), u64::MAX).is_err());
    }
}
