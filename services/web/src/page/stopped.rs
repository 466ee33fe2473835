//! The page of a trip to the identity provider that failed without a fault.

use askama::Template;
use http::StatusCode;
use vvs_identity::Stop;

use super::{Page, Shell};
use crate::header::PageKind;

/// Says why nobody has signed in.
#[derive(Template)]
#[template(path = "stopped.html")]
pub(crate) struct Stopped {
    pub(crate) shell: Shell,
    pub(crate) stop: Stop,
    /// The name that people use for the provider.
    pub(crate) name: String,
    /// Where the sign-in begins again, one of our paths.
    pub(crate) again: Option<String>,
}

impl Page for Stopped {
    const KIND: PageKind = PageKind::Text;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}
