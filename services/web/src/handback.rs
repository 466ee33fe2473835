//! The one-time code that a browser takes back to the editor, and the address. Knows no page and no
//! call.

use secrecy::{ExposeSecret as _, SecretString};
use vvs_proto::ReturnUri;

/// The one-time code of an approved login, and the ways in which it may travel.
pub(crate) struct Handback {
    code: SecretString,
    return_uri: Option<ReturnUri>,
    may_show: bool,
}

impl Handback {
    /// Returns `None` when there is no way at all.
    pub(crate) fn new(
        code: SecretString,
        return_uri: Option<ReturnUri>,
        may_show: bool,
    ) -> Option<Self> {
        (may_show || return_uri.is_some()).then_some(Self {
            code,
            return_uri,
            may_show,
        })
    }

    /// Returns where the link leads.
    pub(crate) fn return_uri(&self) -> Option<&ReturnUri> {
        self.return_uri.as_ref()
    }

    /// Returns the code as the link carries it.
    pub(crate) fn code(&self) -> &str {
        self.code.expose_secret()
    }

    /// Returns the code as a person types it, in groups of four; `None` when this server lets it
    /// travel only in the link.
    pub(crate) fn shown_code(&self) -> Option<String> {
        let letters: Vec<_> = self
            .code()
            .chars()
            .filter(|c| c.is_alphanumeric())
            .collect();
        let groups = letters
            .chunks(4)
            .map(|group| group.iter().collect::<String>());
        self.may_show.then(|| groups.collect::<Vec<_>>().join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_typed_in_groups_and_travels_as_it_is() {
        let of = |code: &str| Handback::new(code.into(), None, true).unwrap();
        assert_eq!(of("BCDFGHJK").shown_code().unwrap(), "BCDF-GHJK");
        assert_eq!(of("BCDF-GHJK").shown_code().unwrap(), "BCDF-GHJK");
        assert_eq!(of("BCDF-GHJK").code(), "BCDF-GHJK");
        assert!(Handback::new("BCDFGHJK".into(), None, false).is_none());
    }
}
