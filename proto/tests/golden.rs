//! Keeps the editor's frames equal to `proto/golden`, from which other people's clients are
//! written: one file per frame, and one more per shape, `<type with - for :>[.<shape>].json`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer as _};
use serde_json::{Value, json};
use vvs_proto::frame::{
    AuthErrorCode, Binding, EditorFrame, ErrorCode, FailureCode, Method, ParseError, RefusalReason,
    RelayFrame,
};

/// The error of a deserializer that keeps the names which an enum would have taken.
#[derive(Debug)]
struct Expected(&'static [&'static str]);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Expected {}

impl de::Error for Expected {
    fn custom<T: fmt::Display>(message: T) -> Self {
        panic!("{message}")
    }

    fn unknown_variant(_found: &str, expected: &'static [&'static str]) -> Self {
        Self(expected)
    }
}

/// Returns every `type` of a frame enum, asked of serde, so that a new variant cannot be forgotten
/// here.
fn types<T: DeserializeOwned + fmt::Debug>() -> &'static [&'static str] {
    T::deserialize(MapDeserializer::<_, Expected>::new(
        [("type", "?")].into_iter(),
    ))
    .unwrap_err()
    .0
}

/// Every name of an enum of codes.
fn names<T: DeserializeOwned + fmt::Debug>() -> &'static [&'static str] {
    let nothing: StrDeserializer<'_, Expected> = "?".into_deserializer();
    T::deserialize(nothing).unwrap_err().0
}

/// The golden files of one direction, by file name.
fn golden(direction: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(direction);
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            fs::read_to_string(path).unwrap(),
        )
    });
    files.collect()
}

/// Each file there and back, with the type that its name says, and a file for each type.
fn check<T: Serialize + DeserializeOwned + fmt::Debug>(direction: &str) {
    let files = golden(direction);
    for (name, text) in &files {
        let golden: Value = serde_json::from_str(text).unwrap();
        let tag = golden["type"].as_str().unwrap().replace(':', "-");
        assert_eq!(
            Some(tag.as_str()),
            name.split('.').next(),
            "{direction}/{name}"
        );

        let frame: T = serde_json::from_str(text)
            .unwrap_or_else(|error| panic!("{direction}/{name}: {error}"));
        assert_eq!(
            serde_json::to_value(&frame).unwrap(),
            golden,
            "{direction}/{name}"
        );
    }

    for tag in types::<T>() {
        let name = format!("{}.json", tag.replace(':', "-"));
        assert!(
            files.contains_key(&name),
            "`{tag}` has no golden/{direction}/{name}"
        );
    }
}

/// The frame with one more member.
fn with_extra(text: &str) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    value["addedLater"] = json!({ "by": ["a", "newer", "version"] });
    value.to_string()
}

#[test]
fn frames_of_the_relay_are_their_golden_files() {
    check::<RelayFrame>("relay");
}

#[test]
fn frames_of_the_editor_are_their_golden_files() {
    check::<EditorFrame>("editor");
}

#[test]
fn what_goes_onto_the_wire_is_read_back() {
    for text in golden("relay").values() {
        let frame: RelayFrame = serde_json::from_str(text).unwrap();
        assert_eq!(
            serde_json::from_str::<RelayFrame>(&frame.to_json()).unwrap(),
            frame
        );
    }
    for text in golden("editor").values() {
        let frame = EditorFrame::parse(text).unwrap();
        assert_eq!(EditorFrame::parse(&frame.to_json()), Ok(frame));
    }
}

#[test]
fn unknown_members_are_ignored() {
    for (name, text) in golden("relay") {
        let plain: RelayFrame = serde_json::from_str(&text).unwrap();
        assert_eq!(
            serde_json::from_str::<RelayFrame>(&with_extra(&text)).unwrap(),
            plain,
            "relay/{name}"
        );
    }

    for (name, text) in golden("editor") {
        assert_eq!(
            EditorFrame::parse(&with_extra(&text)),
            EditorFrame::parse(&text),
            "editor/{name}"
        );
    }
}

#[test]
fn codes_are_those_of_the_protocol() {
    assert_eq!(names::<Binding>(), ["confirm", "typed", "link"]);
    assert_eq!(names::<Method>(), ["link", "typed"]);
    assert_eq!(
        names::<RefusalReason>(),
        ["store_failed", "account_rejected"]
    );
    assert_eq!(
        names::<ErrorCode>(),
        ["unknown_type", "malformed", "not_now"]
    );

    let login =
        "bad_code too_late bad_return_uri bad_device_key bad_proof bad_ticket not_ready login_over";
    assert_eq!(names::<AuthErrorCode>().join(" "), login);

    let session = "revoked expired unknown_session key_mismatch unavailable bad_token bad_proof \
        stale_feed token_expired";
    assert_eq!(names::<FailureCode>().join(" "), session);
}

#[test]
fn a_later_binding_is_stronger() {
    assert!(Binding::Confirm < Binding::Typed && Binding::Typed < Binding::Link);
}

#[test]
fn a_text_without_an_object_and_a_string_type_is_not_a_frame() {
    let deep = format!(r#"{{"type":"ping","deep":{}"#, "[".repeat(100_000));
    let texts = [
        "",
        "ping",
        "null",
        "1",
        "\"ping\"",
        "[]",
        r#"["ping"]"#,
        r#"[{"type":"ping"}]"#,
        "{}",
        "{",
        r#"{"type":1}"#,
        r#"{"type":null}"#,
        r#"{"type":["ping"]}"#,
        r#"{"Type":"ping"}"#,
        r#"{"type":"ping"} {}"#,
        r#"{"type":"ping","type":"pong"}"#,
        "\u{feff}{\"type\":\"ping\"}",
        &deep,
    ];

    for text in texts {
        assert_eq!(
            EditorFrame::parse(text),
            Err(ParseError::NotAFrame),
            "{text:.80}"
        );
    }
}

#[test]
fn a_type_that_is_not_an_editors_is_unknown() {
    for tag in ["", "PING", "auth", "auth:success", "connection", "hello:ok"] {
        assert_eq!(
            EditorFrame::parse(&json!({ "type": tag }).to_string()),
            Err(ParseError::UnknownType),
            "{tag}"
        );
    }
}

#[test]
fn a_known_type_with_wrong_members_is_malformed() {
    for tag in types::<EditorFrame>() {
        let bare = json!({ "type": tag }).to_string();
        let takes_none = ["auth:cancel", "session:logout", "ping", "pong"].contains(tag);
        let expected = if takes_none {
            None
        } else {
            Some(ParseError::Malformed)
        };
        assert_eq!(EditorFrame::parse(&bare).err(), expected, "{tag}");
    }

    let wrong = [
        json!({ "type": "auth:complete", "code": 12_345_678, "method": "typed" }),
        json!({ "type": "auth:complete", "code": "fake-code", "method": "guessed" }),
        json!({ "type": "auth:ack", "messageId": "1", "ok": "yes" }),
        json!({ "type": "auth:ack", "messageId": "1", "ok": false, "reason": "bored" }),
        json!({ "type": "auth:ack", "message_id": "1", "ok": true }),
        json!({ "type": "hello", "app": "VVS", "device": {}, "deviceKey": {}, "proof": "fake" }),
    ];

    for frame in wrong {
        assert_eq!(
            EditorFrame::parse(&frame.to_string()),
            Err(ParseError::Malformed),
            "{frame}"
        );
    }
}

#[test]
fn white_space_around_a_frame_does_not_matter() {
    assert_eq!(
        EditorFrame::parse(" \r\n\t{ \"type\" : \"ping\" }\n"),
        Ok(EditorFrame::Ping)
    );
}

#[test]
fn debug_output_of_a_frame_shows_no_secret() {
    for text in golden("relay").values() {
        let frame: RelayFrame = serde_json::from_str(text).unwrap();
        assert!(!format!("{frame:?}").contains("not-a-secret"), "{frame:?}");
    }

    for text in golden("editor").values() {
        let frame = EditorFrame::parse(text).unwrap();
        let shown = format!("{frame:?}");
        assert!(
            !shown.contains("not-a-secret") && !shown.contains("fake-code"),
            "{shown}"
        );
    }
}
