//! Editors that have introduced themselves: the code that ties browser and editor, and the ticket
//! that outlives a socket.

use vvs_proto::frame::Binding;

use super::*;
use crate::authority::fake::Key;
use crate::backplane::Handover;
use crate::login::State as LoginState;
use crate::ticket::Ticket;

impl Stage {
    pub(super) async fn hello(&mut self, key: &Key, return_uri: Option<&str>) -> Value {
        let frame = hello(key, return_uri);
        self.say(frame).await;
        self.frame().await
    }

    /// Returns the content of its editor's ticket.
    async fn ticket(&mut self, key: &Key) -> Ticket {
        let sealed = Secret::new(self.hello(key, None).await["ticket"].as_str().unwrap());
        Ticket::open(&self.shared.keys.ticket, &sealed).unwrap()
    }

    /// Opens a second socket on the same relay.
    pub(super) async fn reconnect(&self) -> Stage {
        let (ours, theirs) = duplex(PIPE);
        let start = Box::new(start(&self.shared, ConnectionId::mint(), None));
        let task = self
            .shared
            .tasks
            .spawn(run(ours, start, self.shared.clone()));
        let editor = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let (shared, sessions) = (self.shared.clone(), self.sessions.clone());
        let mut stage = Stage {
            shared,
            sessions,
            id: self.id,
            editor,
            task,
        };
        let connection = stage.frame().await;
        assert_eq!(
            (&connection["type"], &connection["userCode"]),
            (&json!("connection"), &Value::Null)
        );

        stage
    }

    pub(super) async fn resume(&mut self, ticket: &Value, key: &Key) -> Value {
        self.say(json!({"type": "resume", "ticket": ticket, "proof": key.proof("resume", None).expose()})).await;
        self.frame().await
    }

    pub(super) async fn complete(&mut self, code: &str) {
        self.say(json!({"type": "auth:complete", "code": code, "method": "typed"}))
            .await;
    }

    pub(super) fn code(&self, request: u8) -> String {
        let delivery = request_id(request).parse().unwrap();
        self.shared
            .keys
            .completion_code(self.id, delivery)
            .expose()
            .to_owned()
    }
}

fn hello(key: &Key, return_uri: Option<&str>) -> Value {
    let mut frame = json!({
        "type": "hello",
        "app": {"name": "VVS", "version": "1.2"},
        "device": {"name": "Ada's\u{202e} desk", "os": "Linux"},
        "deviceKey": serde_json::to_value(key.jwk()).unwrap(),
        "proof": key.proof("hello", None).expose(),
    });
    if let Some(uri) = return_uri {
        frame["returnUri"] = json!(uri);
    }
    frame
}

#[tokio::test(start_paused = true)]
async fn an_approval_is_held_until_the_editor_shows_the_code() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let ok = stage.hello(&key, None).await;
    assert_eq!(
        (&ok["type"], &ok["binding"]),
        (&json!("hello:ok"), &json!("typed"))
    );

    let view = stage.deliver(1).await.unwrap().unwrap();
    assert_eq!((view.phase, view.binding), (Phase::Held, Binding::Typed));
    assert_eq!(view.hello.unwrap().device.name, "Ada's desk");

    let pending = stage.frame().await;
    assert_eq!(
        (&pending["type"], &pending["attemptsLeft"]),
        (&json!("auth:pending"), &json!(5))
    );
    assert_eq!(pending["codeLength"], 8);
    assert!((590..=600).contains(&pending["expiresIn"].as_u64().unwrap()));

    let code = stage.code(1).to_lowercase().replace('-', " ");
    stage.complete(&code).await;
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    let delivered = stage.deliver(1).await.unwrap().unwrap();
    assert_eq!(delivered.phase, Phase::Acked);
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_can_acknowledge_is_not_taken_at_its_pong() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    stage.hello(&key, None).await;
    stage.deliver(1).await.unwrap().unwrap();
    stage.frame().await;
    stage.complete(&stage.code(1)).await;
    assert_eq!(stage.frame().await["type"], "auth:success");
    stage.say(json!({"type": "ping"})).await;
    assert_eq!(stage.frame().await["type"], "pong");
    assert_eq!(stage.phase().await, Phase::Sent);
}

#[tokio::test(start_paused = true)]
async fn five_wrong_codes_burn_the_login_and_its_session() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    stage.hello(&key, Some("http://127.0.0.1:5000/")).await;
    stage.deliver(1).await.unwrap().unwrap();
    assert_eq!(stage.frame().await["type"], "auth:pending");

    for left in [4, 3, 2, 1, 0] {
        stage.complete("BBBB-BBBB").await;
        let error = stage.frame().await;
        assert_eq!(
            (&error["code"], &error["attemptsLeft"]),
            (&json!("bad_code"), &json!(left))
        );
    }

    assert_eq!(stage.close_code().await, close::LOGIN_OVER);
    assert_eq!(stage.phase().await, Phase::Burned);
    assert_eq!(
        stage.ended().await,
        [("ses_1".to_owned(), "burned".to_owned())]
    );
    assert!(matches!(
        stage.deliver(1).await.unwrap(),
        Err(Refusal::Over)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_is_not_taken_changes_nothing() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let mut foreign = hello(&key, None);
    foreign["proof"] = json!(Key::new().proof("hello", None).expose());
    let mut elsewhere = hello(&key, None);
    elsewhere["proof"] = json!(key.proof_over("another nonce", "hello", None).expose());
    let mut private = hello(&key, None);
    private["deviceKey"]["d"] = json!("AAAA");

    for (frame, code) in [
        (foreign, "bad_proof"),
        (elsewhere, "bad_proof"),
        (private, "bad_device_key"),
        (hello(&key, Some("https://evil.example/")), "bad_return_uri"),
    ] {
        stage.say(frame).await;
        assert_eq!(stage.frame().await["code"], code);
    }

    assert_eq!(
        stage.hello(&key, None).await["type"],
        "hello:ok",
        "one that is right is still taken"
    );
    assert_eq!(
        stage.hello(&key, None).await["code"],
        "too_late",
        "and only one"
    );
}

#[tokio::test(start_paused = true)]
async fn a_proof_is_good_once_on_its_socket_also_for_a_hello_or_resume_that_was_refused() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let mut frame = hello(&key, Some("https://evil.example/"));
    for code in ["bad_return_uri", "bad_proof"] {
        stage.say(frame.clone()).await;
        assert_eq!(stage.frame().await["code"], code);
    }

    frame["returnUri"] = Value::Null;
    stage.say(frame).await;
    assert_eq!(stage.frame().await["code"], "bad_proof");

    let ticket = stage.hello(&key, None).await["ticket"].clone();

    // A relay that cannot take the login right now.
    let flags = ["--relay-max-logins-per-address", "1"];
    let relay = Stage::open_as(&flags, &[Ok(())], stage.shared.keys.clone()).await;
    let mut back = relay.reconnect().await;
    let frame =
        json!({"type": "resume", "ticket": ticket, "proof": key.proof("resume", None).expose()});
    for code in ["not_ready", "bad_proof"] {
        back.say(frame.clone()).await;
        assert_eq!(back.frame().await["code"], code);
    }

    assert_eq!(
        back.resume(&ticket, &key).await["code"],
        "not_ready",
        "another one is looked at"
    );
}

#[tokio::test(start_paused = true)]
async fn a_socket_takes_no_more_proofs_than_it_can_remember() {
    let (mut stage, key) = (
        Stage::open(&["--relay-proofs-per-socket", "2"]).await,
        Key::new(),
    );
    for code in ["bad_return_uri", "bad_return_uri"] {
        assert_eq!(
            stage.hello(&key, Some("https://evil.example/")).await["code"],
            code
        );
    }

    assert_eq!(stage.hello(&key, None).await["type"], "reconnect");
    assert_eq!(stage.close_code().await, close::RECONNECT);
}

#[tokio::test(start_paused = true)]
async fn a_hello_after_the_person_was_shown_the_login_is_too_late() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    stage.phase().await;
    assert_eq!(stage.hello(&key, None).await["code"], "too_late");

    let delivered = stage.deliver(1);
    assert_eq!(
        stage.frame().await["type"],
        "auth:success",
        "it stays a bare login"
    );

    stage.say(json!({"type": "ping"})).await;
    assert_eq!(stage.frame().await["type"], "pong");

    delivered.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_login_waits_for_an_editor_with_a_ticket_and_is_what_it_was_when_it_is_back() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    stage.deliver(1).await.unwrap().unwrap();
    stage.frame().await;
    for _ in 0..2 {
        stage.complete("BBBB-BBBB").await;
        stage.frame().await;
    }

    stage.editor.close(None).await.unwrap();
    let away = stage
        .ask(Request::Look {
            known: Some(Phase::Held),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(away.phase, Phase::Away);
    assert!(matches!(
        stage.deliver(2).await.unwrap(),
        Err(Refusal::Claimed)
    ));

    let mut back = stage.reconnect().await;
    let connection = back.resume(&ticket, &key).await;
    assert_eq!(
        (&connection["type"], &connection["resumed"]),
        (&json!("connection"), &json!(true))
    );
    assert_eq!(connection["connectionId"], stage.id.to_string());
    assert!(connection["userCode"].is_string());
    assert_ne!(
        back.frame().await["ticket"],
        ticket,
        "hello:ok brings a new one"
    );

    let pending = back.frame().await;
    assert_eq!(
        (&pending["type"], &pending["attemptsLeft"]),
        (&json!("auth:pending"), &json!(3))
    );

    back.complete(&stage.code(1)).await;
    let success = back.frame().await;
    assert_eq!(success["messageId"], request_id(1));
}

#[tokio::test(start_paused = true)]
async fn a_resume_takes_the_login_from_a_socket_that_still_lives() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    stage.deliver(1).await.unwrap().unwrap();
    stage.frame().await;
    stage.complete(&stage.code(1)).await;
    assert_eq!(stage.frame().await["messageId"], request_id(1));

    let mut back = stage.reconnect().await;
    back.resume(&ticket, &key).await;
    assert_eq!(stage.close_code().await, close::LOGIN_OVER);
    assert_eq!(back.frame().await["type"], "hello:ok");
    assert_eq!(
        back.frame().await["messageId"],
        request_id(1),
        "the same message again"
    );

    back.say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    let delivered = stage.deliver(1).await.unwrap().unwrap();
    assert_eq!(delivered.phase, Phase::Acked);
    assert_eq!(stage.asked_sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_its_editor_never_acknowledged_is_worth_nothing_when_the_login_is_over() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    stage.hello(&key, None).await;
    stage.deliver(1).await.unwrap().unwrap();
    stage.frame().await;
    stage.complete(&stage.code(1)).await;
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage.editor.close(None).await.unwrap();
    let away = stage
        .ask(Request::Look {
            known: Some(Phase::Sent),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(away.phase, Phase::Away);
    assert_eq!(stage.ended().await, [], "it may come back for it");

    (&mut stage.task).await.unwrap();
    assert_eq!(
        stage.ended().await,
        [("ses_1".to_owned(), "expired".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_worth_nothing_without_its_key() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    let mut thief = stage.reconnect().await;
    assert_eq!(
        thief.resume(&ticket, &Key::new()).await["code"],
        "bad_proof"
    );
    assert_eq!(
        thief.resume(&json!("AAAA"), &key).await["code"],
        "bad_ticket"
    );
    assert_eq!(stage.phase().await, Phase::Waiting, "nobody took it");

    stage.say(json!({"type": "ping"})).await;
    assert_eq!(stage.frame().await["type"], "pong");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_over_is_not_taken_up_again() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    stage.ask(Request::Deny).await.unwrap().unwrap();
    let mut back = stage.reconnect().await;
    assert_eq!(back.resume(&ticket, &key).await["code"], "login_over");
    assert_eq!(back.close_code().await, close::LOGIN_OVER);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_no_relay_holds_begins_again_from_its_ticket() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let ticket = stage.hello(&key, None).await["ticket"].clone();

    // Another relay with the same key, after the first was killed.
    let mut relay = Stage::open_as(&[], &[Ok(())], stage.shared.keys.clone()).await;
    relay.id = stage.id;
    let mut back = relay.reconnect().await;
    assert_eq!(
        back.resume(&ticket, &key).await["connectionId"],
        stage.id.to_string()
    );
    assert_eq!(back.frame().await["type"], "hello:ok");

    let view = relay.deliver(1).await.unwrap().unwrap();
    assert_eq!(view.phase, Phase::Held);
    assert_eq!(view.hello.unwrap().app.name, "VVS");
    assert_eq!(back.frame().await["type"], "auth:pending");

    back.complete(&stage.code(1)).await;
    assert_eq!(
        back.frame().await["messageId"],
        request_id(1),
        "the code is the same on every relay"
    );
}

#[tokio::test(start_paused = true)]
async fn a_login_counts_once_against_its_address_wherever_its_editor_is_until_it_is_over() {
    let (mut stage, key) = (
        Stage::open(&["--relay-max-logins-per-address", "1"]).await,
        Key::new(),
    );
    let has_room = |stage: &Stage| stage.shared.limits.login(ADDRESS, Instant::now()).is_ok();
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    stage.deliver(1).await.unwrap().unwrap();
    stage.editor.close(None).await.unwrap();
    let away = stage
        .ask(Request::Look {
            known: Some(Phase::Held),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!((away.phase, has_room(&stage)), (Phase::Away, false));

    let mut back = stage.reconnect().await;
    assert_eq!(back.resume(&ticket, &key).await["resumed"], true);

    (&mut stage.task).await.unwrap();
    assert!(
        !has_room(&back),
        "the old task has let go of it, and not of its place"
    );

    back.say(json!({"type": "auth:cancel"})).await;
    assert_eq!(back.close_code().await, close::NORMAL);
    assert!(has_room(&back));
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_resumes_gives_up_the_login_that_it_began_with_first() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    let flags = ["--relay-max-logins-per-address", "1"];
    let mut relay = Stage::open_as(&flags, &[Ok(())], stage.shared.keys.clone()).await;
    assert_eq!(relay.resume(&ticket, &key).await["resumed"], true);
    assert!(relay.shared.limits.login(ADDRESS, Instant::now()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_gave_up_its_login_for_one_that_it_does_not_get_waits_no_longer_than_others()
{
    let (mut stage, key) = (
        Stage::open(&["--relay-max-logins-per-address", "1"]).await,
        Key::new(),
    );
    let away = "192.0.2.1".parse().unwrap();
    let Ticket {
        hello,
        binding,
        generation,
        ..
    } = stage.ticket(&key).await;
    let facts = Facts {
        client_address: away,
        ..facts(ConnectionId::mint())
    };
    let ticket = Ticket::new(&facts, hello, binding, generation)
        .seal(&stage.shared.keys.ticket)
        .unwrap();
    let mut relay = Stage::open_as(
        &["--relay-max-logins-per-address", "1"],
        &[Ok(())],
        stage.shared.keys.clone(),
    )
    .await;
    let _full_there = relay.shared.limits.login(away, Instant::now()).unwrap();
    let started = Instant::now();

    assert_eq!(
        relay.resume(&json!(ticket.expose()), &key).await["code"],
        "not_ready"
    );
    assert_eq!(relay.close_code().await, close::RECONNECT);
    assert!((10..=15).contains(&started.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_login_whose_time_runs_out_while_it_changes_sockets_expires_with_its_session() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let Ticket {
        hello,
        binding,
        generation,
        ..
    } = stage.ticket(&key).await;
    let created_at = OffsetDateTime::now_utc() - time::Duration::minutes(11);
    let late = Facts {
        created_at,
        ..facts(stage.id)
    };
    let handover = Handover {
        generation,
        state: LoginState::Held {
            grant: grant(1),
            attempts_left: 3,
        },
        listening: Some(stage.shared.backplane.register(stage.id, 0)),
        login_place: None,
    };
    let ticket = Ticket::new(&late, hello, binding, generation);
    let mut attempt = Attempt::resume(ticket, Some(handover), stage.shared.clone()).unwrap();
    let actions = attempt.on_timer(Instant::now());

    assert_eq!(
        actions,
        [Action::TellExpired, Action::Close(close::LOGIN_OVER)]
    );
    assert_eq!(
        stage.ended().await,
        [("ses_1".to_owned(), "expired".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_login_that_begins_again_from_its_ticket_counts_against_its_address() {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    let flags = ["--relay-max-logins-per-address", "1"];
    let mut relay = Stage::open_as(&flags, &[Ok(())], stage.shared.keys.clone()).await;
    relay.id = stage.id;
    let mut back = relay.reconnect().await;
    let refused = back.resume(&ticket, &key).await;
    assert_eq!(
        (&refused["code"], &refused["retryable"]),
        (&json!("not_ready"), &json!(true))
    );

    relay.say(json!({"type": "auth:cancel"})).await;
    assert_eq!(relay.close_code().await, close::NORMAL);
    assert_eq!(back.resume(&ticket, &key).await["resumed"], true);
    assert!(back.shared.limits.login(ADDRESS, Instant::now()).is_err());
}

#[tokio::test(start_paused = true)]
async fn no_more_logins_are_kept_without_a_socket_than_sockets() {
    let (mut stage, key) = (
        Stage::open(&["--relay-max-connections", "2"]).await,
        Key::new(),
    );
    let held: Vec<_> = (0..2)
        .map(|_| stage.shared.limits.detached(ADDRESS).unwrap())
        .collect();
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    stage.deliver(1).await.unwrap().unwrap();
    stage.editor.close(None).await.unwrap();
    (&mut stage.task).await.unwrap();
    assert_eq!(stage.shared.metrics.logins_given_up.get(), 1);
    assert_eq!(
        stage.ended().await,
        [],
        "its editor and the page bring it again"
    );
    assert!(stage.shared.limits.login(ADDRESS, Instant::now()).is_ok());

    drop(held);
    let mut back = stage.reconnect().await;
    assert_eq!(back.resume(&ticket, &key).await["resumed"], true);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_comes_for_a_session_and_asks_for_none_is_closed() {
    let stage = Stage::open(&[]).await;
    let mut idle = stage.reconnect().await;
    let started = Instant::now();
    assert_eq!(idle.close_code().await, close::RECONNECT);
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_came_for_a_session_gets_no_time_for_junk() {
    let stage = Stage::open(&[]).await;
    let (mut junk, started) = (stage.reconnect().await, Instant::now());
    for _ in 0..3 {
        junk.say(json!({"type": "authenticate", "token": "x"}))
            .await;
        assert_eq!(junk.frame().await["code"], "bad_token");
        sleep(Duration::from_secs(3)).await;
    }
    assert_eq!(junk.close_code().await, close::RECONNECT);
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_asked_to_try_again_has_the_time_for_it_and_not_for_ever() {
    let stage = Stage::open(&[]).await;
    stage.shared.authority.ready().await;
    stage.sessions.rotate();
    let foreign = stage.sessions.sign(&claims("ses_1", None));
    stage.sessions.script().keys.pop();
    let (mut patient, started) = (stage.reconnect().await, Instant::now());
    for _ in 0..100 {
        patient
            .say(json!({"type": "authenticate", "token": foreign.expose()}))
            .await;
        if let Ok(code) = timeout(Duration::from_secs(5), patient.close_code()).await {
            assert_eq!(code, close::RECONNECT);
            break;
        }
    }

    assert_eq!(started.elapsed().as_secs(), 120);
}
