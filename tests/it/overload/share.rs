//! Neighbours: whoever has one address, or nine, or a whole network gets the share that is theirs,
//! and no more.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;

/// By address: connections over HTTP/2, and requests over each, as many as one may have.
const CONNECTIONS: u8 = 6;
const STREAMS: usize = 99;
/// What an address may have by default of requests without their body.
const BODIES_PER_ADDRESS: usize = 50;
const LOGOUT: &str = "/api/auth/oidc/logout";

fn attacker(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, number).into()
}

/// Headers without a body, as many as one connection takes; the answers that came at once.
async fn headers_only(stack: &Stack, from: IpAddr) -> Vec<StatusCode> {
    let stream = TokioIo::new(connect_from(from, stack.addresses().public).await.unwrap());
    let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let connection = async move { connection.await.ok() };
    let url = format!("http://{}/login/approve", host(stack));
    let asking = async {
        let asking = (0..STREAMS).map(|_| {
            let (mut client, url) = (client.clone(), url.clone());
            async move {
                let body =
                    StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>().boxed());
                client
                    .send_request(Request::post(url).body(body).unwrap())
                    .await
                    .unwrap()
                    .status()
            }
        });
        join_all(asking).await
    };

    tokio::select! {
        answers = asking => answers,
        _ = connection => panic!("the connection was closed"),
    }
}

#[tokio::test]
async fn five_thousand_headers_without_a_body_from_nine_addresses_take_no_place_from_anybody() {
    let stack = Arc::new(Stack::start_with(&["--gateway-body-timeout", "5s"]).await);
    let mut attack = JoinSet::new();
    for from in (1..=9).flat_map(|number| [attacker(number)].repeat(CONNECTIONS.into())) {
        let stack = stack.clone();
        attack.spawn(async move { headers_only(&stack, from).await });
    }

    // The rest is refused, once each has what it may.
    let refused = "vvs_gateway_refused_total{reason=\"bodies_per_address\"}";
    stack.until_metric(refused, |count| count > 1000.0).await;
    sign_in(&stack).await;
    assert_eq!(stack.browser().get(KEYS).await.status, StatusCode::OK);
    assert_eq!(
        reached(&stack, "VVS_GATEWAY_MAX_REQUESTS").await.to_bits(),
        0.0_f64.to_bits()
    );

    let answers: Vec<_> = timeout(PATIENCE, attack.join_all()).await.unwrap().concat();
    let slow = answers
        .iter()
        .filter(|status| **status == StatusCode::REQUEST_TIMEOUT)
        .count();
    assert!(
        (1..=9 * BODIES_PER_ADDRESS * 2).contains(&slow),
        "{slow} were waited for"
    );

    let others = answers
        .iter()
        .filter(|status| **status != StatusCode::REQUEST_TIMEOUT);
    assert!(
        others
            .into_iter()
            .all(|status| *status == StatusCode::TOO_MANY_REQUESTS)
    );
}

/// Posts so many over one connection, one after the other; how many were refused by the gateway for
/// being too many.
async fn post(stack: &Stack, from: IpAddr, path: &str, count: usize) -> usize {
    let mut stream = connect_from(from, stack.addresses().public).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n",
        host(stack)
    );
    let mut refused = 0;
    for _ in 0..count {
        stream.write_all(request.as_bytes()).await.unwrap();
        let (head, mut rest) = read_head(&mut stream).await.unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap()
            .parse()
            .unwrap();
        while rest.len() < length {
            stream.read_buf(&mut rest).await.unwrap();
        }

        refused += usize::from(&head[9..12] == "429");
    }

    refused
}

#[tokio::test]
async fn fifteen_hundred_logouts_from_one_address_are_all_let_in_and_take_no_page_from_it() {
    let stack = Stack::start().await;
    let sent = (0..5).map(|_| post(&stack, HOARDER, LOGOUT, 300));
    assert_eq!(join_all(sent).await.iter().sum::<usize>(), 0);
    assert_eq!(
        post(&stack, HOARDER, "/login/approve", 1).await,
        0,
        "and its pages are counted apart"
    );
}

#[tokio::test]
async fn a_flood_of_logouts_meets_a_limit_of_its_own() {
    let stack = Stack::start_with(&["--gateway-hooks-per-minute", "10"]).await;
    assert!(post(&stack, HOARDER, LOGOUT, 300).await >= 280);
    assert!(reached(&stack, "VVS_GATEWAY_HOOKS_PER_MINUTE").await >= 280.0);
    assert_eq!(post(&stack, HOARDER, "/login/approve", 1).await, 0);
    sign_in(&stack).await;
}

#[tokio::test]
async fn a_network_that_fills_more_than_half_of_the_connections_leaves_the_rest_to_others() {
    let flags = [
        "--gateway-max-connections",
        "24",
        "--gateway-max-connections-per-address",
        "1",
    ];
    let stack = Stack::start_with(&flags).await;
    let mut held = Vec::new();
    for number in 1..=30 {
        held.push(
            connect_from(attacker(number), stack.addresses().public)
                .await
                .unwrap(),
        );
    }

    until("his network has its share", async || {
        reached(&stack, "VVS_GATEWAY_PLACES_PER_24").await >= 17.0
    })
    .await;
    let other = connect_from(HOARDER, stack.addresses().public)
        .await
        .unwrap();
    let keys = format!(
        "GET {KEYS} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        host(&stack)
    );
    let mut stream = other;
    stream.write_all(keys.as_bytes()).await.unwrap();
    assert!(
        read_head(&mut stream)
            .await
            .unwrap()
            .0
            .starts_with("HTTP/1.1 200 ")
    );
    assert_eq!(
        reached(&stack, "VVS_GATEWAY_MAX_CONNECTIONS")
            .await
            .to_bits(),
        0.0_f64.to_bits()
    );
}

#[tokio::test]
async fn twenty_silent_sockets_give_way_to_the_people_behind_their_address() {
    let flags = [
        "--gateway-trusted-proxies",
        "127.0.0.0/8",
        "--relay-silent-login-time",
        "1s",
        "--relay-handshake-burst",
        "1000000",
        "--gateway-requests-per-minute",
        "1000000",
    ];
    let stack = Stack::start_with(&flags).await;
    let from = [("x-forwarded-for", "203.0.113.7")];
    let mut silent = Vec::new();
    for _ in 0..LOGINS_PER_ADDRESS {
        silent.push(Editor::try_connect(&stack, &from).await.unwrap());
    }

    let newcomers = Mutex::new(Vec::new());
    until("the oldest gives way", async || {
        let newcomer = Editor::try_connect(&stack, &from).await;
        newcomers.lock().unwrap().extend(newcomer);
        newcomers.lock().unwrap().len() == 2
    })
    .await;
    for gone in &mut silent[..2] {
        assert_eq!(gone.next().await["type"], "auth:expired");
        assert_eq!(gone.close_code().await, 4503);
    }

    for kept in &mut silent[2..] {
        kept.read_on().await;
    }

    let mut editor = newcomers.into_inner().unwrap().pop().unwrap();
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (_, success) = tokio::join!(browser.approve(&approval), editor.next());
    assert_eq!(success["type"], "auth:success");
    assert!((2.0..3.0).contains(&reached(&stack, "VVS_RELAY_SILENT_LOGIN_TIME").await));
}
