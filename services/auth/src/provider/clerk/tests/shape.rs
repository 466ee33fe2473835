//! Tokens with a changed structure.

use serde_json::Value;

use super::*;
use crate::key::base64url;

const BAD: Result<(), Distrust> = Err(Distrust::Malformed);

fn header() -> String {
    Value::Object(good().header).to_string()
}

fn payload() -> String {
    Value::Object(good().payload).to_string()
}

/// base64url of a text with a bit set that belongs to no byte.
fn loose(text: &str) -> String {
    let text = if text.len().is_multiple_of(3) {
        format!("{text} ")
    } else {
        text.to_owned()
    };
    bump(&base64url(text.as_bytes()))
}

/// The last character replaced with the next of the alphabet, which differs in the last bit.
fn bump(part: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = part.split_at(part.len() - 1);
    let at = alphabet
        .iter()
        .position(|letter| *letter == last.as_bytes()[0])
        .unwrap();
    format!("{rest}{}", char::from(alphabet[at + 1]))
}

/// A valid token of this many bytes.
fn of_length(length: usize) -> String {
    let drafts = (0..3).flat_map(|header| (0..length).map(move |payload| (header, payload)));
    // A part's length in base64url is never one more than a multiple of four: the header makes up
    // for that.
    let signature = ".".len() + 256_usize.div_ceil(3) * 4 - 2;
    let estimate = (length - signature) * 3 / 4 - header().len() - payload().len();

    drafts
        .filter(|(_, payload)| payload.abs_diff(estimate) < 50)
        .map(|(header, payload)| {
            good()
                .head("x", json!("x".repeat(header)))
                .claim("x", json!("x".repeat(payload)))
        })
        .find(|draft| draft.message().len() + signature == length)
        .unwrap()
        .sign()
}

pub(super) fn parts() -> Vec<Row> {
    let (good, other) = (good().sign(), old().sign());
    let [header64, payload64] = [header(), payload()].map(|text| base64url(text.as_bytes()));
    let (message, signature) = good.rsplit_once('.').unwrap();

    vec![
        ("as today", good.clone(), Ok(())),
        ("as before version 2", other.clone(), Ok(())),
        ("no more than must be there", least().sign(), Ok(())),
        ("nothing", String::new(), BAD),
        ("one part", "abc".to_owned(), BAD),
        ("two parts", message.to_owned(), BAD),
        ("four parts", format!("{good}.{signature}"), BAD),
        (
            "five parts, as if encrypted",
            format!("{header64}.a.b.c.d"),
            BAD,
        ),
        ("dots", "..".to_owned(), BAD),
        ("three dots", "...".to_owned(), BAD),
        ("a dot at the end", format!("{good}."), BAD),
        ("a dot at the beginning", format!(".{good}"), BAD),
        ("no header", format!(".{payload64}.{signature}"), BAD),
        ("no payload", format!("{header64}..{signature}"), BAD),
        ("a space before", format!(" {good}"), BAD),
        ("a line end after", format!("{good}\n"), BAD),
        ("a scheme before", format!("Bearer {good}"), BAD),
        ("two tokens", format!("{good},{other}"), BAD),
        ("NUL within", good.replacen('.', "\0.", 1), BAD),
        ("letters beyond ASCII", good.replacen('e', "é", 1), BAD),
        (
            "header padded",
            compact(
                &format!("{}=", base64url(b"{\"alg\":\"RS256\",\"kid\":\"ins_1\"}..")),
                &payload64,
            ),
            BAD,
        ),
        (
            "payload padded",
            compact(&header64, &format!("{payload64}=")),
            BAD,
        ),
        (
            "payload padded twice",
            compact(&header64, &format!("{payload64}==")),
            BAD,
        ),
        ("signature padded", format!("{good}=="), BAD),
        (
            "left-over bits in the header",
            compact(&loose(&header()), &payload64),
            BAD,
        ),
        (
            "left-over bits in the payload",
            compact(&header64, &loose(&payload())),
            BAD,
        ),
        (
            "left-over bits in the signature",
            format!("{message}.{}", bump(signature)),
            BAD,
        ),
        (
            "the alphabet of plain base64",
            compact(&header64, &format!("{payload64}+/+/")),
            BAD,
        ),
        (
            "a part of impossible length",
            compact(&header64, &format!("{}A", base64url(b"{}."))),
            BAD,
        ),
        ("as long as may be", of_length(8192), Ok(())),
        ("a byte too long", of_length(8193), BAD),
    ]
}

pub(super) fn json() -> Vec<Row> {
    let (header, payload) = (header(), payload());
    let deep = format!(
        "{{\"x\":{}{},{}",
        "[".repeat(200),
        "]".repeat(200),
        &payload[1..]
    );
    let with = |text: &str| texts(&header, payload.replacen('{', &format!("{{{text},"), 1));

    vec![
        (
            "spaces in the JSON",
            texts(format!(" {header}\n"), format!("\t{payload} ")),
            Ok(()),
        ),
        (
            "escapes in the JSON",
            texts(&header, payload.replace("\"sub\"", "\"s\\u0075b\"")),
            Ok(()),
        ),
        (
            "a member named __proto__",
            with(r#""__proto__":{"sub":"user_2"}"#),
            Ok(()),
        ),
        ("header no JSON", texts("alg", &payload), BAD),
        ("header null", texts("null", &payload), BAD),
        ("header a list", texts(format!("[{header}]"), &payload), BAD),
        ("header text", texts("\"RS256\"", &payload), BAD),
        ("header a number", texts("7", &payload), BAD),
        (
            "header cut off",
            texts(&header[..header.len() - 1], &payload),
            BAD,
        ),
        ("payload no JSON", texts(&header, "sub"), BAD),
        ("payload null", texts(&header, "null"), BAD),
        (
            "payload a list",
            texts(&header, format!("[{payload}]")),
            BAD,
        ),
        ("payload text", texts(&header, "\"user_1\""), BAD),
        ("payload a number", texts(&header, "7"), BAD),
        ("payload true", texts(&header, "true"), BAD),
        (
            "payload of no members",
            texts(&header, "{}"),
            Err(Distrust::WrongIssuer),
        ),
        (
            "more after the payload",
            texts(&header, format!("{payload}x")),
            BAD,
        ),
        (
            "two payloads",
            texts(&header, format!("{payload}{payload}")),
            BAD,
        ),
        (
            "a comma too many",
            texts(&header, payload.replace('}', ",}")),
            BAD,
        ),
        (
            "a byte order mark",
            texts(&header, format!("\u{feff}{payload}")),
            BAD,
        ),
        ("half a surrogate pair", with(r#""x":"\ud800""#), BAD),
        (
            "not UTF-8",
            texts(
                &header,
                [b"{\"x\":\"\xff\",", &payload.as_bytes()[1..]].concat(),
            ),
            BAD,
        ),
        ("a control character", with("\"x\":\"\x01\""), BAD),
        ("nested without end", texts(&header, deep), BAD),
        ("a number beyond all", with("\"x\":1e400"), BAD),
        (
            "a time beyond all",
            texts(
                &header,
                payload.replacen("\"exp\":17", "\"exp\":1e40017", 1),
            ),
            BAD,
        ),
        ("NaN", with("\"x\":NaN"), BAD),
    ]
}

/// The last of two members with one name counts.
pub(super) fn twice() -> Vec<Row> {
    let (header, payload) = (header(), payload());
    let first = |text: &str| texts(&header, payload.replacen('{', &format!("{{{text},"), 1));
    let last = |text: &str| {
        texts(
            &header,
            format!("{},{text}}}", &payload[..payload.len() - 1]),
        )
    };
    let first_head = |text: &str| texts(header.replacen('{', &format!("{{{text},"), 1), &payload);
    let last_head = |text: &str| {
        texts(
            format!("{},{text}}}", &header[..header.len() - 1]),
            &payload,
        )
    };

    vec![
        (
            "alg, none at last",
            last_head(r#""alg":"none""#),
            Err(Distrust::WrongAlgorithm),
        ),
        ("alg, none at first", first_head(r#""alg":"none""#), Ok(())),
        (
            "kid, unknown at last",
            last_head(r#""kid":"x""#),
            Err(Distrust::UnknownKey),
        ),
        (
            "kid, another at last",
            last_head(r#""kid":"ins_2""#),
            Err(Distrust::BadSignature),
        ),
        (
            "typ, another at last",
            last_head(r#""typ":"at+jwt""#),
            Err(Distrust::WrongKind),
        ),
        (
            "cat, another at last",
            last_head(&format!(r#""cat":"{TEMPLATE}""#)),
            Err(Distrust::WrongKind),
        ),
        (
            "iss, another at last",
            last(r#""iss":"https://evil.example""#),
            Err(Distrust::WrongIssuer),
        ),
        (
            "iss, another at first",
            first(r#""iss":"https://evil.example""#),
            Ok(()),
        ),
        (
            "azp, another at last",
            last(r#""azp":"https://evil.example""#),
            Err(Distrust::WrongParty),
        ),
        (
            "sub, blank at last",
            last(r#""sub":"""#),
            Err(Distrust::Claim("sub")),
        ),
        ("sub, blank at first", first(r#""sub":"""#), Ok(())),
        (
            "exp, over at last",
            last(r#""exp":1"#),
            Err(Distrust::Expired),
        ),
        ("exp, over at first", first(r#""exp":1"#), Ok(())),
        (
            "sts, pending at last",
            last(r#""sts":"pending""#),
            Err(Distrust::Pending),
        ),
        (
            "sts, spelled with an escape",
            last(r#""\u0073ts":"pending""#),
            Err(Distrust::Pending),
        ),
    ]
}

#[test]
fn the_last_of_two_subjects_is_the_one_that_is_told() {
    let token = texts(header(), payload().replacen('{', r#"{"sub":"user_2","#, 1));
    assert_eq!(judge(&token, With::Set, NOW).unwrap().subject, "user_1");
}
