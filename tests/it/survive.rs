//! What must be survived: killed relays, lost replies, wrong clocks, and everything that somebody
//! may have stolen. Each scenario runs on SQLite and on PostgreSQL.

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use vvs_auth::peer::Role;
use vvs_client::{DeviceKey, Use};
use vvs_proto::relay::deliver_auth_response::Outcome;
use vvs_proto::relay::{self, DeliverAuthRequest};
use vvs_proto::types;
use vvs_tests::database::Database;
use vvs_tests::split::Split;
use vvs_tests::stack::PATIENCE;
use vvs_tests::{Browser, Editor, Install, Page, Stack, on_both};

on_both!(
    a_relay_that_is_killed_between_approval_and_push_costs_nobody_the_login,
    a_relay_that_is_killed_between_push_and_ack_costs_nobody_the_login,
    a_relay_that_is_killed_behind_the_acknowledgement_costs_nobody_the_page_that_says_so,
    a_refresh_whose_reply_was_lost_is_made_again,
    two_windows_that_refresh_at_once_both_go_on,
    four_windows_that_refresh_within_a_second_all_have_a_token_and_write_once_at_most,
    an_editor_whose_clock_is_wrong_finds_every_deadline_in_seconds,
    a_token_or_proof_from_another_socket_is_worth_nothing,
    a_stolen_token_is_worth_nothing_without_its_key,
    a_ticket_is_worth_nothing_without_its_key,
    a_relay_that_was_stopped_while_its_editor_moved_on_pushes_nothing_when_it_continues,
    a_guessed_code_burns_the_login_however_often_its_editor_comes_back,
);

/// An editor whose login was approved, and which waits for its code.
pub(crate) struct Held {
    pub(crate) editor: Editor,
    pub(crate) key: DeviceKey,
    pub(crate) ticket: String,
    pub(crate) browser: Browser,
    pub(crate) page: Page,
}

impl Held {
    pub(crate) async fn new(stack: &Stack) -> Self {
        let (mut editor, key) = (stack.editor().await, DeviceKey::generate().unwrap());
        let hello = editor.hello(&key, None).await;
        let ticket = hello["ticket"].as_str().unwrap().to_owned();
        let mut browser = stack.browser();
        let approval = browser.sign_in(&editor, "ada").await;
        let page = browser.approve(&approval).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert_eq!(editor.next().await["type"], "auth:pending");

        Self {
            editor,
            key,
            ticket,
            browser,
            page,
        }
    }

    pub(crate) fn code(&self) -> String {
        self.page.code().unwrap()
    }

    /// The page delivers again, as its script does, until that comes to this.
    pub(crate) async fn deliver(&mut self, until: StatusCode) -> Page {
        let delivering = async {
            loop {
                let page = self.browser.approve(&self.page).await;
                if page.status == until {
                    return page;
                }
                assert_eq!(
                    page.status,
                    StatusCode::SERVICE_UNAVAILABLE,
                    "{}",
                    page.body
                );
            }
        };

        tokio::time::timeout(PATIENCE, delivering).await.unwrap()
    }

    /// Takes the login to another socket; what is due is not read yet.
    pub(crate) async fn resume(&mut self, stack: &Stack) -> Editor {
        let mut editor = Editor::for_session(stack).await;
        let hello = editor.resume(&self.ticket, &self.key).await;
        for name in ["connectionId", "userCode", "loginUrl"] {
            assert_eq!(editor.connection[name], self.editor.connection[name]);
        }
        hello["ticket"]
            .as_str()
            .unwrap()
            .clone_into(&mut self.ticket);
        editor
    }

    /// On a relay that has never heard of the login: the page brings the approval again.
    pub(crate) async fn go_on(&mut self, stack: &Stack) -> (Editor, Value) {
        let mut editor = self.resume(stack).await;
        let again = self.deliver(StatusCode::OK).await;
        assert_eq!(
            again.code(),
            self.page.code(),
            "any relay makes the same code"
        );

        let pending = editor.next().await;
        assert_eq!(pending["type"], "auth:pending", "{pending}");

        let success = editor.complete(&self.code(), "typed").await;
        assert_eq!(success["type"], "auth:success", "{success}");

        (editor, success)
    }
}

/// The editor has its token, its browser says so, and there is one session, which is active.
pub(crate) async fn assert_signed_in(
    held: &mut Held,
    editor: &mut Editor,
    success: &Value,
    split: &Split,
) {
    editor.ack(success).await;
    let done = held.deliver(StatusCode::SEE_OTHER).await;
    assert_eq!(
        held.browser.get(&done.location()).await.status,
        StatusCode::OK
    );

    let all = split.database.count("SELECT count(*) FROM sessions").await;
    let active = split
        .database
        .count("SELECT count(*) FROM sessions WHERE activated_at IS NOT NULL")
        .await;
    assert_eq!((all, active), (1, 1));

    Install::of(held.key.clone(), success)
        .sign_on(&split.stack)
        .await;
}

async fn a_relay_that_is_killed_between_approval_and_push_costs_nobody_the_login(
    database: Database,
) {
    let mut split = Split::relay(database, &[]).await;
    let mut held = Held::new(&split.stack).await;
    split.kill_relay().await;
    held.editor.cut_off().await;
    split.start_relay().await;

    // Nobody holds it, and the page says that the editor may come back.
    let away = held.browser.approve(&held.page).await;
    assert_eq!(
        away.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        away.body
    );

    let (mut editor, success) = held.go_on(&split.stack).await;
    assert_signed_in(&mut held, &mut editor, &success, &split).await;
}

async fn a_relay_that_is_killed_between_push_and_ack_costs_nobody_the_login(database: Database) {
    let mut split = Split::relay(database, &[]).await;
    let mut held = Held::new(&split.stack).await;
    let code = held.code();
    let first = held.editor.complete(&code, "typed").await;
    assert_eq!(first["type"], "auth:success", "{first}");

    split.kill_relay().await;
    held.editor.cut_off().await;
    split.start_relay().await;
    let (mut editor, success) = held.go_on(&split.stack).await;
    for name in ["messageId", "user", "session"] {
        let same = |frame: &Value| {
            if name == "session" {
                frame[name]["id"].clone()
            } else {
                frame[name].clone()
            }
        };
        assert_eq!(same(&success), same(&first), "{name}");
    }

    assert_signed_in(&mut held, &mut editor, &success, &split).await;

    // Nor would it have been lost by one that stored its first token and never comes back for
    // another.
    Install::of(held.key.clone(), &first)
        .sign_on(&split.stack)
        .await;
}

async fn a_relay_that_is_killed_behind_the_acknowledgement_costs_nobody_the_page_that_says_so(
    database: Database,
) {
    let mut split = Split::relay(database, &[]).await;
    let mut held = Held::new(&split.stack).await;
    let path = format!("/auth-success?connection_id={}", held.editor.id());
    let waiting = held.browser.get(&path).await;
    assert_eq!(waiting.status, StatusCode::FORBIDDEN, "{}", waiting.body);

    let code = held.code();
    let success = held.editor.complete(&code, "typed").await;
    held.editor.ack(&success).await;
    let activated = "SELECT count(*) FROM sessions WHERE activated_at IS NOT NULL";
    let active = async { while split.database.count(activated).await == 0 {} };
    tokio::time::timeout(PATIENCE, active).await.unwrap();

    // The page has heard that the editor is signed in, and goes where it is said.
    split.kill_relay().await;
    split.start_relay().await;
    let done = held.browser.get(&path).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.body);
}

async fn a_refresh_whose_reply_was_lost_is_made_again(database: Database) {
    let stack = Stack::start_on(database, &[]).await;
    let install = Install::make(&stack, stack.addresses().sessions_rpc, "ada").await;
    let mut editor = install.sign_on(&stack).await;
    let proof = editor.proof(&install.key, Use::Refresh, None);
    editor
        .send(json!({"type": "token:refresh", "proof": proof}))
        .await;

    // It is done, and whoever asked is gone before the answer is read.
    stack
        .until_metric("vvs_sessions_refreshed_total", |value| value >= 1.0)
        .await;
    drop(editor);

    // Whether the old token is still good, or has run out meanwhile.
    for shown in [install.clone(), install.with_bent_token()] {
        let (mut editor, answer) = shown.connect(&stack).await;
        assert_eq!(answer["type"], "auth:ok", "{answer}");
        let fresh = editor.refresh(&install.key).await;
        assert_eq!(fresh["type"], "auth:token", "{fresh}");
        let token = fresh["token"].as_str().unwrap().to_owned();
        Install {
            token,
            ..install.clone()
        }
        .sign_on(&stack)
        .await;
    }
}

async fn two_windows_that_refresh_at_once_both_go_on(database: Database) {
    let stack = Stack::start_on(database, &[]).await;
    let install = Install::make(&stack, stack.addresses().sessions_rpc, "ada").await;
    let (mut one, mut other) = (install.sign_on(&stack).await, install.sign_on(&stack).await);
    for _ in 0..3 {
        let (first, second) = tokio::join!(one.refresh(&install.key), other.refresh(&install.key));
        for fresh in [first, second] {
            assert_eq!(fresh["type"], "auth:token", "{fresh}");
            let token = fresh["token"].as_str().unwrap().to_owned();
            Install {
                token,
                ..install.clone()
            }
            .sign_on(&stack)
            .await;
        }
    }

    // Two that have both run out.
    let bent = install.with_bent_token();
    let ((_, first), (_, second)) = tokio::join!(bent.connect(&stack), bent.connect(&stack));
    assert_eq!(
        (&first["type"], &second["type"]),
        (&json!("auth:ok"), &json!("auth:ok")),
        "{first} {second}"
    );

    one.read_on().await;
    other.read_on().await;
}

async fn four_windows_that_refresh_within_a_second_all_have_a_token_and_write_once_at_most(
    database: Database,
) {
    let stack = Stack::start_on(database, &[]).await;
    let install = Install::make(&stack, stack.addresses().sessions_rpc, "ada").await;
    let mut windows = join_all((0..4).map(|_| install.sign_on(&stack))).await;
    let answers = join_all(
        windows
            .iter_mut()
            .map(|window| window.refresh(&install.key)),
    )
    .await;
    for fresh in answers {
        assert_eq!(fresh["type"], "auth:token", "{fresh}");
        let token = fresh["token"].as_str().unwrap().to_owned();
        Install {
            token,
            ..install.clone()
        }
        .sign_on(&stack)
        .await;
    }

    assert!(
        stack
            .database()
            .count("SELECT count(*) FROM audit WHERE event = 'refreshed'")
            .await
            <= 1
    );
}

async fn an_editor_whose_clock_is_wrong_finds_every_deadline_in_seconds(database: Database) {
    const HOUR: u64 = 3600;
    let stack = Stack::start_on(database, &[]).await;
    let left = |value: &Value, most: u64| {
        let left = value
            .as_u64()
            .unwrap_or_else(|| panic!("{value} is no number of seconds"));
        assert!(
            (1..=most).contains(&left) && left + 60 > most,
            "{left} of {most}"
        );
    };
    let mut held = Held::new(&stack).await;
    left(&held.editor.connection["expiresIn"], 600);
    let mut moved = held.resume(&stack).await;
    let pending = moved.next().await;
    left(&pending["expiresIn"], 600);
    let success = moved.complete(&held.code(), "typed").await;
    left(&success["tokenExpiresIn"], HOUR);
    left(&success["session"]["expiresIn"], 30 * 24 * HOUR);
    moved.ack(&success).await;
    let fresh = moved.refresh(&held.key).await;
    left(&fresh["tokenExpiresIn"], HOUR);
    let install = Install::of(held.key.clone(), &success);
    let (_, answer) = install.connect(&stack).await;
    left(&answer["session"]["expiresIn"], 30 * 24 * HOUR);
    let (_, answer) = install.with_bent_token().connect(&stack).await;
    left(&answer["tokenExpiresIn"], HOUR);
    left(&answer["session"]["expiresIn"], 30 * 24 * HOUR);

    // Nothing that the editor says is dated, so that no clock of its own can make it false.
    let proof = moved.proof(&held.key, Use::Authenticate, Some(&install.token));
    let payload = vvs_auth::key::from_base64url(proof.split('.').nth(1).unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    let mut names: Vec<_> = payload
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["ath", "aud", "jti", "nonce", "use"]);
}

/// The editor is told that this proof is no good, and may go on.
#[track_caller]
fn assert_bad_proof(answer: &Value) {
    let (kind, code) = (&answer["type"], &answer["code"]);
    assert_eq!(
        (kind, code, &answer["terminal"]),
        (&json!("auth:failure"), &json!("bad_proof"), &json!(false))
    );
}

async fn a_token_or_proof_from_another_socket_is_worth_nothing(database: Database) {
    let stack = Stack::start_on(database, &[]).await;
    let install = Install::make(&stack, stack.addresses().sessions_rpc, "ada").await;
    let mut own = Editor::for_session(&stack).await;
    let proof = own.proof(&install.key, Use::Authenticate, Some(&install.token));
    let seen = json!({"type": "authenticate", "token": install.token, "proof": proof});
    own.send(seen.clone()).await;
    assert_eq!(own.next().await["type"], "auth:ok");

    // Whoever has seen all of it sends the same.
    let mut thief = Editor::for_session(&stack).await;
    for token in [&install.token, &install.with_bent_token().token] {
        thief
            .send(json!({"type": "authenticate", "token": token, "proof": proof}))
            .await;
        assert_bad_proof(&thief.next().await);
    }

    // A proof for something else on the same socket, and the same proof again.
    let logout = own.proof(&install.key, Use::Logout, None);
    let refresh = own.proof(&install.key, Use::Refresh, None);
    for (proof, kind) in [
        (&proof, "auth:failure"),
        (&logout, "auth:failure"),
        (&refresh, "auth:token"),
        (&refresh, "auth:failure"),
    ] {
        own.send(json!({"type": "token:refresh", "proof": proof}))
            .await;
        let answer = own.next().await;
        assert_eq!(answer["type"], kind, "{answer}");
        if kind == "auth:failure" {
            assert_bad_proof(&answer);
        }
    }

    own.send(json!({"type": "session:logout", "proof": refresh}))
        .await;
    assert_bad_proof(&own.next().await);
    own.read_on().await;
    let refused = "SELECT count(*) FROM audit WHERE event = 'proof_refused'";
    let written = async { while stack.database().count(refused).await < 5 {} };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
}

async fn a_stolen_token_is_worth_nothing_without_its_key(database: Database) {
    let stack = Stack::start_on(database, &[]).await;
    let install = Install::make(&stack, stack.addresses().sessions_rpc, "ada").await;
    let stolen = Install {
        key: DeviceKey::generate().unwrap(),
        ..install.clone()
    };
    let (mut thief, answer) = stolen.connect(&stack).await;
    assert_bad_proof(&answer);
    assert_bad_proof(&thief.authenticate(&stolen.token, None).await);

    // One that no relay can judge, so that sessions does.
    let answer = thief
        .authenticate(&stolen.with_bent_token().token, Some(&stolen.key))
        .await;
    let (code, terminal) = (&answer["code"], &answer["terminal"]);
    assert_eq!(
        (code, terminal),
        (&json!("unknown_session"), &json!(true)),
        "{answer}"
    );
    assert_eq!(thief.close_code().await, 4501);

    let bearer = format!("Bearer {}", stolen.token);
    Editor::try_connect(&stack, &[("authorization", &bearer)])
        .await
        .unwrap_err();

    // Its owner has noticed nothing.
    let mut own = install.sign_on(&stack).await;
    assert_eq!(own.refresh(&install.key).await["type"], "auth:token");
}

async fn a_ticket_is_worth_nothing_without_its_key(database: Database) {
    let stack = Stack::start_on(database, &[]).await;
    let mut held = Held::new(&stack).await;
    let mut thief = Editor::for_session(&stack).await;
    let refused = thief
        .try_resume(&held.ticket, &DeviceKey::generate().unwrap())
        .await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&json!("auth:error"), &json!("bad_proof")),
        "{refused}"
    );

    let nonsense = thief.try_resume("bm90IGEgdGlja2V0", &held.key).await;
    assert_eq!(nonsense["code"], "bad_ticket", "{nonsense}");

    // The login is where it was.
    held.editor.read_on().await;
    let code = held.code();
    let success = held.editor.complete(&code, "typed").await;
    held.editor.ack(&success).await;
    let late = thief.try_resume(&held.ticket, &held.key).await;
    assert_eq!(late["code"], "login_over", "{late}");
}

async fn a_relay_that_was_stopped_while_its_editor_moved_on_pushes_nothing_when_it_continues(
    database: Database,
) {
    let mut split = Split::relay(database, &[]).await;
    let mut held = Held::new(&split.stack).await;
    split.relay.as_ref().unwrap().process.signal("STOP");
    let next = split.another_relay().await;
    let mut stopped = split.lead_to(next).unwrap();

    // Its socket looks as if it were alive, and says nothing any more.
    let (mut editor, success) = held.go_on(&split.stack).await;
    assert_signed_in(&mut held, &mut editor, &success, &split).await;

    stopped.process.signal("CONT");

    // Asked for the same delivery, it still waits for the code.
    let answer = deliver(&split, &held, &success, stopped.rpc).await.unwrap();
    assert!(
        matches!(answer.outcome, Some(Outcome::Held(_))),
        "{answer:?}"
    );

    held.editor.read_on().await;

    // And what becomes of the login there does not end the session that the editor has: it burns,
    // and the relay has told sessions so by the time that it has drained.
    let other = if held.code().starts_with('B') {
        "C"
    } else {
        "B"
    };

    for left in (0..5).rev() {
        held.editor
            .send(json!({"type": "auth:complete", "code": other.repeat(8), "method": "typed"}))
            .await;
        assert_eq!(held.editor.next().await["attemptsLeft"], left);
    }

    assert_eq!(held.editor.close_code().await, 4503);

    stopped.process.signal("TERM");
    assert_eq!(stopped.process.exit_code().await, 0);

    editor.read_on().await;
    Install::of(held.key.clone(), &success)
        .sign_on(&split.stack)
        .await;
}

/// The delivery that the editor has got, to one relay.
async fn deliver(
    split: &Split,
    held: &Held,
    success: &Value,
    relay: std::net::SocketAddr,
) -> Result<relay::DeliverAuthResponse, tonic::Status> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let later = prost_types::Timestamp {
        seconds: 4_000_000_000,
        nanos: 0,
    };
    let request = DeliverAuthRequest {
        request_id: text(&success["messageId"]),
        connection_id: held.editor.id().to_owned(),
        token: text(&success["token"]),
        token_expires_at: Some(later),
        user: Some(types::User {
            id: text(&success["user"]["id"]),
            ..types::User::default()
        }),
        session: Some(relay::Session {
            id: text(&success["session"]["id"]),
            expires_at: Some(later),
        }),
    };

    split
        .stack
        .caller(Role::Web)
        .relay(relay)
        .deliver_auth(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn a_guessed_code_burns_the_login_however_often_its_editor_comes_back(database: Database) {
    let stack = Stack::start_on(database, &[]).await;
    let mut held = Held::new(&stack).await;
    let wrong = if held.code().starts_with('B') {
        "CCCCCCCC"
    } else {
        "BBBBBBBB"
    };

    for left in (1..5).rev() {
        let answer = held.editor.complete(wrong, "typed").await;
        assert_eq!(
            (&answer["code"], &answer["attemptsLeft"]),
            (&json!("bad_code"), &json!(left)),
            "{answer}"
        );

        let editor = held.resume(&stack).await;
        assert_eq!(
            std::mem::replace(&mut held.editor, editor)
                .close_code()
                .await,
            4503
        );
        assert_eq!(held.editor.next().await["attemptsLeft"], left);
    }

    let last = held.editor.complete(wrong, "typed").await;
    assert_eq!(last["attemptsLeft"], 0);
    assert_eq!(held.editor.close_code().await, 4503);

    let ended = async {
        while stack
            .database()
            .count("SELECT count(*) FROM revocations")
            .await
            < 1
        {}
    };

    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    let (code, mut late) = (held.code(), Editor::for_session(&stack).await);
    let answer = late.try_resume(&held.ticket, &held.key).await;
    assert_eq!(answer["code"], "login_over", "{code}: {answer}");
}
