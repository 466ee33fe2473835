//! The ids of the relay, parsed at the edge and minted in one place.

use std::fmt;
use std::str::FromStr;

use uuid::{Uuid, Variant, Version};

/// The text is not an id of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Names one login: a UUID v4 (RFC 9562) in lower case. An address, never an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId(Uuid);

impl ConnectionId {
    /// A new id from the operating system's generator.
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    pub(crate) fn mint() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ConnectionId {
    type Err = Malformed;

    /// Takes the one spelling that we make, so that no two texts name one login.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let id = Uuid::try_parse(text).map_err(|_cause| Malformed)?;
        let ours =
            id.get_version() == Some(Version::Random) && id.get_variant() == Variant::RFC4122;
        if ours && text == id.to_string() {
            Ok(Self(id))
        } else {
            Err(Malformed)
        }
    }
}

/// Names one delivery; the editor knows it as `messageId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(Uuid);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RequestId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let id = Uuid::try_parse(text).map_err(|_cause| Malformed)?;
        if text == id.to_string() {
            Ok(Self(id))
        } else {
            Err(Malformed)
        }
    }
}

/// Letters of a code: no vowels, so that no word appears, and nothing that looks like something
/// else.
const CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// The largest multiple of 20 in a byte; what is above would make some letters likelier.
const FAIR: u8 = 240;

/// The code that a person compares, `XXXX-XXXX`.
pub(crate) fn user_code() -> Result<String, vvs_auth::Error> {
    Ok(letters(vvs_auth::key::random::<32>()?))
}

/// Eight letters in two groups, made of random bytes. All 32 above the fair ones happens once in
/// 10^30 times, and then the code is shorter than it looks, not wrong.
pub(crate) fn letters(random: [u8; 32]) -> String {
    let fair = random
        .into_iter()
        .filter(|byte| *byte < FAIR)
        .chain(std::iter::repeat(0));
    let mut code: String = fair
        .take(8)
        .map(|byte| char::from(CODE_LETTERS[usize::from(byte % 20)]))
        .collect();
    code.insert(4, '-');
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = ConnectionId::mint().to_string();
        assert_eq!(id.parse::<ConnectionId>().unwrap().to_string(), id);

        for bad in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            String::new(),
            "00000000-0000-0000-0000-000000000000".to_owned(),
            "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        ] {
            assert!(bad.parse::<ConnectionId>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_user_code_is_eight_letters_in_two_groups() {
        for _ in 0..100 {
            let code = user_code().unwrap();
            let (left, right) = code.split_once('-').unwrap();
            assert!(left.len() == 4 && right.len() == 4, "{code}");
            assert!(
                (left.to_owned() + right)
                    .bytes()
                    .all(|letter| CODE_LETTERS.contains(&letter)),
                "{code}"
            );
        }
    }
}
