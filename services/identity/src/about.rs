//! The purpose of a sign-in in the browser, and where the browser goes afterwards. These are the
//! paths that a provider's part of a page leads to.

use vvs_proto::ConnectionId;

/// Where the browser arrives after a sign-in.
pub const CALLBACK_PATH: &str = "/api/auth/callback";
/// Where a person manages their signed-in editors.
pub const ACCOUNT_PATH: &str = "/account/sessions";
/// Where a person signs in to manage their editors.
pub const SIGN_IN_PATH: &str = "/account/sign-in";

/// The subject of a page or a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Login(ConnectionId),
    /// The signed-in editors of the current user.
    Account,
}

impl About {
    /// Returns the purpose of its forms.
    pub fn purpose(self) -> String {
        match self {
            Self::Login(id) => id.to_string(),
            Self::Account => "account".to_owned(),
        }
    }

    /// Returns where it begins in the browser.
    pub fn path(self) -> String {
        match self {
            Self::Login(id) => format!("/login?connection_id={id}"),
            Self::Account => ACCOUNT_PATH.to_owned(),
        }
    }

    /// Returns where a person signs in again, when the browser came back without a sign-in.
    pub fn sign_in_again(self) -> String {
        match self {
            Self::Login(_) => format!("{}&retry=1", self.path()),
            Self::Account => format!("{SIGN_IN_PATH}?retry=1"),
        }
    }

    /// Returns where a person chooses another account.
    pub fn another(self) -> String {
        match self {
            Self::Login(_) => format!("{}&another=1", self.path()),
            Self::Account => format!("{SIGN_IN_PATH}?another=1"),
        }
    }

    /// Returns where the browser goes after the sign-in.
    pub fn callback(self, retry: bool) -> String {
        let retry = if retry { "&retry=1" } else { "" };
        match self {
            Self::Login(id) => format!("{CALLBACK_PATH}?connection_id={id}{retry}"),
            Self::Account => format!("{CALLBACK_PATH}?account=1{retry}"),
        }
    }
}
