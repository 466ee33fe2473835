//! A socket over an in-memory pipe, with a clock that the tests advance.

use axum::extract::{Query, State};
use clap::Parser as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Bytes;
use tokio_tungstenite::tungstenite::protocol::Role;
use vvs_auth::key::Keyring;
use vvs_proto::{Phase, Secret};
use vvs_runtime::http::Connection;
use vvs_runtime::limit::Reached;
use vvs_runtime::metrics::Metrics;

use super::*;
use crate::authority::NotActivated;
use crate::authority::fake::{ADDRESS, Answer, Fake, ORIGIN, claims};
use crate::backplane::{Backplane, LocalBackplane, Request};
use crate::code::user_code;
use crate::drain::Drain;
use crate::keys::RelayKeys;
use crate::limit::Limits;
use crate::login::{Grant, User};
use crate::metric::Counts;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::ticket::Facts;

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    settings: Settings,
}

mod bound;
mod drain;
mod limits;
mod relays;

/// One relay with one editor, and a sessions role that plays a list of answers.
struct Stage {
    shared: Arc<Shared>,
    sessions: Fake,
    id: ConnectionId,
    editor: WebSocketStream<DuplexStream>,
    task: JoinHandle<()>,
}

fn start(shared: &Shared, id: ConnectionId, attempt: Option<Box<Attempt>>) -> Start {
    let connection_place = shared.limits.connection(ADDRESS).unwrap();
    let handshake = Some(shared.limits.handshake(ADDRESS, Instant::now()).unwrap());
    let nonce = NONCE.to_owned();
    let cut = Cut::default();

    Start {
        id,
        nonce,
        address: ADDRESS,
        attempt,
        bearer: None,
        connection_place,
        cut,
        handshake,
    }
}

const PIPE: usize = 1024;
const NONCE: &str = "nonce";

fn facts(id: ConnectionId) -> Facts {
    Facts {
        id,
        user_code: user_code().unwrap(),
        client_address: ADDRESS,
        created_at: OffsetDateTime::now_utc(),
        ttl: Duration::from_mins(10),
    }
}

impl Stage {
    async fn open(flags: &[&str]) -> Self {
        Self::open_with(flags, &[Ok(())]).await
    }

    async fn open_with(flags: &[&str], answers: &[Answer]) -> Self {
        let keys = RelayKeys::new(&Keyring::parse(&Keyring::generate().unwrap()).unwrap()).unwrap();
        Self::open_as(flags, answers, keys).await
    }

    async fn open_as(flags: &[&str], answers: &[Answer], keys: RelayKeys) -> Self {
        Self::open_on(flags, answers, keys, Box::new(LocalBackplane::default())).await
    }

    async fn open_on(
        flags: &[&str],
        answers: &[Answer],
        keys: RelayKeys,
        backplane: Box<dyn Backplane>,
    ) -> Self {
        let settings = Command::parse_from([&["relay"], flags].concat()).settings;
        let sessions = Fake::default();
        sessions.script().answers = answers.to_vec();
        let drain = Drain::new(Duration::from_secs(30), settings.dial().is_none());
        let shared = Arc::new(Shared {
            limits: Limits::new(settings.bounds(), Reached::default()),
            public_url: ORIGIN.parse().unwrap(),
            backplane,
            keys,
            authority: sessions.authority(settings.terms()),
            metrics: Counts::register(&Metrics::default()),
            gateways: None,
            settings,
            stop: CancellationToken::new(),
            tasks: tokio_util::task::TaskTracker::new(),
            held: tokio_util::task::TaskTracker::new(),
            drain,
        });
        let (ours, theirs) = duplex(PIPE);
        let id = ConnectionId::mint();
        let attempt = Some(Attempt::open(
            facts(id),
            shared.limits.login(ADDRESS, Instant::now()).unwrap(),
            shared.clone(),
        ));
        let start = Box::new(start(&shared, id, attempt));
        let task = shared.tasks.spawn(run(ours, start, shared.clone()));
        let editor = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let mut stage = Self {
            shared,
            sessions,
            id,
            editor,
            task,
        };
        assert_eq!(stage.frame().await["type"], "connection");

        stage
    }

    /// Returns the next text frame; the library answers pings on the way.
    async fn frame(&mut self) -> Value {
        loop {
            match self.editor.next().await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => self.editor.flush().await.unwrap(),
                other @ (Message::Binary(_)
                | Message::Pong(_)
                | Message::Close(_)
                | Message::Frame(_)) => {
                    panic!("{other:?} instead of a frame")
                }
            }
        }
    }

    /// Returns the code that the relay closes with, ignoring everything before it.
    async fn close_code(&mut self) -> u16 {
        loop {
            match self.editor.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("{other:?} instead of a close"),
            }
        }
    }

    async fn say(&mut self, frame: Value) {
        self.editor
            .send(Message::text(frame.to_string()))
            .await
            .unwrap();
    }

    async fn say_raw(&mut self, bytes: &[u8]) {
        self.editor.get_mut().write_all(bytes).await.unwrap();
    }

    /// Reads below the library, which would answer by itself.
    async fn read_raw_until(&mut self, end: &[u8]) {
        let (mut read, mut chunk) = (Vec::new(), [0; 256]);
        while !read.ends_with(end) {
            let length = self.editor.get_mut().read(&mut chunk).await.unwrap();
            assert_ne!(length, 0, "closed before");
            read.extend_from_slice(&chunk[..length]);
        }
    }

    /// Returns the status of an upgrade.
    async fn upgrade(&self, purpose: &'static str, token: Option<&Secret>) -> u16 {
        let request = axum::http::Request::get(purpose)
            .header("upgrade", "websocket")
            .header("connection", "upgrade");
        let request = request.header("sec-websocket-version", "13");
        let mut request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }

        let connection = Connection {
            remote: (ADDRESS, 1).into(),
            certificate: None,
            guard: Arc::new(()),
            cut: Cut::default(),
        };
        let request = request
            .extension(connection)
            .body(axum::body::Body::empty())
            .unwrap();
        let purpose = Query::try_from_uri(request.uri()).unwrap();

        crate::upgrade::upgrade(State(self.shared.clone()), purpose, request)
            .await
            .status()
            .as_u16()
    }

    fn ask(&self, request: Request) -> JoinHandle<crate::backplane::Answer> {
        let (shared, id) = (self.shared.clone(), self.id);
        self.shared
            .tasks
            .spawn(async move { shared.backplane.ask(id, request).await })
    }

    fn deliver(&self, request: u8) -> JoinHandle<crate::backplane::Answer> {
        self.ask(Request::Deliver(grant(request)))
    }

    async fn phase(&self) -> Phase {
        self.ask(Request::Look { known: None })
            .await
            .unwrap()
            .unwrap()
            .phase
    }

    fn asked_sessions(&self) -> usize {
        self.sessions.called("ActivateSessions")
    }

    /// Returns the sessions that the sessions role was told are over, and why.
    async fn ended(&self) -> Vec<(String, String)> {
        self.sessions.settle().await;
        let script = self.sessions.script();
        let ended = script.ends.iter();
        ended
            .map(|end| (end.session_id.clone(), end.reason().word()))
            .collect()
    }
}

fn request_id(request: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{request:02}")
}

fn grant(request: u8) -> Box<Grant> {
    let at = OffsetDateTime::now_utc() + time::Duration::hours(1);
    Box::new(Grant {
        request_id: request_id(request).parse().unwrap(),
        token: Secret::new("the token"),
        token_expires_at: at,
        user: User {
            id: "usr_1".to_owned(),
            email: None,
            name: Some("Ada".to_owned()),
            avatar_url: None,
        },
        session_id: "ses_1".to_owned(),
        session_expires_at: at,
    })
}

#[tokio::test(start_paused = true)]
async fn a_bare_editor_acknowledges_by_answering_the_ping_behind_its_token() {
    let mut stage = Stage::open(&[]).await;
    let delivered = stage.deliver(1);
    let success = stage.frame().await;
    assert_eq!(
        (&success["token"], &success["user"]["name"]),
        (&json!("the token"), &json!("Ada"))
    );
    assert_eq!(success["messageId"], request_id(1));

    // It has the frame and has not read on: not acknowledged yet.
    assert_eq!(stage.phase().await, Phase::Sent);

    stage.say(json!({"type": "ping"})).await;
    assert_eq!(stage.frame().await["type"], "pong");

    let view = delivered.await.unwrap().unwrap();
    assert_eq!(view.phase, Phase::Acked);
    assert!(view.acked_at.is_some());
    assert_eq!(stage.asked_sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_delivery_is_pushed_once_and_another_is_refused() {
    let mut stage = Stage::open(&[]).await;
    let (first, again) = (stage.deliver(1), stage.deliver(1));
    assert_eq!(stage.frame().await["type"], "auth:success");

    let other = stage.deliver(2).await.unwrap();
    assert!(matches!(other, Err(Refusal::Claimed)), "{other:?}");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    assert_eq!(first.await.unwrap().unwrap(), again.await.unwrap().unwrap());

    stage.deliver(1).await.unwrap().unwrap();
    stage.say(json!({"type": "ping"})).await;
    assert_eq!(
        stage.frame().await["type"],
        "pong",
        "no second token came before"
    );
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_something_else_counts_for_nothing() {
    let mut stage = Stage::open(&[]).await;
    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    assert_eq!(stage.frame().await["code"], "not_now");

    let delivered = stage.deliver(1);
    let first = stage.editor.next().await.unwrap().unwrap();
    assert!(first.is_text());

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(2), "ok": true}))
        .await;
    assert_eq!(stage.frame().await["code"], "not_now");

    delivered.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_cannot_store_its_token_is_not_signed_in() {
    let mut stage = Stage::open(&[]).await;
    let delivered = stage.deliver(1);
    let Some(Ok(Message::Text(_))) = stage.editor.next().await else {
        panic!("no token")
    };

    stage.say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": false, "reason": "store_failed"})).await;
    assert!(matches!(
        delivered.await.unwrap(),
        Err(Refusal::EditorRefused)
    ));
    assert_eq!(stage.close_code().await, close::LOGIN_OVER);
    assert!(
        matches!(stage.deliver(1).await.unwrap(), Err(Refusal::EditorRefused)),
        "and it stays so"
    );
    assert_eq!(stage.asked_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn sessions_being_down_is_told_and_made_good_later() {
    let mut stage = Stage::open_with(
        &[],
        &[Err(NotActivated::NotYet), Err(NotActivated::NotYet), Ok(())],
    )
    .await;
    let delivered = stage.deliver(1);
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    assert!(matches!(
        delivered.await.unwrap(),
        Err(Refusal::SessionsDown)
    ));
    assert_eq!(stage.phase().await, Phase::Sent);

    // The page delivers again, which asks sessions again, which is still down.
    assert!(matches!(
        stage.deliver(1).await.unwrap(),
        Err(Refusal::SessionsDown)
    ));

    // Nobody asks again, and the relay does by itself.
    let view = stage
        .ask(Request::Look {
            known: Some(Phase::Sent),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!((view.phase, stage.asked_sessions()), (Phase::Acked, 3));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_session_is_activated_though_its_editor_and_the_logins_time_are_gone() {
    // Every 2 s for longer than the login's 10 minutes.
    let mut answers = vec![Err(NotActivated::NotYet); 400];
    answers.push(Ok(()));
    let mut stage = Stage::open_with(&[], &answers).await;
    let delivered = stage.deliver(1);
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    assert!(matches!(
        delivered.await.unwrap(),
        Err(Refusal::SessionsDown)
    ));

    stage.editor.close(None).await.unwrap();
    (&mut stage.task).await.unwrap();
    assert_eq!(stage.asked_sessions(), answers.len());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_gone_is_not_asked_for_again() {
    let mut stage = Stage::open_with(&[], &[Err(NotActivated::Never)]).await;
    let delivered = stage.deliver(1);
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    assert!(matches!(delivered.await.unwrap(), Err(Refusal::Over)));
    assert_eq!(
        stage.phase().await,
        Phase::Cancelled,
        "and the page is not left to wait"
    );
    assert!(matches!(
        stage.deliver(1).await.unwrap(),
        Err(Refusal::Over)
    ));

    stage.editor.close(None).await.unwrap();
    (&mut stage.task).await.unwrap();
    assert_eq!(stage.asked_sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_closes_right_behind_its_acknowledgement_is_signed_in() {
    let mut stage = Stage::open_with(&[], &[Err(NotActivated::NotYet), Ok(())]).await;
    let delivered = stage.deliver(1);
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    stage.editor.close(None).await.unwrap();
    assert!(delivered.await.unwrap().is_err());

    let view = stage
        .ask(Request::Look {
            known: Some(Phase::Sent),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(view.phase, Phase::Acked);
}

/// Its library no longer answers pings once it has begun to close.
#[tokio::test(start_paused = true)]
async fn a_bare_editor_that_closes_as_soon_as_it_has_its_token_is_signed_in() {
    let mut stage = Stage::open(&[]).await;
    let delivered = stage.deliver(1);
    let Some(Ok(Message::Text(_))) = stage.editor.next().await else {
        panic!("no token")
    };
    stage.editor.close(None).await.unwrap();
    assert_eq!(delivered.await.unwrap().unwrap().phase, Phase::Acked);
    assert_eq!(stage.ended().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_bare_editor_that_closes_before_its_token_has_left_is_not_signed_in() {
    let mut stage = Stage::open(&[]).await;
    // More answers than fit into the pipe.
    for _ in 0..20 {
        stage.say(json!({"type": "dance"})).await;
    }

    let delivered = stage.deliver(1);
    assert_eq!(stage.phase().await, Phase::Sent);

    stage.editor.close(None).await.unwrap();
    assert!(matches!(delivered.await.unwrap(), Err(Refusal::Over)));
    assert_eq!(
        stage.ended().await,
        [("ses_1".to_owned(), "cancelled".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_meets_the_close_of_a_drain_counts() {
    let ack = json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}).to_string();
    let pong = Message::Pong(1_u64.to_be_bytes().to_vec().into());

    for last in [Message::text(ack), pong, Message::Close(None)] {
        let mut stage = Stage::open(&[]).await;
        let delivered = stage.deliver(1);
        let Some(Ok(Message::Text(_))) = stage.editor.next().await else {
            panic!("no token")
        };

        stage.shared.stop.cancel();
        stage.read_raw_until(&[0x88, 0x02, 0x0F, 0xA0]).await;
        stage.editor.send(last.clone()).await.unwrap();
        let delivered = delivered.await.unwrap();
        assert_eq!(
            delivered.map(|view| view.phase).ok(),
            Some(Phase::Acked),
            "{last:?}"
        );
        assert_eq!(stage.ended().await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_goes_away_takes_its_login_along() {
    for delivered_before in [false, true] {
        let mut stage = Stage::open(&[]).await;
        assert_eq!(stage.phase().await, Phase::Waiting);

        let delivered = delivered_before.then(|| stage.deliver(1));
        if delivered_before {
            let Some(Ok(Message::Text(_))) = stage.editor.next().await else {
                panic!("no token")
            };
        }

        drop(std::mem::replace(
            &mut stage.editor,
            WebSocketStream::from_raw_socket(duplex(1).0, Role::Client, None).await,
        ));
        if let Some(delivered) = delivered {
            assert!(matches!(delivered.await.unwrap(), Err(Refusal::Over)));
        }

        let known = Some(Phase::Waiting);
        let view = stage.ask(Request::Look { known }).await.unwrap().unwrap();
        assert_eq!(
            view.phase,
            Phase::Cancelled,
            "and that is answered until its time is over"
        );

        let ended = if delivered_before {
            vec![("ses_1".to_owned(), "cancelled".to_owned())]
        } else {
            vec![]
        };

        assert_eq!(stage.ended().await, ended);
        assert!(matches!(
            stage.deliver(1).await.unwrap(),
            Err(Refusal::Over)
        ));

        stage.task.await.unwrap();
        let answer = stage
            .shared
            .backplane
            .ask(stage.id, Request::Look { known: None })
            .await;
        assert!(matches!(answer, Err(Refusal::Unknown)), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_over_and_that_nobody_has_asked_for_is_not_kept() {
    for asked_for in [false, true] {
        let mut stage = Stage::open(&[]).await;
        if asked_for {
            assert_eq!(stage.phase().await, Phase::Waiting);
        }
        let started = Instant::now();
        stage.editor.close(None).await.unwrap();
        (&mut stage.task).await.unwrap();
        let kept_for = started.elapsed().as_secs();
        assert_eq!(kept_for, if asked_for { 600 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_gives_the_address_its_login_and_its_handshake_back() {
    let flags = [
        "--relay-max-logins-per-address",
        "1",
        "--relay-handshake-burst",
        "1",
    ];
    let mut stage = Stage::open(&flags).await;
    let has_room = |stage: &Stage| {
        let limits = &stage.shared.limits;
        (
            limits.login(ADDRESS, Instant::now()).is_ok(),
            limits.handshake(ADDRESS, Instant::now()).is_ok(),
        )
    };
    assert_eq!(has_room(&stage), (false, false));

    let delivered = stage.deliver(1);
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    delivered.await.unwrap().unwrap();
    assert_eq!(has_room(&stage), (true, true));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_with_a_token_is_never_charged_for_and_one_without_is() {
    let stage = Stage::open(&["--relay-handshake-burst", "2"]).await;
    stage.shared.authority.ready().await;
    let token = stage.sessions.sign(&claims("ses_1", None));
    for _ in 0..10 {
        assert_eq!(stage.upgrade("/ws", Some(&token)).await, 101);
    }

    let once_and_again = (
        stage.upgrade("/ws?for=session", None).await,
        stage.upgrade("/ws?for=session", None).await,
    );
    assert_eq!(once_and_again, (101, 429));
    assert_eq!(stage.upgrade("/ws", Some(&token)).await, 101);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_full_charges_nobody_for_it() {
    let stage = Stage::open(&[
        "--relay-handshake-burst",
        "2",
        "--relay-max-connections",
        "1",
    ])
    .await;
    for _ in 0..3 {
        assert_eq!(stage.upgrade("/ws", None).await, 503);
    }

    assert!(
        stage
            .shared
            .limits
            .handshake(ADDRESS, Instant::now())
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_denied_login_is_told_and_closed_and_denying_twice_is_fine() {
    let mut stage = Stage::open(&[]).await;
    stage.ask(Request::Deny).await.unwrap().unwrap();
    assert_eq!(stage.frame().await, json!({"type": "auth:denied"}));
    assert_eq!(stage.close_code().await, close::LOGIN_OVER);
    stage.ask(Request::Deny).await.unwrap().unwrap();
    assert!(matches!(
        stage.deliver(1).await.unwrap(),
        Err(Refusal::Over)
    ));
}

#[tokio::test(start_paused = true)]
async fn logins_that_are_over_take_no_place_from_those_whose_editors_may_come_back() {
    let mut stage = Stage::open(&["--relay-max-connections", "1"]).await;
    assert_eq!(stage.phase().await, Phase::Waiting);

    stage.editor.close(None).await.unwrap();
    let view = stage
        .ask(Request::Look {
            known: Some(Phase::Waiting),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(view.phase, Phase::Cancelled);
    assert!(stage.shared.limits.detached(ADDRESS).is_some());
    assert_eq!(
        stage.phase().await,
        Phase::Cancelled,
        "and it is still answered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_login_that_nobody_approves_expires() {
    let mut stage = Stage::open(&["--relay-login-ttl", "10m"]).await;
    let started = Instant::now();
    assert_eq!(stage.frame().await, json!({"type": "auth:expired"}));
    assert_eq!(started.elapsed().as_secs(), 600);
    assert_eq!(stage.close_code().await, close::LOGIN_OVER);
    let answer = stage
        .shared
        .backplane
        .ask(stage.id, Request::Look { known: None })
        .await;
    assert!(matches!(answer, Err(Refusal::Unknown)));
}

#[tokio::test(start_paused = true)]
async fn an_editor_cancels() {
    let mut stage = Stage::open(&[]).await;
    assert_eq!(stage.phase().await, Phase::Waiting);
    stage.say(json!({"type": "auth:cancel"})).await;
    assert_eq!(stage.close_code().await, close::NORMAL);
    assert_eq!(stage.phase().await, Phase::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_silent_editor_is_closed_when_its_pong_is_due() {
    let mut stage = Stage::open(&[]).await;
    let started = Instant::now();

    // Nothing is read, so the ping at 25 s is never answered, whatever else is sent.
    sleep(Duration::from_secs(26)).await;
    stage
        .editor
        .send(Message::Pong(Bytes::new()))
        .await
        .unwrap();
    (&mut stage.task).await.ok();
    let lived = started.elapsed().as_secs();
    assert!((33..=34).contains(&lived), "{lived}");

    let closes = stage
        .shared
        .metrics
        .closes
        .get_or_create(&[("code", "4002".to_owned())])
        .get();
    assert_eq!(closes, 1);
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_is_cut_off_is_counted_as_lost() {
    let mut stage = Stage::open(&[]).await;
    stage.editor.get_mut().shutdown().await.unwrap();
    (&mut stage.task).await.unwrap();
    assert_eq!(
        stage
            .shared
            .metrics
            .closes
            .get_or_create(&[("code", "lost".to_owned())])
            .get(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_answers_pings_stays_for_the_whole_login() {
    let mut stage = Stage::open(&[]).await;
    let started = Instant::now();
    assert_eq!(
        stage.frame().await["type"],
        "auth:expired",
        "and not closed before"
    );
    assert_eq!(started.elapsed().as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn frames_that_make_no_sense_are_answered_and_the_socket_stays() {
    let mut stage = Stage::open(&[]).await;
    for (frame, r#type, code) in [
        (json!({"type": "dance"}), "error", "unknown_type"),
        (
            json!({"type": "auth:ack", "messageId": 7}),
            "error",
            "malformed",
        ),
        (json!({"type": "hello"}), "error", "malformed"),
        (
            json!({"type": "auth:complete", "code": "BCDFGHJK", "method": "typed"}),
            "error",
            "not_now",
        ),
        (
            json!({"type": "token:refresh", "proof": "x"}),
            "error",
            "not_now",
        ),
        (json!({"type": "session:logout"}), "error", "not_now"),
        (
            json!({"type": "authenticate", "token": "x"}),
            "auth:failure",
            "bad_token",
        ),
        (
            json!({"type": "resume", "ticket": "x", "proof": "x"}),
            "auth:error",
            "bad_ticket",
        ),
        (
            json!({"type": "hello", "app": {"name": "VVS", "version": "1"}, "device": {"name": "d", "os": "o"},
                   "deviceKey": {}, "proof": "x"}),
            "auth:error",
            "bad_device_key",
        ),
    ] {
        stage.say(frame.clone()).await;
        let answer = stage.frame().await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!(r#type), &json!(code)),
            "{frame}"
        );
    }

    assert_eq!(stage.phase().await, Phase::Waiting);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_closes_the_socket() {
    for text in [
        "",
        "no json",
        "[]",
        "7",
        "{}",
        "{\"type\": 7}",
        "[{\"type\":\"ping\"}]",
    ] {
        let mut stage = Stage::open(&[]).await;
        stage.editor.send(Message::text(text)).await.unwrap();
        assert_eq!(stage.close_code().await, close::PROTOCOL_ERROR, "{text:?}");
    }

    let mut stage = Stage::open(&[]).await;
    stage.editor.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(stage.close_code().await, close::PROTOCOL_ERROR);

    // A text frame of two bytes that are not UTF-8, masked with zeroes.
    let mut stage = Stage::open(&[]).await;
    stage.say_raw(&[0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28]).await;
    assert_eq!(stage.close_code().await, close::PROTOCOL_ERROR);

    // A frame that is not masked (RFC 6455, section 5.1).
    let mut stage = Stage::open(&[]).await;
    stage.say_raw(&[0x81, 0x02, b'{', b'}']).await;
    assert_eq!(stage.close_code().await, close::PROTOCOL_ERROR);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_long_closes_the_socket() {
    let padded = |length: usize| json!({"type": "ping", "pad": "x".repeat(length)}).to_string();
    let mut stage = Stage::open(&[]).await;
    stage
        .editor
        .send(Message::text(padded(8_000)))
        .await
        .unwrap();
    assert_eq!(stage.frame().await["type"], "pong");

    stage
        .editor
        .send(Message::text(padded(8 * 1024)))
        .await
        .unwrap();
    assert_eq!(stage.close_code().await, close::TOO_BIG);

    // Announced with one byte too many and never sent: refused by its header.
    let mut stage = Stage::open(&[]).await;
    stage.say_raw(&[0x81, 0xFE, 0x20, 0x01, 0, 0, 0, 0]).await;
    assert_eq!(stage.close_code().await, close::TOO_BIG);
}

#[tokio::test(start_paused = true)]
async fn a_message_in_many_fragments_is_one_message_and_counts_as_one() {
    let mut stage = Stage::open(&[]).await;
    let text = br#"{"type":"ping"}"#;
    for (at, byte) in text.iter().enumerate() {
        let (first, last) = (u8::from(at == 0), u8::from(at + 1 == text.len()));
        stage
            .say_raw(&[first | last << 7, 0x81, 0, 0, 0, 0, *byte])
            .await;
    }

    assert_eq!(stage.frame().await["type"], "pong");

    // Each half is short enough.
    for first in [0x01, 0x80] {
        stage.say_raw(&[first, 0xFE, 0x13, 0x88, 0, 0, 0, 0]).await;
        stage.say_raw(&[b' '; 5000]).await;
    }

    assert_eq!(stage.close_code().await, close::TOO_BIG);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_fragments_closes_the_socket() {
    let mut stage = Stage::open(&[]).await;
    stage.say_raw(&[0x01, 0x80, 0, 0, 0, 0]).await;
    let fragments = [0x00, 0x80, 0, 0, 0, 0].repeat(1000);
    for _ in 0..100 {
        if stage.editor.get_mut().write_all(&fragments).await.is_err() {
            break;
        }
    }

    assert_eq!(
        stage
            .shared
            .metrics
            .closes
            .get_or_create(&[("code", "4003".to_owned())])
            .get(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_signed_in_editor_may_send_longer_messages() {
    let mut stage = Stage::open(&[]).await;
    let delivered = stage.deliver(1);
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    delivered.await.unwrap().unwrap();
    stage
        .editor
        .send(Message::text(
            json!({"type": "ping", "pad": "x".repeat(60_000)}).to_string(),
        ))
        .await
        .unwrap();
    assert_eq!(stage.frame().await["type"], "pong");

    stage
        .say_raw(&[0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0])
        .await;
    assert_eq!(stage.close_code().await, close::TOO_BIG);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_closes_the_socket() {
    let messages = [
        Message::text(r#"{"type":"pong"}"#),
        Message::Ping(Bytes::new()),
        Message::Pong(Bytes::from_static(&[0; 8])),
    ];
    for message in messages {
        let mut stage = Stage::open(&["--relay-messages-per-minute", "60"]).await;
        for _ in 0..63 {
            stage.editor.send(message.clone()).await.unwrap();
        }
        assert_eq!(stage.close_code().await, close::RATE_LIMITED, "{message:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_answers_every_ping_has_all_its_messages_left() {
    let flags = [
        "--relay-messages-per-minute",
        "1",
        "--relay-heartbeat-interval",
        "1s",
    ];
    let mut stage = Stage::open(&flags).await;
    let until = Instant::now() + Duration::from_mins(1);
    while let Ok(message) = timeout_at(until, stage.editor.next()).await {
        assert!(message.unwrap().unwrap().is_ping());
        stage.editor.flush().await.unwrap();
    }

    stage.say(json!({"type": "ping"})).await;
    assert_eq!(stage.frame().await["type"], "pong");
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_does_not_read_is_cut_off() {
    let flags = [
        "--relay-send-queue-bytes",
        "4096",
        "--relay-messages-per-minute",
        "100000",
    ];
    let mut stage = Stage::open(&flags).await;

    // Each is answered by an error, and nobody reads the answers.
    let stream = async {
        while stage
            .editor
            .send(Message::text(r#"{"type":"x"}"#))
            .await
            .is_ok()
        {}
    };

    tokio::select! {
        () = stream => {}
        _ = &mut stage.task => {}
    }
    let closes = stage
        .shared
        .metrics
        .closes
        .get_or_create(&[("code", "4001".to_owned())])
        .get();
    assert_eq!(closes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_socket_outlives_its_login_and_not_its_token() {
    let mut stage = Stage::open(&[]).await;
    let delivered = stage.deliver(1);
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    delivered.await.unwrap().unwrap();
    let started = Instant::now();
    let failure = stage.frame().await;
    assert_eq!(
        (&failure["code"], &failure["terminal"]),
        (&json!("token_expired"), &json!(false))
    );

    // An hour and the leeway; the frame counts whole seconds of a real clock.
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    assert!((60.5..61.1).contains(&minutes), "{minutes}");
    assert_eq!(stage.close_code().await, close::RECONNECT);
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_cannot_reach_the_minimum_binding_gets_nothing() {
    for least in ["typed", "link"] {
        let mut stage = Stage::open(&["--relay-min-binding", least]).await;
        for request in [
            Request::Look { known: None },
            Request::Deliver(grant(1)),
            Request::Deny,
        ] {
            let answer = stage.ask(request).await.unwrap();
            assert!(
                matches!(answer, Err(Refusal::EditorCannotBind)),
                "{answer:?}"
            );
        }

        stage.say(json!({"type": "ping"})).await;
        assert_eq!(stage.frame().await["type"], "pong", "nothing came before");
    }
}
