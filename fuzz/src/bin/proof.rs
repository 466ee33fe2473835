//! Proofs of possession: the text as it comes, which never holds, and signed with a key of the
//! sender's own, as any stranger can. Device keys with them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use vvs_auth::device::DeviceKey;
use vvs_auth::proof::{Expected, Use, check};

const AUDIENCE: &str = "https://auth.example.com";
/// base64url SHA-256 of `abc` (FIPS 180-4, example).
const ABC: &str = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";

fuzz_target!(|text: &str| {
    let shown = |token| Expected {
        audience: AUDIENCE,
        nonce: "n",
        uses: &[Use::Hello, Use::Authenticate],
        token,
    };
    assert!(
        check(text, &shown(None)).is_err() && check(text, &shown(Some("abc"))).is_err(),
        "nobody signed it"
    );

    if let Ok(key) = DeviceKey::from_json(text) {
        assert_eq!(DeviceKey::from_json(&key.to_json()).ok(), Some(key));
    }

    let Some(proof) = vvs_fuzz::sign(text) else {
        return;
    };
    for token in [None, Some("abc")] {
        let Ok(proof) = check(&proof, &shown(token)) else {
            continue;
        };
        let payload: Value = text
            .split_once('\n')
            .and_then(|(_, payload)| serde_json::from_str(payload).ok())
            .unwrap();
        assert!(
            payload["aud"] == AUDIENCE
                && payload["nonce"] == "n"
                && payload["jti"] == proof.jti.as_str()
        );
        assert!(!proof.jti.is_empty());
        match proof.r#use {
            Use::Hello => assert_eq!(payload["use"], "hello"),
            Use::Authenticate => assert!(
                payload["use"] == "authenticate" && payload["ath"] == ABC && token.is_some()
            ),
            Use::Resume | Use::Refresh | Use::Logout => panic!("that was not asked for"),
        }
        let own =
            DeviceKey::from_value(&serde_json::to_value(vvs_fuzz::public()).unwrap()).unwrap();
        assert_eq!(proof.key, own.thumbprint());
    }
});
