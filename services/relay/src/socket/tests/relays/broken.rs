//! Relays whose backplane fails, stalls, lies or eavesdrops.

use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;

use futures_channel::oneshot;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;

/// Returns whether there is a login; fails if any answer says that it does not exist.
async fn is_reached(relay: &Relay, login: &Stage) -> bool {
    match relay.look(login).await {
        Ok(_) => true,
        Err(Refusal::BackplaneDown) => false,
        Err(other) => panic!("{other:?}"),
    }
}

async fn until_lost(relay: &Relay) {
    until("the loss is noticed", async || {
        relay.counts("vvs_backplane_connected 0")
    })
    .await;
}

#[tokio::test]
async fn while_nats_is_away_own_logins_go_on_and_those_of_others_are_not_said_to_be_unknown() {
    let mut site = Site::nats().await;
    let (mut a, b, key) = (site.relay().await, site.relay().await, Key::new());
    let ticket = a.stage.hello(&key, None).await["ticket"].clone();
    site.servers()[0].stop();
    until_lost(&a).await;
    until_lost(&b).await;

    assert!(!is_reached(&b, &a.stage).await);
    assert!(b.counts("vvs_backplane_requests_total{outcome=\"down\"} 1"));

    let mut back = b.reconnect(&a.stage).await;
    let refused = back.resume(&ticket, &key).await;
    assert_eq!(
        (&refused["code"], &refused["retryable"]),
        (&json!("not_ready"), &json!(true))
    );

    let view = a.ask(&a.stage, Request::Deliver(grant(1))).await.unwrap();
    assert_eq!(
        (view.phase, a.stage.frame().await["type"].clone()),
        (Phase::Held, json!("auth:pending"))
    );

    // One that begins without a connection is found later, too.
    let young = ConnectionId::mint();
    let (ours, _theirs) = duplex(PIPE);
    let place = a
        .stage
        .shared
        .limits
        .login(ADDRESS, Instant::now())
        .unwrap();
    let attempt = Attempt::open(facts(young), place, a.stage.shared.clone());
    let start = Box::new(start(&a.stage.shared, young, Some(attempt)));
    a.stage
        .shared
        .tasks
        .spawn(run(ours, start, a.stage.shared.clone()));

    site.servers()[0].restart().await;
    until("the login is reached again", async || {
        is_reached(&b, &a.stage).await
    })
    .await;
    back.id = young;
    until("the young one is reached", async || {
        is_reached(&b, &back).await
    })
    .await;
    a.stage.complete(&a.stage.code(1)).await;
    assert_eq!(
        a.stage.frame().await["type"],
        "auth:success",
        "and its socket was never closed"
    );
}

#[tokio::test]
async fn a_cluster_may_lose_any_of_its_members() {
    let mut site = Site {
        keys: keys(),
        via: Via::Nats(NatsServer::start_cluster(3).await),
    };
    let (a, b) = (site.relay().await, site.relay().await);
    until("the members know each other", async || {
        b.look(&a.stage).await.is_ok()
    })
    .await;

    for member in 0..3 {
        site.servers()[member].stop();
        until("the login is reached past it", async || {
            is_reached(&b, &a.stage).await
        })
        .await;
        site.servers()[member].restart().await;
        until("the login is reached", async || {
            is_reached(&b, &a.stage).await
        })
        .await;
    }
}

/// A relay that stands still as a whole, as when its process is stopped, until it is told to
/// continue.
struct Stopped {
    id: ConnectionId,
    ticket: Value,
    go_on: blocking::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Stopped {
    /// `then` is the state that the relay finds when it continues.
    async fn new(
        site: &Arc<Site>,
        key: Option<Arc<Key>>,
        then: impl AsyncFnOnce(Relay) + Send + 'static,
    ) -> Self {
        let (to_test, from_relay) = oneshot::channel();
        let (go_on, told) = blocking::channel();
        let site = site.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let mut relay = site.relay().await;
                let other = site.relay().await;
                let ticket = match key {
                    Some(key) => relay.stage.hello(&key, None).await["ticket"].clone(),
                    None => Value::Null,
                };

                until("it is subscribed", async || {
                    other.look(&relay.stage).await.is_ok()
                })
                .await;
                to_test.send((relay.stage.id, ticket)).unwrap();

                // Nothing on this thread runs meanwhile.
                told.recv().unwrap();
                then(relay).await;
            });
        });
        let (id, ticket) = from_relay.await.unwrap();

        Self {
            id,
            ticket,
            go_on,
            thread,
        }
    }

    async fn go_on(self) {
        self.go_on.send(()).unwrap();
        tokio::task::spawn_blocking(|| self.thread.join().unwrap())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_relay_that_was_stopped_lets_go_of_a_login_that_another_took_and_pushes_nothing() {
    let (site, key) = (Arc::new(Site::nats().await), Arc::new(Key::new()));
    let mut b = site.relay().await;
    let stopped = Stopped::new(&site, Some(key.clone()), async |mut relay: Relay| {
        // The close comes first: no code was announced before.
        let next = relay.stage.editor.next().await.unwrap().unwrap();
        let Message::Close(Some(frame)) = next else {
            panic!("{next:?} instead of a close")
        };
        assert_eq!(u16::from(frame.code), close::LOGIN_OVER);
        assert!(
            relay.counts("vvs_backplane_dropped_total{reason=\"late\"} 3"),
            "{}",
            relay.metrics.scrape()
        );
    });
    let stopped = stopped.await;
    b.stage.id = stopped.id;
    let early = b.ask(&b.stage, Request::Deliver(grant(1))).await;
    assert!(matches!(early, Err(Refusal::BackplaneDown)), "{early:?}");

    let mut back = b.reconnect(&b.stage).await;
    assert_eq!(back.resume(&stopped.ticket, &key).await["resumed"], true);
    assert_eq!(back.frame().await["type"], "hello:ok");
    assert_eq!(
        b.ask(&back, Request::Deliver(grant(1)))
            .await
            .unwrap()
            .phase,
        Phase::Held
    );

    stopped.go_on().await;
    assert_eq!(back.frame().await["type"], "auth:pending");

    back.complete(&back.code(1)).await;
    assert_eq!(back.frame().await["type"], "auth:success");
}

#[tokio::test]
async fn a_delivery_that_was_given_up_is_not_pushed_later() {
    let site = Arc::new(Site::nats().await);
    let b = site.relay().await;
    let stopped = Stopped::new(&site, None, async |mut relay: Relay| {
        until("it is dropped", async || {
            relay.counts("vvs_backplane_dropped_total{reason=\"late\"} 1")
        })
        .await;
        relay.stage.say(json!({"type": "ping"})).await;
        assert_eq!(
            relay.stage.frame().await["type"],
            "pong",
            "no token came before"
        );
        assert_eq!(relay.stage.phase().await, Phase::Waiting);
    });
    let stopped = stopped.await;
    let answer = b
        .stage
        .shared
        .backplane
        .ask(stopped.id, Request::Deliver(grant(1)))
        .await;
    assert!(matches!(answer, Err(Refusal::BackplaneDown)), "{answer:?}");

    stopped.go_on().await;
}

#[tokio::test]
async fn a_relay_asks_others_only_so_much_at_once_and_answers_for_its_own_logins_all_the_same() {
    let mut site = Site::nats().await;
    let few = Broker {
        max_asks: 1,
        ..dial(site.servers())
    };
    let (a, b) = (site.relay().await, site.relay_over(&[], few).await);

    // There is no answer before the login changes.
    let known = Some(Phase::Waiting);
    let mut waiting = b
        .stage
        .shared
        .backplane
        .ask(a.stage.id, Request::Look { known });
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert!(matches!(b.look(&a.stage).await, Err(Refusal::Overloaded)));
    assert!(matches!(
        b.stage.shared.backplane.take_over(a.stage.id).await,
        Err(Refusal::Overloaded)
    ));
    assert!(
        b.counts("vvs_limits_reached_total{setting=\"VVS_RELAY_MAX_ASKS\"} 2"),
        "{}",
        b.metrics.scrape()
    );
    assert_eq!(b.look(&b.stage).await.unwrap().phase, Phase::Waiting);
    assert_eq!(a.look(&b.stage).await.unwrap().phase, Phase::Waiting);

    a.ask(&a.stage, Request::Deny).await.unwrap();

    // Denied before it was heard, or after.
    assert_eq!(waiting.await.unwrap().phase, Phase::Denied);
    assert_eq!(b.look(&a.stage).await.unwrap().phase, Phase::Denied);
}

#[tokio::test]
async fn a_relay_that_answers_as_much_as_it_may_drops_what_it_is_asked() {
    let mut site = Site::nats().await;
    let none = Broker {
        max_answers: 0,
        ..dial(site.servers())
    };
    let (a, b) = (site.relay_over(&[], none).await, site.relay().await);
    let silence = b.look(&a.stage).await;

    assert!(
        matches!(silence, Err(Refusal::BackplaneDown)),
        "{silence:?}"
    );
    assert!(
        a.counts("vvs_backplane_dropped_total{reason=\"full\"} 1"),
        "{}",
        a.metrics.scrape()
    );
    assert!(
        a.counts("vvs_limits_reached_total{setting=\"VVS_RELAY_MAX_ANSWERS\"} 1"),
        "{}",
        a.metrics.scrape()
    );
    assert_eq!(a.look(&b.stage).await.unwrap().phase, Phase::Waiting);
}

/// One relay on each of two servers that know nothing of each other; the second relay goes to the
/// first's server when its own is gone.
async fn apart(site: &mut Site) -> (Relay, Relay) {
    site.servers().push(NatsServer::start().await);
    let [first, second] = [0, 1].map(|at| dial(&site.servers()[at..=at]));
    let both = Broker {
        servers: [first.servers.clone(), second.servers].concat(),
        ..Broker::default()
    };
    site.servers()[0].stop();
    let b = site.relay_over(&[], both).await;
    site.servers()[0].restart().await;
    (site.relay_over(&[], first).await, b)
}

#[tokio::test]
async fn of_two_holders_the_one_with_the_higher_generation_stays() {
    let mut site = Site::nats().await;
    let (mut a, b) = apart(&mut site).await;
    let held = b.stage.shared.backplane.register(a.stage.id, 1);
    assert_eq!(a.stage.phase().await, Phase::Waiting);
    site.servers()[1].stop();
    assert_eq!(a.stage.close_code().await, close::LOGIN_OVER);
    drop(held);
}

#[tokio::test]
async fn a_relay_that_has_just_come_back_does_not_take_others_for_gone() {
    let mut site = Site::nats().await;
    let (a, b) = apart(&mut site).await;
    site.servers()[0].stop();
    site.servers()[1].stop();
    until_lost(&b).await;
    site.servers()[1].restart().await;
    until("it is back", async || b.counts("vvs_backplane_connected 1")).await;
    assert!(!is_reached(&b, &a.stage).await);
}

#[tokio::test]
async fn a_login_that_was_offered_and_is_not_claimed_stays_as_it_was() {
    let site = Site::nats().await;
    let (mut a, b, key) = (
        site.relay().await,
        site.relay_with(&["--relay-max-logins-per-address", "1"])
            .await,
        Key::new(),
    );
    let ticket = held(&mut a, Some(&b), &key).await;
    let mut back = b.reconnect(&a.stage).await;
    assert_eq!(back.resume(&ticket, &key).await["code"], "not_ready");

    // What comes now may be lost with the login, so it is not taken.
    let asked = a.ask(&a.stage, Request::Deliver(grant(1))).await;
    assert!(matches!(asked, Err(Refusal::Away)), "{asked:?}");

    a.stage.complete("BBBB-BBBB").await;
    assert_eq!(
        a.stage.frame().await["attemptsLeft"],
        2,
        "the editor is heard again"
    );
    assert_eq!(
        b.look(&a.stage).await.unwrap().phase,
        Phase::Held,
        "and not before the offer is over"
    );

    a.stage.complete(&a.stage.code(1)).await;
    assert_eq!(a.stage.frame().await["messageId"], request_id(1));
}

/// Everything that crosses the broker.
async fn listen_in(servers: &[NatsServer]) -> (async_nats::Client, async_nats::Subscriber) {
    let client = async_nats::connect(servers[0].address()).await.unwrap();
    let messages = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    (client, messages)
}

/// Returns the messages that have crossed so far.
async fn heard(
    client: &async_nats::Client,
    messages: &mut async_nats::Subscriber,
) -> Vec<async_nats::Message> {
    client.publish("the.end", "".into()).await.unwrap();
    let mut heard = Vec::new();
    while let Some(message) = messages
        .next()
        .await
        .filter(|message| message.subject.as_str() != "the.end")
    {
        heard.push(message);
    }
    heard
}

#[tokio::test]
async fn the_broker_reads_nothing_and_what_it_plays_again_changes_nothing() {
    let mut site = Site::nats().await;
    let (client, mut messages) = listen_in(site.servers()).await;
    let (mut a, b, key) = (site.relay().await, site.relay().await, Key::new());
    let ticket = held(&mut a, Some(&b), &key).await;

    // There and back, so that there are claims to both.
    let mut there = b.reconnect(&a.stage).await;
    there.resume(&ticket, &key).await;
    assert_eq!(a.stage.close_code().await, close::LOGIN_OVER);

    let ticket = there.frame().await["ticket"].clone();
    assert_eq!(there.frame().await["attemptsLeft"], 3);

    let mut back = a.reconnect(&a.stage).await;
    back.resume(&ticket, &key).await;
    assert_eq!(there.close_code().await, close::LOGIN_OVER);

    back.frame().await;
    assert_eq!(back.frame().await["attemptsLeft"], 3);

    let heard = heard(&client, &mut messages).await;
    assert!(
        heard.len() >= 8,
        "questions, answers and claims: {}",
        heard.len()
    );

    let id = a.stage.id.to_string();
    for message in &heard {
        let all = format!("{message:?} {}", String::from_utf8_lossy(&message.payload));
        for secret in ["the token", "usr_1", "ses_1", "Ada", &id, &back.code(1)] {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
    }

    for message in heard {
        let headers = message.headers.unwrap_or_default();
        match message.reply {
            Some(reply) => {
                client
                    .publish_with_reply_and_headers(
                        message.subject,
                        reply,
                        headers,
                        message.payload,
                    )
                    .await
            }
            None => {
                client
                    .publish_with_headers(message.subject, headers, message.payload)
                    .await
            }
        }
        .unwrap();
    }

    client.flush().await.unwrap();
    back.complete("BBBB-BBBB").await;
    assert_eq!(back.frame().await["attemptsLeft"], 2, "nothing came before");

    back.complete(&back.code(1)).await;
    assert_eq!(back.frame().await["messageId"], request_id(1));
}

#[tokio::test]
async fn whoever_has_not_the_relays_key_is_not_heard() {
    let mut site = Site::nats().await;
    let mut a = site.relay().await;
    let ours = std::mem::replace(&mut site.keys, keys());
    let stranger = site.relay().await;

    // To hear nothing is not to know that there is nothing.
    let asked = stranger.ask(&a.stage, Request::Deliver(grant(1))).await;
    assert!(matches!(asked, Err(Refusal::BackplaneDown)), "{asked:?}");

    let claimed = stranger.stage.shared.backplane.register(a.stage.id, 99);
    let dropped = "vvs_backplane_dropped_total{reason=\"unreadable\"} 2";
    until("question and claim are dropped", async || a.counts(dropped)).await;
    a.stage.say(json!({"type": "ping"})).await;
    assert_eq!(
        a.stage.frame().await["type"],
        "pong",
        "no token came, and no close"
    );

    drop(claimed);
    site.keys = ours;
    let b = site.relay().await;
    assert_eq!(b.look(&a.stage).await.unwrap().phase, Phase::Waiting);
}

/// Waits until each of them knows how many others exist.
async fn until_known(relays: &[&Relay]) {
    let others = format!("vvs_backplane_relays {}", relays.len() - 1);
    until("the relays know of each other", async || {
        relays.iter().all(|relay| relay.counts(&others))
    })
    .await;
}

/// Waits until this relay says that nobody holds the login. Before that it may only say that it
/// cannot know.
async fn until_unknown(relay: &Relay, login: &Stage) {
    let is_unknown = async || match relay.look(login).await {
        Err(Refusal::Unknown) => true,
        Err(Refusal::BackplaneDown) => false,
        other => panic!("{other:?}"),
    };
    until("the login is unknown", is_unknown).await;
}

#[tokio::test]
async fn a_login_that_nobody_holds_is_unknown_although_somebody_else_listens_to_everything() {
    let mut site = Site::nats().await;
    let (_client, _messages) = listen_in(site.servers()).await;
    let (mut a, b, c) = (site.relay().await, site.relay().await, site.relay().await);
    until_known(&[&a, &b, &c]).await;
    let (id, held) = (a.stage.id, b.look(&a.stage).await.unwrap());
    assert_eq!(held.phase, Phase::Waiting);

    a.stage.id = ConnectionId::mint();
    until_unknown(&b, &a.stage).await;
    let delivered = b.ask(&a.stage, Request::Deliver(grant(1))).await;
    assert!(matches!(delivered, Err(Refusal::Unknown)), "{delivered:?}");
    assert!(matches!(
        b.ask(&a.stage, Request::Deny).await,
        Err(Refusal::Unknown)
    ));
    assert!(matches!(
        b.stage.shared.backplane.take_over(a.stage.id).await,
        Err(Refusal::Unknown)
    ));

    a.stage.id = id;
    assert_eq!(
        c.look(&a.stage).await.unwrap().phase,
        Phase::Waiting,
        "and one that is held is found"
    );
}

#[tokio::test]
async fn a_single_relay_knows_that_nobody_holds_a_login_although_somebody_else_listens_to_everything()
 {
    let mut site = Site::nats().await;
    let (_client, _messages) = listen_in(site.servers()).await;
    let mut a = site.relay().await;
    a.stage.id = ConnectionId::mint();
    until_unknown(&a, &a.stage).await;
}

/// Answers every question as a client without the key can: with nothing, with nonsense, with the
/// question and with the messages of others. Never ends.
async fn lie(client: async_nats::Client, mut messages: async_nats::Subscriber) {
    let mut seen = Vec::new();
    while let Some(message) = messages.next().await {
        let Some(reply) = message.reply else {
            seen.push(message.payload);
            continue;
        };
        let lies = [Vec::new(), b"not here".to_vec(), message.payload.to_vec()];
        for lie in lies
            .into_iter()
            .chain(seen.last().map(|sealed| sealed.to_vec()))
        {
            client.publish(reply.clone(), lie.into()).await.unwrap();
        }
    }
}

/// Answers every question with the broker's own word that nobody listens. Never ends.
async fn say_that_nobody_listens(address: String) {
    let mut broker = BufReader::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let hello = "CONNECT {\"verbose\": false, \"echo\": false, \"headers\": true}\r\nSUB > 1\r\n";
    broker.write_all(hello.as_bytes()).await.unwrap();
    let mut heading = String::new();

    while broker.read_line(&mut heading).await.unwrap() > 0 {
        let words: Vec<_> = heading.split_whitespace().map(str::to_owned).collect();
        heading.clear();
        let (Some(kind), Some(size)) = (
            words.first(),
            words.last().and_then(|size| size.parse::<usize>().ok()),
        ) else {
            continue;
        };

        broker.read_exact(&mut vec![0; size + 2]).await.unwrap();
        let has_reply = words.len() == if kind == "HMSG" { 6 } else { 5 };

        if has_reply {
            let lie = format!("HPUB {} 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", words[3]);
            broker.write_all(lie.as_bytes()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn nobody_without_the_key_can_say_that_a_login_is_here_or_is_not() {
    let mut site = Site::nats().await;
    let (client, messages) = listen_in(site.servers()).await;
    let (a, b) = (site.relay().await, site.relay().await);
    let lying = a.stage.shared.tasks.spawn(lie(client, messages));
    until_known(&[&a, &b]).await;
    let mut nowhere = b.reconnect(&a.stage).await;
    nowhere.id = ConnectionId::mint();
    until_unknown(&b, &nowhere).await;

    let denying = a
        .stage
        .shared
        .tasks
        .spawn(say_that_nobody_listens(site.servers()[0].address()));
    for _ in 0..3 {
        assert_eq!(b.look(&a.stage).await.unwrap().phase, Phase::Waiting);
        until_unknown(&b, &nowhere).await;
    }

    assert!(!lying.is_finished() && !denying.is_finished());

    lying.abort();
    denying.abort();
}

#[tokio::test]
async fn as_long_as_one_relay_stands_still_its_logins_are_not_said_to_be_unknown() {
    let site = Arc::new(Site::nats().await);
    let Via::Nats(servers) = &site.via else {
        panic!("no servers")
    };

    let (_client, _messages) = listen_in(servers).await;
    let mut b = site.relay().await;
    let stopped = Stopped::new(&site, None, async |relay: Relay| drop(relay)).await;
    b.stage.id = ConnectionId::mint();

    // By then who is there is known, and two of them do not answer.
    for _ in 0..3 {
        assert!(!is_reached(&b, &b.stage).await);
    }

    b.stage.id = stopped.id;
    assert!(!is_reached(&b, &b.stage).await);

    stopped.go_on().await;
}

/// A certificate of this authority and its key, as files.
fn certify(
    ca: &CertifiedIssuer<'_, KeyPair>,
    folder: &Path,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> [PathBuf; 2] {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let paths = ["crt", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
    std::fs::write(&paths[0], params.signed_by(&key, ca).unwrap().pem()).unwrap();
    std::fs::write(&paths[1], key.serialize_pem()).unwrap();
    paths
}

#[tokio::test]
async fn a_broker_that_asks_for_certificate_and_nkey_is_signed_in_to_with_both() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("ca.crt"), ca.pem()).unwrap();
    let nkey = nkeys::KeyPair::new_user();
    std::fs::write(file("relay.nk"), nkey.seed().unwrap() + "\n").unwrap();
    let [certificate, key] = certify(
        &ca,
        folder.path(),
        "relay",
        ExtendedKeyUsagePurpose::ClientAuth,
    );
    let server = NatsServer::start_with(|_port, own| {
        let [crt, key] = certify(&ca, own, "server", ExtendedKeyUsagePurpose::ServerAuth);
        let tls = format!(
            "cert_file: {crt:?}, key_file: {key:?}, ca_file: {:?}, verify: true",
            file("ca.crt")
        );
        let may = r#"["vvs.relay.v1.login.*", "_INBOX.>"]"#;
        let user = format!(
            "nkey: {}, permissions: {{ publish: {may}, subscribe: {may} }}",
            nkey.public_key()
        );
        format!("tls {{ {tls} }}\nauthorization {{ users: [ {{ {user} }} ] }}\n")
    });
    let server = server.await;
    let dial = Broker {
        servers: vec![format!("tls://{}", server.address())],
        ca_file: Some(file("ca.crt")),
        nkey_file: Some(file("relay.nk")),
        certificate: Some((certificate, key)),
        ..Broker::default()
    };
    let site = Site {
        keys: keys(),
        via: Via::Nats(vec![server]),
    };
    let (a, b) = (
        site.relay_over(&[], dial.clone()).await,
        site.relay_over(&[], dial.clone()).await,
    );
    assert_eq!(b.look(&a.stage).await.unwrap().phase, Phase::Waiting);

    let Via::Nats(servers) = &site.via else {
        panic!("no servers")
    };

    for (dial, complaint) in [
        (
            Broker {
                nkey_file: None,
                ..dial.clone()
            },
            "authentication error",
        ),
        (
            Broker {
                certificate: None,
                ..dial.clone()
            },
            "TLS handshake error",
        ),
    ] {
        let metrics = Metrics::default();
        let tasks = tokio_util::task::TaskTracker::new();
        let nats = Nats::connect(dial, site.keys.backplane.clone(), tasks, &metrics)
            .await
            .unwrap();
        until(complaint, async || servers[0].log().contains(complaint)).await;
        assert!(!nats.line().borrow().is_up);
        let answer = nats.ask(a.stage.id, Request::Look { known: None }).await;
        assert!(matches!(answer, Err(Refusal::BackplaneDown)), "{answer:?}");
    }
}
