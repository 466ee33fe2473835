//! Whether a proof of possession holds on a socket, and in our own words why it does not.

use vvs_auth::Error;
use vvs_auth::device::Thumbprint;
use vvs_auth::proof::{self, Expected, Proof};
use vvs_proto::Secret;

/// Checks everything but that it is used once. `key`: whose it must be, where that is known.
pub(crate) fn check(proof: &Secret, expected: &Expected<'_>, key: Option<&Thumbprint>) -> Result<Proof, &'static str> {
    match proof::check(proof.expose(), expected) {
        Ok(proof) if key.is_none_or(|key| *key == proof.key) => Ok(proof),
        Ok(_) => Err("made with another key"),
        Err(Error::Proof(why) | Error::DeviceKey(why)) => Err(why),
        Err(_) => Err("not checked"),
    }
}
