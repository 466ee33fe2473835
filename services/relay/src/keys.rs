//! The values that all relays of an installation derive from their shared key: tickets, and the
//! code that completes a login.

use vvs_auth::key::Keyring;
use vvs_proto::{ConnectionId, RequestId, Secret};

use crate::code::letters;

/// The relays' keys, each for one purpose.
#[derive(Debug, Clone)]
pub(crate) struct RelayKeys {
    /// Seals tickets.
    pub(crate) ticket: Keyring,
    /// Seals the messages between relays.
    pub(crate) backplane: Keyring,
    completion: Keyring,
}

impl RelayKeys {
    pub(crate) fn new(shared: &Keyring) -> Result<Self, vvs_auth::Error> {
        Ok(Self {
            ticket: shared.derive("ticket")?,
            backplane: shared.derive("backplane")?,
            completion: shared.derive("completion")?,
        })
    }

    /// Returns the code that completes this delivery of this login, `XXXX-XXXX`: the same on every
    /// relay.
    pub(crate) fn completion_code(&self, id: ConnectionId, delivery: RequestId) -> Secret {
        Secret::new(letters(
            self.completion
                .mac(&[&id.to_string(), &delivery.to_string()]),
        ))
    }

    /// Returns whether a person or a link has brought the right code. Case, spaces and dashes do
    /// not matter. The time of the answer does not depend on the code.
    pub(crate) fn is_completion_code(
        &self,
        id: ConnectionId,
        delivery: RequestId,
        shown: &Secret,
    ) -> bool {
        let plain = |code: &str| -> String {
            let letters = code.chars().filter(|c| !c.is_whitespace() && *c != '-');
            letters.map(|c| c.to_ascii_uppercase()).collect()
        };
        let expected = plain(self.completion_code(id, delivery).expose());
        let shown = plain(shown.expose());

        expected.len() == shown.len()
            && expected
                .bytes()
                .zip(shown.bytes())
                .fold(0, |bits, (a, b)| bits | (a ^ b))
                == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_equal_on_every_relay_and_for_one_delivery_of_one_login_only() {
        let key = Keyring::generate().unwrap();
        let keys = |text: &str| RelayKeys::new(&Keyring::parse(text).unwrap()).unwrap();
        let (relay, other, stranger) =
            (keys(&key), keys(&key), keys(&Keyring::generate().unwrap()));
        let id = ConnectionId::mint();
        let delivery = "9b2f2d0e-6f0a-4c7e-8f5e-0d3c8f1f0a11".parse().unwrap();
        let code = relay.completion_code(id, delivery);
        assert_eq!(
            (code.expose().len(), code.expose().as_bytes()[4]),
            (9, b'-')
        );
        assert!(other.is_completion_code(id, delivery, &code));

        let sloppy = format!(" {} ", code.expose().to_lowercase().replace('-', " - "));
        assert!(other.is_completion_code(id, delivery, &Secret::new(sloppy)));
        assert!(!stranger.is_completion_code(id, delivery, &code));
        assert!(!relay.is_completion_code(ConnectionId::mint(), delivery, &code));
        assert!(!relay.is_completion_code(
            id,
            "9b2f2d0e-6f0a-4c7e-8f5e-0d3c8f1f0a12".parse().unwrap(),
            &code
        ));

        for wrong in ["", "BCDF-GHJK-", "BCDFGHJ", &code.expose()[..8]] {
            assert!(
                !relay.is_completion_code(id, delivery, &Secret::new(wrong)),
                "{wrong}"
            );
        }
    }
}
