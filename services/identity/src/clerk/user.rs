//! A user in the format of Clerk's Backend API, as far as it is used. Unknown members are ignored.

use serde::Deserialize;

use crate::name::clean;

/// The longest address that is shown, in bytes (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;
/// The longest address of a picture, in bytes.
const MAX_PICTURE: usize = 512;

#[derive(Deserialize)]
pub(super) struct ClerkUser {
    pub(super) id: String,
    primary_email_address_id: Option<String>,
    #[serde(default)]
    email_addresses: Vec<EmailAddress>,
    username: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    image_url: Option<String>,
    banned: bool,
    locked: bool,
    /// A directory has withdrawn the user.
    #[serde(default)]
    deprovisioned: bool,
}

#[derive(Deserialize)]
struct EmailAddress {
    id: Option<String>,
    #[serde(rename = "email_address")]
    address: String,
    verification: Option<Verification>,
}

#[derive(Deserialize)]
struct Verification {
    status: Option<String>,
}

impl ClerkUser {
    /// Returns whether the user's editors are to be signed out. A lock is no reason, because
    /// anybody's wrong passwords can cause it.
    pub(super) fn is_banned(&self) -> bool {
        self.banned || self.deprovisioned
    }

    /// Returns why the user may not be signed in now.
    pub(super) fn is_barred(&self) -> Option<&'static str> {
        match (self.is_banned(), self.locked) {
            (true, _) => Some("Clerk has banned the user"),
            (false, true) => Some("Clerk has locked the user"),
            (false, false) => None,
        }
    }

    /// Returns the address that the user has chosen, and whether it is verified. There may be none,
    /// and it need not be the first.
    pub(super) fn email(&self) -> Option<(&str, bool)> {
        let primary = self.primary_email_address_id.as_deref()?;
        let found = self
            .email_addresses
            .iter()
            .find(|address| address.id.as_deref() == Some(primary))?;
        let status = found
            .verification
            .as_ref()
            .and_then(|verification| verification.status.as_deref());
        let is_sound = found.address.len() <= MAX_EMAIL
            && found.address.contains('@')
            && found.address.chars().all(|c| c.is_ascii_graphic());

        is_sound.then_some((&*found.address, status == Some("verified")))
    }

    /// Returns the name to show for the user.
    pub(super) fn name(&self) -> Option<String> {
        let parts = [&self.first_name, &self.last_name]
            .into_iter()
            .flatten()
            .map(String::as_str);
        let full = parts.collect::<Vec<_>>().join(" ");
        clean(&full).or_else(|| self.username.as_deref().and_then(clean))
    }

    pub(super) fn picture(&self) -> Option<String> {
        self.image_url.clone().filter(|url| {
            url.starts_with("https://")
                && url.len() <= MAX_PICTURE
                && url.chars().all(|c| c.is_ascii_graphic())
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn user(change: &Value) -> ClerkUser {
        let mut user = json!({
            "id": "user_1", "username": null, "first_name": "Ada", "last_name": "Lovelace",
            "image_url": "https://img.clerk.com/ada", "banned": false, "locked": false, "new_member": [1],
            "primary_email_address_id": "idn_2",
            "email_addresses": [
                {"id": "idn_1", "email_address": "first@example.com", "verification": {"status": "verified"}},
                {"id": "idn_2", "email_address": "second@example.com", "verification": {"status": "verified"}},
            ],
        });
        user.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        serde_json::from_value(user).unwrap()
    }

    fn email(change: &Value) -> Option<(String, bool)> {
        user(change)
            .email()
            .map(|(address, verified)| (address.to_owned(), verified))
    }

    #[test]
    fn the_address_is_the_primary_one_and_verified_only_if_clerk_says_so() {
        assert_eq!(
            email(&json!({})),
            Some(("second@example.com".to_owned(), true))
        );

        let one = |verification: &Value| {
            email(&json!({"email_addresses":
                [{"id": "idn_2", "email_address": "a@example.com", "verification": verification}]}))
        };
        for unverified in [
            json!(null),
            json!({}),
            json!({"status": null}),
            json!({"status": "unverified"}),
        ] {
            assert_eq!(
                one(&unverified),
                Some(("a@example.com".to_owned(), false)),
                "{unverified}"
            );
        }

        for none in [
            json!({"primary_email_address_id": null}),
            json!({"primary_email_address_id": "idn_3"}),
            json!({"email_addresses": []}),
            json!({"email_addresses": [{"id": null, "email_address": "a@example.com", "verification": null}]}),
            json!({"email_addresses": [{"id": "idn_2", "email_address": "a@exam\u{202e}ple.com"}]}),
        ] {
            assert_eq!(email(&none), None, "{none}");
        }
    }

    #[test]
    fn a_user_without_names_has_the_username_or_none() {
        let name = |change: &Value| user(change).name();
        assert_eq!(name(&json!({})).as_deref(), Some("Ada Lovelace"));
        assert_eq!(
            name(&json!({"first_name": null})).as_deref(),
            Some("Lovelace")
        );
        assert_eq!(
            name(&json!({"last_name": " \u{202e}"})).as_deref(),
            Some("Ada")
        );

        let nameless =
            |username: Value| json!({"first_name": null, "last_name": null, "username": username});
        assert_eq!(name(&nameless(json!("ada"))).as_deref(), Some("ada"));
        assert_eq!(name(&nameless(json!(null))), None);
    }

    #[test]
    fn who_is_banned_or_locked_is_barred() {
        assert!(user(&json!({})).is_barred().is_none());
        assert!(
            user(&json!({"banned": true}))
                .is_barred()
                .is_some_and(|why| why.contains("banned"))
        );
        assert!(
            user(&json!({"deprovisioned": true})).is_banned()
                && !user(&json!({"locked": true})).is_banned()
        );
        assert!(
            user(&json!({"locked": true}))
                .is_barred()
                .is_some_and(|why| why.contains("locked"))
        );

        // An answer that does not say must not let anybody in.
        assert!(
            serde_json::from_value::<ClerkUser>(json!({"id": "user_1", "locked": false})).is_err()
        );
    }

    #[test]
    fn a_picture_is_a_secure_address() {
        assert_eq!(
            user(&json!({})).picture().as_deref(),
            Some("https://img.clerk.com/ada")
        );

        for bad in [
            json!(null),
            json!(""),
            json!("http://img.clerk.com/a"),
            json!("javascript:alert(1)"),
        ] {
            assert_eq!(user(&json!({"image_url": bad})).picture(), None);
        }
    }
}
