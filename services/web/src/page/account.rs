//! The pages about a person's signed-in editors.

use askama::Template;
use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use vvs_identity::{Part, Sources};

use super::{Account, Page, Shell};
use crate::account::{Install, Notice};
use crate::header::PageKind;

/// The text about browsers after signing out everywhere.
const BROWSERS: &str = "Every browser is signed out, this one too.";

impl Notice {
    fn text(self) -> String {
        match self {
            Self::EndedOne => "That editor is signed out.".to_owned(),
            Self::EndedAll(0) => format!("No editor was signed in as you. {BROWSERS}"),
            Self::EndedAll(1) => {
                format!("All your editors are signed out. That was 1 sign-in. {BROWSERS}")
            }
            Self::EndedAll(count) => {
                format!("All your editors are signed out. Those were {count} sign-ins. {BROWSERS}")
            }
            Self::WasGone => {
                "That editor was no longer signed in. There was nothing to do.".to_owned()
            }
            Self::SignedOut => {
                "This browser is signed out. Your editors stay signed in.".to_owned()
            }
        }
    }
}

/// Asks the person to sign in, for the pages about the account.
#[derive(Template)]
#[template(path = "account-sign-in.html")]
pub(crate) struct AccountSignIn {
    pub(crate) shell: Shell,
    pub(crate) part: Part,
    pub(crate) notice: Option<Notice>,
    /// The browser came back from here without a sign-in.
    pub(crate) retry: bool,
}

impl Page for AccountSignIn {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        if self.part.is_wrong {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        }
    }

    fn sources(&self) -> Sources {
        self.part.sources.clone()
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
        [&self.device.name, &self.app]
            .into_iter()
            .find(|name| !name.is_empty())
            .map_or("An editor", |name| name)
    }
}

impl Page for AccountSessions {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }
}
