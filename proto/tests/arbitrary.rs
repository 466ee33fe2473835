//! Frames there and back: everything that a frame can hold comes back equal, and every text from a
//! stranger is answered and never causes a panic.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde_json::Value;
use vvs_proto::frame::{
    App, AuthErrorCode, Binding, Device, EditorFrame, ErrorCode, FailureCode, Heartbeat, Method,
    ParseError, RefusalReason, RelayFrame, Secret, Session, User, UserId,
};

/// Any characters, including control, bidi, NUL and those outside the basic plane.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn secret() -> impl Strategy<Value = Secret> {
    text().prop_map(Secret::new)
}

/// Any JSON except fractions: a JWK has none, and they need not come back exactly.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn binding() -> impl Strategy<Value = Binding> {
    select(vec![Binding::Confirm, Binding::Typed, Binding::Link])
}

fn user() -> impl Strategy<Value = User> {
    (text(), of(text()), of(text()), of(text())).prop_map(|(id, email, name, avatar_url)| User {
        id,
        email,
        name,
        avatar_url,
    })
}

fn session() -> impl Strategy<Value = Session> {
    (text(), text(), any::<u64>()).prop_map(|(id, expires_at, expires_in)| Session {
        id,
        expires_at,
        expires_in,
    })
}

fn editor_frame() -> impl Strategy<Value = EditorFrame> {
    let refusal = select(vec![
        RefusalReason::StoreFailed,
        RefusalReason::AccountRejected,
    ]);
    prop_oneof![
        hello(),
        (secret(), select(vec![Method::Link, Method::Typed]))
            .prop_map(|(code, method)| EditorFrame::AuthComplete { code, method }),
        (text(), any::<bool>(), of(refusal)).prop_map(|(message_id, ok, reason)| {
            EditorFrame::AuthAck {
                message_id,
                ok,
                reason,
            }
        }),
        Just(EditorFrame::AuthCancel),
        (secret(), secret()).prop_map(|(ticket, proof)| EditorFrame::Resume { ticket, proof }),
        (secret(), of(secret()))
            .prop_map(|(token, proof)| EditorFrame::Authenticate { token, proof }),
        secret().prop_map(|proof| EditorFrame::TokenRefresh { proof }),
        of(secret()).prop_map(|proof| EditorFrame::SessionLogout { proof }),
        Just(EditorFrame::Ping),
        Just(EditorFrame::Pong),
    ]
}

fn hello() -> impl Strategy<Value = EditorFrame> {
    let app = (text(), text()).prop_map(|(name, version)| App { name, version });
    let device = (text(), text()).prop_map(|(name, os)| Device { name, os });

    (app, device, json(), of(text()), of(text()), secret()).prop_map(
        |(app, device, device_key, return_uri, locale, proof)| EditorFrame::Hello {
            app,
            device,
            device_key,
            return_uri,
            locale,
            proof,
        },
    )
}

fn relay_frame() -> impl Strategy<Value = RelayFrame> {
    prop_oneof![
        connection(),
        (binding(), secret()).prop_map(|(binding, ticket)| RelayFrame::HelloOk { binding, ticket }),
        any::<(u8, u8, u64)>().prop_map(|(code_length, attempts_left, expires_in)| {
            RelayFrame::AuthPending {
                code_length,
                attempts_left,
                expires_in,
            }
        }),
        success(),
        Just(RelayFrame::AuthDenied),
        Just(RelayFrame::AuthExpired),
        trouble(),
        auth_ok(),
        (secret(), text(), any::<u64>()).prop_map(|(token, token_expires_at, token_expires_in)| {
            RelayFrame::AuthToken {
                token,
                token_expires_at,
                token_expires_in,
            }
        }),
        text().prop_map(|reason| RelayFrame::SessionRevoked { reason }),
        any::<u64>().prop_map(|expires_in| RelayFrame::SessionExpiring { expires_in }),
        Just(RelayFrame::SessionEnded),
        (any::<u64>(), text())
            .prop_map(|(after_ms, reason)| RelayFrame::Reconnect { after_ms, reason }),
        Just(RelayFrame::Ping),
        Just(RelayFrame::Pong),
    ]
}

fn connection() -> impl Strategy<Value = RelayFrame> {
    let login = (
        of(text()),
        of(text()),
        of(any::<u64>()),
        of(text()),
        of(binding()),
        of(any::<bool>()),
    );
    let heartbeat = any::<(u64, u64)>().prop_map(|(interval_ms, timeout_ms)| Heartbeat {
        interval_ms,
        timeout_ms,
    });

    (text(), login, text(), text(), heartbeat).prop_map(
        |(connection_id, login, server_time, nonce, heartbeat)| {
            let (user_code, login_url, expires_in, expires_at, binding, resumed) = login;
            RelayFrame::Connection {
                connection_id,
                user_code,
                login_url,
                expires_in,
                expires_at,
                server_time,
                nonce,
                binding,
                heartbeat,
                resumed,
            }
        },
    )
}

fn success() -> impl Strategy<Value = RelayFrame> {
    (
        secret(),
        user(),
        text(),
        session(),
        text(),
        any::<u64>(),
        text(),
    )
        .prop_map(
            |(
                token,
                user,
                message_id,
                session,
                token_expires_at,
                token_expires_in,
                server_time,
            )| RelayFrame::AuthSuccess {
                token,
                user,
                message_id,
                session,
                token_expires_at,
                token_expires_in,
                server_time,
            },
        )
}

fn auth_ok() -> impl Strategy<Value = RelayFrame> {
    let user = text().prop_map(|id| UserId { id });
    (
        user,
        session(),
        text(),
        of(secret()),
        of(text()),
        of(any::<u64>()),
    )
        .prop_map(
            |(user, session, server_time, token, token_expires_at, token_expires_in)| {
                RelayFrame::AuthOk {
                    user,
                    session,
                    server_time,
                    token,
                    token_expires_at,
                    token_expires_in,
                }
            },
        )
}

/// Every frame with a code; another test checks the spelling of all codes.
fn trouble() -> impl Strategy<Value = RelayFrame> {
    let login = select(vec![
        AuthErrorCode::BadCode,
        AuthErrorCode::BadReturnUri,
        AuthErrorCode::LoginOver,
    ]);
    let session = select(vec![
        FailureCode::Revoked,
        FailureCode::UnknownSession,
        FailureCode::TokenExpired,
    ]);
    let frame = select(vec![
        ErrorCode::UnknownType,
        ErrorCode::Malformed,
        ErrorCode::NotNow,
    ]);

    prop_oneof![
        (
            login,
            text(),
            any::<bool>(),
            of(any::<u64>()),
            of(any::<u8>())
        )
            .prop_map(
                |(code, message, retryable, retry_after_ms, attempts_left)| RelayFrame::AuthError {
                    code,
                    message,
                    retryable,
                    retry_after_ms,
                    attempts_left
                }
            ),
        (session, text(), any::<bool>(), of(any::<u64>())).prop_map(
            |(code, message, terminal, retry_after_ms)| {
                RelayFrame::AuthFailure {
                    code,
                    message,
                    terminal,
                    retry_after_ms,
                }
            }
        ),
        (frame, text()).prop_map(|(code, message)| RelayFrame::Error { code, message }),
    ]
}

/// The golden files of one direction.
fn golden(direction: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(direction);
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect()
}

/// A golden file with some bytes changed, cut out or put in: closer to a frame than any random
/// text.
fn bent(direction: &str) -> impl Strategy<Value = String> {
    let pieces = select(vec![
        "",
        "\"",
        "{",
        "}",
        "[",
        ",",
        ":",
        "\\",
        "\\u0000",
        "1e9",
        "null",
        "\"type\":\"ping\",",
        "\u{0}",
    ]);
    let change = (any::<prop::sample::Index>(), 0_usize..3, pieces);

    (
        select(golden(direction)),
        prop::collection::vec(change, 1..4),
    )
        .prop_map(|(text, changes)| {
            let mut text: Vec<char> = text.chars().collect();
            for (at, cut, piece) in changes {
                let at = at.index(text.len() + 1);
                let end = (at + cut).min(text.len());
                text.splice(at..end, piece.chars());
            }
            text.into_iter().collect()
        })
}

/// Checks that every type with a golden file, and so every existing type, occurs.
fn check_types<S: Strategy<Value: Serialize + fmt::Debug>>(strategy: &S, direction: &str) {
    let mut runner = TestRunner::deterministic();
    let tag = |frame: &Value| frame["type"].as_str().unwrap().to_owned();
    let made: BTreeSet<_> = (0..1000)
        .map(|_| {
            tag(&serde_json::to_value(strategy.new_tree(&mut runner).unwrap().current()).unwrap())
        })
        .collect();
    let all: BTreeSet<_> = golden(direction)
        .iter()
        .map(|text| tag(&serde_json::from_str(text).unwrap()))
        .collect();
    assert_eq!(made, all);
}

#[test]
fn no_type_of_frame_is_left_out_here() {
    check_types(&editor_frame(), "editor");
    check_types(&relay_frame(), "relay");
}

proptest! {
    #[test]
    fn a_frame_of_an_editor_comes_back_equal(frame in editor_frame()) {
        prop_assert_eq!(EditorFrame::parse(&frame.to_json()), Ok(frame));
    }

    #[test]
    fn a_frame_of_a_relay_comes_back_equal(frame in relay_frame()) {
        prop_assert_eq!(serde_json::from_str::<RelayFrame>(&frame.to_json()).unwrap(), frame);
    }

    #[test]
    fn noise_is_not_a_frame(text in text()) {
        prop_assert_eq!(EditorFrame::parse(&text), Err(ParseError::NotAFrame));
    }

    /// A frame means the same after it is read and written again: nothing that was accepted is lost
    /// or invented.
    #[test]
    fn a_bent_frame_is_refused_or_read_for_good(text in bent("editor")) {
        if let Ok(frame) = EditorFrame::parse(&text) {
            prop_assert_eq!(EditorFrame::parse(&frame.to_json()), Ok(frame));
        }
    }

    #[test]
    fn a_bent_frame_of_a_relay_is_refused_or_read_for_good(text in bent("relay")) {
        if let Ok(frame) = serde_json::from_str::<RelayFrame>(&text) {
            prop_assert_eq!(serde_json::from_str::<RelayFrame>(&frame.to_json()).unwrap(), frame);
        }
    }
}
