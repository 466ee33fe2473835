//! Several relays of one installation: on every backplane, the facts that hold for a login wherever
//! it is held.

use vvs_test_servers::nats::NatsServer;

use super::*;
use crate::authority::fake::Key;
use crate::backplane::{Broker, Nats};

mod broken;

/// The state that the relays of one installation share.
struct Site {
    keys: RelayKeys,
    via: Via,
}

/// The backplane.
enum Via {
    LocalBackplane(LocalBackplane),
    Nats(Vec<NatsServer>),
}

/// One of the relays, with an editor.
struct Relay {
    stage: Stage,
    metrics: Metrics,
}

fn keys() -> RelayKeys {
    RelayKeys::new(&Keyring::parse(&Keyring::generate().unwrap()).unwrap()).unwrap()
}

/// Returns the settings to reach these servers.
fn dial(servers: &[NatsServer]) -> Broker {
    Broker {
        servers: servers
            .iter()
            .map(|server| format!("nats://{}", server.address()))
            .collect(),
        ..Broker::default()
    }
}

/// Waits until a condition holds.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    while !is_so().await {
        assert!(std::time::Instant::now() < patience, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

impl Site {
    fn memory() -> Self {
        Self {
            keys: keys(),
            via: Via::LocalBackplane(LocalBackplane::default()),
        }
    }

    async fn nats() -> Self {
        Self {
            keys: keys(),
            via: Via::Nats(vec![NatsServer::start().await]),
        }
    }

    fn servers(&mut self) -> &mut Vec<NatsServer> {
        let Via::Nats(servers) = &mut self.via else {
            panic!("this site has no servers")
        };
        servers
    }

    async fn relay(&self) -> Relay {
        self.relay_with(&[]).await
    }

    async fn relay_with(&self, flags: &[&str]) -> Relay {
        let dial = if let Via::Nats(servers) = &self.via {
            dial(servers)
        } else {
            Broker::default()
        };
        self.relay_over(flags, dial).await
    }

    async fn relay_over(&self, flags: &[&str], dial: Broker) -> Relay {
        let metrics = Metrics::default();
        let backplane: Box<dyn Backplane> = match &self.via {
            Via::LocalBackplane(memory) => Box::new(memory.clone()),
            Via::Nats(_) => {
                let tasks = tokio_util::task::TaskTracker::new();
                let nats = Nats::connect(dial, self.keys.backplane.clone(), tasks, &metrics)
                    .await
                    .unwrap();
                nats.line().wait_for(|line| line.is_up).await.unwrap();
                Box::new(nats)
            }
        };

        let stage = Stage::open_on(flags, &[Ok(())], self.keys.clone(), backplane).await;

        Relay { stage, metrics }
    }
}

impl Relay {
    /// Returns web's answer when it asks this relay about a login that may be another one's.
    async fn ask(&self, login: &Stage, request: Request) -> crate::backplane::Answer {
        self.stage.shared.backplane.ask(login.id, request).await
    }

    async fn look(&self, login: &Stage) -> crate::backplane::Answer {
        self.ask(login, Request::Look { known: None }).await
    }

    /// The same as [`Relay::ask`], in a separate task.
    fn asking(&self, login: &Stage, request: Request) -> JoinHandle<crate::backplane::Answer> {
        let (shared, id) = (self.stage.shared.clone(), login.id);
        self.stage
            .shared
            .tasks
            .spawn(async move { shared.backplane.ask(id, request).await })
    }

    /// Opens a new socket of that login's editor on this relay.
    async fn reconnect(&self, login: &Stage) -> Stage {
        let mut back = self.stage.reconnect().await;
        back.id = login.id;
        back
    }

    fn counts(&self, line: &str) -> bool {
        self.metrics.scrape().lines().any(|found| found == line)
    }
}

/// Makes a login on `relay` that has introduced itself, is approved, and has used two tries for its
/// code.
async fn held(relay: &mut Relay, via: Option<&Relay>, key: &Key) -> Value {
    let ticket = relay.stage.hello(key, None).await["ticket"].clone();
    let grant = Request::Deliver(grant(1));
    let answer = match via {
        Some(via) => via.ask(&relay.stage, grant).await,
        None => relay.ask(&relay.stage, grant).await,
    };

    assert_eq!(answer.unwrap().held, Some(request_id(1).parse().unwrap()));
    assert_eq!(relay.stage.frame().await["type"], "auth:pending");

    for left in [4, 3] {
        relay.stage.complete("BBBB-BBBB").await;
        assert_eq!(relay.stage.frame().await["attemptsLeft"], left);
    }

    ticket
}

async fn a_login_is_seen_and_delivered_through_another_relay(site: Site) {
    let (mut a, b) = (site.relay().await, site.relay().await);
    let view = b.look(&a.stage).await.unwrap();
    assert_eq!(
        (view.phase, view.client_address, view.hello),
        (Phase::Waiting, ADDRESS, None)
    );

    let (here, there) = (
        a.look(&a.stage).await.unwrap(),
        b.look(&a.stage).await.unwrap(),
    );
    assert_eq!(
        (here.user_code, here.binding),
        (there.user_code, there.binding)
    );

    let changed = b.asking(
        &a.stage,
        Request::Look {
            known: Some(Phase::Waiting),
        },
    );
    let delivered = b.asking(&a.stage, Request::Deliver(grant(1)));
    let success = a.stage.frame().await;
    assert_eq!(
        (&success["token"], &success["messageId"]),
        (&json!("the token"), &json!(request_id(1)))
    );
    assert_eq!(
        success["user"],
        json!({"id": "usr_1", "email": null, "name": "Ada", "avatarUrl": null})
    );
    assert!(changed.await.unwrap().unwrap().phase != Phase::Waiting);

    a.stage
        .say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    let view = delivered.await.unwrap().unwrap();
    assert_eq!((view.phase, view.acked_at.is_some()), (Phase::Acked, true));

    b.ask(&a.stage, Request::Deliver(grant(1))).await.unwrap();
    let other = b.ask(&a.stage, Request::Deliver(grant(2))).await;
    assert!(matches!(other, Err(Refusal::Claimed)), "{other:?}");

    a.stage.say(json!({"type": "ping"})).await;
    assert_eq!(
        a.stage.frame().await["type"],
        "pong",
        "no second token came before"
    );
}

async fn a_login_is_denied_through_another_relay(site: Site) {
    let (mut a, b) = (site.relay().await, site.relay().await);
    b.ask(&a.stage, Request::Deny).await.unwrap();
    assert_eq!(a.stage.frame().await, json!({"type": "auth:denied"}));
    assert_eq!(a.stage.close_code().await, close::LOGIN_OVER);
    b.ask(&a.stage, Request::Deny).await.unwrap();
    let late = b.ask(&a.stage, Request::Deliver(grant(1))).await;
    assert!(matches!(late, Err(Refusal::Over)), "{late:?}");
}

async fn a_resume_takes_the_login_from_another_relay_with_the_tries_that_are_left(site: Site) {
    let (mut a, b, key) = (site.relay().await, site.relay().await, Key::new());
    let ticket = held(&mut a, Some(&b), &key).await;
    let mut back = b.reconnect(&a.stage).await;
    let connection = back.resume(&ticket, &key).await;
    assert_eq!(
        (&connection["connectionId"], &connection["resumed"]),
        (&json!(a.stage.id.to_string()), &json!(true))
    );
    assert_eq!(a.stage.close_code().await, close::LOGIN_OVER);
    assert_ne!(back.frame().await["ticket"], ticket);
    assert_eq!(back.frame().await["attemptsLeft"], 3);

    // The old relay holds it no more, and finds it.
    assert_eq!(a.look(&a.stage).await.unwrap().phase, Phase::Held);
    assert_eq!(
        a.ask(&a.stage, Request::Deliver(grant(1)))
            .await
            .unwrap()
            .phase,
        Phase::Held
    );

    back.complete(&a.stage.code(1)).await;
    assert_eq!(back.frame().await["messageId"], request_id(1));

    back.say(json!({"type": "auth:ack", "messageId": request_id(1), "ok": true}))
        .await;
    assert_eq!(
        a.ask(&a.stage, Request::Deliver(grant(1)))
            .await
            .unwrap()
            .phase,
        Phase::Acked
    );
    assert_eq!((a.stage.asked_sessions(), back.asked_sessions()), (0, 1));
    assert_eq!(
        (a.stage.ended().await, back.ended().await),
        (vec![], vec![])
    );
}

async fn a_login_goes_from_relay_to_relay_and_back(site: Site) {
    let (mut a, b, key) = (site.relay().await, site.relay().await, Key::new());
    let mut ticket = held(&mut a, None, &key).await;
    let mut before = a.reconnect(&a.stage).await;
    std::mem::swap(&mut before, &mut a.stage);

    for relay in [&b, &a, &b] {
        let mut back = relay.reconnect(&before).await;
        assert_eq!(back.resume(&ticket, &key).await["resumed"], true);
        ticket = back.frame().await["ticket"].clone();
        assert_eq!(back.frame().await["attemptsLeft"], 3);
        assert_eq!(before.close_code().await, close::LOGIN_OVER);
        before = back;
    }

    assert_eq!(
        a.ask(&before, Request::Deliver(grant(1)))
            .await
            .unwrap()
            .phase,
        Phase::Held
    );
}

async fn a_token_on_its_way_is_pushed_again_to_the_new_socket(site: Site) {
    let (mut a, b, key) = (site.relay().await, site.relay().await, Key::new());
    let ticket = held(&mut a, None, &key).await;
    a.stage.complete(&a.stage.code(1)).await;
    assert_eq!(a.stage.frame().await["messageId"], request_id(1));

    let mut back = b.reconnect(&a.stage).await;
    back.resume(&ticket, &key).await;
    assert_eq!(a.stage.close_code().await, close::LOGIN_OVER);
    assert_eq!(back.frame().await["type"], "hello:ok");

    let success = back.frame().await;
    assert_eq!(
        (&success["messageId"], &success["token"]),
        (&json!(request_id(1)), &json!("the token"))
    );
}

async fn a_login_whose_relay_is_killed_begins_again_on_another(site: Site) {
    let (mut a, b, key) = (site.relay().await, site.relay().await, Key::new());
    let ticket = held(&mut a, None, &key).await;
    a.stage.task.abort();
    (&mut a.stage.task).await.unwrap_err();
    until("the killed relay's login is unknown", async || {
        matches!(b.look(&a.stage).await, Err(Refusal::Unknown))
    })
    .await;
    let mut back = b.reconnect(&a.stage).await;
    assert_eq!(back.resume(&ticket, &key).await["resumed"], true);
    assert_eq!(back.frame().await["type"], "hello:ok");
    assert_eq!(
        b.ask(&a.stage, Request::Deliver(grant(1)))
            .await
            .unwrap()
            .phase,
        Phase::Held
    );
    assert_eq!(back.frame().await["type"], "auth:pending");

    back.complete(&a.stage.code(1)).await;
    assert_eq!(back.frame().await["messageId"], request_id(1));
}

async fn a_login_that_is_over_is_not_taken_up_again_elsewhere(site: Site) {
    let (mut a, b, key) = (site.relay().await, site.relay().await, Key::new());
    let ticket = a.stage.hello(&key, None).await["ticket"].clone();
    b.ask(&a.stage, Request::Deny).await.unwrap();
    let mut back = b.reconnect(&a.stage).await;
    assert_eq!(back.resume(&ticket, &key).await["code"], "login_over");
    assert_eq!(back.close_code().await, close::LOGIN_OVER);
}

async fn a_login_that_nobody_holds_is_unknown_everywhere(site: Site) {
    let (mut a, b) = (site.relay().await, site.relay().await);
    a.stage.id = ConnectionId::mint();
    for relay in [&a, &b] {
        let answer = relay.look(&a.stage).await;
        assert!(matches!(answer, Err(Refusal::Unknown)), "{answer:?}");
    }
}

/// Runs each of these on both backplanes.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Site::memory()).await;
            })+
        }

        mod nats {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Site::nats().await).await;
            })+
        }
    };
}

on_both!(
    a_login_is_seen_and_delivered_through_another_relay,
    a_login_is_denied_through_another_relay,
    a_resume_takes_the_login_from_another_relay_with_the_tries_that_are_left,
    a_login_goes_from_relay_to_relay_and_back,
    a_token_on_its_way_is_pushed_again_to_the_new_socket,
    a_login_whose_relay_is_killed_begins_again_on_another,
    a_login_that_is_over_is_not_taken_up_again_elsewhere,
    a_login_that_nobody_holds_is_unknown_everywhere,
);
