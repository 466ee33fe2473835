//! Who gets the token of an approved login: the editor that has the code, which went to the browser
//! that approved and to nowhere else.

use http::StatusCode;
use serde_json::{Value, json};
use tonic::Code;
use vvs_auth::peer::Role;
use vvs_client::{DeviceKey, Use};
use vvs_proto::relay::GetLoginRequest;
use vvs_runtime::rpc::reason;
use vvs_tests::command::{Running, command};
use vvs_tests::database::Database;
use vvs_tests::{Browser, Editor, Page, Stack, introduction, on_both};

on_both!(
    an_attackers_link_gets_the_attacker_nothing_whatever_his_victim_approves,
    an_editor_completes_nothing_for_a_link_that_it_did_not_ask_for,
    an_acknowledgement_that_is_withheld_hides_no_session,
);

/// Where an editor on the machine of whoever opens the link would listen.
const RETURN_URI: &str = "http://127.0.0.1:49152/";

/// An editor that has introduced itself, and its key.
async fn editor(stack: &Stack, return_uri: Option<&str>) -> (Editor, DeviceKey) {
    let (mut editor, key) = (stack.editor().await, DeviceKey::generate().unwrap());
    let hello = editor.hello(&key, return_uri).await;
    assert_eq!(hello["type"], "hello:ok", "{hello}");
    (editor, key)
}

/// Signs in and approves whatever is shown; the page that follows.
async fn approve_all(browser: &mut Browser, editor: &Editor) -> Page {
    let approval = browser.sign_in(editor, "ada").await;
    let page = browser.approve(&approval).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    page
}

/// A code of the right form that is not this one.
fn wrong(code: &str) -> &'static str {
    if code.starts_with('B') {
        "CCCC-CCCC"
    } else {
        "BBBB-BBBB"
    }
}

/// No frame but this has come for the editor.
async fn has_heard_nothing_but(editor: &mut Editor, kind: &str) {
    assert_eq!(editor.next().await["type"], kind);
    editor.read_on().await;
}

async fn an_attackers_link_gets_the_attacker_nothing_whatever_his_victim_approves(
    database: Database,
) {
    for minimum in ["confirm", "link"] {
        let stack = Stack::start_on(database, &["--relay-min-binding", minimum]).await;
        // He asks for the code to be taken to a machine: that will be the machine of whoever opens
        // the link.
        let (mut attacker, _key) = editor(&stack, Some(RETURN_URI)).await;
        let mut victim = stack.browser();
        let page = approve_all(&mut victim, &attacker).await;

        // It approves again, and goes wherever it is led: a hundred times would be the same.
        let again = victim.approve(&page).await;
        assert_eq!(again.code(), page.code());

        has_heard_nothing_but(&mut attacker, "auth:pending").await;

        // The code is in the victim's browser, and the only way out of it leads to the victim's own
        // machine.
        let code = page.code().unwrap();
        assert!(
            page.body
                .contains(&format!("data-return-uri=\"{RETURN_URI}\"")),
            "{}",
            page.body
        );
        assert_eq!(
            page.body.contains("Your one-time code"),
            minimum == "confirm",
            "{}",
            page.body
        );

        let mut his = stack.browser();
        for path in [
            attacker.login_path(),
            format!("/api/auth/callback?connection_id={}", attacker.id()),
        ] {
            let seen = his.get(&path).await;
            assert!(
                seen.status != StatusCode::OK && !seen.body.contains(&code),
                "{}",
                seen.body
            );
        }

        // He can only guess, and that ends it.
        for left in (0..5).rev() {
            assert_eq!(
                attacker.complete(wrong(&code), "link").await["attemptsLeft"],
                left
            );
        }

        assert_eq!(attacker.close_code().await, 4503);

        let burned = stack
            .database()
            .count("SELECT count(*) FROM sessions WHERE activated_at IS NOT NULL")
            .await;
        assert_eq!(burned, 0);
    }
}

#[tokio::test]
async fn a_bare_editor_below_the_minimum_is_refused_before_anybody_signs_in() {
    for (minimum, return_uri, is_enough) in [
        ("typed", None, false),
        ("link", None, false),
        ("typed", Some(None), true),
        ("link", Some(None), false),
        ("typed", Some(Some(RETURN_URI)), true),
        ("link", Some(Some(RETURN_URI)), true),
    ] {
        let stack = Stack::start_with(&["--relay-min-binding", minimum]).await;
        let mut editor = stack.editor().await;
        if let Some(return_uri) = return_uri {
            editor
                .hello(&DeviceKey::generate().unwrap(), return_uri)
                .await;
        }

        let mut relay = stack.caller(Role::Web).relay(stack.addresses().relay_rpc);
        let request = GetLoginRequest {
            connection_id: editor.id().to_owned(),
            ..GetLoginRequest::default()
        };
        let looked = relay.get_login(request).await;
        let page = stack.browser().get(&editor.login_path()).await;
        if is_enough {
            assert!(
                looked.is_ok() && page.body.contains("/dev/sign-in"),
                "{minimum}: {}",
                page.body
            );
            continue;
        }

        let refused = looked.unwrap_err();
        assert_eq!(
            (refused.code(), &*reason(&refused)),
            (Code::FailedPrecondition, "EDITOR_CANNOT_BIND")
        );
        assert!(
            page.status != StatusCode::OK && !page.body.contains("/dev/sign-in"),
            "{minimum}: {}",
            page.body
        );
        assert!(page.body.contains("VVS"), "{}", page.body);

        let callback = stack
            .browser()
            .get(&format!("/api/auth/callback?connection_id={}", editor.id()))
            .await;
        assert_ne!(callback.status, StatusCode::OK);

        editor.read_on().await;
    }
}

#[tokio::test]
async fn tries_for_a_code_are_counted_and_the_fifth_wrong_one_burns_login_and_session() {
    let stack = Stack::start().await;
    let (mut editor, _key) = editor(&stack, None).await;
    let page = approve_all(&mut stack.browser(), &editor).await;
    let pending = editor.next().await;
    assert_eq!(
        (&pending["codeLength"], &pending["attemptsLeft"]),
        (&json!(8), &json!(5))
    );

    let code = page.code().unwrap();
    for left in (0..5).rev() {
        let answer = editor.complete(wrong(&code), "typed").await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("auth:error"), &json!("bad_code")),
            "{answer}"
        );
        assert_eq!(
            (&answer["attemptsLeft"], &answer["retryable"]),
            (&json!(left), &json!(left > 0))
        );
    }

    assert_eq!(editor.close_code().await, 4503);

    until_count(&stack, "SELECT count(*) FROM revocations", 1).await;
    until_count(
        &stack,
        "SELECT count(*) FROM audit WHERE event = 'burned'",
        1,
    )
    .await;
    assert_eq!(
        stack
            .database()
            .count("SELECT count(*) FROM sessions WHERE revoked_at IS NULL")
            .await,
        0
    );
}

/// What follows a burned login happens behind the editor's back.
async fn until_count(stack: &Stack, query: &'static str, expected: i64) {
    let counted = async { while stack.database().count(query).await != expected {} };
    let done = tokio::time::timeout(vvs_tests::stack::PATIENCE, counted).await;
    assert!(done.is_ok(), "{query} did not come to {expected}");
}

#[tokio::test]
async fn the_right_code_after_wrong_ones_works_in_whatever_case_and_grouping() {
    let stack = Stack::start().await;
    let spellings: [fn(&str) -> String; 3] = [
        str::to_lowercase,
        |code| format!("  {} ", code.replace('-', " ")),
        |code| code.replace('-', ""),
    ];

    for spell in spellings {
        let (mut editor, _key) = editor(&stack, None).await;
        let page = approve_all(&mut stack.browser(), &editor).await;
        editor.next().await;
        let code = page.code().unwrap();
        for left in (1..5).rev() {
            assert_eq!(
                editor.complete(wrong(&code), "typed").await["attemptsLeft"],
                left
            );
        }

        let success = editor.complete(&spell(&code), "typed").await;
        assert_eq!(success["user"]["email"], "ada@example.com", "{success}");

        editor.ack(&success).await;
    }
}

#[tokio::test]
async fn a_page_keeps_its_code_while_the_editor_is_away() {
    let stack = Stack::start().await;
    let (mut editor, _key) = editor(&stack, None).await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let page = browser.approve(&approval).await;
    editor.next().await;
    drop(editor);
    stack
        .until_metric("vvs_logins_total{state=\"AWAY\"}", |value| value >= 1.0)
        .await;

    // As its script does when it hears that.
    let again = browser.approve(&approval).await;
    assert_eq!(
        (again.status, again.code()),
        (StatusCode::OK, page.code()),
        "{}",
        again.body
    );
    assert!(page.code().is_some());
}

#[tokio::test]
async fn a_code_completes_the_login_that_it_was_made_for_alone() {
    let stack = Stack::start().await;
    let (mut one, _) = editor(&stack, None).await;
    let (mut other, _) = editor(&stack, None).await;
    let mut browser = stack.browser();
    let (for_one, for_other) = (
        approve_all(&mut browser, &one).await,
        approve_all(&mut browser, &other).await,
    );
    one.next().await;
    other.next().await;
    let (one_code, other_code) = (for_one.code().unwrap(), for_other.code().unwrap());
    assert_ne!(one_code, other_code);
    assert_eq!(one.complete(&other_code, "link").await["code"], "bad_code");

    let success = one.complete(&one_code, "link").await;
    one.ack(&success).await;

    // Used up: the same code again fits nothing.
    assert_eq!(one.complete(&one_code, "link").await["code"], "not_now");
    assert_eq!(other.complete(&one_code, "link").await["code"], "bad_code");
}

#[tokio::test]
async fn a_hello_comes_before_anybody_looks_and_once() {
    let stack = Stack::start().await;
    let mut looked_at = stack.editor().await;
    let approval = stack.browser().sign_in(&looked_at, "ada").await;
    assert!(approval.body.contains(looked_at.user_code()));

    let late = looked_at.hello(&DeviceKey::generate().unwrap(), None).await;
    assert_eq!(
        (&late["type"], &late["code"]),
        (&json!("auth:error"), &json!("too_late"))
    );

    let (mut twice, key) = editor(&stack, None).await;
    assert_eq!(
        twice.hello(&key, Some(RETURN_URI)).await["code"],
        "too_late"
    );

    // It is still tied as before: not by a link.
    let page = approve_all(&mut stack.browser(), &twice).await;
    assert!(!page.body.contains(RETURN_URI), "{}", page.body);
}

#[tokio::test]
async fn a_hello_that_is_not_taken_leaves_a_bare_login_that_works() {
    let stack = Stack::start().await;
    let (key, other) = (
        DeviceKey::generate().unwrap(),
        DeviceKey::generate().unwrap(),
    );
    let mut editor = stack.editor().await;
    let (good, another) = (
        editor.proof(&key, Use::Hello, None),
        editor.proof(&key, Use::Hello, None),
    );
    let symmetric = json!({"kty": "oct", "k": "c2VjcmV0LXNlY3JldA"});
    let mut bad_key = introduction(&key, None, &good);
    bad_key["deviceKey"] = symmetric;
    let foreign = editor.proof(&other, Use::Hello, None);
    let for_something_else = editor.proof(&key, Use::Resume, None);
    let elsewhere = stack.editor().await.proof(&key, Use::Hello, None);
    let bent = good.replacen('.', ".A", 1);
    for (frame, code) in [
        (
            introduction(&key, Some("https://evil.example/"), &good),
            "bad_return_uri",
        ),
        (
            introduction(&key, Some("http://127.0.0.1:80/"), &another),
            "bad_return_uri",
        ),
        (introduction(&key, None, &good), "bad_proof"),
        (bad_key, "bad_device_key"),
        (introduction(&key, None, &foreign), "bad_proof"),
        (introduction(&key, None, &for_something_else), "bad_proof"),
        (introduction(&key, None, &elsewhere), "bad_proof"),
        (introduction(&key, None, &bent), "bad_proof"),
    ] {
        editor.send(frame).await;
        let answer = editor.next().await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("auth:error"), &json!(code)),
            "{answer}"
        );
    }

    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (approved, success) = tokio::join!(browser.approve(&approval), async {
        let success: Value = editor.next().await;
        editor.read_on().await;
        success
    });
    assert_eq!(
        (approved.status, &success["type"]),
        (StatusCode::SEE_OTHER, &json!("auth:success"))
    );
}

#[tokio::test]
async fn a_server_without_listeners_takes_no_hello_and_no_ticket_that_names_one() {
    let with = Stack::start().await;
    let key_file = with.data().path().join("keys/relay.key");
    let without = Stack::start_with(&[
        "--relay-key-file",
        key_file.to_str().unwrap(),
        "--relay-loopback-listeners",
        "false",
        "--relay-return-uris",
        "vvs://auth/complete",
    ])
    .await;

    let (mut fresh, key) = (without.editor().await, DeviceKey::generate().unwrap());
    for listener in [RETURN_URI, "http://[::1]:49152/done"] {
        let refused = fresh.hello(&key, Some(listener)).await;
        assert_eq!(refused["code"], "bad_return_uri", "{refused}");
    }
    let taken = fresh.hello(&key, Some("vvs://auth/complete")).await;
    assert_eq!(taken["binding"], "link", "{taken}");

    // What a relay with listeners has sealed under the same key, before this one was started.
    for return_uri in [Some(RETURN_URI), None] {
        let (mut before, key) = (with.editor().await, DeviceKey::generate().unwrap());
        let ticket = before.hello(&key, return_uri).await["ticket"].clone();
        let mut back = Editor::for_session(&without).await;
        let answer = back.try_resume(ticket.as_str().unwrap(), &key).await;
        match return_uri {
            Some(_) => assert_eq!(answer["code"], "bad_ticket", "{answer}"),
            None => assert_eq!(answer["resumed"], true, "{answer}"),
        }
    }
}

/// What a browser does at an editor's own listener: its page sends on what stands behind the hash.
async fn hand_back(stack: &Stack, return_uri: &str, pairs: &[(&str, &str)]) -> StatusCode {
    let origin = return_uri.trim_end_matches('/');
    let mut browser = Browser::at(origin, stack.secrets());
    assert_eq!(browser.get("/").await.status, StatusCode::OK);
    browser.post("/", pairs).await.status
}

async fn an_editor_completes_nothing_for_a_link_that_it_did_not_ask_for(database: Database) {
    let (stack, state_dir) = (
        Stack::start_on(database, &[]).await,
        tempfile::tempdir().unwrap(),
    );
    let url = stack.addresses().public_url.to_string();
    let path = state_dir.path().to_str().unwrap();
    let arguments = [
        "login",
        "--server",
        &url,
        "--no-browser",
        "--store",
        "file",
        "--state-dir",
        path,
    ];
    let mut own = Running::start(command("vvs", &arguments), stack.secrets());
    let link = own.error_line("/login?connection_id=").await;
    let (login, state) = link.trim().split_once("#state=").unwrap();
    let login = login.strip_prefix(&url).unwrap();
    let id = login.split_once('=').unwrap().1;
    let mut browser = stack.browser();
    let approval = browser.sign_in_at(login, "ada").await;
    let page = browser.approve(&approval).await;
    let return_uri = page
        .body
        .split_once("data-return-uri=\"")
        .unwrap()
        .1
        .split_once('"')
        .unwrap()
        .0;
    own.error_line("Approved.").await;

    // Somebody else's login, approved in the same browser: its code for this editor, or this
    // editor's for it.
    let (mut attacker, _key) = editor(&stack, Some(return_uri)).await;
    let foreign = approve_all(&mut browser, &attacker).await.code().unwrap();
    let code = page.code().unwrap();
    for pairs in [
        [
            ("connection_id", attacker.id()),
            ("code", &*foreign),
            ("state", state),
        ],
        [
            ("connection_id", attacker.id()),
            ("code", &foreign),
            ("state", "a-state-of-his-own"),
        ],
        [
            ("connection_id", id),
            ("code", &code),
            ("state", "a-state-of-his-own"),
        ],
    ] {
        assert_eq!(
            hand_back(&stack, return_uri, &pairs).await,
            StatusCode::BAD_REQUEST
        );
        own.error_line("Warning: a browser brought a code").await;
    }

    has_heard_nothing_but(&mut attacker, "auth:pending").await;

    // It still waits for the one that it did ask for.
    let pairs = [("connection_id", id), ("code", &*code), ("state", state)];
    assert_eq!(hand_back(&stack, return_uri, &pairs).await, StatusCode::OK);
    assert_eq!(own.exit_code().await, 0);
}

async fn an_acknowledgement_that_is_withheld_hides_no_session(database: Database) {
    let stack = Stack::start_on(database, &[]).await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;

    // It reads its token and nothing behind it, so that no pong goes out: there is no
    // acknowledgement of any kind.
    let (page, success) = tokio::join!(browser.approve(&approval), editor.next());
    assert_eq!(success["type"], "auth:success", "{success}");
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        page.body
    );
    assert_eq!(
        stack
            .database()
            .count("SELECT count(*) FROM sessions WHERE activated_at IS NULL")
            .await,
        1
    );

    // Meanwhile the person sees it.
    let session_id = success["session"]["id"].as_str().unwrap();
    let listed = stack.browser().account("ada").await;
    assert!(listed.body.contains(session_id), "{}", listed.body);

    drop(editor);
    let ended = async {
        while stack
            .database()
            .count("SELECT count(*) FROM revocations")
            .await
            < 1
        {}
    };

    tokio::time::timeout(vvs_tests::stack::PATIENCE, ended)
        .await
        .unwrap();

    // The relay hears of it in the feed, now or in a moment.
    let mut late = Editor::for_session(&stack).await;
    let mut answer = late
        .authenticate(success["token"].as_str().unwrap(), None)
        .await;
    if answer["type"] == "auth:ok" {
        answer = late.next().await;
        assert_eq!(answer["type"], "session:revoked", "{answer}");
    } else {
        assert_eq!(
            (&answer["code"], &answer["terminal"]),
            (&json!("revoked"), &json!(true)),
            "{answer}"
        );
    }

    assert_eq!(late.close_code().await, 4500);

    let listed = stack.browser().account("ada").await;
    assert!(!listed.body.contains(session_id), "{}", listed.body);
    assert_eq!(
        stack
            .database()
            .count("SELECT count(*) FROM sessions WHERE activated_at IS NOT NULL")
            .await,
        0
    );
}
