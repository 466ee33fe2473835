//! The content that can be read from a token unverified, and the refusals that a fresh token fixes.

use serde_json::json;

use super::testing::{Draft, texts};
use super::*;

fn named(kid: &str) -> String {
    Draft::new(json!({"alg": "RS256", "kid": kid}), json!({})).sign()
}

#[test]
fn the_id_of_a_key_can_be_read_by_whoever_trusts_nobody() {
    for kid in ["ins_1", "x", "+/=~!", &"x".repeat(128)] {
        assert_eq!(key_id(&named(kid)).as_deref(), Some(kid));
    }
    let token = named("ins_1");
    let (message, _signature) = token.rsplit_once('.').unwrap();
    assert_eq!(key_id(&format!("{message}.AAAA")).as_deref(), Some("ins_1"));
    assert_eq!(
        key_id(&texts(r#"{"kid":"a","kid":"b"}"#, "{}")).as_deref(),
        Some("b")
    );
}

#[test]
fn an_id_that_no_key_would_have_is_not_asked_for() {
    let kids = [
        "",
        " ",
        "ins 1",
        "ins_1\n",
        "ins\0",
        "\u{7f}",
        "inß",
        "\u{202e}x",
        &"x".repeat(129),
    ];
    for kid in kids {
        assert_eq!(key_id(&named(kid)), None, "{kid:?}");
    }

    for header in [
        "{}",
        r#"{"kid":null}"#,
        r#"{"kid":7}"#,
        r#"{"kid":["x"]}"#,
        r#"["kid"]"#,
        "null",
    ] {
        assert_eq!(key_id(&texts(header, "{}")), None, "{header}");
    }

    let long = Draft::new(json!({"kid": "ins_1"}), json!({"x": "x".repeat(9000)})).sign();

    for token in ["", "..", "a.b.c", &long, &texts(r#"{"kid":"x"}"#, "null")] {
        assert_eq!(key_id(token), None, "{token}");
    }
}

#[test]
fn only_a_token_with_the_wrong_time_is_stale() {
    let stale = [Distrust::Expired, Distrust::NotYet, Distrust::TooOld];
    let other = [
        Distrust::Malformed,
        Distrust::WrongAlgorithm,
        Distrust::Critical,
        Distrust::WrongKind,
        Distrust::UnknownKey,
        Distrust::BadSignature,
        Distrust::WrongIssuer,
        Distrust::WrongAudience,
        Distrust::WrongParty,
        Distrust::WrongNonce,
        Distrust::Claim("exp"),
        Distrust::Impersonated,
        Distrust::Pending,
    ];
    assert!(stale.into_iter().all(Distrust::is_stale));
    assert!(!other.into_iter().any(Distrust::is_stale));
}
