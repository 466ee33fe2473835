//! The table of session tokens, valid ones and ones that are wrong in every way, and the content of
//! the valid ones.

use std::sync::LazyLock;

use serde_json::json;

use super::*;
use crate::provider::testing::{
    Draft, NOW, OTHER, RSA, Row, check, compact, ec_jwk, pem, rsa_jwk, texts,
};

mod claim;
mod header;
mod shape;

const ISSUER: &str = "https://clerk.example.com";
const TEMPLATE: &str = "cl_B7d4PD222AAA";
const MACHINE_TOKEN: &str = "cl_B7d4PD333AAA";

/// Clerk's key set: two keys that sign, one of another type and one that is not for signatures.
static SET: LazyLock<KeySet> = LazyLock::new(|| {
    let mut encryption = rsa_jwk(&RSA, "ins_enc");
    encryption["use"] = json!("enc");
    let keys = json!({"keys": [rsa_jwk(&RSA, "ins_1"), rsa_jwk(&OTHER, "ins_2"), ec_jwk("ins_ec"), encryption]});
    KeySet::from_jwks(&keys.to_string()).unwrap()
});
static PEM: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_pem(&pem(&RSA), None).unwrap());
static NAMED_PEM: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::from_pem(&pem(&RSA), Some("ins_1")).unwrap());

/// The keys and rules that a token is checked with.
#[derive(Clone, Copy)]
enum With {
    Set,
    Pem,
    NamedPem,
    /// The set, and staff may be signed in as the user.
    Staff,
    /// The set, with no authorized party.
    NoParty,
}

fn judge(token: &str, with: With, now: i64) -> Result<Claims, Distrust> {
    let parties = [
        "https://example.com".to_owned(),
        "http://localhost:3000".to_owned(),
    ];
    let keys = match with {
        With::Pem => &*PEM,
        With::NamedPem => &*NAMED_PEM,
        With::Set | With::Staff | With::NoParty => &*SET,
    };

    let rules = Rules {
        issuer: ISSUER,
        authorized_parties: if matches!(with, With::NoParty) {
            &[]
        } else {
            &parties
        },
        allow_impersonation: matches!(with, With::Staff),
    };

    verify(token, keys, &rules, now)
}

/// A session token as Clerk signs it today.
fn good() -> Draft {
    Draft::new(
        json!({"alg": "RS256", "cat": SESSION, "kid": "ins_1", "oiat": NOW - 1, "typ": "JWT"}),
        json!({
            "azp": "https://example.com",
            "exp": NOW + 59,
            "fva": [1, -1],
            "iat": NOW - 1,
            "iss": ISSUER,
            "jti": "f00",
            "nbf": NOW - 11,
            "o": {"id": "org_1", "slg": "acme", "rol": "admin", "per": "manage", "fpm": "1"},
            "pla": "o:pro",
            "sid": "sess_1",
            "sts": "active",
            "sub": "user_1",
            "v": 2,
        }),
    )
}

/// A session token as an instance signs it that has not upgraded.
fn old() -> Draft {
    Draft::new(
        json!({"alg": "RS256", "kid": "ins_1", "typ": "JWT"}),
        json!({
            "azp": "https://example.com",
            "exp": NOW + 59,
            "iat": NOW - 1,
            "iss": ISSUER,
            "nbf": NOW - 11,
            "org_id": "org_1",
            "org_role": "org:admin",
            "sid": "sess_1",
            "sub": "user_1",
        }),
    )
}

/// Only the required members.
fn least() -> Draft {
    Draft::new(
        json!({"alg": "RS256", "kid": "ins_1"}),
        json!({"azp": "https://example.com", "exp": NOW + 1, "iss": ISSUER, "sid": "s", "sub": "u"}),
    )
}

fn tables() -> Vec<(With, Vec<Row>)> {
    vec![
        (With::Set, shape::parts()),
        (With::Set, shape::json()),
        (With::Set, shape::twice()),
        (With::Set, header::kind()),
        (With::Set, header::algorithm()),
        (With::Set, header::key()),
        (With::Pem, header::any_key()),
        (With::NamedPem, header::named_key()),
        (With::Set, header::signature()),
        (With::Set, claim::ids()),
        (With::Set, claim::issuer()),
        (With::Set, claim::party()),
        (With::NoParty, claim::no_party()),
        (With::Set, claim::expiry()),
        (With::Set, claim::beginning()),
        (With::Set, claim::issue()),
        (With::Set, claim::status()),
        (With::Staff, claim::staff()),
        (With::Set, claim::order()),
    ]
}

#[test]
fn every_token_is_judged_as_the_table_says() {
    let tables = tables();
    assert!(tables.iter().map(|(_, rows)| rows.len()).sum::<usize>() >= 150);
    for (with, rows) in tables {
        check(&rows, |token| judge(token, with, NOW).map(|_claims| ()));
    }
}

#[test]
fn a_token_is_good_for_as_long_as_it_says_and_the_skew() {
    let token = good().sign();
    let judge = |now| judge(&token, With::Set, now).map(|_claims| ());
    assert_eq!(judge(NOW - 7), Err(Distrust::NotYet));
    assert_eq!(judge(NOW - 6), Ok(()));
    assert_eq!(judge(NOW + 63), Ok(()));
    assert_eq!(judge(NOW + 64), Err(Distrust::Expired));
    assert_eq!(judge(i64::MAX), Err(Distrust::Expired));
    assert_eq!(judge(i64::MIN), Err(Distrust::NotYet));
}

#[test]
fn what_a_token_says_is_told() {
    let claims = judge(&good().sign(), With::Set, NOW).unwrap();
    let expected = Claims {
        subject: "user_1".to_owned(),
        session: "sess_1".to_owned(),
        issued_at: NOW - 1,
        expires_at: NOW + 59,
        actor: None,
        organization: Some("org_1".to_owned()),
    };
    assert_eq!(claims, expected);
    assert_eq!(judge(&old().sign(), With::Set, NOW), Ok(expected));

    let claims = judge(&least().sign(), With::Set, NOW).unwrap();
    assert_eq!((claims.issued_at, claims.organization), (0, None));

    let staff = good()
        .claim("act", json!({"sub": "user_staff", "iss": "x", "sid": "y"}))
        .sign();
    assert_eq!(
        judge(&staff, With::Staff, NOW).unwrap().actor.as_deref(),
        Some("user_staff")
    );
}

#[test]
fn an_organization_is_read_from_where_the_version_keeps_it_only() {
    let organization = |draft: Draft| judge(&draft.sign(), With::Set, NOW).unwrap().organization;
    let custom = good().claim("o", None).claim("org_id", json!("org_custom"));
    assert_eq!(organization(custom), None);
    assert_eq!(
        organization(
            old()
                .claim("org_id", None)
                .claim("o", json!({"id": "org_custom"}))
        ),
        None
    );

    for nothing in [
        json!({"id": ""}),
        json!({"id": 7}),
        json!({}),
        json!("org_1"),
        json!(null),
    ] {
        assert_eq!(organization(good().claim("o", nothing)), None);
    }
}
