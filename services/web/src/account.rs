//! The editors that a person is signed in with, as far as that person is shown them. Knows no call and no page's text.

use time::OffsetDateTime;

use crate::page::Device;

/// One signed-in editor: its session.
#[derive(Clone)]
pub(crate) struct Install {
    pub(crate) id: String,
    /// Our id of whose it is.
    pub(crate) user_id: String,
    pub(crate) device: Device,
    /// Name and version; empty when the editor did not say.
    pub(crate) app: String,
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
    EndedAll,
    /// The editor was not signed in any more.
    WasGone,
    SignedOut,
}

impl Notice {
    const ALL: [Self; 4] = [Self::EndedOne, Self::EndedAll, Self::WasGone, Self::SignedOut];

    /// As it stands in an address.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::EndedOne => "one",
            Self::EndedAll => "all",
            Self::WasGone => "gone",
            Self::SignedOut => "here",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|notice| notice.as_str() == text)
    }
}
