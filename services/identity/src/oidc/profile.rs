//! A provider's data about a person, in an ID token or at its userinfo endpoint (OpenID Connect
//! Core, section 5.1), as far as it is used, and cut to the size of a cookie and a page.

use oauth2::url::Url;
use serde_json::{Map, Value};

use crate::name::clean;

/// The longest address that is shown, in bytes (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;
/// The longest address of a picture, in bytes.
const MAX_PICTURE: usize = 512;

#[derive(Default)]
pub(super) struct OidcProfile {
    pub(super) email: Option<String>,
    /// Only if the provider says `true`.
    pub(super) email_verified: bool,
    pub(super) name: Option<String>,
    pub(super) picture: Option<String>,
    /// `None` when the provider says nothing about groups.
    pub(super) groups: Option<Vec<String>>,
}

/// The data that rules need, besides the data that is shown.
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    pub(super) groups: bool,
    pub(super) verified_address: bool,
}

impl OidcProfile {
    pub(super) fn read(claims: &Map<String, Value>, groups_claim: &str) -> Self {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let email = text("email")
            .filter(|email| is_address(email))
            .map(str::to_owned);

        Self {
            email_verified: email.is_some()
                && claims.get("email_verified") == Some(&Value::Bool(true)),
            email,
            name: text("name").and_then(clean),
            picture: text("picture")
                .filter(|picture| is_picture(picture))
                .map(str::to_owned),
            groups: claims.get(groups_claim).and_then(groups),
        }
    }

    /// Returns whether the provider may have more useful data.
    pub(super) fn lacks(&self, needs: Needs) -> bool {
        let lacks_address =
            self.email.is_none() || (needs.verified_address && !self.email_verified);
        lacks_address || self.name.is_none() || (needs.groups && self.groups.is_none())
    }

    /// Fills missing data from another source. Whether an address is verified goes with the
    /// address.
    pub(super) fn or(self, other: Self) -> Self {
        let vouches = other.email_verified && self.email.is_some() && self.email == other.email;
        let (email, email_verified) = match self.email {
            Some(email) => (Some(email), self.email_verified || vouches),
            None => (other.email, other.email_verified),
        };

        Self {
            email,
            email_verified,
            name: self.name.or(other.name),
            picture: self.picture.or(other.picture),
            groups: self.groups.or(other.groups),
        }
    }
}

/// Reads a list of groups, or a single one.
fn groups(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => Some(
            many.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn is_address(email: &str) -> bool {
    email.len() <= MAX_EMAIL && email.contains('@') && email.chars().all(|c| c.is_ascii_graphic())
}

fn is_picture(picture: &str) -> bool {
    picture.len() <= MAX_PICTURE && Url::parse(picture).is_ok_and(|url| url.scheme() == "https")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(claims: &Value) -> OidcProfile {
        OidcProfile::read(claims.as_object().unwrap(), "groups")
    }

    #[test]
    fn groups_are_a_list_or_just_one() {
        let groups = |value: Value| read(&json!({"groups": value})).groups;
        let list = |names: &[&str]| {
            Some(
                names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(groups(json!(["staff", "ops"])), list(&["staff", "ops"]));
        assert_eq!(groups(json!(["staff", 7, null])), list(&["staff"]));

        // Not two groups: nobody says what separates them.
        assert_eq!(groups(json!("staff ops")), list(&["staff ops"]));
        assert_eq!(groups(json!([])), list(&[]));

        for nothing in [json!(null), json!(7), json!({"staff": true})] {
            assert_eq!(groups(nothing), None);
        }

        assert_eq!(
            OidcProfile::read(json!({"groups": ["x"]}).as_object().unwrap(), "roles").groups,
            None
        );
    }

    #[test]
    fn an_address_is_verified_only_where_the_provider_says_true() {
        let verified = |value: Value| {
            read(&json!({"email": "ada@example.com", "email_verified": value})).email_verified
        };
        assert!(verified(json!(true)));
        for no in [json!(false), json!("true"), json!(1), json!(null)] {
            assert!(!verified(no));
        }
        assert!(!read(&json!({"email_verified": true})).email_verified);
    }

    #[test]
    fn what_cannot_be_shown_or_kept_is_left_out() {
        let long = format!("{}@example.com", "a".repeat(243));
        for email in [
            "ada",
            "a da@example.com",
            "\u{202e}ada@example.com",
            "ad\u{e4}@example.com",
            &long,
            "",
        ] {
            assert_eq!(read(&json!({"email": email})).email, None, "{email}");
        }

        let big = format!("https://id.test/{}", "a".repeat(500));
        for picture in [
            "http://id.test/a.png",
            "data:image/png;base64,AA",
            "javascript:alert(1)",
            "/a.png",
            &big,
        ] {
            assert_eq!(
                read(&json!({"picture": picture})).picture,
                None,
                "{picture}"
            );
        }

        assert_eq!(
            read(&json!({"picture": "https://id.test/a.png"}))
                .picture
                .as_deref(),
            Some("https://id.test/a.png")
        );
        assert_eq!(
            read(&json!({"name": " \u{202e}Ada\n"})).name.as_deref(),
            Some("Ada")
        );
        assert_eq!(read(&json!({"name": " "})).name, None);
        assert_eq!(read(&json!({"name": ["Ada"], "email": 7})).name, None);
    }

    #[test]
    fn another_source_fills_gaps_and_vouches_for_no_address_but_its_own() {
        let token = || read(&json!({"email": "ada@example.com"}));
        let userinfo = || {
            read(
                &json!({"email": "eve@example.com", "email_verified": true, "name": "Ada", "groups": "a"}),
            )
        };
        let both = token().or(userinfo());
        assert_eq!(
            (both.email.as_deref(), both.email_verified),
            (Some("ada@example.com"), false)
        );
        assert_eq!(
            (both.name.as_deref(), both.groups),
            (Some("Ada"), Some(vec!["a".to_owned()]))
        );

        let filled = OidcProfile::default().or(userinfo());
        assert_eq!(
            (filled.email.as_deref(), filled.email_verified),
            (Some("eve@example.com"), true)
        );

        let (nothing, groups) = (
            Needs::default(),
            Needs {
                groups: true,
                verified_address: false,
            },
        );
        assert!(token().lacks(nothing) && !userinfo().lacks(groups));

        let unverified = || read(&json!({"email": "ada@example.com", "name": "Ada"}));
        assert!(unverified().lacks(groups) && !unverified().lacks(nothing));
        assert!(unverified().lacks(Needs {
            groups: false,
            verified_address: true
        }));

        // The same address, and this source vouches for it.
        assert!(
            unverified()
                .or(read(
                    &json!({"email": "ada@example.com", "email_verified": true})
                ))
                .email_verified
        );
    }
}
