//! Providers' tokens changed at random: changed tokens are refused, unchanged ones are judged as a
//! simple model says, and noise never does more than fail.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::testing::{By, Draft, NOW, NOW_EXACTLY, RSA, ec_jwk, pem, rsa_jwk};
use super::{Distrust, KeySet, clerk, key_id, oidc};

static KEYS: LazyLock<[KeySet; 2]> = LazyLock::new(|| {
    let set = json!({"keys": [rsa_jwk(&RSA, "r"), ec_jwk("c")]}).to_string();
    [
        KeySet::from_jwks(&set).unwrap(),
        KeySet::from_pem(&pem(&RSA), None).unwrap(),
    ]
});

fn session(token: &str, keys: &KeySet) -> Result<clerk::Claims, Distrust> {
    let parties = ["https://a.test".to_owned()];
    let rules = clerk::Rules {
        issuer: "https://clerk.a.test",
        authorized_parties: &parties,
        allow_impersonation: false,
    };
    clerk::verify(token, keys, &rules, NOW)
}

fn id_token(token: &str) -> Result<oidc::Claims, Distrust> {
    let rules = oidc::Rules {
        issuer: "https://id.test",
        client_id: "vvs",
        nonce: "n",
    };
    oidc::verify_id_token(token, &KEYS[0], &rules, NOW)
}

fn logout(token: &str) -> Result<oidc::Logout, Distrust> {
    oidc::verify_logout_token(token, &KEYS[0], "https://id.test", "vvs", NOW)
}

fn good_session() -> Draft {
    let claims = json!({"iss": "https://clerk.a.test", "azp": "https://a.test", "sub": "u", "sid": "s", "exp": NOW + 1});
    Draft::new(json!({"alg": "RS256", "kid": "r", "typ": "JWT"}), claims)
}

fn good_id_token() -> Draft {
    let claims = json!({"iss": "https://id.test", "aud": "vvs", "sub": "u", "nonce": "n", "iat": NOW, "exp": NOW + 1});
    Draft::new(json!({"alg": "ES256", "kid": "c"}), claims)
}

fn good_logout() -> Draft {
    let events = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let claims = json!({"iss": "https://id.test", "aud": "vvs", "sub": "u", "jti": "j", "iat": NOW, "events": events});
    Draft::new(json!({"alg": "ES256", "kid": "c"}), claims)
}

static SESSION: LazyLock<String> = LazyLock::new(|| good_session().sign());
static ID_TOKEN: LazyLock<String> = LazyLock::new(|| good_id_token().by(By::Es256));
static LOGOUT: LazyLock<String> = LazyLock::new(|| good_logout().by(By::Es256));

/// Returns whether a token is refused with any keys by a verifier that would accept it unchanged.
fn is_refused(token: &str) -> bool {
    KEYS.iter().all(|keys| session(token, keys).is_err())
        && id_token(token).is_err()
        && logout(token).is_err()
}

/// One byte of a text replaced, cut out or put in.
fn bend(text: &str, at: usize, put: Option<char>, cut: bool) -> Option<String> {
    let bent: String = [
        &text[..at],
        put.map(String::from).as_deref().unwrap_or(""),
        &text[at + usize::from(cut)..],
    ]
    .concat();
    (bent != text).then_some(bent)
}

/// Usually with characters of base64url: others are refused before anything is decoded.
fn letter() -> impl Strategy<Value = char> {
    let letters = select(
        ('A'..='Z')
            .chain('a'..='z')
            .chain('0'..='9')
            .chain(['-', '_', '.', '='])
            .collect::<Vec<_>>(),
    );
    prop_oneof![9 => letters, 1 => any::<char>()]
}

/// A value of any type, often one of those that matter.
fn value() -> impl Strategy<Value = Value> {
    let times = (NOW - 8..NOW + 8).prop_map(|time| json!(time));
    prop_oneof![
        4 => times,
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => any::<i64>().prop_map(|number| json!(number)),
        1 => any::<String>().prop_map(|text| json!(text)),
        1 => select(vec![json!(null), json!(true), json!([]), json!({}), json!(""), json!("pending")]),
    ]
}

#[test]
fn a_whole_token_is_taken_by_whom_it_is_for() {
    assert!(KEYS.iter().all(|keys| session(&SESSION, keys).is_ok()));
    assert!(id_token(&ID_TOKEN).is_ok() && logout(&LOGOUT).is_ok());
    assert!(
        logout(&ID_TOKEN).is_err()
            && id_token(&LOGOUT).is_err()
            && session(&ID_TOKEN, &KEYS[0]).is_err()
    );
}

#[test]
fn a_token_with_any_bit_changed_is_refused() {
    let is_refused_at = |at: usize, token: &str, is_refused: &dyn Fn(&str) -> bool| {
        (0..7).all(|bit| {
            let mut bent = token.as_bytes().to_vec();
            bent[at] ^= 1 << bit;
            is_refused(str::from_utf8(&bent).unwrap())
        })
    };
    for at in 0..SESSION.len() {
        assert!(
            is_refused_at(at, &SESSION, &|bent| session(bent, &KEYS[1]).is_err()),
            "byte {at}"
        );
    }

    for at in 0..ID_TOKEN.len() {
        assert!(
            is_refused_at(at, &ID_TOKEN, &|bent| id_token(bent).is_err()),
            "byte {at}"
        );
    }

    for at in 0..LOGOUT.len() {
        assert!(
            is_refused_at(at, &LOGOUT, &|bent| logout(bent).is_err()),
            "byte {at}"
        );
    }
}

proptest! {
    #[test]
    fn a_token_with_one_character_changed_is_refused(
        at in any::<Index>(),
        put in prop::option::of(letter()),
        cut: bool,
    ) {
        for token in [&*SESSION, &*ID_TOKEN, &*LOGOUT] {
            if let Some(bent) = bend(token, at.index(token.len()), put, cut) {
                prop_assert!(is_refused(&bent), "{}", bent);
            }
        }
    }

    /// Whatever the provider signs, a token is accepted only with a user, a session and valid
    /// times.
    #[test]
    fn a_session_token_is_judged_by_what_it_says(
        name in select(vec!["sub", "sid", "exp", "nbf", "iat", "sts", "act", "iss", "azp", "jti"]),
        value in prop::option::of(value()),
    ) {
        let token = good_session().claim(name, value.clone()).sign();
        let time = value.as_ref().and_then(Value::as_f64);
        let is_missing = value.is_none();
        let is_text = value.as_ref().and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
        let is_good = match name {
            "sub" | "sid" => is_text,
            "exp" => time.is_some_and(|time| time > NOW_EXACTLY - 5.0),
            "nbf" | "iat" => is_missing || time.is_some_and(|time| time <= NOW_EXACTLY + 5.0),
            "sts" => value != Some(json!("pending")),
            "act" => is_missing,
            "iss" | "azp" => false,
            _ => true,
        };
        for keys in &*KEYS {
            prop_assert_eq!(session(&token, keys).is_ok(), is_good, "{} {:?}", name, value);
        }
    }

    #[test]
    fn noise_is_refused(noise in any::<String>(), payload in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(is_refused(&noise) && key_id(&noise).is_none());
        let token = super::testing::texts(r#"{"alg":"RS256","kid":"r"}"#, payload);
        prop_assert!(is_refused(&token));
        prop_assert!(KeySet::from_jwks(&noise).is_err() && KeySet::from_pem(&noise, None).is_err());
    }
}
