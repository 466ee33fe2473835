//! The tables of ID tokens and logout tokens, and the content of the valid ones.

use std::sync::LazyLock;

use serde_json::json;

use super::*;
use crate::provider::testing::{Draft, NOW, OTHER, RSA, Row, check, ec_jwk, ed_jwk, rsa_jwk};

mod id_token;
mod logout;

const ISSUER: &str = "https://login.example.com/realms/acme";
const CLIENT: &str = "vvs";

static SET: LazyLock<KeySet> = LazyLock::new(|| {
    let keys =
        json!({"keys": [rsa_jwk(&RSA, "r"), rsa_jwk(&OTHER, "o"), ec_jwk("c"), ed_jwk("d")]});
    KeySet::from_jwks(&keys.to_string()).unwrap()
});

fn judge_id_token(token: &str, now: i64) -> Result<Claims, Distrust> {
    verify_id_token(
        token,
        &SET,
        &Rules {
            issuer: ISSUER,
            client_id: CLIENT,
            nonce: "n",
        },
        now,
    )
}

fn judge_logout_token(token: &str, now: i64) -> Result<Logout, Distrust> {
    verify_logout_token(token, &SET, ISSUER, CLIENT, now)
}

fn id_token() -> Draft {
    Draft::new(
        json!({"alg": "RS256", "kid": "r", "typ": "JWT"}),
        json!({
            "iss": ISSUER,
            "sub": "ada",
            "aud": CLIENT,
            "azp": CLIENT,
            "nonce": "n",
            "exp": NOW + 300,
            "iat": NOW - 1,
            "auth_time": NOW - 60,
            "sid": "s",
            "at_hash": "x",
            "email": "ada@example.com",
            "email_verified": true,
            "name": "Ada",
            "picture": "https://example.com/ada.png",
            "groups": ["staff"],
        }),
    )
}

fn logout_token() -> Draft {
    Draft::new(
        json!({"alg": "RS256", "kid": "r", "typ": "logout+jwt"}),
        json!({
            "iss": ISSUER,
            "sub": "ada",
            "aud": CLIENT,
            "exp": NOW + 120,
            "iat": NOW - 1,
            "jti": "j",
            "sid": "s",
            "events": {LOGOUT: {}},
        }),
    )
}

#[test]
fn every_token_is_judged_as_the_table_says() {
    let id_tokens = [
        id_token::signed(),
        id_token::meant(),
        id_token::claims(),
        id_token::times(),
    ];
    let logout_tokens = [logout::signed(), logout::claims(), logout::times()];
    assert!(id_tokens.iter().map(Vec::len).sum::<usize>() >= 60);

    for rows in id_tokens {
        check(&rows, |token| judge_id_token(token, NOW).map(|_claims| ()));
    }

    for rows in logout_tokens {
        check(&rows, |token| {
            judge_logout_token(token, NOW).map(|_claims| ())
        });
    }
}

#[test]
fn what_an_id_token_says_is_told() {
    let claims = judge_id_token(&id_token().sign(), NOW).unwrap();
    let expected = Claims {
        subject: "ada".to_owned(),
        session: Some("s".to_owned()),
        email: Some("ada@example.com".to_owned()),
        email_verified: true,
        name: Some("Ada".to_owned()),
        picture: Some("https://example.com/ada.png".to_owned()),
        auth_time: Some(NOW - 60),
        issued_at: NOW - 1,
        expires_at: NOW + 300,
        rest: id_token().payload,
    };
    assert_eq!(claims, expected);
    assert_eq!(claims.rest["groups"], json!(["staff"]));
}

#[test]
fn an_address_is_verified_only_if_the_provider_says_so() {
    let is_verified = |said: Option<Value>| {
        let token = id_token().claim("email_verified", said).sign();
        judge_id_token(&token, NOW).unwrap().email_verified
    };
    assert!(is_verified(Some(json!(true))));

    for not in [
        json!(false),
        json!("true"),
        json!(1),
        json!(null),
        json!([true]),
    ] {
        assert!(!is_verified(Some(not)));
    }

    assert!(!is_verified(None));
}

#[test]
fn a_profile_that_is_not_there_or_broken_keeps_nobody_out() {
    for broken in [
        None,
        Some(json!(7)),
        Some(json!("")),
        Some(json!(null)),
        Some(json!({})),
    ] {
        let parts = ["email", "name", "picture"].into_iter();
        let token = parts
            .fold(id_token(), |draft, name| draft.claim(name, broken.clone()))
            .sign();
        let claims = judge_id_token(&token, NOW).unwrap();
        assert_eq!(
            (claims.email, claims.name, claims.picture),
            (None, None, None)
        );
    }
}

#[test]
fn a_logout_token_is_to_be_remembered_until_it_is_refused_in_any_case() {
    for draft in [
        logout_token(),
        logout_token().claim("exp", None),
        logout_token().claim("exp", json!(NOW + 9000)),
        logout_token().claim("exp", json!(i64::MAX)),
        logout_token()
            .claim("iat", json!(NOW - 300))
            .claim("exp", None),
    ] {
        let token = draft.sign();
        let logout = judge_logout_token(&token, NOW).unwrap();
        assert_eq!(
            (logout.subject.as_deref(), logout.session.as_deref()),
            (Some("ada"), Some("s"))
        );
        assert_eq!(logout.jti, "j");
        assert!(judge_logout_token(&token, logout.expires_at - 1).is_ok());

        let refused = judge_logout_token(&token, logout.expires_at).unwrap_err();
        assert!(
            refused.is_stale() && refused != Distrust::NotYet,
            "{refused}"
        );
    }
}

#[test]
fn a_token_of_one_kind_is_none_of_the_other() {
    assert_eq!(
        judge_id_token(&logout_token().sign(), NOW),
        Err(Distrust::WrongKind)
    );
    assert_eq!(
        judge_id_token(&logout_token().head("typ", json!("JWT")).sign(), NOW),
        Err(Distrust::WrongNonce)
    );
    assert_eq!(
        judge_logout_token(&id_token().sign(), NOW),
        Err(Distrust::WrongKind)
    );
}

#[test]
fn a_token_that_names_no_key_is_good_when_there_is_one_only() {
    let token = id_token().head("kid", None).sign();
    let rules = Rules {
        issuer: ISSUER,
        client_id: CLIENT,
        nonce: "n",
    };
    let verify = |keys: Value| {
        let keys = KeySet::from_jwks(&json!({"keys": keys}).to_string()).unwrap();
        verify_id_token(&token, &keys, &rules, NOW).map(|_claims| ())
    };

    assert_eq!(verify(json!([rsa_jwk(&RSA, "r"), ec_jwk("c")])), Ok(()));
    assert_eq!(
        verify(json!([rsa_jwk(&OTHER, "r")])),
        Err(Distrust::BadSignature)
    );
    assert_eq!(
        verify(json!([rsa_jwk(&RSA, "r"), rsa_jwk(&OTHER, "o")])),
        Err(Distrust::UnknownKey)
    );
    assert_eq!(verify(json!([])), Err(Distrust::UnknownKey));
}
