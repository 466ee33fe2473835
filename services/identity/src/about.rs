//! What a sign-in in the browser is for, and where the browser goes on from it. These are the paths
//! that a provider's part of a page leads to.

use vvs_proto::ConnectionId;

/// Where the browser comes from a sign-in.
pub const CALLBACK_PATH: &str = "/api/auth/callback";
/// Where a person looks after their signed-in editors.
pub const ACCOUNT_PATH: &str = "/account/sessions";
/// Where a person signs in to look after their editors.
pub const SIGN_IN_PATH: &str = "/account/sign-in";

/// What a page or a form is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Login(ConnectionId),
    /// The signed-in editors of the person who is signed in.
    Account,
}

impl About {
    /// What a form about it is made for.
    pub fn purpose(self) -> String {
        match self {
            Self::Login(id) => id.to_string(),
            Self::Account => "account".to_owned(),
        }
    }

    /// Where it begins in the browser.
    pub fn path(self) -> String {
        match self {
            Self::Login(id) => format!("/login?connection_id={id}"),
            Self::Account => ACCOUNT_PATH.to_owned(),
        }
    }

    /// Where a person says again who they are, when the browser came back without it.
    pub fn sign_in_again(self) -> String {
        match self {
            Self::Login(_) => format!("{}&retry=1", self.path()),
            Self::Account => format!("{SIGN_IN_PATH}?retry=1"),
        }
    }

    /// Where a person says that they are somebody else.
    pub fn another(self) -> String {
        match self {
            Self::Login(_) => format!("{}&another=1", self.path()),
            Self::Account => format!("{SIGN_IN_PATH}?another=1"),
        }
    }

    /// Where the browser goes once the person has said so.
    pub fn callback(self, retry: bool) -> String {
        let retry = if retry { "&retry=1" } else { "" };
        match self {
            Self::Login(id) => format!("{CALLBACK_PATH}?connection_id={id}{retry}"),
            Self::Account => format!("{CALLBACK_PATH}?account=1{retry}"),
        }
    }
}
