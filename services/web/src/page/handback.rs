//! The pages of a login whose editor waits for a code from this browser.

use askama::Template;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Page, Shell, UserCode};
use crate::handback::Handback;
use crate::header::PageKind;

/// Takes the code back to the editor, or shows it.
#[derive(Template)]
#[template(path = "hand-back.html")]
pub(crate) struct HandBackPage {
    pub(crate) shell: Shell,
    pub(crate) connection_id: String,
    pub(crate) csrf: SecretString,
    pub(crate) handback: Handback,
}

impl HandBackPage {
    fn shown_code(&self) -> Option<UserCode> {
        self.handback.shown_code().map(UserCode)
    }
}

impl Page for HandBackPage {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }
}

/// Approved before; asks for the hand-back page again.
#[derive(Template)]
#[template(path = "held.html")]
pub(crate) struct HeldPage {
    pub(crate) shell: Shell,
    pub(crate) connection_id: String,
    pub(crate) csrf: SecretString,
}

impl Page for HeldPage {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }
}
