//! The page of a development installation that has a key.

use askama::Template;
use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use vvs_identity::About;

use super::{Page, Shell};
use crate::header::PageKind;

/// Asks for the key that was printed when the server started.
#[derive(Template)]
#[template(path = "dev-key.html")]
pub(crate) struct DevKeyPage {
    pub(crate) shell: Shell,
    pub(crate) about: About,
    pub(crate) csrf: SecretString,
    /// A wrong key was entered.
    pub(crate) is_wrong: bool,
}

impl Page for DevKeyPage {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}
