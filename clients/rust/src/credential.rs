//! A sign-in as an editor stores it. Does not check whether the token is still valid, and does not
//! know where it is stored.

use serde::{Deserialize, Serialize};
use vvs_proto::frame::{Secret, User};

use crate::key::DeviceKey;
use crate::text::plain;

/// The part of a sign-in that an editor stores. Times are RFC 3339, by the server's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The origin that the token is for.
    pub server: String,
    pub user: User,
    pub session_id: String,
    pub session_expires_at: String,
    pub token: Secret,
    pub token_expires_at: String,
    /// The key that the token is bound to; the token is useless without it.
    pub device_key: DeviceKey,
}

impl Credential {
    /// Returns the user's name and email address, or id, safe to print.
    pub fn who(&self) -> String {
        let said = |text: &Option<String>| {
            text.as_deref()
                .map(|text| plain(text, 200))
                .filter(|text| !text.is_empty())
        };
        match (said(&self.user.name), said(&self.user.email)) {
            (Some(name), Some(email)) => format!("{name} <{email}>"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => plain(&self.user.id, 200),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_safe_to_print_and_debug_hides_the_secrets() {
        let mut credential = Credential {
            server: "https://vvs.example.org".to_owned(),
            user: User {
                id: "usr_1".to_owned(),
                email: None,
                name: Some("Ada\u{1b}[2J".to_owned()),
                avatar_url: None,
            },
            session_id: "ses_1".to_owned(),
            session_expires_at: "2026-03-31T12:00:00Z".to_owned(),
            token: Secret::new("fake-token"),
            token_expires_at: "2026-03-31T12:00:00Z".to_owned(),
            device_key: DeviceKey::generate().unwrap(),
        };
        assert_eq!(credential.who(), "Ada[2J");

        credential.user.name = Some("\u{3164}".to_owned());
        assert_eq!(credential.who(), "usr_1", "a blank name says nothing");

        let shown = format!("{credential:?}");
        assert!(
            !shown.contains("fake-token")
                && !shown.contains(Secret::from(credential.device_key).expose())
        );
    }
}
