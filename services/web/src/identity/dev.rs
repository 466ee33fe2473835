//! The development provider: everyone is whoever they say they are. It checks that what they say can be shown, and not
//! a bit of whether it is true.

use crate::identity::SignIn;

/// As sessions keep it.
const PROVIDER: &str = "dev";
/// The longest email address, in bytes (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;
/// The longest name, in bytes.
const MAX_NAME: usize = 200;

/// Signs a person in, or says what is wrong with the email.
pub(crate) fn sign_in(email: &str, name: &str, provider_session: String, at: i64) -> Result<SignIn, &'static str> {
    let email = email.trim();
    let is_whole = match email.split_once('@') {
        Some((local, domain)) => !local.is_empty() && !domain.is_empty() && !domain.contains('@'),
        None => false,
    };
    if !is_whole {
        return Err("Enter a whole email address.");
    }
    // Nothing but ASCII: what can be typed in any script can be made to look like somebody else.
    if email.len() > MAX_EMAIL || !email.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("Enter an email address without spaces and special characters, 254 at most.");
    }
    let name = clean(name);
    Ok(SignIn {
        provider: PROVIDER.to_owned(),
        subject: email.to_ascii_lowercase(),
        provider_session,
        email: Some(email.to_owned()),
        name: Some(name).filter(|name| !name.is_empty()),
        at,
    })
}

fn clean(name: &str) -> String {
    let mut name: String = name.trim().chars().filter(|c| !c.is_control() && !is_directional(*c)).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    name
}

/// Bidirectional formatting characters (UAX #9, section 2) turn the text around them.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(email: &str, name: &str) -> Result<SignIn, &'static str> {
        sign_in(email, name, "session".to_owned(), 0)
    }

    #[test]
    fn an_email_must_be_whole_and_plain() {
        let long = format!("{}@example.com", "a".repeat(243));
        for bad in ["", "ada", "ada@", "@example.com", "a@b@c", "a da@example.com", "\u{202e}a@example.com", &long] {
            assert!(person(bad, "").is_err(), "{bad}");
        }
        assert!(person(&long[1..], "").is_ok());
    }

    #[test]
    fn a_person_is_one_however_the_email_is_written() {
        let (one, other) = (person(" Ada@Example.com", "").ok().unwrap(), person("ada@example.COM", "").ok().unwrap());
        assert!(one.is_same_user(&other));
        assert_eq!(one.email.as_deref(), Some("Ada@Example.com"));
    }

    #[test]
    fn a_name_holds_nothing_that_cannot_be_shown() {
        let name = |text: &str| person("ada@example.com", text).ok().unwrap().name;
        assert_eq!(name(" A\u{202e}d\u{0}a\n "), Some("Ada".to_owned()));
        assert_eq!(name("\u{2067}\t"), None);
        assert_eq!(name(&"é".repeat(300)).unwrap().len(), MAX_NAME);
    }
}
