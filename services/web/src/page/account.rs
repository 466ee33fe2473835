//! The pages about a person's signed-in editors.

use askama::Template;
use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;

use super::{Account, Page, Shell};
use crate::account::{Install, Notice};
use crate::header::Kind;

impl Notice {
    fn text(self) -> &'static str {
        match self {
            Self::EndedOne => "That editor is signed out.",
            Self::EndedAll => "All your editors are signed out.",
            Self::WasGone => "That editor was not signed in any more. There was nothing to do.",
            Self::SignedOut => "This browser is signed out. Your editors stay signed in.",
        }
    }
}

/// The development provider's sign-in, for the pages about the account.
#[derive(Template)]
#[template(path = "account-sign-in.html")]
pub(crate) struct AccountSignIn {
    pub(crate) shell: Shell,
    pub(crate) csrf: SecretString,
    pub(crate) email: String,
    pub(crate) name: String,
    /// What is wrong with `email`.
    pub(crate) problem: Option<&'static str>,
    pub(crate) notice: Option<Notice>,
}

impl Page for AccountSignIn {
    const KIND: Kind = Kind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        if self.problem.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK }
    }
}

/// The signed-in editors of one person.
#[derive(Template)]
#[template(path = "account-sessions.html")]
pub(crate) struct AccountSessions {
    pub(crate) shell: Shell,
    pub(crate) csrf: SecretString,
    pub(crate) account: Account,
    pub(crate) installs: Vec<Install>,
    pub(crate) notice: Option<Notice>,
    pub(crate) now: OffsetDateTime,
}

impl Install {
    fn name(&self) -> &str {
        [&self.device.name, &self.app].into_iter().find(|name| !name.is_empty()).map_or("An editor", |name| name)
    }
}

impl Page for AccountSessions {
    const KIND: Kind = Kind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }
}
