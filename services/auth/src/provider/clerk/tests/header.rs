//! Tokens with changed headers and signatures.

use super::*;
use crate::key::base64url;
use crate::provider::testing::{By, sign};

const BAD: Result<(), Distrust> = Err(Distrust::Malformed);
const OTHER_KIND: Result<(), Distrust> = Err(Distrust::WrongKind);
const OTHER_ALGORITHM: Result<(), Distrust> = Err(Distrust::WrongAlgorithm);
const UNKNOWN: Result<(), Distrust> = Err(Distrust::UnknownKey);
const FORGED: Result<(), Distrust> = Err(Distrust::BadSignature);
const CRITICAL: Result<(), Distrust> = Err(Distrust::Critical);

fn with(name: &str, value: impl Into<Option<Value>>) -> String {
    good().head(name, value).sign()
}

pub(super) fn kind() -> Vec<Row> {
    vec![
        ("no typ", with("typ", None), Ok(())),
        (
            "typ in small letters",
            with("typ", json!("jwt")),
            OTHER_KIND,
        ),
        (
            "typ in mixed letters",
            with("typ", json!("Jwt")),
            OTHER_KIND,
        ),
        (
            "typ of an OAuth token",
            with("typ", json!("at+jwt")),
            OTHER_KIND,
        ),
        (
            "typ of a media type",
            with("typ", json!("application/jwt")),
            OTHER_KIND,
        ),
        ("typ with a space", with("typ", json!("JWT ")), OTHER_KIND),
        ("typ JOSE", with("typ", json!("JOSE")), OTHER_KIND),
        ("typ blank", with("typ", json!("")), OTHER_KIND),
        ("typ null", with("typ", json!(null)), BAD),
        ("typ a number", with("typ", json!(7)), BAD),
        ("typ a list", with("typ", json!(["JWT"])), BAD),
        ("no cat", with("cat", None), Ok(())),
        (
            "cat that says nothing",
            with("cat", json!(NO_INFORMATION)),
            Ok(()),
        ),
        (
            "cat of a template",
            with("cat", json!(TEMPLATE)),
            OTHER_KIND,
        ),
        (
            "cat of a machine's token",
            with("cat", json!(MACHINE_TOKEN)),
            OTHER_KIND,
        ),
        (
            "cat unknown",
            with("cat", json!("cl_B7d4PD444AAA")),
            OTHER_KIND,
        ),
        (
            "cat in small letters",
            with("cat", json!("cl_b7d4pd111aaa")),
            OTHER_KIND,
        ),
        (
            "cat with more after it",
            with("cat", json!("cl_B7d4PD111AAAA")),
            OTHER_KIND,
        ),
        ("cat blank", with("cat", json!("")), OTHER_KIND),
        ("cat null", with("cat", json!(null)), BAD),
        ("cat a number", with("cat", json!(111)), BAD),
        ("cat a list", with("cat", json!([SESSION])), BAD),
        ("oiat text", with("oiat", json!("x")), Ok(())),
        (
            "a member nobody knows",
            with("new", json!({"a": [1]})),
            Ok(()),
        ),
        ("crit of nothing", with("crit", json!([])), CRITICAL),
        ("crit of a claim", with("crit", json!(["exp"])), CRITICAL),
        (
            "crit of what is there",
            good()
                .head("b64", json!(true))
                .head("crit", json!(["b64"]))
                .sign(),
            CRITICAL,
        ),
        ("crit null", with("crit", json!(null)), CRITICAL),
        ("crit text", with("crit", json!("exp")), CRITICAL),
    ]
}

/// Signed as the header says wherever possible, so that the signature is not what fails.
pub(super) fn algorithm() -> Vec<Row> {
    let by = |name: &str, by| good().head("alg", json!(name)).by(by);
    let unsigned = |name: &str| format!("{}.", good().head("alg", json!(name)).message());

    vec![
        ("RS384", by("RS384", By::Rs384), OTHER_ALGORITHM),
        ("RS512", by("RS512", By::Rs512), OTHER_ALGORITHM),
        ("PS256", by("PS256", By::Ps256), OTHER_ALGORITHM),
        (
            "ES256",
            good()
                .head("alg", json!("ES256"))
                .head("kid", json!("ins_ec"))
                .by(By::Es256),
            OTHER_ALGORITHM,
        ),
        ("EdDSA", by("EdDSA", By::EdDsa), OTHER_ALGORITHM),
        (
            "HS256 with the public key",
            by("HS256", By::Hmac),
            OTHER_ALGORITHM,
        ),
        ("HS512", by("HS512", By::Hmac), OTHER_ALGORITHM),
        ("none", unsigned("none"), OTHER_ALGORITHM),
        ("None", unsigned("None"), OTHER_ALGORITHM),
        ("none, and yet signed", by("none", By::Rsa), OTHER_ALGORITHM),
        ("no alg", with("alg", None), BAD),
        (
            "alg in small letters",
            with("alg", json!("rs256")),
            OTHER_ALGORITHM,
        ),
        (
            "alg with a space",
            with("alg", json!("RS256 ")),
            OTHER_ALGORITHM,
        ),
        ("alg blank", with("alg", json!("")), OTHER_ALGORITHM),
        ("alg null", with("alg", json!(null)), BAD),
        ("alg a number", with("alg", json!(256)), BAD),
        ("alg a list", with("alg", json!(["RS256"])), BAD),
    ]
}

pub(super) fn key() -> Vec<Row> {
    let second = || good().head("kid", json!("ins_2"));
    let embedded = |kid: &str| {
        good()
            .head("kid", json!(kid))
            .head("jwk", rsa_jwk(&OTHER, kid))
            .by(By::Other)
    };
    let linked = |name: &str| with(name, json!("https://evil.example/jwks.json"));

    vec![
        ("the second key", second().by(By::Other), Ok(())),
        (
            "the second key, signed with the first",
            second().sign(),
            FORGED,
        ),
        ("no kid", with("kid", None), BAD),
        ("kid null", with("kid", json!(null)), BAD),
        ("kid a number", with("kid", json!(1)), BAD),
        ("kid a list", with("kid", json!(["ins_1"])), BAD),
        ("kid blank", with("kid", json!("")), UNKNOWN),
        ("kid unknown", with("kid", json!("ins_3")), UNKNOWN),
        ("kid in capitals", with("kid", json!("INS_1")), UNKNOWN),
        ("kid with a space", with("kid", json!("ins_1 ")), UNKNOWN),
        ("kid cut off", with("kid", json!("ins_")), UNKNOWN),
        ("kid __proto__", with("kid", json!("__proto__")), UNKNOWN),
        ("kid a path", with("kid", json!("../../dev/null")), UNKNOWN),
        (
            "kid of a key of another kind",
            with("kid", json!("ins_ec")),
            UNKNOWN,
        ),
        (
            "kid of a key for encryption",
            with("kid", json!("ins_enc")),
            UNKNOWN,
        ),
        ("a key that comes along, known", embedded("ins_1"), FORGED),
        (
            "a key that comes along, unknown",
            embedded("ins_9"),
            UNKNOWN,
        ),
        ("jku is not followed", linked("jku"), Ok(())),
        ("x5u is not followed", linked("x5u"), Ok(())),
    ]
}

pub(super) fn any_key() -> Vec<Row> {
    vec![
        ("PEM, any kid", with("kid", json!("ins_9")), Ok(())),
        ("PEM, no kid", with("kid", None), Ok(())),
        ("PEM, kid blank", with("kid", json!("")), Ok(())),
        ("PEM, kid a number", with("kid", json!(1)), BAD),
        ("PEM, kid null", with("kid", json!(null)), BAD),
        ("PEM, another's signature", good().by(By::Other), FORGED),
        (
            "PEM, HS256 with it",
            good().head("alg", json!("HS256")).by(By::Hmac),
            OTHER_ALGORITHM,
        ),
        (
            "PEM, PS256",
            good().head("alg", json!("PS256")).by(By::Ps256),
            OTHER_ALGORITHM,
        ),
    ]
}

pub(super) fn named_key() -> Vec<Row> {
    vec![
        ("named PEM, its kid", good().sign(), Ok(())),
        ("named PEM, no kid", with("kid", None), Ok(())),
        (
            "named PEM, another kid",
            with("kid", json!("ins_2")),
            UNKNOWN,
        ),
        ("named PEM, kid blank", with("kid", json!("")), UNKNOWN),
        (
            "named PEM, kid in capitals",
            with("kid", json!("INS_1")),
            UNKNOWN,
        ),
        (
            "named PEM, another's signature",
            good().by(By::Other),
            FORGED,
        ),
    ]
}

pub(super) fn signature() -> Vec<Row> {
    let good_token = good().sign();
    let (message, signature) = good_token.rsplit_once('.').unwrap();
    let other = good().claim("sub", json!("user_2"));
    let other_header = good().head("new", json!(1));
    let bytes = |bytes: &[u8]| format!("{message}.{}", base64url(bytes));
    let raw = crate::key::from_base64url(signature).unwrap();
    let flipped = [&raw[..255], &[raw[255] ^ 1]].concat();

    vec![
        ("another's signature", good().by(By::Other), FORGED),
        ("no signature", format!("{message}."), FORGED),
        (
            "a signature of other claims",
            format!("{message}.{}", sign(By::Rsa, &other.message())),
            FORGED,
        ),
        (
            "other claims under a signature",
            format!("{}.{signature}", other.message()),
            FORGED,
        ),
        (
            "another header under a signature",
            format!("{}.{signature}", other_header.message()),
            FORGED,
        ),
        (
            "a signature of the message in other letters",
            format!("{message}.{}", sign(By::Rsa, &message.to_lowercase())),
            FORGED,
        ),
        ("a bit of the signature", bytes(&flipped), FORGED),
        ("the signature cut off", bytes(&raw[..255]), FORGED),
        (
            "the signature and a byte",
            bytes(&[&raw[..], &[0]].concat()),
            FORGED,
        ),
        (
            "a zero and the signature",
            bytes(&[&[0], &raw[..]].concat()),
            FORGED,
        ),
        ("zeros for a signature", bytes(&[0; 256]), FORGED),
        ("ones for a signature", bytes(&[255; 256]), FORGED),
        ("signed with PSS", good().by(By::Ps256), FORGED),
        ("signed over SHA-384", good().by(By::Rs384), FORGED),
        ("signed over SHA-512", good().by(By::Rs512), FORGED),
        ("signed on a curve", good().by(By::Es256), FORGED),
    ]
}
