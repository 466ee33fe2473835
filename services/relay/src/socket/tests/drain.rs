//! A relay that stops: when it closes which sockets, and what happens to their logins.

use vvs_proto::relay::relay_server::Relay as _;
use vvs_proto::relay::{GetLoginRequest, LoginState};

use super::*;
use crate::authority::fake::Key;
use crate::rpc::Relay;

/// Settings as if there were other relays. Here they have the same backplane as everybody.
const AMONG_OTHERS: [&str; 2] = ["--relay-backplane", "nats://127.0.0.1:9"];

/// Returns how long after the relay began to stop the editor is sent away.
async fn sent_away(stage: &mut Stage) -> Duration {
    let frame = stage.frame().await;
    assert_eq!(frame["type"], "reconnect", "{frame}");
    assert!(frame["afterMs"].as_u64().unwrap() <= 2000);
    assert_eq!(stage.close_code().await, close::RECONNECT);
    stage.shared.drain.begun().elapsed()
}

/// Lets this much of the grace period pass. The editor answers pings.
async fn wait(stage: &mut Stage, seconds: u64) {
    let until = stage.shared.drain.begun() + Duration::from_secs(seconds);
    let read = timeout_at(until, stage.frame()).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn an_editor_with_a_ticket_is_sent_away_at_its_own_moment_and_its_login_is_kept_for_it_to_the_end()
 {
    for _ in 0..20 {
        let (mut stage, key) = (Stage::open(&AMONG_OTHERS).await, Key::new());
        stage.hello(&key, None).await;
        stage.shared.stop.cancel();
        let after = sent_away(&mut stage).await;
        assert!(after <= Duration::from_secs(24), "{after:?}");
        assert_eq!(stage.phase().await, Phase::Away);
        tokio::time::sleep_until(stage.shared.drain.end()).await;
        assert_eq!(stage.phase().await, Phase::Away);
        stage.shared.drain.over().cancel();
        (&mut stage.task).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_waits_on_a_relay_that_stops_is_taken_over_with_the_tries_that_are_left() {
    let (mut stage, key) = (Stage::open(&AMONG_OTHERS).await, Key::new());
    let ticket = stage.hello(&key, None).await["ticket"].clone();
    stage.deliver(1).await.unwrap().unwrap();
    assert_eq!(stage.frame().await["type"], "auth:pending");

    stage.complete("BBBB-BBBB").await;
    assert_eq!(stage.frame().await["attemptsLeft"], 4);

    stage.shared.stop.cancel();
    sent_away(&mut stage).await;
    let mut back = stage.reconnect().await;
    assert_eq!(back.resume(&ticket, &key).await["resumed"], true);
    assert_eq!(back.frame().await["type"], "hello:ok");
    assert_eq!(back.frame().await["attemptsLeft"], 4);

    (&mut stage.task).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_other_relays_a_login_stays_as_long_as_possible_and_nobody_is_waited_for_afterwards()
 {
    let (mut stage, key) = (Stage::open(&[]).await, Key::new());
    stage.hello(&key, None).await;
    stage.shared.stop.cancel();
    let after = sent_away(&mut stage).await;
    assert!((27..29).contains(&after.as_secs()), "{after:?}");
    (&mut stage.task).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bare_editor_can_be_signed_in_until_shortly_before_the_end() {
    for flags in [&[][..], &AMONG_OTHERS] {
        let mut stage = Stage::open(flags).await;
        stage.shared.stop.cancel();
        wait(&mut stage, 26).await;
        let delivered = stage.deliver(1);
        assert_eq!(stage.frame().await["type"], "auth:success");
        // It has its token, so that nothing keeps it.
        let after = sent_away(&mut stage).await;
        assert_eq!(delivered.await.unwrap().unwrap().phase, Phase::Acked);
        assert!(after.as_secs() < 27, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bare_editor_that_nobody_signs_in_is_sent_away_last() {
    let mut stage = Stage::open(&AMONG_OTHERS).await;
    stage.shared.stop.cancel();
    let after = sent_away(&mut stage).await;
    assert!((27..29).contains(&after.as_secs()), "{after:?}");
    (&mut stage.task).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_editor_whose_token_is_on_its_way_is_not_sent_away_before_it_has_acknowledged() {
    for acknowledges in [true, false] {
        let (mut stage, key) = (Stage::open(&AMONG_OTHERS).await, Key::new());
        stage.hello(&key, None).await;
        stage.deliver(1).await.unwrap().unwrap();
        assert_eq!(stage.frame().await["type"], "auth:pending");

        let code = stage.code(1);
        stage.complete(&code).await;
        assert_eq!(stage.frame().await["type"], "auth:success");

        stage.shared.stop.cancel();
        wait(&mut stage, 25).await;

        if acknowledges {
            stage
                .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
                .await;
        }

        let after = sent_away(&mut stage).await;
        assert_eq!(after.as_secs() < 26, acknowledges, "{after:?}");
        assert_eq!(stage.asked_sessions(), usize::from(acknowledges));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_news_of_a_login_is_answered_when_the_relay_begins_to_stop_and_may_wait_again()
 {
    let stage = Stage::open(&[]).await;
    let relay = Relay(stage.shared.clone());
    let wait = async || {
        let (started, known_state) = (Instant::now(), LoginState::Waiting.into());
        let look = GetLoginRequest {
            connection_id: stage.id.to_string(),
            known_state,
        };
        let answer = relay
            .get_login(tonic::Request::new(look))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.state, known_state);

        started.elapsed().as_secs()
    };
    let (waited, ()) = tokio::join!(wait(), async {
        sleep(Duration::from_secs(3)).await;
        stage.shared.stop.cancel();
    });
    assert_eq!(waited, 3);

    // Where there is no other relay, it is asked again at once.
    assert_eq!(wait().await, 20);

    let (waited, ()) = tokio::join!(wait(), async {
        sleep(Duration::from_secs(2)).await;
        stage.shared.drain.over().cancel();
    });
    assert_eq!(waited, 2);
}
