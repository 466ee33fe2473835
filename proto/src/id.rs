//! The ids that more than one process reads: each has one spelling, and is parsed at the edge.

use std::fmt;
use std::str::FromStr;

use uuid::{Builder, Uuid, Variant, Version};

/// The text is not an id of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

/// Reads the one spelling that this system makes, so that no two texts name one thing.
fn canonical(text: &str) -> Result<Uuid, NotAnId> {
    let id = Uuid::try_parse(text).map_err(|_cause| NotAnId)?;
    if text == id.to_string() {
        Ok(id)
    } else {
        Err(NotAnId)
    }
}

/// Names one login: a UUID v4 (RFC 9562) in lower case. An address, never an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(Uuid);

impl ConnectionId {
    /// Mints a new id from the operating system's generator.
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    pub fn mint() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ConnectionId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let id = canonical(text)?;
        let is_ours =
            id.get_version() == Some(Version::Random) && id.get_variant() == Variant::RFC4122;
        is_ours.then_some(Self(id)).ok_or(NotAnId)
    }
}

/// Names one approval and its delivery; the editor knows it as `messageId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(Uuid);

impl RequestId {
    /// The id that these bytes decide, the same for the same bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Reads any spelling of a UUID: all of them name the same approval.
    pub fn from_any_spelling(text: &str) -> Result<Self, NotAnId> {
        Uuid::try_parse(text).map(Self).map_err(|_cause| NotAnId)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RequestId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        canonical(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6f1f2f4e-2f0c-4a53-9d0e-8f4f3f0a9b11";

    #[test]
    fn a_connection_id_has_one_spelling() {
        let minted = ConnectionId::mint().to_string();
        for id in [ID, &minted] {
            assert_eq!(id.parse::<ConnectionId>().unwrap().to_string(), id);
        }

        for bad in [
            "",
            "x",
            &ID.to_uppercase(),
            &minted.to_uppercase(),
            &ID.replace('-', ""),
            &format!("{{{ID}}}"),
            &format!("{ID} "),
            "00000000-0000-0000-0000-000000000000",
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "6f1f2f4e-2f0c-1a53-9d0e-8f4f3f0a9b11",
        ] {
            assert_eq!(bad.parse::<ConnectionId>(), Err(NotAnId), "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_made_in_one_spelling_and_read_in_that_or_in_any() {
        let made = RequestId::from_bytes([0xab; 16]);
        let text = made.to_string();
        assert_eq!(text.parse(), Ok(made));

        for other in [text.to_uppercase(), text.replace('-', "")] {
            assert_eq!(other.parse::<RequestId>(), Err(NotAnId), "{other}");
            assert_eq!(RequestId::from_any_spelling(&other), Ok(made), "{other}");
        }
        for bad in ["", "1", &text[1..], "usr_2f1c6d0e"] {
            assert_eq!(RequestId::from_any_spelling(bad), Err(NotAnId), "{bad}");
        }
    }
}
