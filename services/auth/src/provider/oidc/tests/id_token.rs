//! ID tokens, good and wrong.

use super::*;
use crate::key::base64url;
use crate::provider::testing::{By, compact, sign};

fn with(name: &str, value: impl Into<Option<Value>>) -> String {
    id_token().claim(name, value).sign()
}

/// Tokens with changed signatures and signers.
pub(super) fn signed() -> Vec<Row> {
    const OTHER_ALGORITHM: Result<(), Distrust> = Err(Distrust::WrongAlgorithm);
    let by = |alg: &str, kid: &str, by| {
        id_token()
            .head("alg", json!(alg))
            .head("kid", json!(kid))
            .by(by)
    };
    let message = id_token().message();
    let other = id_token().claim("sub", json!("eve"));

    vec![
        ("RS256", id_token().sign(), Ok(())),
        ("PS256", by("PS256", "r", By::Ps256), Ok(())),
        ("ES256", by("ES256", "c", By::Es256), Ok(())),
        ("EdDSA", by("EdDSA", "d", By::EdDsa), Ok(())),
        ("the second key", by("RS256", "o", By::Other), Ok(())),
        ("RS512", by("RS512", "r", By::Rs512), OTHER_ALGORITHM),
        (
            "HS256 with the public key",
            by("HS256", "r", By::Hmac),
            OTHER_ALGORITHM,
        ),
        (
            "none",
            format!("{}.", id_token().head("alg", json!("none")).message()),
            OTHER_ALGORITHM,
        ),
        (
            "no alg",
            id_token().head("alg", None).sign(),
            Err(Distrust::Malformed),
        ),
        (
            "another's signature",
            by("RS256", "r", By::Other),
            Err(Distrust::BadSignature),
        ),
        (
            "PS256 that says RS256",
            by("RS256", "r", By::Ps256),
            Err(Distrust::BadSignature),
        ),
        (
            "RS256 that says PS256",
            by("PS256", "r", By::Rsa),
            Err(Distrust::BadSignature),
        ),
        (
            "no signature",
            format!("{message}."),
            Err(Distrust::BadSignature),
        ),
        (
            "zeros on a curve",
            {
                let message = id_token()
                    .head("alg", json!("ES256"))
                    .head("kid", json!("c"))
                    .message();
                format!("{message}.{}", base64url(&[0; 64]))
            },
            Err(Distrust::BadSignature),
        ),
        (
            "a signature of other claims",
            format!("{message}.{}", sign(By::Rsa, &other.message())),
            Err(Distrust::BadSignature),
        ),
        (
            "RS256 with the key of a curve",
            by("RS256", "c", By::Rsa),
            Err(Distrust::UnknownKey),
        ),
        (
            "ES256 with an RSA key",
            by("ES256", "r", By::Es256),
            Err(Distrust::UnknownKey),
        ),
        (
            "an unknown key",
            by("RS256", "x", By::Rsa),
            Err(Distrust::UnknownKey),
        ),
        (
            "no kid, and a choice",
            id_token().head("kid", None).sign(),
            Err(Distrust::UnknownKey),
        ),
        (
            "kid a number",
            id_token().head("kid", json!(1)).sign(),
            Err(Distrust::Malformed),
        ),
    ]
}

/// The type of the token, and its audience.
pub(super) fn meant() -> Vec<Row> {
    const OTHER_KIND: Result<(), Distrust> = Err(Distrust::WrongKind);
    const OTHER_AUDIENCE: Result<(), Distrust> = Err(Distrust::WrongAudience);
    const OTHER_PARTY: Result<(), Distrust> = Err(Distrust::WrongParty);
    const AUD: Result<(), Distrust> = Err(Distrust::Claim("aud"));
    let typ = |typ: &str| id_token().head("typ", json!(typ)).sign();
    let several = |azp: Option<Value>| {
        id_token()
            .claim("aud", json!(["api", CLIENT]))
            .claim("azp", azp)
            .sign()
    };

    vec![
        ("no typ", id_token().head("typ", None).sign(), Ok(())),
        ("typ in small letters", typ("jwt"), Ok(())),
        ("typ of an access token", typ("at+jwt"), OTHER_KIND),
        ("typ of a logout token", typ("logout+jwt"), OTHER_KIND),
        (
            "crit",
            id_token().head("crit", json!(["exp"])).sign(),
            Err(Distrust::Critical),
        ),
        (
            "five parts, as if encrypted",
            format!("{}.a.b", id_token().sign()),
            Err(Distrust::Malformed),
        ),
        (
            "payload padded",
            compact("eyJhbGciOiJSUzI1NiJ9", "e30="),
            Err(Distrust::Malformed),
        ),
        ("no iss", with("iss", None), Err(Distrust::WrongIssuer)),
        (
            "iss with a slash",
            with("iss", json!(format!("{ISSUER}/"))),
            Err(Distrust::WrongIssuer),
        ),
        (
            "iss of another realm",
            with("iss", json!("https://login.example.com/realms/evil")),
            Err(Distrust::WrongIssuer),
        ),
        (
            "iss cut off",
            with("iss", json!("https://login.example.com")),
            Err(Distrust::WrongIssuer),
        ),
        ("aud a list of us", with("aud", json!([CLIENT])), Ok(())),
        ("no aud", with("aud", None), AUD),
        ("aud null", with("aud", json!(null)), AUD),
        ("aud a number", with("aud", json!(7)), AUD),
        ("aud an object", with("aud", json!({CLIENT: 1})), AUD),
        (
            "aud with a number in it",
            with("aud", json!([CLIENT, 7])),
            AUD,
        ),
        ("aud of another", with("aud", json!("api")), OTHER_AUDIENCE),
        (
            "aud with more after it",
            with("aud", json!("vvs2")),
            OTHER_AUDIENCE,
        ),
        ("aud in capitals", with("aud", json!("VVS")), OTHER_AUDIENCE),
        (
            "aud of several, not us",
            with("aud", json!(["api", "web"])),
            OTHER_AUDIENCE,
        ),
        ("aud of none", with("aud", json!([])), OTHER_AUDIENCE),
        ("aud of a list within", with("aud", json!([[CLIENT]])), AUD),
        (
            "several, issued to us",
            several(Some(json!(CLIENT))),
            Ok(()),
        ),
        ("several, issued to nobody", several(None), OTHER_PARTY),
        (
            "several, issued to another",
            several(Some(json!("api"))),
            OTHER_PARTY,
        ),
        ("no azp", with("azp", None), Ok(())),
        ("azp of another", with("azp", json!("api")), OTHER_PARTY),
        ("azp null", with("azp", json!(null)), OTHER_PARTY),
        ("azp empty", with("azp", json!("")), OTHER_PARTY),
        ("azp a list", with("azp", json!([CLIENT])), OTHER_PARTY),
    ]
}

pub(super) fn claims() -> Vec<Row> {
    const SUB: Result<(), Distrust> = Err(Distrust::Claim("sub"));
    const OTHER_NONCE: Result<(), Distrust> = Err(Distrust::WrongNonce);

    vec![
        ("no sub", with("sub", None), SUB),
        ("sub blank", with("sub", json!("  ")), SUB),
        ("sub a number", with("sub", json!(7)), SUB),
        ("sub null", with("sub", json!(null)), SUB),
        (
            "sub as long as may be",
            with("sub", json!("x".repeat(255))),
            Ok(()),
        ),
        ("sub too long", with("sub", json!("x".repeat(256))), SUB),
        ("no nonce", with("nonce", None), OTHER_NONCE),
        ("nonce of another", with("nonce", json!("m")), OTHER_NONCE),
        ("nonce empty", with("nonce", json!("")), OTHER_NONCE),
        (
            "nonce with more after it",
            with("nonce", json!("n ")),
            OTHER_NONCE,
        ),
        ("nonce null", with("nonce", json!(null)), OTHER_NONCE),
        ("nonce a list", with("nonce", json!(["n"])), OTHER_NONCE),
        ("no sid", with("sid", None), Ok(())),
        (
            "sid blank",
            with("sid", json!("")),
            Err(Distrust::Claim("sid")),
        ),
        (
            "sid a number",
            with("sid", json!(7)),
            Err(Distrust::Claim("sid")),
        ),
        ("no auth_time", with("auth_time", None), Ok(())),
        (
            "auth_time text",
            with("auth_time", json!("now")),
            Err(Distrust::Claim("auth_time")),
        ),
    ]
}

pub(super) fn times() -> Vec<Row> {
    const EXP: Result<(), Distrust> = Err(Distrust::Claim("exp"));
    const IAT: Result<(), Distrust> = Err(Distrust::Claim("iat"));

    vec![
        ("no exp", with("exp", None), EXP),
        ("exp text", with("exp", json!("9")), EXP),
        ("exp null", with("exp", json!(null)), EXP),
        ("exp 4 s ago", with("exp", json!(NOW - 4)), Ok(())),
        (
            "exp 5 s ago",
            with("exp", json!(NOW - 5)),
            Err(Distrust::Expired),
        ),
        ("exp the greatest", with("exp", json!(u64::MAX)), Ok(())),
        (
            "exp the least",
            with("exp", json!(i64::MIN)),
            Err(Distrust::Expired),
        ),
        ("no iat", with("iat", None), IAT),
        ("iat text", with("iat", json!("9")), IAT),
        ("iat in 5 s", with("iat", json!(NOW + 5)), Ok(())),
        (
            "iat in 6 s",
            with("iat", json!(NOW + 6)),
            Err(Distrust::NotYet),
        ),
        ("iat 10 min ago", with("iat", json!(NOW - 600)), Ok(())),
        (
            "iat a second longer ago",
            with("iat", json!(NOW - 601)),
            Err(Distrust::TooOld),
        ),
        (
            "iat the least",
            with("iat", json!(i64::MIN)),
            Err(Distrust::TooOld),
        ),
        ("nbf in 5 s", with("nbf", json!(NOW + 5)), Ok(())),
        (
            "nbf in 6 s",
            with("nbf", json!(NOW + 6)),
            Err(Distrust::NotYet),
        ),
        (
            "nbf null",
            with("nbf", json!(null)),
            Err(Distrust::Claim("nbf")),
        ),
        (
            "expired and another's",
            id_token()
                .claim("exp", json!(1))
                .claim("aud", json!("api"))
                .sign(),
            Err(Distrust::WrongAudience),
        ),
        (
            "expired and for another request",
            id_token()
                .claim("exp", json!(1))
                .claim("nonce", None)
                .sign(),
            Err(Distrust::WrongNonce),
        ),
    ]
}
