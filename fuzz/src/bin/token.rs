//! Tokens: the text as it comes, which is never to be trusted, and as a payload that was really
//! signed.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vvs_auth::token::{Distrust, JwkSet, Verifier, unverified};

const NOW: i64 = 1_000_000;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let keys = JwkSet {
        keys: vec![vvs_fuzz::public().clone()],
    };
    Verifier::new(&keys, "https://auth.example.com", "vvs")
});

fuzz_target!(|text: &str| {
    let refused = VERIFIER.verify(text, NOW);
    let is_forged = matches!(
        refused,
        Err(Distrust::Malformed | Distrust::UnknownKey | Distrust::BadSignature)
    );
    assert!(is_forged, "{refused:?}");
    drop(unverified(text));

    let Some(token) = vvs_fuzz::sign(text) else {
        return;
    };
    let said = unverified(&token);
    match VERIFIER.verify(&token, NOW) {
        Ok(claims) => {
            assert!(claims.iss == "https://auth.example.com" && claims.aud == "vvs");
            assert!(NOW < claims.exp && NOW < claims.sxp);
            assert_eq!(said, Some(claims));
        }
        Err(Distrust::WrongIssuer | Distrust::WrongAudience | Distrust::Expired) => {
            assert!(said.is_some());
        }
        Err(Distrust::Malformed | Distrust::UnknownKey) => {}
        Err(Distrust::BadSignature) => panic!("the signature is good"),
    }
});
