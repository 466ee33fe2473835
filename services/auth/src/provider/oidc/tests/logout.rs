//! Logout tokens, good and wrong.

use super::*;
use crate::provider::testing::By;

fn with(name: &str, value: impl Into<Option<Value>>) -> String {
    logout_token().claim(name, value).sign()
}

pub(super) fn signed() -> Vec<Row> {
    const OTHER_KIND: Result<(), Distrust> = Err(Distrust::WrongKind);
    let typ = |typ: Value| logout_token().head("typ", typ).sign();

    vec![
        ("as it should be", logout_token().sign(), Ok(())),
        (
            "ES256",
            logout_token()
                .head("alg", json!("ES256"))
                .head("kid", json!("c"))
                .by(By::Es256),
            Ok(()),
        ),
        ("no typ", logout_token().head("typ", None).sign(), Ok(())),
        ("typ JWT", typ(json!("JWT")), Ok(())),
        ("typ in capitals", typ(json!("Logout+JWT")), Ok(())),
        ("typ of an access token", typ(json!("at+jwt")), OTHER_KIND),
        (
            "typ of another event",
            typ(json!("secevent+jwt")),
            OTHER_KIND,
        ),
        ("typ null", typ(json!(null)), Err(Distrust::Malformed)),
        (
            "crit",
            logout_token().head("crit", json!([])).sign(),
            Err(Distrust::Critical),
        ),
        (
            "none",
            format!("{}.", logout_token().head("alg", json!("none")).message()),
            Err(Distrust::WrongAlgorithm),
        ),
        (
            "HS256",
            logout_token().head("alg", json!("HS256")).by(By::Hmac),
            Err(Distrust::WrongAlgorithm),
        ),
        (
            "another's signature",
            logout_token().by(By::Other),
            Err(Distrust::BadSignature),
        ),
        (
            "an unknown key",
            logout_token().head("kid", json!("x")).sign(),
            Err(Distrust::UnknownKey),
        ),
    ]
}

pub(super) fn claims() -> Vec<Row> {
    const OTHER_KIND: Result<(), Distrust> = Err(Distrust::WrongKind);
    const JTI: Result<(), Distrust> = Err(Distrust::Claim("jti"));
    let nobody = || logout_token().claim("sub", None).claim("sid", None);

    vec![
        ("no iss", with("iss", None), Err(Distrust::WrongIssuer)),
        (
            "iss of another",
            with("iss", json!("https://evil.example")),
            Err(Distrust::WrongIssuer),
        ),
        ("no aud", with("aud", None), Err(Distrust::Claim("aud"))),
        (
            "aud of another",
            with("aud", json!("api")),
            Err(Distrust::WrongAudience),
        ),
        (
            "aud of several",
            with("aud", json!(["api", CLIENT])),
            Ok(()),
        ),
        ("no events", with("events", None), OTHER_KIND),
        ("events of none", with("events", json!({})), OTHER_KIND),
        ("events text", with("events", json!(LOGOUT)), OTHER_KIND),
        ("events a list", with("events", json!([LOGOUT])), OTHER_KIND),
        (
            "another event",
            with(
                "events",
                json!({"http://schemas.openid.net/event/other": {}}),
            ),
            OTHER_KIND,
        ),
        (
            "an event that is null",
            with("events", json!({LOGOUT: null})),
            OTHER_KIND,
        ),
        (
            "an event that is true",
            with("events", json!({LOGOUT: true})),
            OTHER_KIND,
        ),
        (
            "an event with members",
            with("events", json!({LOGOUT: {"x": 1}, "more": {}})),
            Ok(()),
        ),
        ("nonce", with("nonce", json!("n")), OTHER_KIND),
        ("nonce null", with("nonce", json!(null)), OTHER_KIND),
        ("only sid", with("sub", None), Ok(())),
        ("only sub", with("sid", None), Ok(())),
        (
            "neither",
            nobody().sign(),
            Err(Distrust::Claim("sub or sid")),
        ),
        (
            "sub blank",
            with("sub", json!("")),
            Err(Distrust::Claim("sub")),
        ),
        (
            "sub a number",
            with("sub", json!(7)),
            Err(Distrust::Claim("sub")),
        ),
        (
            "sub too long",
            with("sub", json!("x".repeat(256))),
            Err(Distrust::Claim("sub")),
        ),
        (
            "sid blank",
            with("sid", json!(" ")),
            Err(Distrust::Claim("sid")),
        ),
        (
            "sid null",
            with("sid", json!(null)),
            Err(Distrust::Claim("sid")),
        ),
        ("no jti", with("jti", None), JTI),
        ("jti blank", with("jti", json!("")), JTI),
        ("jti a number", with("jti", json!(7)), JTI),
    ]
}

pub(super) fn times() -> Vec<Row> {
    vec![
        ("no iat", with("iat", None), Err(Distrust::Claim("iat"))),
        (
            "iat text",
            with("iat", json!("9")),
            Err(Distrust::Claim("iat")),
        ),
        ("iat in 5 s", with("iat", json!(NOW + 5)), Ok(())),
        (
            "iat in 6 s",
            with("iat", json!(NOW + 6)),
            Err(Distrust::NotYet),
        ),
        ("iat 5 min ago", with("iat", json!(NOW - 300)), Ok(())),
        (
            "iat a second longer ago",
            with("iat", json!(NOW - 301)),
            Err(Distrust::TooOld),
        ),
        (
            "iat the least",
            with("iat", json!(i64::MIN)),
            Err(Distrust::TooOld),
        ),
        ("no exp", with("exp", None), Ok(())),
        (
            "exp text",
            with("exp", json!("9")),
            Err(Distrust::Claim("exp")),
        ),
        ("exp 4 s ago", with("exp", json!(NOW - 4)), Ok(())),
        (
            "exp 5 s ago",
            with("exp", json!(NOW - 5)),
            Err(Distrust::Expired),
        ),
        (
            "nbf in 6 s",
            with("nbf", json!(NOW + 6)),
            Err(Distrust::NotYet),
        ),
        (
            "expired and another's",
            logout_token()
                .claim("exp", json!(1))
                .claim("iss", json!("x"))
                .sign(),
            Err(Distrust::WrongIssuer),
        ),
    ]
}
