//! The ticket with which an editor can take its unfinished login to a new socket, on any relay that
//! has the same key: the login's constant facts, sealed. It is useless without the device key that
//! it names.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use vvs_auth::key::{Keyring, base64url, from_base64url};
use vvs_proto::frame::Binding;
use vvs_proto::{ConnectionId, Secret};

use crate::hello::Hello;

/// The purpose of the seal.
const CONTEXT: &str = "ticket";

/// The constant facts of a login.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) id: ConnectionId,
    pub(crate) user_code: String,
    pub(crate) client_address: IpAddr,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) ttl: Duration,
}

/// A login, as it travels with its editor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    id: String,
    user_code: String,
    client_address: IpAddr,
    /// Seconds since 1970.
    created_at: i64,
    /// Seconds.
    ttl: u64,
    pub(crate) hello: Hello,
    pub(crate) binding: Binding,
    /// How often the login has changed sockets.
    pub(crate) generation: u64,
}

impl Ticket {
    pub(crate) fn new(facts: &Facts, hello: Hello, binding: Binding, generation: u64) -> Self {
        Self {
            id: facts.id.to_string(),
            user_code: facts.user_code.clone(),
            client_address: facts.client_address,
            created_at: facts.created_at.unix_timestamp(),
            ttl: facts.ttl.as_secs(),
            hello,
            binding,
            generation,
        }
    }

    pub(crate) fn seal(&self, keys: &Keyring) -> Result<Secret, vvs_auth::Error> {
        let plain = serde_json::to_vec(self).map_err(|_cause| vvs_auth::Error::Sealed)?;
        Ok(Secret::new(base64url(&keys.seal(CONTEXT, &plain)?)))
    }

    /// Opens a ticket that one of our relays has sealed.
    pub(crate) fn open(keys: &Keyring, text: &Secret) -> Option<Self> {
        let plain = keys.open(CONTEXT, &from_base64url(text.expose())?).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// Returns the login's initial facts.
    pub(crate) fn facts(&self) -> Option<Facts> {
        Some(Facts {
            id: self.id.parse().ok()?,
            user_code: self.user_code.clone(),
            client_address: self.client_address,
            created_at: OffsetDateTime::from_unix_timestamp(self.created_at).ok()?,
            ttl: Duration::from_secs(self.ttl),
        })
    }
}

#[cfg(test)]
mod tests {
    use vvs_proto::frame::{App, Device};

    use super::*;

    fn ticket() -> Ticket {
        let facts = Facts {
            id: ConnectionId::mint(),
            user_code: "BCDF-GHJK".to_owned(),
            client_address: [192, 0, 2, 1].into(),
            created_at: OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap(),
            ttl: Duration::from_mins(10),
        };
        let hello = Hello {
            app: App {
                name: "VVS".to_owned(),
                version: "1".to_owned(),
            },
            device: Device {
                name: "desk".to_owned(),
                os: "Linux".to_owned(),
            },
            jwk: "{}".to_owned(),
            return_uri: None,
        };
        Ticket::new(&facts, hello, Binding::Typed, 3)
    }

    #[test]
    fn a_ticket_opens_for_relays_with_its_key_alone() {
        let keys = || Keyring::parse(&Keyring::generate().unwrap()).unwrap();
        let (ours, theirs, ticket) = (keys(), keys(), ticket());
        let sealed = ticket.seal(&ours).unwrap();
        assert_eq!(Ticket::open(&ours, &sealed), Some(ticket));
        assert_eq!(Ticket::open(&theirs, &sealed), None);
        let bent = sealed.expose().replacen(char::is_alphabetic, "0", 1);
        for bad in ["", "*", "AAAA", &bent] {
            assert_eq!(Ticket::open(&ours, &Secret::new(bad)), None, "{bad}");
        }
    }
}
