//! The editors that a person is signed in with, as far as that person is shown them. Knows no call
//! and no page's text.

use std::fmt;

use time::OffsetDateTime;

use crate::editor::Device;

/// One editor that is signed in or about to be: its session.
#[derive(Clone)]
pub(crate) struct Install {
    pub(crate) id: String,
    /// Our id of whose it is.
    pub(crate) user_id: String,
    pub(crate) device: Device,
    /// Name and version; empty when the editor did not say.
    pub(crate) app: String,
    /// Whether the editor has acknowledged or used its session.
    pub(crate) is_confirmed: bool,
    pub(crate) approved_at: OffsetDateTime,
    /// When it last got a token.
    pub(crate) seen_at: OffsetDateTime,
    /// Where it last got one, or was approved from.
    pub(crate) address: String,
}

/// What has just been done, for the page that shows what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    EndedOne,
    /// That many.
    EndedAll(u32),
    /// The editor was not signed in any more.
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

/// As it stands in an address.
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
