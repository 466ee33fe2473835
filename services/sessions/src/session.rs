//! Users and sessions, how long they live, and what a token says about them. Knows no clock, no
//! database and no wire.

use vvs_auth::device::{DeviceKey, Thumbprint};
use vvs_auth::token::{Claims, Confirmation, random_id};
use vvs_proto::RequestId;
use vvs_proto::text::plain;

use crate::Error;
use crate::id::{SessionId, UserId};

/// Characters of a provider's or a device's own texts.
pub(crate) const SHORT: usize = 255;
/// Characters of an email address: 64, `@`, 255 (RFC 5321, section 4.5.3.1).
const EMAIL: usize = 320;
/// Characters of a URL.
const URL: usize = 2048;
/// Characters of an IP address, with room for a scope; and of a connection id.
const ADDRESS: usize = 64;

/// Seconds since 1970, as in a token (RFC 7519, section 2).
pub(crate) type Seconds = i64;
pub(crate) const DAY: Seconds = 86_400;

/// The data about a person, all of it from the provider's last answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) avatar_url: Option<String>,
}

impl Profile {
    pub(crate) fn new(
        email: Option<String>,
        name: Option<String>,
        avatar_url: Option<String>,
    ) -> Result<Self, Error> {
        Ok(Self {
            // Less of an address would be another one.
            email: optional("identity.email", email, EMAIL)?
                .filter(|email| plain(email, EMAIL).as_ref() == Some(email)),
            name: optional("identity.name", name, SHORT)?.and_then(|name| plain(&name, SHORT)),
            avatar_url: optional("identity.avatar_url", avatar_url, URL)?,
        })
    }
}

/// A person at a provider. `provider` and `subject` identify the person, whatever happens to the
/// profile.
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

/// One sign-in at an identity provider, in the provider's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignIn {
    pub(crate) provider: String,
    /// Empty for any person.
    pub(crate) subject: String,
    pub(crate) provider_session: String,
}

impl SignIn {
    pub(crate) fn new(
        provider: String,
        subject: String,
        provider_session: String,
    ) -> Result<Self, Error> {
        Ok(Self {
            provider: required("identity.provider", provider)?,
            subject: text("identity.subject", subject, SHORT)?,
            provider_session: required("identity.provider_session", provider_session)?,
        })
    }
}

/// An editor as it describes itself, and the key that it proves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) os: String,
    pub(crate) app: String,
    /// Empty when `app` contains it, as in a session of an earlier version.
    pub(crate) app_version: String,
    /// Without a key the session has bearer tokens.
    pub(crate) key: Option<DeviceKey>,
}

impl Device {
    /// `jwk` is empty for a device without a key.
    pub(crate) fn new(
        name: String,
        os: String,
        (app, app_version): (String, String),
        jwk: &str,
    ) -> Result<Self, Error> {
        let key = Some(jwk)
            .filter(|jwk| !jwk.is_empty())
            .map(DeviceKey::from_json)
            .transpose();
        Ok(Self {
            name: words("device.name", name)?,
            os: words("device.os", os)?,
            app: words("app.name", app)?,
            app_version: words("app.version", app_version)?,
            key: key.map_err(|_cause| Error::Malformed {
                field: "device.jwk",
            })?,
        })
    }

    /// Returns the description for a log.
    pub(crate) fn describe(&self) -> String {
        let app = format!("{} {}", self.app, self.app_version);
        [&self.name, &self.os, app.trim()]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// A page of a user's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Portion {
    pub(crate) size: u32,
    /// The last session of the page before.
    pub(crate) after: Option<Last>,
}

/// Where a page ends: what the list is sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) is_pending: bool,
    pub(crate) refreshed_at: Seconds,
    pub(crate) id: SessionId,
}

impl Portion {
    const DEFAULT_SIZE: u32 = 100;
    const MAX_SIZE: i32 = 1000;

    /// Reads `page_size` and `page_token`.
    pub(crate) fn new(size: i32, token: &str) -> Result<Self, Error> {
        if !(0..=Self::MAX_SIZE).contains(&size) {
            return Err(Error::Malformed { field: "page_size" });
        }
        let size = match size.unsigned_abs() {
            0 => Self::DEFAULT_SIZE,
            size => size,
        };
        let after = match token {
            "" => None,
            token => Some(Last::read(token).ok_or(Error::Malformed {
                field: "page_token",
            })?),
        };

        Ok(Self { size, after })
    }
}

impl Last {
    fn read(token: &str) -> Option<Self> {
        let mut parts = token.splitn(3, '.');
        Some(Self {
            is_pending: match parts.next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
            refreshed_at: parts.next()?.parse().ok()?,
            id: parts.next()?.parse().ok()?,
        })
    }

    /// The `next_page_token` behind a session.
    pub(crate) fn token(session: &Session) -> String {
        let is_pending = u8::from(session.activated_at.is_none());
        format!(
            "{is_pending}.{}.{}",
            session.refreshed_at,
            session.id.as_str()
        )
    }
}

/// One approved login, from which a session is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Approval {
    pub(crate) request_id: RequestId,
    pub(crate) identity: Identity,
    pub(crate) device: Device,
    /// The address of the browser that approved.
    pub(crate) address: String,
    /// The login that was approved; empty when the caller does not name it.
    pub(crate) connection_id: String,
}

/// An address that a caller names.
pub(crate) fn address(value: String) -> Result<String, Error> {
    text("address", value, ADDRESS)
}

/// The id of a login, which relays mint.
pub(crate) fn connection_id(value: String) -> Result<String, Error> {
    text("connection_id", value, ADDRESS)
}

/// One signed-in editor install. Pending until it is activated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) user: UserId,
    pub(crate) profile: Profile,
    pub(crate) device: Device,
    /// The address of its last refresh, or of its approval.
    pub(crate) address: String,
    pub(crate) connection_id: String,
    pub(crate) created_at: Seconds,
    pub(crate) activated_at: Option<Seconds>,
    pub(crate) refreshed_at: Seconds,
    pub(crate) expires_at: Seconds,
    pub(crate) revoked_at: Option<Seconds>,
    /// The latest `exp` of any token that was signed for it.
    pub(crate) tokens_expire_at: Seconds,
}

impl Session {
    /// Returns whether it belongs to the editor that holds this key.
    pub(crate) fn is_bound_to(&self, key: &Thumbprint) -> bool {
        self.device
            .key
            .as_ref()
            .is_some_and(|own| own.thumbprint() == *key)
    }
}

/// How long sessions and tokens live, and the audience of tokens.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The public origin.
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// Of a token that is valid only with its device key.
    pub(crate) token_ttl: Seconds,
    /// Of a session without a device key, and of its token.
    pub(crate) bearer_ttl: Seconds,
    /// Of a session with a device key, from its last refresh.
    pub(crate) idle_ttl: Seconds,
    /// Of a session with a device key, from its approval.
    pub(crate) max_ttl: Seconds,
    /// Of a session that nobody activates.
    pub(crate) pending_ttl: Seconds,
    /// Within this time after a refresh, further refreshes change nothing.
    pub(crate) refresh_interval: Seconds,
    /// Sessions of one user that wait for their editors.
    pub(crate) max_pending: u32,
    /// Sessions of one user, including those that wait; no limit when it is 0.
    pub(crate) max_live: u32,
    /// How long a session must be without a refresh before it gives way to a new one.
    pub(crate) silence: Seconds,
}

impl Terms {
    /// Returns the time at or before which a pending session must have been made to be over.
    pub(crate) fn pending_since(&self, now: Seconds) -> Seconds {
        now.saturating_sub(self.pending_ttl)
    }

    /// Returns when a session ends that was approved at `created_at` and gets a token now.
    pub(crate) fn session_end(
        &self,
        device: &Device,
        created_at: Seconds,
        now: Seconds,
    ) -> Seconds {
        if device.key.is_none() {
            return created_at.saturating_add(self.bearer_ttl);
        }
        now.saturating_add(self.idle_ttl)
            .min(created_at.saturating_add(self.max_ttl))
    }

    /// Returns when a token ends that is signed now: never after its session.
    pub(crate) fn token_end(&self, device: &Device, session_end: Seconds, now: Seconds) -> Seconds {
        let ttl = if device.key.is_some() {
            self.token_ttl
        } else {
            self.bearer_ttl
        };
        now.saturating_add(ttl).min(session_end)
    }

    /// Returns the end of a token that is signed now, when the session was refreshed a moment ago:
    /// the same as the previous token's. The row must know the end of every signed token, and no
    /// token may be too short to be useful.
    pub(crate) fn same_token_end(&self, session: &Session, now: Seconds) -> Option<Seconds> {
        let interval = self.refresh_interval.min(self.token_ttl / 2);
        // Another process's clock may be ahead.
        let is_recent = now.abs_diff(session.refreshed_at) < interval.unsigned_abs();
        let end = self.token_end(&session.device, session.expires_at, session.refreshed_at);
        let end = end.min(session.tokens_expire_at);
        (is_recent && session.activated_at.is_some() && now < end).then_some(end)
    }

    /// Returns whether nobody activated it in time, whether it is deleted or not.
    pub(crate) fn is_stale(&self, session: &Session, now: Seconds) -> bool {
        session.activated_at.is_none() && session.created_at <= self.pending_since(now)
    }

    /// Refuses a session that is over.
    pub(crate) fn check_live(&self, session: &Session, now: Seconds) -> Result<(), Error> {
        if session.revoked_at.is_some() {
            return Err(Error::SessionRevoked(session.id.clone()));
        }
        if session.expires_at <= now {
            return Err(Error::SessionExpired(session.id.clone()));
        }
        if self.is_stale(session, now) {
            return Err(Error::SessionUnknown(session.id.clone()));
        }
        Ok(())
    }

    /// Returns the claims of a token that is signed now and ends then.
    pub(crate) fn claims(
        &self,
        session: &Session,
        now: Seconds,
        end: Seconds,
    ) -> Result<Claims, Error> {
        Ok(Claims {
            iss: self.issuer.clone(),
            sub: session.user.as_str().to_owned(),
            aud: self.audience.clone(),
            sid: session.id.as_str().to_owned(),
            jti: random_id()?,
            iat: now,
            exp: end,
            sxp: session.expires_at,
            cnf: session.device.key.as_ref().map(|key| Confirmation {
                jkt: key.thumbprint(),
            }),
            pending: session.activated_at.is_none(),
        })
    }
}

/// Checks the name of one of our keys in a token or from a caller; `None` when no key can have that
/// name.
pub(crate) fn key_id(value: String) -> Option<String> {
    required("key_id", value).ok()
}

/// A text that is not too long. No NUL: PostgreSQL's TEXT cannot hold it.
pub(crate) fn text(field: &'static str, value: String, max: usize) -> Result<String, Error> {
    if value.chars().count() > max || value.contains('\0') {
        return Err(Error::Malformed { field });
    }
    Ok(value)
}

pub(crate) fn required(field: &'static str, value: String) -> Result<String, Error> {
    if value.is_empty() {
        Err(Error::Malformed { field })
    } else {
        text(field, value, SHORT)
    }
}

/// Returns an editor's text as a person may read it.
fn words(field: &'static str, value: String) -> Result<String, Error> {
    text(field, value, SHORT).map(|value| plain(&value, SHORT).unwrap_or_default())
}

/// Empty means unknown.
fn optional(
    field: &'static str,
    value: Option<String>,
    max: usize,
) -> Result<Option<String>, Error> {
    value
        .filter(|value| !value.is_empty())
        .map(|value| text(field, value, max))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    fn terms() -> Terms {
        Terms {
            issuer: "i".into(),
            audience: "a".into(),
            token_ttl: 10,
            bearer_ttl: 100,
            idle_ttl: 50,
            max_ttl: 120,
            pending_ttl: 20,
            refresh_interval: 4,
            max_pending: 10,
            max_live: 100,
            silence: 7 * DAY,
        }
    }

    fn session(device: Device) -> Session {
        Session {
            id: SessionId::mint().unwrap(),
            user: UserId::mint().unwrap(),
            profile: Profile::default(),
            address: String::new(),
            connection_id: String::new(),
            created_at: 1000,
            activated_at: None,
            refreshed_at: 1000,
            expires_at: terms().session_end(&device, 1000, 1000),
            revoked_at: None,
            tokens_expire_at: 0,
            device,
        }
    }

    fn claims(session: &Session, now: Seconds) -> Claims {
        terms()
            .claims(
                session,
                now,
                terms().token_end(&session.device, session.expires_at, now),
            )
            .unwrap()
    }

    #[test]
    fn a_bearer_token_never_outlives_its_session() {
        let session = session(Device::default());
        let first = claims(&session, 1000);
        assert_eq!(
            (first.iat, first.exp, first.sxp, first.cnf),
            (1000, 1100, 1100, None)
        );
        let again = claims(&session, 1099);
        assert_eq!((again.iat, again.exp, again.sxp), (1099, 1100, 1100));
        assert_ne!(first.jti, again.jti);
    }

    #[test]
    fn a_token_of_a_device_key_is_short_and_names_the_key() {
        let device = Device::new(String::new(), String::new(), <_>::default(), KEY).unwrap();
        let thumbprint = device.key.as_ref().unwrap().thumbprint();
        let claims = claims(&session(device), 1000);
        assert_eq!((claims.exp, claims.sxp), (1010, 1050));
        assert_eq!(claims.cnf.unwrap().jkt, thumbprint);
    }

    #[test]
    fn a_session_lasts_while_it_is_used_and_never_beyond_its_last_day() {
        let device = Device::new(String::new(), String::new(), <_>::default(), KEY).unwrap();
        let end = |now| terms().session_end(&device, 1000, now);
        assert_eq!(
            [end(1000), end(1040), end(1070), end(1119)],
            [1050, 1090, 1120, 1120]
        );
        assert_eq!(terms().token_end(&device, 1120, 1119), 1120);
        assert_eq!(
            terms().session_end(&Device::default(), 1000, 1090),
            1100,
            "a bearer session was prolonged"
        );
    }

    #[test]
    fn a_token_behind_a_refresh_ends_when_the_one_of_the_refresh_does() {
        let device = Device::new(String::new(), String::new(), <_>::default(), KEY).unwrap();
        let pending = Session {
            tokens_expire_at: 1010,
            ..session(device)
        };
        assert_eq!(
            terms().same_token_end(&pending, 1001),
            None,
            "it has to be activated"
        );

        let active = Session {
            activated_at: Some(1000),
            ..pending
        };
        let end = |terms: Terms, now| terms.same_token_end(&active, now);
        assert_eq!(
            [996, 997, 1000, 1003, 1004].map(|now| end(terms(), now)),
            [None, Some(1010), Some(1010), Some(1010), None]
        );
        assert_eq!(
            end(
                Terms {
                    refresh_interval: 0,
                    ..terms()
                },
                1000
            ),
            None,
            "it is switched off"
        );

        let seldom = |now| {
            end(
                Terms {
                    refresh_interval: 600,
                    ..terms()
                },
                now,
            )
        };
        assert_eq!(
            [1004, 1005].map(seldom),
            [Some(1010), None],
            "a token has a second half"
        );

        // Settings that have changed meanwhile.
        assert_eq!(
            end(
                Terms {
                    token_ttl: 20,
                    ..terms()
                },
                1001
            ),
            Some(1010),
            "longer than the row knows"
        );
        assert_eq!(
            end(
                Terms {
                    token_ttl: 6,
                    ..terms()
                },
                1001
            ),
            Some(1006)
        );
    }

    #[test]
    fn a_session_that_is_over_says_why() {
        let session = session(Device::default());
        assert!(terms().check_live(&session, 1019).is_ok());
        assert!(matches!(
            terms().check_live(&session, 1020),
            Err(Error::SessionUnknown(_))
        ));

        let active = Session {
            activated_at: Some(1001),
            ..session
        };
        assert!(terms().check_live(&active, 1099).is_ok());
        assert!(matches!(
            terms().check_live(&active, 1100),
            Err(Error::SessionExpired(_))
        ));

        let revoked = Session {
            revoked_at: Some(1002),
            ..active
        };
        assert!(matches!(
            terms().check_live(&revoked, 1100),
            Err(Error::SessionRevoked(_))
        ));
    }

    #[test]
    fn what_is_kept_of_a_name_can_be_shown_and_of_an_address_all_or_nothing() {
        let profile = |email: &str, name: &str| {
            Profile::new(Some(email.into()), Some(name.into()), None).unwrap()
        };
        let kept = profile("ada@example.com", "A\u{202e}da\u{3164}");
        assert_eq!(
            (kept.email.as_deref(), kept.name.as_deref()),
            (Some("ada@example.com"), Some("Ada"))
        );

        let blank = profile("ada\u{200b}@example.com", "\u{2800}");
        assert_eq!((blank.email, blank.name), (None, None));

        let device = |name: &str| {
            Device::new(
                name.into(),
                "\u{e0041}".into(),
                ("VVS\n1".into(), "\u{e0041}".into()),
                "",
            )
            .unwrap()
            .describe()
        };
        assert_eq!(device("A\u{200d}da"), "Ada, VVS 1");
        assert_eq!(device("\u{3164}"), "VVS 1");

        let app = |name: &str, version: &str| {
            let app = (name.to_owned(), version.to_owned());
            Device::new("desk".into(), String::new(), app, "")
                .unwrap()
                .describe()
        };
        assert_eq!(app("VVS", ""), "desk, VVS");
        assert_eq!(app("", "1"), "desk, 1");
        assert_eq!(app("", ""), "desk");
        assert_eq!(app("V\u{202e}VS", "1\n2"), "desk, VVS 1 2");
    }

    #[test]
    fn a_page_has_a_size_and_follows_a_session_that_was_listed() {
        assert_eq!(Portion::new(0, "").unwrap().size, 100);
        assert_eq!(Portion::new(1000, "").unwrap().size, 1000);
        for bad in [-1, 1001, i32::MIN, i32::MAX] {
            assert!(Portion::new(bad, "").is_err(), "{bad} was taken");
        }

        let session = session(Device::default());
        let after = Portion::new(1, &Last::token(&session))
            .unwrap()
            .after
            .unwrap();
        assert_eq!(
            (after.is_pending, after.refreshed_at, after.id),
            (
                session.activated_at.is_none(),
                session.refreshed_at,
                session.id
            )
        );

        for bad in [
            ".",
            "x",
            "2.1.ses_x",
            "0.x.ses_x",
            "0.1.x",
            "0.1",
            "1.' OR 1=1 --.ses_x",
        ] {
            assert!(Portion::new(1, bad).is_err(), "{bad} was taken");
        }
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
