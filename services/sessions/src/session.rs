//! What a user and a session are, how long they live, and what a token says about them. Knows no clock, no database and
//! no wire.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;
use vvs_auth::token::{Claims, random_id};

use crate::Error;

/// Characters of a provider's or a device's own words.
const SHORT: usize = 255;
/// Characters of an email address: 64, `@`, 255 (RFC 5321, section 4.5.3.1).
const EMAIL: usize = 320;
/// Characters of a URL.
const URL: usize = 2048;
/// Characters of an IP address, with room for a scope.
const ADDRESS: usize = 64;

/// Seconds since 1970, as in a token (RFC 7519, section 2).
pub(crate) type Seconds = i64;

/// Names an approval; whoever repeats it means the same session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(String);

impl RequestId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let id = Uuid::try_parse(text).map_err(|_cause| Error::Malformed { field: "request_id" })?;
        // A UUID has several spellings, and all of them must name the same session.
        Ok(Self(id.hyphenated().to_string()))
    }
}

/// Our id of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserId(String);

impl UserId {
    pub(crate) fn mint() -> Result<Self, Error> {
        Ok(Self(format!("usr_{}", random_id()?)))
    }

    /// An id that was minted before.
    pub(crate) fn known(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The `sid` of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionId(String);

impl SessionId {
    pub(crate) fn mint() -> Result<Self, Error> {
        Ok(Self(format!("ses_{}", random_id()?)))
    }

    /// An id that was minted before.
    pub(crate) fn known(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let letters = text.strip_prefix("ses_").filter(|rest| (1..=SHORT).contains(&rest.len()));
        match letters {
            Some(rest) if rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Error::Malformed { field: "session_id" }),
        }
    }
}

/// What is known of a person, all of it from the provider's last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) avatar_url: Option<String>,
}

impl Profile {
    pub(crate) fn new(email: Option<String>, name: Option<String>, avatar_url: Option<String>) -> Result<Self, Error> {
        Ok(Self {
            email: optional("identity.email", email, EMAIL)?,
            name: optional("identity.name", name, SHORT)?,
            avatar_url: optional("identity.avatar_url", avatar_url, URL)?,
        })
    }
}

/// Who signed in where. `provider` and `subject` are the person, whatever becomes of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) provider: String,
    pub(crate) subject: String,
    pub(crate) provider_session: String,
    pub(crate) profile: Profile,
}

impl Identity {
    pub(crate) fn new(
        provider: String,
        subject: String,
        provider_session: String,
        profile: Profile,
    ) -> Result<Self, Error> {
        Ok(Self {
            provider: required("identity.provider", provider)?,
            subject: required("identity.subject", subject)?,
            provider_session: text("identity.provider_session", provider_session, SHORT)?,
            profile,
        })
    }
}

/// An editor in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) os: String,
    pub(crate) app: String,
}

impl Device {
    pub(crate) fn new(name: String, os: String, app: String) -> Result<Self, Error> {
        Ok(Self {
            name: text("device.name", name, SHORT)?,
            os: text("device.os", os, SHORT)?,
            app: text("device.app", app, SHORT)?,
        })
    }
}

/// One approved login: what a session is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Approval {
    pub(crate) request_id: RequestId,
    pub(crate) identity: Identity,
    pub(crate) device: Device,
    /// Where the browser was that approved.
    pub(crate) address: String,
}

impl Approval {
    pub(crate) fn new(
        request_id: RequestId,
        identity: Identity,
        device: Device,
        address: String,
    ) -> Result<Self, Error> {
        Ok(Self { request_id, identity, device, address: text("address", address, ADDRESS)? })
    }
}

/// One signed-in editor install. Pending until it is activated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) user: UserId,
    pub(crate) profile: Profile,
    pub(crate) device: Device,
    pub(crate) address: String,
    pub(crate) created_at: Seconds,
    pub(crate) activated_at: Option<Seconds>,
    pub(crate) refreshed_at: Seconds,
    pub(crate) expires_at: Seconds,
}

/// How long things live and for whom tokens are signed.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The public origin.
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// Of a session without a device key, and of its token.
    pub(crate) bearer_ttl: Seconds,
    /// Of a session that nobody activates.
    pub(crate) pending_ttl: Seconds,
}

impl Terms {
    /// A pending session made at this time or before is over.
    pub(crate) fn pending_since(&self, now: Seconds) -> Seconds {
        now.saturating_sub(self.pending_ttl)
    }

    /// When a bearer session ends that is made now.
    pub(crate) fn expiry(&self, now: Seconds) -> Seconds {
        now.saturating_add(self.bearer_ttl)
    }

    /// What a token signed now says of a bearer session. It never outlives the session, however often it is asked for.
    pub(crate) fn claims(&self, session: &Session, now: Seconds) -> Result<Claims, Error> {
        if session.expires_at <= now {
            return Err(Error::SessionExpired(session.id.clone()));
        }
        Ok(Claims {
            iss: self.issuer.clone(),
            sub: session.user.as_str().to_owned(),
            aud: self.audience.clone(),
            sid: session.id.as_str().to_owned(),
            jti: random_id()?,
            iat: now,
            exp: self.expiry(now).min(session.expires_at),
            sxp: session.expires_at,
        })
    }
}

/// A text that is not too long. No NUL: PostgreSQL's TEXT cannot hold it.
fn text(field: &'static str, value: String, max: usize) -> Result<String, Error> {
    if value.chars().count() > max || value.contains('\0') {
        return Err(Error::Malformed { field });
    }
    Ok(value)
}

fn required(field: &'static str, value: String) -> Result<String, Error> {
    if value.is_empty() { Err(Error::Malformed { field }) } else { text(field, value, SHORT) }
}

/// Empty means unknown.
fn optional(field: &'static str, value: Option<String>, max: usize) -> Result<Option<String>, Error> {
    value.filter(|value| !value.is_empty()).map(|value| text(field, value, max)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_request_id_is_the_same_one() {
        let read = |text: &str| text.parse::<RequestId>().unwrap();
        let one = read("2f1c6d0e-9f64-4a39-9a57-0c7c9f0d8b11");
        assert_eq!(read("2F1C6D0E-9F64-4A39-9A57-0C7C9F0D8B11"), one);
        assert_eq!(read("2f1c6d0e9f644a399a570c7c9f0d8b11"), one);
        for bad in ["", "1", "2f1c6d0e-9f64-4a39-9a57-0c7c9f0d8b1", "usr_2f1c6d0e"] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_session_id_is_only_what_we_mint() {
        let minted = SessionId::mint().unwrap();
        assert_eq!(minted.as_str().parse::<SessionId>().unwrap(), minted);
        assert_ne!(SessionId::mint().unwrap(), minted);
        for bad in ["", "ses_", "usr_abc", "ses_a b", "ses_a\0", "SES_abc"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?} was taken");
        }
        assert!(format!("ses_{}", "a".repeat(256)).parse::<SessionId>().is_err());
    }

    #[test]
    fn a_token_never_outlives_its_session() {
        let terms = Terms { issuer: "i".into(), audience: "a".into(), bearer_ttl: 100, pending_ttl: 10 };
        let session = Session {
            id: SessionId::mint().unwrap(),
            user: UserId::mint().unwrap(),
            profile: Profile { email: None, name: None, avatar_url: None },
            device: Device { name: String::new(), os: String::new(), app: String::new() },
            address: String::new(),
            created_at: 1000,
            activated_at: None,
            refreshed_at: 1000,
            expires_at: terms.expiry(1000),
        };
        let first = terms.claims(&session, 1000).unwrap();
        assert_eq!((first.iat, first.exp, first.sxp), (1000, 1100, 1100));
        let again = terms.claims(&session, 1099).unwrap();
        assert_eq!((again.iat, again.exp, again.sxp), (1099, 1100, 1100));
        assert_ne!(first.jti, again.jti);
        assert!(matches!(terms.claims(&session, 1100), Err(Error::SessionExpired(_))));
    }

    #[test]
    fn a_text_has_a_limit_and_no_nul() {
        assert!(text("f", "ä".repeat(255), 255).is_ok());
        assert!(text("f", "ä".repeat(256), 255).is_err());
        assert!(text("f", "a\0b".to_owned(), 255).is_err());
        assert!(required("f", String::new()).is_err());
        assert_eq!(optional("f", Some(String::new()), 255).unwrap(), None);
    }
}
