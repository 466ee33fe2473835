//! The reasons of the contract as words: in a database, in a frame for an editor, in an error.

use crate::generated::r#type::v1::{ErrorReason, RevocationReason};

impl RevocationReason {
    /// The name without its prefix, in lower case: what an editor receives.
    pub fn word(self) -> String {
        let name = self.as_str_name();
        name.strip_prefix("REVOCATION_REASON_")
            .unwrap_or(name)
            .to_ascii_lowercase()
    }

    /// Reads a word; `None` for one that the contract does not have.
    pub fn from_word(word: &str) -> Option<Self> {
        let name = format!("REVOCATION_REASON_{}", word.to_ascii_uppercase());
        Self::from_str_name(&name).filter(|reason| *reason != Self::Unspecified)
    }
}

impl ErrorReason {
    /// The name without its prefix: the `reason` of `google.rpc.ErrorInfo`.
    pub fn word(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("ERROR_REASON_").unwrap_or(name)
    }

    /// Reads a word; `None` for one that the contract does not have.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::from_str_name(&format!("ERROR_REASON_{word}"))
            .filter(|reason| *reason != Self::Unspecified)
    }
}
