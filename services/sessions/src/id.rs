//! Names of this role's objects, each minted or checked in one place. Knows no database and no
//! wire.

use std::fmt;
use std::str::FromStr;

use vvs_auth::token::random_id;
use vvs_proto::RequestId;
use vvs_proto::types::RevocationReason;

/// Characters behind the prefix of an id.
const MAX_ID: usize = 255;

/// The text in this field is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    pub(crate) field: &'static str,
}

/// Reads the name of an approval; a repeated one names the same session.
pub(crate) fn request_id(text: &str) -> Result<RequestId, Malformed> {
    RequestId::from_any_spelling(text).map_err(|_not_an_id| Malformed {
        field: "request_id",
    })
}

/// The VVS id of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserId(String);

impl UserId {
    pub(crate) fn mint() -> Result<Self, vvs_auth::Error> {
        Ok(Self(format!("usr_{}", random_id()?)))
    }

    /// An id that was minted before.
    pub(crate) fn known(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if is_minted(text, "usr_") {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed { field: "user_id" })
        }
    }
}

/// The `sid` of a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

impl SessionId {
    pub(crate) fn mint() -> Result<Self, vvs_auth::Error> {
        Ok(Self(format!("ses_{}", random_id()?)))
    }

    /// An id that was minted before.
    pub(crate) fn known(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if is_minted(text, "ses_") {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed {
                field: "session_id",
            })
        }
    }
}

fn is_minted(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        (1..=MAX_ID).contains(&rest.len())
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    })
}

/// Why a session ended, in one word; the editor receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason(String);

impl Reason {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<RevocationReason> for Reason {
    type Error = Malformed;

    fn try_from(reason: RevocationReason) -> Result<Self, Malformed> {
        if reason == RevocationReason::Unspecified {
            Err(Malformed { field: "reason" })
        } else {
            Ok(Self(reason.word()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_request_id_is_the_same_one() {
        let read = |text: &str| request_id(text).unwrap();
        let one = read("2f1c6d0e-9f64-4a39-9a57-0c7c9f0d8b11");
        assert_eq!(read("2F1C6D0E-9F64-4A39-9A57-0C7C9F0D8B11"), one);
        assert_eq!(read("2f1c6d0e9f644a399a570c7c9f0d8b11"), one);

        for bad in [
            "",
            "1",
            "2f1c6d0e-9f64-4a39-9a57-0c7c9f0d8b1",
            "usr_2f1c6d0e",
        ] {
            assert!(request_id(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn an_id_is_only_what_we_mint() {
        let minted = SessionId::mint().unwrap();
        assert_eq!(minted.as_str().parse::<SessionId>().unwrap(), minted);
        assert_ne!(SessionId::mint().unwrap(), minted);

        for bad in ["", "ses_", "usr_abc", "ses_a b", "ses_a\0", "SES_abc"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?} was taken");
        }

        assert!(
            format!("ses_{}", "a".repeat(256))
                .parse::<SessionId>()
                .is_err()
        );
        assert!(UserId::mint().unwrap().as_str().parse::<UserId>().is_ok());
        assert!(minted.as_str().parse::<UserId>().is_err());
    }

    #[test]
    fn a_reason_is_one_word_of_the_contract() {
        let numbers = 1..;
        let known: Vec<_> = numbers
            .map_while(|number| RevocationReason::try_from(number).ok())
            .collect();
        assert!(known.len() > 14);

        for reason in known {
            let word = Reason::try_from(reason).unwrap();
            assert!(
                word.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{word:?}"
            );
            assert_eq!(RevocationReason::from_word(word.as_str()), Some(reason));
        }

        assert!(Reason::try_from(RevocationReason::Unspecified).is_err());
        for bad in ["", "two words", "<b>", "unspecified", "user"] {
            assert_eq!(RevocationReason::from_word(bad), None, "{bad} was taken");
        }
    }
}
