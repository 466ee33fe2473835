//! Limits that close a socket, and their reports.

use super::*;
use crate::authority::fake::Key;
use crate::limit::SOCKET_BYTES;

impl Stage {
    /// Returns how often this limit was reported.
    fn told(&self, setting: &'static str) -> u64 {
        self.shared.limits.reached.times(setting)
    }

    /// Opens another socket on this relay, for a session; with the means to reset it.
    async fn another(&self) -> (WebSocketStream<DuplexStream>, Cut, JoinHandle<()>) {
        let (ours, theirs) = duplex(PIPE);
        let start = Box::new(start(&self.shared, ConnectionId::mint(), None));
        let cut = start.cut.clone();
        let task = self
            .shared
            .tasks
            .spawn(run(ours, start, self.shared.clone()));

        (
            WebSocketStream::from_raw_socket(theirs, Role::Client, None).await,
            cut,
            task,
        )
    }

    /// Waits until the memory that is kept for sockets satisfies this condition.
    async fn until_kept(&self, is: impl Fn(usize) -> bool) {
        let memory = &self.shared.limits.memory;
        for _ in 0..10_000 {
            if is(memory.kept()) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} bytes are kept", memory.kept());
    }
}

#[tokio::test(start_paused = true)]
async fn each_limit_that_closes_a_socket_is_told_by_its_setting() {
    let ping = || Message::text(r#"{"type":"ping"}"#);
    let long = || Message::text(json!({"type": "ping", "pad": "x".repeat(200)}).to_string());

    for (flags, messages, setting) in [
        (
            ["--relay-messages-per-minute", "1"],
            vec![ping(), ping()],
            "VVS_RELAY_MESSAGES_PER_MINUTE",
        ),
        (
            ["--relay-max-message-bytes", "100"],
            vec![long()],
            "VVS_RELAY_MAX_MESSAGE_BYTES",
        ),
        (
            ["--relay-send-queue-bytes", "10"],
            vec![ping()],
            "VVS_RELAY_SEND_QUEUE_BYTES",
        ),
        (
            ["--relay-sign-in-time", "10s"],
            vec![],
            "VVS_RELAY_SIGN_IN_TIME",
        ),
    ] {
        let stage = Stage::open(&flags).await;
        let before = stage.told(setting);
        let (mut editor, _, task) = stage.another().await;
        for message in messages {
            editor.send(message).await.unwrap();
        }
        let reading = async { while let Some(Ok(_)) = editor.next().await {} };
        tokio::join!(reading, async { task.await.unwrap() });
        assert_eq!((before, stage.told(setting)), (0, 1), "{flags:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_signed_in_editors_messages_is_another_one() {
    let mut stage = Stage::open(&["--relay-max-message-bytes-signed-in", "10000"]).await;
    let delivered = stage.deliver(1);
    assert_eq!(stage.frame().await["type"], "auth:success");

    stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    delivered.await.unwrap().unwrap();
    stage
        .editor
        .send(Message::text("x".repeat(10_001)))
        .await
        .unwrap();
    assert_eq!(stage.close_code().await, close::TOO_BIG);
    assert_eq!(stage.told("VVS_RELAY_MAX_MESSAGE_BYTES_SIGNED_IN"), 1);
    assert_eq!(stage.told("VVS_RELAY_MAX_MESSAGE_BYTES"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_takes_nothing_is_told_so_for_a_second_and_then_reset_and_one_that_reads_is_not()
 {
    for reads in [false, true] {
        let flags = [
            "--relay-send-queue-bytes",
            "2000",
            "--relay-messages-per-minute",
            "100000",
        ];
        let stage = Stage::open(&flags).await;
        let (mut editor, cut, mut task) = stage.another().await;
        let closes = || {
            stage
                .shared
                .metrics
                .closes
                .get_or_create(&[("code", "4001".to_owned())])
                .get()
        };
        while closes() == 0 {
            editor.send(Message::text(r#"{"type":"x"}"#)).await.unwrap();
            tokio::task::yield_now().await;
        }

        let began = Instant::now();
        assert!(!cut.is_set());

        if reads {
            let mut last = None;
            while let Some(Ok(message)) = editor.next().await {
                last = Some(message);
            }
            let Some(Message::Close(Some(frame))) = last else {
                panic!("{last:?} instead of a close")
            };
            assert_eq!(u16::from(frame.code), close::TOO_SLOW);
        }

        (&mut task).await.unwrap();
        assert_eq!(
            (cut.is_set(), began.elapsed().as_secs()),
            (!reads, u64::from(!reads)),
            "{reads}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_socket_counts_until_it_has_left() {
    let stage = Stage::open(&["--relay-messages-per-minute", "100000"]).await;
    let (mut editor, _, task) = stage.another().await;
    let two = 2 * SOCKET_BYTES;
    stage.until_kept(|kept| kept == two).await;

    // A message of 5000 bytes, without its end.
    let mut frame = [&[0x81, 0xFE, 0x13, 0x88, 0, 0, 0, 0][..], &[b' '; 5000]].concat();
    let end = frame.split_off(4000);
    editor.get_mut().write_all(&frame).await.unwrap();
    stage.until_kept(|kept| kept == two + 4000).await;
    editor.get_mut().write_all(&end).await.unwrap();

    // It is no frame, so the socket is closed, and then all of it is free.
    let reading = async { while let Some(Ok(_)) = editor.next().await {} };
    tokio::join!(reading, async { task.await.unwrap() });
    stage.until_kept(|kept| kept == SOCKET_BYTES).await;

    let (mut editor, _, _task) = stage.another().await;
    for _ in 0..40 {
        editor.send(Message::text(r#"{"type":"x"}"#)).await.unwrap();
    }

    stage.until_kept(|kept| kept > two + 1000).await;
    for _ in 0..41 {
        editor.next().await.unwrap().unwrap();
    }

    stage.until_kept(|kept| kept == two).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_without_memory_takes_nobody_new_and_keeps_whom_it_has() {
    let mut stage = Stage::open(&["--relay-max-memory", "20000"]).await;
    assert_eq!(stage.upgrade("/ws", None).await, 503);
    assert_eq!(stage.told("VVS_RELAY_MAX_MEMORY"), 1);
    stage.say(json!({"type": "ping"})).await;
    assert_eq!(stage.frame().await["type"], "pong");
}

/// Without pings: the clock advances by more than an editor may take to answer them.
const FULL: [&str; 4] = [
    "--relay-max-logins-per-address",
    "1",
    "--relay-heartbeat-interval",
    "1h",
];

/// Returns whether there is room for a new login from the editor's address, a minute later.
async fn has_room_later(stage: &Stage) -> bool {
    assert!(
        stage.shared.limits.login(ADDRESS, Instant::now()).is_err(),
        "the address is full"
    );
    tokio::time::advance(Duration::from_secs(61)).await;
    stage.shared.limits.login(ADDRESS, Instant::now()).is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_silent_login_gives_way_to_a_newcomer_and_hears_that_it_has_expired() {
    let mut stage = Stage::open(&FULL).await;
    assert!(has_room_later(&stage).await);
    assert_eq!(stage.frame().await, json!({"type": "auth:expired"}));
    assert_eq!(stage.close_code().await, close::LOGIN_OVER);
    assert_eq!(stage.told("VVS_RELAY_SILENT_LOGIN_TIME"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_said_hello_or_was_looked_at_gives_way_to_nobody() {
    let mut stage = Stage::open(&FULL).await;
    stage.hello(&Key::new(), None).await;
    assert!(!has_room_later(&stage).await);

    let stage = Stage::open(&FULL).await;
    assert_eq!(stage.phase().await, Phase::Waiting);
    assert!(!has_room_later(&stage).await);
    assert_eq!(stage.phase().await, Phase::Waiting, "and it goes on");
}

#[tokio::test(start_paused = true)]
async fn nobody_who_looks_at_a_login_that_gives_way_is_told_that_it_waits() {
    let mut stage = Stage::open(&FULL).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    // Both before its task runs.
    let looking = stage.ask(Request::Look { known: None });
    let _newcomer = stage.shared.limits.login(ADDRESS, Instant::now()).unwrap();
    let seen = looking.await.unwrap();
    assert!(!seen.is_ok_and(|view| view.phase == Phase::Waiting));
    assert_eq!(stage.close_code().await, close::LOGIN_OVER);
}
