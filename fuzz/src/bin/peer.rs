//! Names of peers, in settings and in certificates, and key files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vvs_auth::key::Keyring;
use vvs_auth::peer::{Entry, SpiffeId};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(id) = SpiffeId::from_certificate(bytes) {
        assert_eq!(id.as_str().parse::<SpiffeId>().ok(), Some(id));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.as_str(), text, "a name has one spelling");
    }
    if let Ok(Entry { id, role }) = text.parse::<Entry>() {
        assert_eq!(format!("{id}={role}"), text);
    }
    if let Ok(ring) = Keyring::parse(text) {
        let sealed = ring.seal("fuzz", bytes).expect("a whole key");
        assert_eq!(ring.open("fuzz", &sealed).ok().as_deref(), Some(bytes));
        assert!(ring.open("other", &sealed).is_err());
    }
});
