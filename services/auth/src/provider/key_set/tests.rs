//! Which keys are accepted, and which of them a token refers to.

use serde_json::json;

use super::*;
use crate::key::base64url;
use crate::provider::testing::{OTHER, RSA, ec_jwk, ed_jwk, pem, rsa_jwk};

fn set(keys: &[Value]) -> KeySet {
    KeySet::from_jwks(&json!({"keys": keys}).to_string()).unwrap()
}

fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

#[test]
fn a_key_is_found_by_its_id_for_what_it_is_made_for() {
    let keys = set(&[
        rsa_jwk(&RSA, "r"),
        ec_jwk("c"),
        ed_jwk("d"),
        with(rsa_jwk(&RSA, "p"), "alg", json!("PS256")),
    ]);
    let found: Vec<_> = ["r", "c", "d", "p", "x"]
        .into_iter()
        .flat_map(|id| {
            ALGORITHMS.map(|(name, algorithm)| (id, name, keys.find(Some(id), algorithm).is_some()))
        })
        .filter_map(|(id, name, is_found)| is_found.then_some((id, name)))
        .collect();

    assert_eq!(
        found,
        [
            ("r", "RS256"),
            ("r", "PS256"),
            ("c", "ES256"),
            ("d", "EdDSA"),
            ("p", "PS256")
        ]
    );
    assert!(["r", "c", "d", "p"].into_iter().all(|id| keys.knows(id)));
    assert!(!keys.knows("x") && !keys.knows(""));
}

#[test]
fn keys_of_one_id_are_told_apart_by_their_kind() {
    let keys = set(&[ec_jwk("k"), rsa_jwk(&RSA, "k")]);
    assert!(
        ALGORITHMS[..3]
            .iter()
            .all(|(_, algorithm)| keys.find(Some("k"), *algorithm).is_some())
    );
    assert!(keys.find(Some("k"), Algorithm::EdDSA).is_none());
}

#[test]
fn a_token_that_names_no_key_has_one_only_when_there_is_no_choice() {
    let unnamed = |jwk: Value| with(jwk, "kid", json!(null));
    let keys = set(&[rsa_jwk(&RSA, "r"), unnamed(ec_jwk("")), ed_jwk("d")]);
    assert!(keys.find(None, Algorithm::RS256).is_some());
    assert!(keys.find(None, Algorithm::ES256).is_some());
    // A key without an id does not stand for every id.
    assert!(!keys.knows("c") && keys.find(Some("c"), Algorithm::ES256).is_none());
    let keys = set(&[rsa_jwk(&RSA, "r"), rsa_jwk(&OTHER, "s")]);
    assert!(keys.find(None, Algorithm::RS256).is_none());
    assert!(set(&[]).find(None, Algorithm::RS256).is_none());
}

#[test]
fn a_key_that_is_of_no_use_is_left_out() {
    let short = |bytes: usize| {
        with(
            rsa_jwk(&RSA, "k"),
            "n",
            json!(base64url(&vec![0xff; bytes])),
        )
    };
    for useless in [
        json!(null),
        json!("key"),
        json!([]),
        json!({}),
        json!({"kid": "k"}),
        json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0"}),
        json!({"kty": "AKP", "kid": "k", "alg": "ML-DSA-44", "pub": "AA"}),
        with(rsa_jwk(&RSA, "k"), "kty", json!("rsa")),
        with(rsa_jwk(&RSA, "k"), "use", json!("enc")),
        with(rsa_jwk(&RSA, "k"), "use", json!(7)),
        with(rsa_jwk(&RSA, "k"), "key_ops", json!(["encrypt"])),
        with(rsa_jwk(&RSA, "k"), "key_ops", json!("verify")),
        with(rsa_jwk(&RSA, "k"), "alg", json!("RSA-OAEP")),
        with(rsa_jwk(&RSA, "k"), "alg", json!("RS512")),
        with(rsa_jwk(&RSA, "k"), "alg", json!("HS256")),
        with(rsa_jwk(&RSA, "k"), "alg", json!(null)),
        with(rsa_jwk(&RSA, "k"), "d", json!("AQAB")),
        with(rsa_jwk(&RSA, "k"), "n", json!("")),
        with(rsa_jwk(&RSA, "k"), "n", json!("A+/=")),
        with(rsa_jwk(&RSA, "k"), "n", json!(7)),
        with(rsa_jwk(&RSA, "k"), "e", json!("=")),
        short(255),
        short(1025),
        with(ec_jwk("k"), "crv", json!("P-384")),
        with(ec_jwk("k"), "crv", json!("secp256k1")),
        with(ec_jwk("k"), "x", json!(base64url(&[1; 32]))),
        with(ec_jwk("k"), "d", json!("AQAB")),
        with(ed_jwk("k"), "crv", json!("X25519")),
        with(ed_jwk("k"), "crv", json!("Ed448")),
        with(ed_jwk("k"), "x", json!(base64url(&[1; 31]))),
    ] {
        let keys = set(&[useless.clone(), rsa_jwk(&RSA, "good")]);
        assert!(
            !keys.knows("k") && keys.knows("good") && keys.keys.len() == 1,
            "{useless}"
        );
    }
}

#[test]
fn what_is_said_of_a_key_besides_does_not_matter() {
    let modulus = rsa_jwk(&RSA, "k")["n"]
        .as_str()
        .and_then(from_base64url)
        .unwrap();
    for useful in [
        with(rsa_jwk(&RSA, "k"), "alg", json!("RS256")),
        with(rsa_jwk(&RSA, "k"), "key_ops", json!(["sign", "verify"])),
        with(rsa_jwk(&RSA, "k"), "x5c", json!(["MII"])),
        with(rsa_jwk(&RSA, "k"), "x5t#S256", json!(7)),
        with(
            rsa_jwk(&RSA, "k"),
            "n",
            json!(base64url(&[&[0], &modulus[..]].concat())),
        ),
        with(ec_jwk("k"), "alg", json!("ES256")),
        with(ed_jwk("k"), "alg", json!("EdDSA")),
    ] {
        assert!(set(std::slice::from_ref(&useful)).knows("k"), "{useful}");
    }
}

#[test]
fn what_is_no_set_is_refused() {
    assert!(KeySet::from_jwks(r#"{"keys":[],"more":1}"#).is_ok());

    for bad in [
        "",
        "null",
        "[]",
        "{}",
        "7",
        r#"{"keys":{}}"#,
        r#"{"keys":null}"#,
        r#"{"keys":[]"#,
        "<html>",
        "{\"keys\":[]}x",
    ] {
        assert!(
            matches!(KeySet::from_jwks(bad), Err(Error::KeySet)),
            "{bad}"
        );
    }
}

#[test]
fn one_public_key_in_pem_is_read_however_it_is_wrapped() {
    let pem = pem(&RSA);
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();

    for good in [
        pem.clone(),
        pem.replace('\n', "\r\n"),
        format!("\n\n# Clerk\n{pem}\n"),
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----"),
    ] {
        let keys = KeySet::from_pem(&good, None).unwrap();
        assert!(
            keys.knows("any") && keys.find(Some("any"), Algorithm::RS256).is_some(),
            "{good}"
        );
        let keys = KeySet::from_pem(&good, Some("ins_1")).unwrap();
        assert!(keys.knows("ins_1") && !keys.knows("any"));
        assert!(
            keys.find(None, Algorithm::RS256).is_some()
                && keys.find(Some("any"), Algorithm::RS256).is_none()
        );
    }
}

#[test]
fn what_is_no_public_rsa_key_in_pem_is_refused() {
    let pem = pem(&RSA);
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();

    for bad in [
        String::new(),
        body,
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n".to_owned(),
        pem.replace("PUBLIC", "PRIVATE"),
        pem.replace("PUBLIC KEY", "CERTIFICATE"),
        pem.replace("PUBLIC", "RSA PUBLIC"),
        pem.replace("-----END PUBLIC KEY-----", ""),
        pem.replacen("MII", "MI!", 1),
        pem.replacen("MII", "AII", 1),
    ] {
        assert!(
            matches!(KeySet::from_pem(&bad, None), Err(Error::PublicKey)),
            "{bad}"
        );
    }
}
