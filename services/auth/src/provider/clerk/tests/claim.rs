//! Tokens with changed payloads.

use super::*;
use crate::provider::testing::{By, NOW_EXACTLY};

fn with(name: &str, value: impl Into<Option<Value>>) -> String {
    good().claim(name, value).sign()
}

pub(super) fn ids() -> Vec<Row> {
    const SUB: Result<(), Distrust> = Err(Distrust::Claim("sub"));
    const SID: Result<(), Distrust> = Err(Distrust::Claim("sid"));

    vec![
        ("no sub", with("sub", None), SUB),
        ("sub empty", with("sub", json!("")), SUB),
        ("sub a space", with("sub", json!(" ")), SUB),
        (
            "sub a tab and a line end",
            with("sub", json!("\t\r\n")),
            SUB,
        ),
        (
            "sub a wide space",
            with("sub", json!("\u{3000}\u{a0}")),
            SUB,
        ),
        ("sub null", with("sub", json!(null)), SUB),
        ("sub a number", with("sub", json!(7)), SUB),
        ("sub true", with("sub", json!(true)), SUB),
        ("sub a list", with("sub", json!(["user_1"])), SUB),
        ("sub an object", with("sub", json!({"id": "user_1"})), SUB),
        (
            "sub of a machine",
            with("sub", json!("mch_1")),
            Err(Distrust::WrongKind),
        ),
        (
            "sub of a machine without a number",
            with("sub", json!("mch_")),
            Err(Distrust::WrongKind),
        ),
        (
            "sub that is like a machine's",
            with("sub", json!("user_mch_1")),
            Ok(()),
        ),
        ("no sid, as of a template", with("sid", None), SID),
        ("sid empty", with("sid", json!("")), SID),
        ("sid a space", with("sid", json!(" ")), SID),
        ("sid a line end", with("sid", json!("\n")), SID),
        ("sid null", with("sid", json!(null)), SID),
        ("sid a number", with("sid", json!(7)), SID),
        ("sid a list", with("sid", json!(["sess_1"])), SID),
        ("sid an object", with("sid", json!({})), SID),
    ]
}

pub(super) fn issuer() -> Vec<Row> {
    const WRONG: Result<(), Distrust> = Err(Distrust::WrongIssuer);
    let iss = |iss: &str| with("iss", json!(iss));

    vec![
        ("no iss", with("iss", None), WRONG),
        ("iss null", with("iss", json!(null)), WRONG),
        ("iss a number", with("iss", json!(7)), WRONG),
        ("iss a list", with("iss", json!([ISSUER])), WRONG),
        ("iss empty", iss(""), WRONG),
        ("iss of another", iss("https://clerk.example.org"), WRONG),
        (
            "iss of a development instance",
            iss("https://foo-bar-12.clerk.accounts.dev"),
            WRONG,
        ),
        ("iss with a slash", iss("https://clerk.example.com/"), WRONG),
        (
            "iss with a port",
            iss("https://clerk.example.com:443"),
            WRONG,
        ),
        ("iss without TLS", iss("http://clerk.example.com"), WRONG),
        ("iss without a scheme", iss("clerk.example.com"), WRONG),
        ("iss in capitals", iss("https://CLERK.example.com"), WRONG),
        (
            "iss with more after it",
            iss("https://clerk.example.com.evil.example"),
            WRONG,
        ),
        (
            "iss with more before it",
            iss("https://evil.example/https://clerk.example.com"),
            WRONG,
        ),
        ("iss with a space", iss("https://clerk.example.com "), WRONG),
    ]
}

pub(super) fn party() -> Vec<Row> {
    const WRONG: Result<(), Distrust> = Err(Distrust::WrongParty);
    let azp = |azp: &str| with("azp", json!(azp));

    vec![
        ("azp the second", azp("http://localhost:3000"), Ok(())),
        ("no azp", with("azp", None), WRONG),
        ("azp null", with("azp", json!(null)), WRONG),
        ("azp a number", with("azp", json!(7)), WRONG),
        (
            "azp a list",
            with("azp", json!(["https://example.com"])),
            WRONG,
        ),
        ("azp empty", azp(""), WRONG),
        ("azp null as browsers write it", azp("null"), WRONG),
        ("azp a star", azp("*"), WRONG),
        ("azp of another", azp("https://evil.example"), WRONG),
        ("azp of a subdomain", azp("https://app.example.com"), WRONG),
        (
            "azp with more after it",
            azp("https://example.com.evil.example"),
            WRONG,
        ),
        ("azp cut off", azp("https://example.co"), WRONG),
        ("azp with a slash", azp("https://example.com/"), WRONG),
        ("azp without TLS", azp("http://example.com"), WRONG),
        ("azp on another port", azp("http://localhost:3001"), WRONG),
        (
            "azp of the same host's number",
            azp("http://127.0.0.1:3000"),
            WRONG,
        ),
        ("azp in capitals", azp("HTTPS://EXAMPLE.COM"), WRONG),
        ("aud of somebody", with("aud", json!("else")), Ok(())),
        ("aud of several", with("aud", json!(["a", "b"])), Ok(())),
    ]
}

pub(super) fn no_party() -> Vec<Row> {
    const WRONG: Result<(), Distrust> = Err(Distrust::WrongParty);
    vec![
        ("nobody authorized, azp", good().sign(), WRONG),
        ("nobody authorized, no azp", with("azp", None), WRONG),
        (
            "nobody authorized, azp empty",
            with("azp", json!("")),
            WRONG,
        ),
    ]
}

pub(super) fn expiry() -> Vec<Row> {
    const BAD: Result<(), Distrust> = Err(Distrust::Claim("exp"));
    const OVER: Result<(), Distrust> = Err(Distrust::Expired);
    let exp = |exp: f64| with("exp", json!(NOW_EXACTLY + exp));

    vec![
        ("no exp", with("exp", None), BAD),
        ("exp null", with("exp", json!(null)), BAD),
        ("exp text", with("exp", json!("1700000060")), BAD),
        ("exp true", with("exp", json!(true)), BAD),
        ("exp a list", with("exp", json!([NOW + 60])), BAD),
        ("exp an object", with("exp", json!({})), BAD),
        ("exp now", with("exp", json!(NOW)), Ok(())),
        ("exp 4 s ago", with("exp", json!(NOW - 4)), Ok(())),
        ("exp 5 s ago", with("exp", json!(NOW - 5)), OVER),
        ("exp 6 s ago", with("exp", json!(NOW - 6)), OVER),
        ("exp a fraction less than 5 s ago", exp(-4.5), Ok(())),
        ("exp 5 s ago, as a fraction", exp(-5.0), OVER),
        ("exp a fraction more than 5 s ago", exp(-5.25), OVER),
        ("exp in 60 s, as a fraction", exp(60.5), Ok(())),
        ("exp 0", with("exp", json!(0)), OVER),
        ("exp minus nothing", with("exp", json!(-0.0)), OVER),
        ("exp before 1970", with("exp", json!(-1)), OVER),
        (
            "exp in milliseconds",
            with("exp", json!(NOW * 1000)),
            Ok(()),
        ),
        ("exp the greatest", with("exp", json!(i64::MAX)), Ok(())),
        (
            "exp greater than that",
            with("exp", json!(u64::MAX)),
            Ok(()),
        ),
        ("exp the least", with("exp", json!(i64::MIN)), OVER),
        ("exp huge", with("exp", json!(1e300)), Ok(())),
        ("exp huge below zero", with("exp", json!(-1e300)), OVER),
    ]
}

pub(super) fn beginning() -> Vec<Row> {
    const BAD: Result<(), Distrust> = Err(Distrust::Claim("nbf"));
    const EARLY: Result<(), Distrust> = Err(Distrust::NotYet);

    vec![
        ("no nbf", with("nbf", None), Ok(())),
        ("nbf now", with("nbf", json!(NOW)), Ok(())),
        ("nbf in 5 s", with("nbf", json!(NOW + 5)), Ok(())),
        ("nbf in 6 s", with("nbf", json!(NOW + 6)), EARLY),
        (
            "nbf a fraction more than in 5 s",
            with("nbf", json!(NOW_EXACTLY + 5.5)),
            EARLY,
        ),
        (
            "nbf a fraction less than in 5 s",
            with("nbf", json!(NOW_EXACTLY + 4.5)),
            Ok(()),
        ),
        ("nbf before 1970", with("nbf", json!(-7)), Ok(())),
        ("nbf the least", with("nbf", json!(i64::MIN)), Ok(())),
        ("nbf the greatest", with("nbf", json!(i64::MAX)), EARLY),
        ("nbf greater than that", with("nbf", json!(u64::MAX)), EARLY),
        ("nbf huge", with("nbf", json!(1e300)), EARLY),
        ("nbf null", with("nbf", json!(null)), BAD),
        ("nbf text", with("nbf", json!("1700000000")), BAD),
        ("nbf true", with("nbf", json!(true)), BAD),
        ("nbf a list", with("nbf", json!([])), BAD),
    ]
}

pub(super) fn issue() -> Vec<Row> {
    const BAD: Result<(), Distrust> = Err(Distrust::Claim("iat"));
    const EARLY: Result<(), Distrust> = Err(Distrust::NotYet);

    vec![
        ("no iat", with("iat", None), Ok(())),
        ("iat in 5 s", with("iat", json!(NOW + 5)), Ok(())),
        ("iat in 6 s", with("iat", json!(NOW + 6)), EARLY),
        (
            "iat a fraction more than in 5 s",
            with("iat", json!(NOW_EXACTLY + 5.5)),
            EARLY,
        ),
        ("iat long ago", with("iat", json!(1)), Ok(())),
        ("iat before 1970", with("iat", json!(-7)), Ok(())),
        ("iat the least", with("iat", json!(i64::MIN)), Ok(())),
        ("iat the greatest", with("iat", json!(i64::MAX)), EARLY),
        ("iat huge", with("iat", json!(1e300)), EARLY),
        ("iat null", with("iat", json!(null)), BAD),
        ("iat text", with("iat", json!("1700000000")), BAD),
        ("iat an object", with("iat", json!({})), BAD),
    ]
}

pub(super) fn status() -> Vec<Row> {
    const STAFF: Result<(), Distrust> = Err(Distrust::Impersonated);
    vec![
        ("no sts", with("sts", None), Ok(())),
        (
            "sts pending",
            with("sts", json!("pending")),
            Err(Distrust::Pending),
        ),
        (
            "sts pending before version 2",
            old().claim("sts", json!("pending")).sign(),
            Err(Distrust::Pending),
        ),
        ("sts null", with("sts", json!(null)), Ok(())),
        (
            "act",
            with(
                "act",
                json!({"iss": ISSUER, "sub": "user_staff", "sid": "sess_9"}),
            ),
            STAFF,
        ),
        (
            "act before version 2",
            old().claim("act", json!({"sub": "user_staff"})).sign(),
            STAFF,
        ),
        ("act of nobody", with("act", json!({})), STAFF),
        ("act null", with("act", json!(null)), STAFF),
        ("act false", with("act", json!(false)), STAFF),
        ("act text", with("act", json!("user_staff")), STAFF),
        ("version 3", with("v", json!(3)), Ok(())),
        ("a version that is text", with("v", json!("2")), Ok(())),
        ("no jti", with("jti", None), Ok(())),
        (
            "claims of the application",
            with("mine", json!({"a": [1, null, {"b": 2.5}]})),
            Ok(()),
        ),
    ]
}

pub(super) fn staff() -> Vec<Row> {
    const BAD: Result<(), Distrust> = Err(Distrust::Claim("act"));
    vec![
        ("staff allowed, nobody of them", good().sign(), Ok(())),
        (
            "staff allowed",
            with(
                "act",
                json!({"iss": ISSUER, "sub": "user_staff", "sid": "sess_9"}),
            ),
            Ok(()),
        ),
        ("staff allowed, of nobody", with("act", json!({})), BAD),
        (
            "staff allowed, blank",
            with("act", json!({"sub": " "})),
            BAD,
        ),
        (
            "staff allowed, a number",
            with("act", json!({"sub": 7})),
            BAD,
        ),
        ("staff allowed, null", with("act", json!(null)), BAD),
        ("staff allowed, text", with("act", json!("user_staff")), BAD),
        (
            "staff allowed, a list",
            with("act", json!([{"sub": "user_staff"}])),
            BAD,
        ),
    ]
}

/// Of two faults, the error is the one that a fresh token would not fix.
pub(super) fn order() -> Vec<Row> {
    let expired = || good().claim("exp", json!(NOW - 60));
    vec![
        (
            "expired and forged",
            expired().by(By::Other),
            Err(Distrust::BadSignature),
        ),
        (
            "expired and unknown",
            expired().head("kid", json!("x")).sign(),
            Err(Distrust::UnknownKey),
        ),
        (
            "expired and another's",
            expired().claim("iss", json!("x")).sign(),
            Err(Distrust::WrongIssuer),
        ),
        (
            "expired and of another party",
            expired().claim("azp", json!("x")).sign(),
            Err(Distrust::WrongParty),
        ),
        (
            "expired and without a session",
            expired().claim("sid", None).sign(),
            Err(Distrust::Claim("sid")),
        ),
        (
            "expired and pending",
            expired().claim("sts", json!("pending")).sign(),
            Err(Distrust::Pending),
        ),
        (
            "expired and staff",
            expired().claim("act", json!({})).sign(),
            Err(Distrust::Impersonated),
        ),
        (
            "expired and never issued",
            expired().claim("iat", json!("x")).sign(),
            Err(Distrust::Claim("iat")),
        ),
        (
            "unknown and a template's",
            good()
                .head("kid", json!("x"))
                .head("cat", json!(TEMPLATE))
                .sign(),
            Err(Distrust::WrongKind),
        ),
        (
            "unknown and of no form",
            texts(r#"{"alg":"RS256","kid":"x"}"#, "null"),
            Err(Distrust::Malformed),
        ),
    ]
}
