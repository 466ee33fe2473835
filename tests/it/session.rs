//! Sessions that last, and that end when they are told to: reconnects, rotations, moves,
//! revocations, and what is left behind for a thief.

use std::collections::HashSet;

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use vvs_auth::peer::Role;
use vvs_client::DeviceKey;
use vvs_proto::token::GetSigningKeysRequest;
use vvs_tests::command;
use vvs_tests::database::Database;
use vvs_tests::split::Split;
use vvs_tests::stack::PATIENCE;
use vvs_tests::{Editor, Install, Secrets, Stack, crowd, on_both};

on_both!(
    a_logout_ends_every_window_of_its_session_and_no_other,
    all_sockets_of_a_revoked_user_are_closed_at_once,
    a_relay_that_was_cut_off_during_a_revocation_catches_up,
    a_rotation_by_command_while_editors_are_connected_signs_nobody_out,
    what_lies_in_the_database_and_in_the_logs_opens_nothing,
);

const EDITORS: usize = 100;

async fn a_logout_ends_every_window_of_its_session_and_no_other(database: Database) {
    let stack = Stack::start_on(database, &[]).await;
    let sessions = stack.addresses().sessions_rpc;
    let install = Install::make(&stack, sessions, "ada").await;
    let other = Install::make(&stack, sessions, "ada").await;
    let (mut one, mut two) = (install.sign_on(&stack).await, install.sign_on(&stack).await);
    let mut bystander = other.sign_on(&stack).await;
    assert_eq!(one.log_out(None).await["code"], "bad_proof");
    assert_eq!(one.log_out(Some(&other.key)).await["code"], "bad_proof");
    assert_eq!(
        one.log_out(Some(&install.key)).await["type"],
        "session:ended"
    );
    assert_eq!(one.close_code().await, 1000);
    assert_eq!(
        two.next().await,
        json!({"type": "session:revoked", "reason": "logout"})
    );
    assert_eq!(two.close_code().await, 4500);

    bystander.read_on().await;

    // Neither the token nor one that sessions is asked about opens it again.
    for shown in [install.clone(), install.with_bent_token()] {
        let (mut late, answer) = shown.connect(&stack).await;
        assert_eq!(
            (&answer["code"], &answer["terminal"]),
            (&json!("revoked"), &json!(true)),
            "{answer}"
        );
        assert_eq!(late.close_code().await, 4500);
    }
}

async fn all_sockets_of_a_revoked_user_are_closed_at_once(database: Database) {
    let stack = Stack::start_on(database, &crowd::FLAGS).await;
    let installs = crowd::make(&stack, EDITORS).await;
    let mut editors = crowd::sign_on(&stack, &installs).await;
    let mut bystander = Install::make(&stack, stack.addresses().sessions_rpc, "bob")
        .await
        .sign_on(&stack)
        .await;
    assert_eq!(crowd::revoke_all(&stack, &installs[0]).await, EDITORS);

    join_all(
        editors
            .iter_mut()
            .map(|(editor, _)| crowd::hears_of_its_end(editor)),
    )
    .await;
    bystander.read_on().await;
}

async fn a_relay_that_was_cut_off_during_a_revocation_catches_up(database: Database) {
    let split = Split::relay(database, &crowd::FLAGS).await;
    let sessions = split.stack.addresses().sessions_rpc;
    let installs = crowd::make(&split.stack, 10).await;
    let mut editors = join_all(installs.iter().map(|install| install.sign_on(&split.stack))).await;
    let mut bystander = Install::make(&split.stack, sessions, "bob")
        .await
        .sign_on(&split.stack)
        .await;
    split.sessions_rpc.cut();
    crowd::revoke_all(&split.stack, &installs[0]).await;

    // It knows nothing of that, and serves on.
    editors[0].read_on().await;
    editors.push(installs[0].sign_on(&split.stack).await);
    split.sessions_rpc.lead_to(sessions);
    join_all(editors.iter_mut().map(crowd::hears_of_its_end)).await;
    bystander.read_on().await;
    let (_, answer) = installs[1].connect(&split.stack).await;
    assert_eq!(
        (&answer["code"], &answer["terminal"]),
        (&json!("revoked"), &json!(true)),
        "{answer}"
    );
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

/// The ids of the keys that whoever checks tokens is given.
async fn published(stack: &Stack) -> Vec<String> {
    let mut tokens = stack
        .caller(Role::Backend)
        .tokens(stack.addresses().sessions_rpc);
    let answer = tokens
        .get_signing_keys(GetSigningKeysRequest {})
        .await
        .unwrap()
        .into_inner();
    let keys: Value = serde_json::from_str(&answer.jwks).unwrap();

    keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

/// Refreshes on this socket until the token is signed with this key, which must have been published
/// before.
async fn until_signed_with(
    key: &str,
    stack: &Stack,
    editor: &mut Editor,
    install: &Install,
) -> Install {
    let refreshing = async {
        let mut seen = false;
        loop {
            let fresh = editor.refresh(&install.key).await;
            let token = fresh["token"].as_str().unwrap_or_else(|| panic!("{fresh}"));
            if kid(token) == key {
                assert!(seen, "it signs before anybody can know it");
                return Install {
                    token: token.to_owned(),
                    ..install.clone()
                };
            }

            assert_eq!(kid(token), kid(&install.token));

            seen |= published(stack)
                .await
                .iter()
                .any(|published| published == key);
        }
    };

    tokio::time::timeout(PATIENCE, refreshing).await.unwrap()
}

/// Does what an operator does; the id of the next key.
async fn rotate_keys(stack: &Stack, more: &[&str]) -> String {
    let key_file = stack
        .data()
        .path()
        .join("keys/sessions.key")
        .display()
        .to_string();
    let own = ["keys", "rotate", "--sessions-key-file", &key_file];
    let arguments = [
        &own[..],
        &["--sessions-database-url", stack.database().as_str()],
        more,
    ]
    .concat();
    let (code, out, errors) = command::run("vvs-mesh", &arguments).await;
    assert_eq!(code, 0, "{errors}");

    stack
        .secrets()
        .assert_absent(&(out.clone() + &errors), "what the command said");

    out.split_once(" signs from ")
        .unwrap_or_else(|| panic!("{out}"))
        .0
        .to_owned()
}

async fn a_rotation_by_command_while_editors_are_connected_signs_nobody_out(database: Database) {
    // The relay has the keys from its start, and asks for no others while this test lasts.
    let terms = ["--sessions-key-lead", "4s", "--sessions-key-rotation", "1h"];
    let often = ["--sessions-refreshes-per-minute", "1000000"];
    let relay = ["--relay-keys-interval", "1h", "--relay-keys-pause", "1h"];
    let limits = [
        "--relay-proofs-per-socket",
        "1000000",
        "--relay-messages-per-minute",
        "1000000",
    ];
    let flags = [&terms[..], &often, &relay, &limits].concat();
    let stack = Stack::start_on(database, &flags).await;
    let sessions = stack.addresses().sessions_rpc;
    let (old, other) = (
        Install::make(&stack, sessions, "ada").await,
        Install::make(&stack, sessions, "bob").await,
    );
    let (mut editor, mut bystander) = (old.sign_on(&stack).await, other.sign_on(&stack).await);

    let next = rotate_keys(&stack, &terms).await;
    assert_eq!(
        rotate_keys(&stack, &terms).await,
        next,
        "a key that waits was not left alone"
    );

    let new = until_signed_with(&next, &stack, &mut editor, &old).await;

    // Who is connected has noticed nothing, and the old key's tokens are as good as they were.
    bystander.read_on().await;

    for install in [&old, &other] {
        let (_, answer) = install.connect(&stack).await;
        assert_eq!(
            (&answer["type"], &answer["token"]),
            (&json!("auth:ok"), &Value::Null),
            "{answer}"
        );
    }

    assert_eq!(bystander.refresh(&other.key).await["type"], "auth:token");

    // One of a key that this relay does not know is sessions' to judge.
    let (mut stale, answer) = new.connect(&stack).await;
    assert_eq!(answer["type"], "auth:ok", "{answer}");
    assert!(
        answer["token"].is_string(),
        "the relay knew the key: {answer}"
    );

    stale.read_on().await;

    // Without a proof nobody is asked, and nobody is signed out either.
    let mut bare = Editor::for_session(&stack).await;
    let refused = bare.authenticate(&new.token, None).await;
    assert_eq!(
        (&refused["code"], &refused["terminal"]),
        (&json!("bad_token"), &json!(false)),
        "{refused}"
    );
    assert!(refused["retryAfterMs"].as_u64().is_some(), "{refused}");

    let page = stack.browser().get("/.well-known/jwks.json").await;
    assert!(page.body.contains(&kid(&old.token)), "{}", page.body);
    assert_eq!(
        stack
            .database()
            .count("SELECT count(*) FROM revocations")
            .await,
        0
    );
}

#[tokio::test]
async fn a_changed_public_url_signs_nobody_out() {
    let first = Stack::start().await;
    let install = Install::make(&first, first.addresses().sessions_rpc, "ada").await;
    install.sign_on(&first).await;
    let (data, old) = (first.data(), first.addresses().public_url.to_string());
    first.shut_down().await;
    drop(first);
    let second = Stack::start_in(data, &[]).await;
    assert_ne!(second.addresses().public_url.to_string(), old);

    let (_, answer) = install.connect(&second).await;
    assert_eq!(answer["type"], "auth:ok", "{answer}");

    let token = answer["token"].as_str().unwrap().to_owned();
    Install { token, ..install }.sign_on(&second).await;
}

#[tokio::test]
async fn a_bearer_token_comes_with_the_upgrade_and_one_with_a_key_does_not() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (_, success) = tokio::join!(browser.approve(&approval), async {
        let success = editor.next().await;
        editor.read_on().await;
        success
    });
    let token = success["token"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let mut with_header = Editor::try_connect(&stack, &[("authorization", &bearer)])
        .await
        .unwrap();
    assert_eq!(with_header.connection["userCode"], Value::Null);
    assert_eq!(with_header.next().await["type"], "auth:ok");

    let mut with_frame = Editor::for_session(&stack).await;
    assert_eq!(
        with_frame.authenticate(token, None).await["type"],
        "auth:ok"
    );

    let key = DeviceKey::generate().unwrap();
    assert_eq!(with_frame.refresh(&key).await["code"], "bad_token");

    let bound = Install::make(&stack, stack.addresses().sessions_rpc, "ada").await;
    let bent = Install {
        token: token.to_owned(),
        ..bound.clone()
    }
    .with_bent_token()
    .token;
    for bad in [
        format!("Bearer {}", bound.token),
        format!("Bearer {bent}"),
        "Bearer".to_owned(),
        "Basic YTpi".to_owned(),
    ] {
        let refused = Editor::try_connect(&stack, &[("authorization", &bad)])
            .await
            .unwrap_err();
        let tokio_tungstenite::tungstenite::Error::Http(response) = *refused else {
            panic!("{refused:?}")
        };
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }

    assert_eq!(with_header.log_out(None).await["type"], "session:ended");

    hears(
        &mut editor,
        &json!({"type": "session:revoked", "reason": "logout"}),
    )
    .await;
}

async fn hears(editor: &mut Editor, frame: &Value) {
    assert_eq!(editor.next().await, *frame);
    assert_eq!(editor.close_code().await, 4500);
}

#[tokio::test]
async fn an_editor_is_told_that_its_session_ends_and_then_that_it_has() {
    let stack = Stack::start_with(&["--sessions-idle-ttl", "1h 2s"]).await;
    let install = Install::make(&stack, stack.addresses().sessions_rpc, "ada").await;
    let mut editor = install.sign_on(&stack).await;
    let notice = editor.next().await;
    assert_eq!(
        notice,
        json!({"type": "session:expiring", "expiresIn": 3600})
    );

    let brief = Stack::start_with(&["--sessions-max-ttl", "1s"]).await;
    let install = Install::make(&brief, brief.addresses().sessions_rpc, "ada").await;
    let over = async {
        loop {
            let (editor, answer) = install.connect(&brief).await;
            if answer["type"] != "auth:ok" {
                return (editor, answer);
            }
        }
    };

    let (mut editor, answer) = tokio::time::timeout(PATIENCE, over).await.unwrap();
    assert_eq!(
        (&answer["code"], &answer["terminal"]),
        (&json!("expired"), &json!(true)),
        "{answer}"
    );
    assert_eq!(editor.close_code().await, 4501);
}

/// All that a thief of the database, or of the logs, could show somewhere: every word of it that
/// could be a secret.
fn loot(texts: impl Iterator<Item = String>) -> HashSet<String> {
    let is_between = |c: char| c.is_whitespace() || "\"'{}[](),;=".contains(c);
    texts
        .flat_map(|text| {
            text.split(is_between)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|word| word.len() >= 8)
        .collect()
}

async fn what_lies_in_the_database_and_in_the_logs_opens_nothing(database: Database) {
    let log = "info,vvs_gateway=trace,vvs_web=trace,vvs_identity=trace,vvs_relay=trace,\
         vvs_sessions=trace,vvs_runtime=trace";
    let flags = [
        "--relay-messages-per-minute",
        "1000000",
        "--relay-proofs-per-socket",
        "1000000",
        "--log",
        log,
    ];
    let stack = Stack::start_on(database, &[&flags[..], &crowd::FLAGS].concat()).await;
    leave_traces(&stack).await;
    let values = stack.database().dump().await;
    let tables: HashSet<_> = values.iter().map(|value| value.table.as_str()).collect();
    for table in [
        "users",
        "sessions",
        "signing_keys",
        "revocations",
        "audit",
        "feed",
    ] {
        assert!(tables.contains(table), "nothing was found in {table}");
    }

    for value in &values {
        stack
            .secrets()
            .assert_absent(&value.text, &format!("{}.{}", value.table, value.column));
    }

    stack.secrets().assert_absent(&stack.log(), "the log");
    let loot = loot(
        values
            .into_iter()
            .map(|value| value.text)
            .chain(stack.log().lines().map(str::to_owned)),
    );
    assert!(loot.len() > 100, "{}", loot.len());

    try_all(&stack, &loot).await;
}

/// Signs in in every way, and ends some of it.
async fn leave_traces(stack: &Stack) {
    for return_uri in [None, Some("http://127.0.0.1:49152/")] {
        let (mut editor, key) = (stack.editor().await, DeviceKey::generate().unwrap());
        editor.hello(&key, return_uri).await;
        let mut browser = stack.browser();
        let approval = browser.sign_in(&editor, "ada").await;
        let page = browser.approve(&approval).await;
        editor.next().await;
        let success = editor.complete(&page.code().unwrap(), "link").await;
        editor.ack(&success).await;
        let (mut again, _) = Install::of(key.clone(), &success)
            .with_bent_token()
            .connect(stack)
            .await;
        again.refresh(&key).await;

        if return_uri.is_none() {
            again.log_out(Some(&key)).await;
        }
    }

    let mut bare = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&bare, "bob").await;
    tokio::join!(browser.approve(&approval), async {
        bare.next().await;
        bare.read_on().await;
    });
}

/// Shows each of these wherever a secret is asked for.
async fn try_all(stack: &Stack, loot: &HashSet<String>) {
    let key = DeviceKey::generate().unwrap();
    let mut thief = Editor::for_session(stack).await;
    let mut held = held(stack).await;
    let secrets = Secrets::default();
    let origin = stack.addresses().public_url.to_string();
    for text in loot {
        for answer in [
            thief.authenticate(text, None).await,
            thief.authenticate(text, Some(&key)).await,
        ] {
            assert_eq!(
                answer["type"], "auth:failure",
                "{text} is as good as a token: {answer}"
            );
        }

        let answer = thief.try_resume(text, &key).await;
        assert_eq!(
            answer["type"], "auth:error",
            "{text} is as good as a ticket: {answer}"
        );

        thief
            .send(json!({"type": "authenticate", "token": text, "proof": text}))
            .await;
        assert_eq!(
            thief.next().await["type"],
            "auth:failure",
            "{text} is as good as a proof"
        );

        let letters: String = text.chars().filter(char::is_ascii_alphabetic).collect();

        if letters.len() == 8 {
            assert_ne!(
                held.complete(text, "typed").await["type"],
                "auth:success",
                "{text} is as good as a code"
            );
            held = self::held(stack).await;
        }
    }

    let mut browser = vvs_tests::Browser::at(&origin, &secrets);
    let names: Vec<_> = signed_in_cookies(stack).await;
    for text in loot.iter().filter(|text| {
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b';')
    }) {
        browser.cookies = names
            .iter()
            .map(|name| (name.clone(), text.clone()))
            .collect();
        let page = browser.get("/account/sessions").await;
        assert_eq!(
            page.status,
            StatusCode::SEE_OTHER,
            "{text} is as good as a cookie: {}",
            page.body
        );
    }

    let (mut signed_in, account) = (stack.browser(), "eve");
    signed_in.account(account).await;

    for text in loot {
        let page = signed_in
            .post("/account/sessions/revoke-all", &[("csrf", text)])
            .await;
        assert_eq!(
            page.status,
            StatusCode::FORBIDDEN,
            "{text} is as good as a CSRF value"
        );
    }
}

/// An editor that waits for the code of an approved login.
async fn held(stack: &Stack) -> Editor {
    let mut editor = stack.editor().await;
    editor.hello(&DeviceKey::generate().unwrap(), None).await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    browser.approve(&approval).await;
    assert_eq!(editor.next().await["type"], "auth:pending");
    editor
}

/// What a browser that is signed in calls its cookies.
async fn signed_in_cookies(stack: &Stack) -> Vec<String> {
    let mut browser = stack.browser();
    browser.account("eve").await;
    assert!(!browser.cookies.is_empty());
    browser.cookies.keys().cloned().collect()
}
