//! The editors that a person is signed in with, as the person is shown them. Knows no call and no
//! page text.

use std::fmt;

use time::OffsetDateTime;

use crate::editor::Device;

/// One editor that is signed in or about to be, and its session.
#[derive(Clone)]
pub(crate) struct Install {
    pub(crate) id: String,
    /// The VVS id of its user.
    pub(crate) user_id: String,
    pub(crate) device: Device,
    /// Name and version; empty when the editor did not say.
    pub(crate) app: String,
    /// Whether the editor has acknowledged or used its session.
    pub(crate) is_confirmed: bool,
    pub(crate) approved_at: OffsetDateTime,
    /// When it last got a token.
    pub(crate) seen_at: OffsetDateTime,
    /// The address from which it last got one, or was approved.
    pub(crate) address: String,
}

/// The action just taken, for the page that shows the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    EndedOne,
    /// The number of editors.
    EndedAll(u32),
    /// The editor was no longer signed in.
    WasGone,
    SignedOut,
}

impl Notice {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "one" => Some(Self::EndedOne),
            "gone" => Some(Self::WasGone),
            "here" => Some(Self::SignedOut),
            _ => Some(Self::EndedAll(text.strip_prefix("all-")?.parse().ok()?)),
        }
    }
}

/// Formats it for an address.
impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndedOne => f.write_str("one"),
            Self::EndedAll(count) => write!(f, "all-{count}"),
            Self::WasGone => f.write_str("gone"),
            Self::SignedOut => f.write_str("here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_comes_back_from_its_address_and_nothing_else_does() {
        for notice in [
            Notice::EndedOne,
            Notice::EndedAll(0),
            Notice::EndedAll(12),
            Notice::WasGone,
            Notice::SignedOut,
        ] {
            assert_eq!(Notice::parse(&notice.to_string()), Some(notice));
        }

        for text in ["", "all", "all-", "all-x", "all--1", "One"] {
            assert_eq!(Notice::parse(text), None, "{text}");
        }
    }
}
