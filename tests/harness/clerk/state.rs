//! What an instance of Clerk knows: people, their sessions, the browsers that hold them, and the
//! keys.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::key::Key;

/// What everyone here signs in with.
pub const PASSWORD: &str = "correct-horse-battery";

/// A person. The address that counts is not the first one.
#[derive(Debug, Clone)]
pub struct User {
    pub id: String,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub image_url: String,
    pub addresses: Vec<Address>,
    /// The id of one of the addresses, or of none.
    pub primary: Option<String>,
    pub banned: bool,
    pub locked: bool,
}

/// An email address of a person.
#[derive(Debug, Clone)]
pub struct Address {
    pub id: String,
    pub address: String,
    pub verified: bool,
}

impl User {
    /// Someone with this first name, whose verified address is at example.com.
    pub fn named(name: &str) -> Self {
        let address = |kind: &str, address: String, verified| Address {
            id: format!("idn_{name}_{kind}"),
            address,
            verified,
        };
        Self {
            id: format!("user_{name}"),
            first_name: Some(name.to_owned()),
            last_name: Some("Example".to_owned()),
            image_url: String::new(),
            addresses: vec![
                address("old", format!("{name}@old.example.org"), false),
                address("main", format!("{name}@example.com"), true),
            ],
            primary: Some(format!("idn_{name}_main")),
            banned: false,
            locked: false,
        }
    }

    /// As both APIs show it.
    pub(super) fn json(&self) -> Value {
        let address = |it: &Address| {
            let (status, strategy) = if it.verified {
                ("verified", "email_code")
            } else {
                ("unverified", "email_code")
            };
            json!({
                "id": it.id, "object": "email_address", "email_address": it.address, "reserved": false,
                "verification": {"object": "verification_email_code", "status": status, "strategy": strategy,
                    "attempts": 1, "expire_at": now_ms()},
                "linked_to": [], "created_at": 1_700_000_000_000_i64, "updated_at": 1_700_000_000_000_i64,
            })
        };
        json!({
            "id": self.id, "object": "user", "external_id": null, "username": null,
            "first_name": self.first_name, "last_name": self.last_name,
            "image_url": self.image_url, "has_image": !self.image_url.is_empty(),
            "primary_email_address_id": self.primary, "primary_phone_number_id": null, "primary_web3_wallet_id": null,
            "email_addresses": self.addresses.iter().map(address).collect::<Vec<_>>(),
            "phone_numbers": [], "web3_wallets": [], "passkeys": [], "external_accounts": [], "enterprise_accounts": [],
            "saml_accounts": [], "organization_memberships": [],
            "password_enabled": true, "two_factor_enabled": false, "totp_enabled": false, "backup_code_enabled": false,
            "mfa_enabled_at": null, "mfa_disabled_at": null, "legal_accepted_at": null, "last_active_at": now_ms(),
            "banned": self.banned, "locked": self.locked, "lockout_expires_in_seconds": null, "deprovisioned": false,
            "public_metadata": {}, "private_metadata": {}, "unsafe_metadata": {},
            "delete_self_enabled": true, "create_organization_enabled": true, "create_organizations_limit": null,
            "last_sign_in_at": now_ms(), "created_at": 1_700_000_000_000_i64, "updated_at": now_ms(),
        })
    }
}

/// A sign-in of a person in a browser.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) user_id: String,
    pub(super) client_id: String,
    pub(super) status: String,
    created_at: i64,
}

impl Session {
    /// As the Backend API shows it; the Frontend API adds to it.
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "object": "session", "user_id": self.user_id, "client_id": self.client_id,
            "status": self.status, "actor": null, "last_active_organization_id": null, "latest_activity": null,
            "last_active_at": now_ms(), "created_at": self.created_at, "updated_at": now_ms(),
            "expire_at": self.created_at + 7 * 86_400_000, "abandon_at": self.created_at + 30 * 86_400_000,
        })
    }
}

/// A browser, as the Frontend API knows it.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) sign_in: Option<Value>,
    pub(super) sign_up: Option<Value>,
}

/// The instance.
#[derive(Debug)]
pub(super) struct State {
    pub(super) users: BTreeMap<String, User>,
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) clients: BTreeMap<String, Client>,
    /// The last one signs.
    pub(super) keys: Vec<Key>,
    made: u32,
}

impl State {
    pub(super) fn new() -> Self {
        let (users, sessions, clients) = Default::default();
        let mut state = Self {
            users,
            sessions,
            clients,
            keys: Vec::new(),
            made: 0,
        };
        state.rotate();
        state
    }

    /// An id that there has not been yet.
    pub(super) fn id(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}_{:027}", self.made)
    }

    pub(super) fn rotate(&mut self) {
        let id = self.id("ins");
        self.keys.push(Key::generate(id));
    }

    pub(super) fn key(&self) -> &Key {
        self.keys.last().unwrap()
    }

    pub(super) fn sign_in(&mut self, user_id: &str, client_id: &str) -> String {
        assert!(self.users.contains_key(user_id), "there is no {user_id}");
        let session = Session {
            id: self.id("sess"),
            user_id: user_id.to_owned(),
            client_id: client_id.to_owned(),
            status: "active".to_owned(),
            created_at: now_ms(),
        };
        let id = session.id.clone();
        self.sessions.insert(id.clone(), session);
        id
    }

    /// What a browser is signed in with.
    pub(super) fn active(&self, client_id: &str) -> Vec<Session> {
        let active = self
            .sessions
            .values()
            .filter(|it| it.client_id == client_id && it.status == "active");
        active.cloned().collect()
    }

    /// Whoever has this address.
    pub(super) fn user_at(&self, address: &str) -> Option<&User> {
        self.users.values().find(|user| {
            user.addresses
                .iter()
                .any(|it| it.address.eq_ignore_ascii_case(address))
        })
    }

    /// A fresh session token, as header and claims.
    pub(super) fn token(
        &mut self,
        session_id: &str,
        issuer: &str,
        azp: Option<&str>,
    ) -> (Value, Value) {
        let session = self
            .sessions
            .get(session_id)
            .unwrap_or_else(|| panic!("there is no {session_id}"))
            .clone();
        let now = now_ms() / 1000;
        let header = json!({
            "alg": "RS256", "cat": "cl_B7d4PD111AAA", "kid": self.key().id, "oiat": now, "typ": "JWT",
        });
        let mut claims = json!({
            "exp": now + 60, "iat": now, "nbf": now - 10, "iss": issuer, "sub": session.user_id, "sid": session.id,
            "jti": self.id("jti"), "fva": [0, -1], "sts": "active", "v": 2, "pla": "u:free", "fea": "",
        });
        if let Some(azp) = azp {
            claims["azp"] = azp.into();
        }

        (header, claims)
    }
}

/// Milliseconds since 1970, as all times of both APIs.
pub(super) fn now_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap()
}
