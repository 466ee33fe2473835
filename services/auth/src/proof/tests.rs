use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::token::SigningKey;

const AUDIENCE: &str = "https://auth.example.com";

struct Editor(Vec<u8>);

impl Editor {
    fn new() -> Self {
        Self(SigningKey::generate().unwrap())
    }

    fn jwk(&self) -> Jwk {
        Jwk::from_encoding_key(&EncodingKey::from_ec_der(&self.0), Algorithm::ES256).unwrap()
    }

    fn header(&self) -> Header {
        let mut jwk = self.jwk();
        jwk.common = jsonwebtoken::jwk::CommonParameters::default();
        Header {
            typ: Some(TYPE.to_owned()),
            jwk: Some(jwk),
            ..Header::new(Algorithm::ES256)
        }
    }

    fn sign(&self, header: &Header, payload: &Value) -> String {
        jsonwebtoken::encode(header, payload, &EncodingKey::from_ec_der(&self.0)).unwrap()
    }
}

fn payload(purpose: &str) -> Value {
    json!({"aud": AUDIENCE, "nonce": "n", "jti": "j", "use": purpose})
}

fn expected(uses: &[Use]) -> Expected<'_> {
    Expected {
        audience: AUDIENCE,
        nonce: "n",
        uses,
        token: None,
    }
}

fn with(name: &str, value: Value) -> Value {
    let mut payload = payload("hello");
    payload[name] = value;
    payload
}

#[test]
fn a_good_proof_names_its_key() {
    let editor = Editor::new();
    let proof = check(
        &editor.sign(&editor.header(), &payload("hello")),
        &expected(&[Use::Hello]),
    )
    .unwrap();
    let key = DeviceKey::from_value(&serde_json::to_value(editor.jwk()).unwrap()).unwrap();
    assert_eq!(
        (proof.key, proof.jti.as_str(), proof.r#use),
        (key.thumbprint(), "j", Use::Hello)
    );
}

#[test]
fn a_proof_for_something_else_is_refused() {
    let editor = Editor::new();
    let header = editor.header();

    for (bad, payload) in [
        ("aud", with("aud", json!("https://auth.example.com.evil"))),
        ("aud", with("aud", json!("https://auth.example.com/"))),
        ("nonce", with("nonce", json!("other"))),
        ("use", payload("refresh")),
        ("jti", with("jti", json!(""))),
        ("jti", with("jti", json!("x".repeat(200)))),
        ("signature or members", with("use", json!("everything"))),
        ("signature or members", with("nonce", json!(null))),
    ] {
        let refused = check(&editor.sign(&header, &payload), &expected(&[Use::Hello])).unwrap_err();
        assert!(
            matches!(refused, Error::Proof(what) if what == bad),
            "{payload}: {refused}"
        );
    }
}

#[test]
fn a_proof_of_another_make_is_refused() {
    let editor = Editor::new();
    let good = editor.header();
    let sign = |header: &Header| editor.sign(header, &payload("hello"));
    for header in [
        Header {
            typ: Some("at+jwt".to_owned()),
            ..good.clone()
        },
        Header {
            typ: None,
            ..good.clone()
        },
        Header {
            crit: Some(vec!["exp".to_owned()]),
            ..good.clone()
        },
        Header {
            jwk: None,
            ..good.clone()
        },
        // Somebody else's key in the header.
        Editor::new().header(),
    ] {
        assert!(
            check(&sign(&header), &expected(&[Use::Hello])).is_err(),
            "{header:?}"
        );
    }

    let whole = sign(&good);
    let (rest, signature) = whole.rsplit_once('.').unwrap();
    let cut = format!("{rest}.{}", &signature[..signature.len() - 2]);
    for bad in [
        "",
        "a.b.c",
        rest,
        &cut,
        &format!("{whole}.x"),
        &"x".repeat(5000),
    ] {
        assert!(check(bad, &expected(&[Use::Hello])).is_err(), "{bad}");
    }

    let none = format!(
        "{}.{}.",
        base64url(br#"{"alg":"none","typ":"vvs-pop+jwt"}"#),
        base64url(b"{}")
    );
    assert!(check(&none, &expected(&[Use::Hello])).is_err());
}

#[test]
fn a_proof_shown_with_a_token_is_for_that_token_alone() {
    let editor = Editor::new();
    let sign = |ath: Option<&str>| {
        let mut payload = payload("authenticate");
        payload["ath"] = json!(ath);
        editor.sign(&editor.header(), &payload)
    };
    let uses = [Use::Authenticate, Use::Refresh];
    let shown = |token| Expected {
        token,
        ..expected(&uses)
    };

    // base64url SHA-256 of "abc" (FIPS 180-4, example).
    let abc = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
    assert!(check(&sign(Some(abc)), &shown(Some("abc"))).is_ok());
    assert!(check(&sign(Some(abc)), &shown(Some("abd"))).is_err());
    assert!(check(&sign(Some(abc)), &shown(None)).is_err());
    assert!(check(&sign(None), &shown(Some("abc"))).is_err());
    assert!(check(&sign(None), &shown(None)).is_err());
}
