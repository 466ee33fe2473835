//! Which members are chosen, and which are known.

use tokio::time::advance;

use super::*;
use crate::bench::{Bench, PATIENCE, Peer, dead_port};

/// The current addresses of a name; `None`: the lookup fails.
type Zone = Arc<Mutex<Option<Vec<SocketAddr>>>>;

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 1))
}

/// A pool whose members are not checked.
fn pool(hosts: &str, zone: &Zone) -> Pool<()> {
    let zone = zone.clone();
    let lookup = move |_name| {
        let found = zone.lock().unwrap().clone();
        async move { found.ok_or_else(|| io::ErrorKind::NotFound.into()) }
    };
    Pool::with(
        hosts.parse().unwrap(),
        lookup,
        Box::new(|_| Box::pin(std::future::pending())),
    )
}

/// A pool with these members, all of them ready.
fn ready(numbers: &[u8]) -> Pool<()> {
    let hosts: Vec<_> = numbers
        .iter()
        .map(|number| address(*number).to_string())
        .collect();
    let pool = pool(&hosts.join(","), &Zone::default());
    for entry in &pool.shared.set().entries {
        entry.member.judge(Word::Ready);
    }
    pool
}

fn member(pool: &Pool<()>, number: u8) -> Arc<Member<()>> {
    let set = pool.shared.set();
    set.entries
        .iter()
        .find(|entry| entry.member.address == address(number))
        .unwrap()
        .member
        .clone()
}

fn picked(pool: &Pool<()>) -> Option<u8> {
    pool.pick(&[]).ok().map(|held| last(held.address))
}

fn last(address: SocketAddr) -> u8 {
    address
        .ip()
        .to_string()
        .rsplit('.')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn members(pool: &Pool<()>) -> Vec<u8> {
    let mut numbers: Vec<_> = pool
        .sights()
        .iter()
        .map(|sight| last(sight.address))
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Returns every member that is chosen in many tries.
fn all_picked(pool: &Pool<()>) -> Vec<u8> {
    let mut all: Vec<_> = (0..200).filter_map(|_| picked(pool)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn hosts_are_names_or_addresses_with_a_port() {
    let hosts: Hosts = "relay:1, 192.0.2.1:2,[2001:db8::1]:3".parse().unwrap();
    assert_eq!(hosts.to_string(), "relay:1,192.0.2.1:2,[2001:db8::1]:3");

    for bad in [
        "",
        "relay",
        "relay:",
        ":1",
        "relay:1,",
        "relay:1,,b:2",
        "u@relay:1",
        "http://relay:1",
        "relay:1/x",
        "r:99999",
    ] {
        assert!(bad.parse::<Hosts>().is_err(), "{bad} was taken");
    }
}

#[tokio::test]
async fn whoever_has_less_to_do_gets_the_next() {
    let pool = ready(&[1, 2]);
    let mut held: Vec<_> = (0..100).map(|_| pool.pick(&[]).unwrap()).collect();
    let count = |held: &[Busy<()>]| {
        held.iter()
            .filter(|held| held.address == address(1))
            .count()
    };
    assert_eq!(count(&held), 50);

    // Taking turns would give each half of what follows.
    held.retain(|held| held.address == address(2));
    held.extend((0..50).map(|_| pool.pick(&[]).unwrap()));
    assert_eq!(count(&held), 50);
}

#[tokio::test]
async fn the_busiest_of_many_is_never_chosen_and_all_others_are() {
    let pool = ready(&[1, 2, 3, 4]);
    let busy = pool.pick(&[]).unwrap();
    let others: Vec<_> = [1, 2, 3, 4]
        .into_iter()
        .filter(|number| *number != last(busy.address))
        .collect();
    assert_eq!(all_picked(&pool), others);
}

#[tokio::test(start_paused = true)]
async fn a_member_is_out_for_longer_each_time_that_it_cannot_be_reached() {
    let pool = ready(&[1, 2]);
    let member = member(&pool, 1);
    for out in [500, 1000, 2000, 4000, 4000] {
        pool.failed(&member);
        advance(Duration::from_millis(out - 1)).await;
        assert_eq!(all_picked(&pool), [2], "{out}");
        assert_eq!(pool.sights().iter().filter(|sight| sight.is_up).count(), 1);
        advance(Duration::from_millis(1)).await;
        assert_eq!(all_picked(&pool), [1, 2], "{out}");
    }

    pool.failed(&member);
    member.reached();
    assert_eq!(all_picked(&pool), [1, 2]);
    assert!(pool.sights().iter().all(|sight| sight.is_up));
}

#[tokio::test]
async fn with_nobody_ready_it_fails_at_once_and_says_who_was_meant() {
    let pool = ready(&[1, 2]);
    assert_eq!(last(pool.pick(&[address(2)]).unwrap().address), 1);
    assert!(pool.pick(&[address(1), address(2)]).is_err());
    pool.refused(&member(&pool, 1));
    assert_eq!(all_picked(&pool), [2]);
    pool.refused(&member(&pool, 2));
    assert_eq!(
        pool.pick(&[]).unwrap_err().to_string(),
        "none of 192.0.2.1:1,192.0.2.2:1 is ready"
    );
}

#[tokio::test]
async fn a_member_that_has_not_answered_is_chosen_only_when_no_other_is_there() {
    for (word, is_up) in [(Word::Unasked, true), (Word::Silent, false)] {
        let pool = ready(&[1, 2, 3]);
        member(&pool, 1).judge(word);
        assert_eq!(pool.sights().iter().all(|sight| sight.is_up), is_up);
        pool.refused(&member(&pool, 2));
        assert_eq!(all_picked(&pool), [3]);
        pool.refused(&member(&pool, 3));
        assert_eq!(all_picked(&pool), [1]);
    }
}

#[tokio::test]
async fn the_only_member_is_chosen_whatever_is_known_of_it_but_not_twice() {
    let pool = ready(&[1]);
    let member = member(&pool, 1);
    pool.failed(&member);
    pool.refused(&member);
    assert_eq!(picked(&pool), Some(1));
    assert!(!pool.sights()[0].is_up);
    assert!(pool.pick(&[address(1)]).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_and_again() {
    let zone = Zone::default();
    let pool = pool("relay:1,192.0.2.9:1", &zone);
    let set = |numbers: &[u8]| {
        *zone.lock().unwrap() = Some(numbers.iter().copied().map(address).collect());
    };
    let later = async |intervals: u32| {
        sleep((LOOKUP_INTERVAL + Duration::from_millis(1)) * intervals).await;
    };
    set(&[1, 2]);
    later(1).await;
    assert_eq!(members(&pool), [1, 2, 9]);

    let kept = pool.pick(&[address(1), address(9)]).unwrap();
    kept.judge(Word::Ready);
    set(&[2, 3]);
    later(1).await;
    assert_eq!(members(&pool), [2, 3, 9]);

    // It is still the same one, and ready.
    assert_eq!(all_picked(&pool), [2]);
    assert_eq!(member(&pool, 2).load(), 1);

    // What was known is better than nothing, but an answer is an answer.
    *zone.lock().unwrap() = None;
    later(3).await;
    assert_eq!(members(&pool), [2, 3, 9]);

    set(&[]);
    later(1).await;
    assert_eq!(members(&pool), [9]);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_soon_when_its_member_cannot_be_reached() {
    let zone = Zone::default();
    *zone.lock().unwrap() = Some(vec![address(1)]);
    let pool = pool("relay:1", &zone);
    pool.known().await;
    *zone.lock().unwrap() = Some(vec![address(2)]);
    sleep(LOOKUP_PAUSE * 2).await;
    assert_eq!(members(&pool), [1]);
    pool.failed(&member(&pool, 1));
    sleep(LOOKUP_PAUSE).await;
    assert_eq!(members(&pool), [2]);
}

#[tokio::test]
async fn the_first_lookup_is_waited_for_and_an_empty_one_ends_the_wait() {
    let zone = Zone::default();
    *zone.lock().unwrap() = Some(vec![address(1)]);
    let found = pool("relay:1", &zone);
    assert_eq!(picked(&found), None);

    found.known().await;
    assert_eq!(picked(&found), Some(1));

    let nowhere = pool("relay:1", &Zone::default());
    nowhere.known().await;
    assert_eq!(
        nowhere.pick(&[]).unwrap_err().to_string(),
        "none of relay:1 is ready"
    );
}

#[tokio::test]
async fn what_belongs_to_a_pool_ends_with_it() {
    let pool = pool("relay:1,192.0.2.8:1,192.0.2.9:1", &Zone::default());
    let tasks = pool.shared.tasks.clone();
    assert_eq!(tasks.len(), 3);
    drop(pool);
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.unwrap();
}

fn asked(bench: &Bench, peers: &[SocketAddr]) -> Pool<()> {
    let hosts: Vec<_> = peers.iter().map(ToString::to_string).collect();
    Pool::new(hosts.join(",").parse().unwrap(), &bench.connector(b"h2"))
}

/// Waits until exactly these are chosen.
async fn until_picked(pool: &Pool<()>, peers: &[&Peer]) {
    let mut expected: Vec<_> = peers.iter().map(|peer| peer.address).collect();
    expected.sort_unstable();
    let reached = async {
        loop {
            let mut picked: Vec<_> = (0..50)
                .filter_map(|_| pool.pick(&[]).ok())
                .map(|held| held.address)
                .collect();
            picked.sort_unstable();
            picked.dedup();
            if picked == expected {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };

    timeout(PATIENCE, reached).await.unwrap();
}

#[tokio::test]
async fn a_member_gets_nothing_before_it_is_ready_nor_when_it_drains_or_is_gone() {
    let bench = Bench::new();
    let mut peers: Vec<_> = (0..3).map(|_| bench.peer(axum::Router::new())).collect();
    peers[0].readiness.set(false);

    let pool = asked(
        &bench,
        &[
            peers[0].address,
            peers[1].address,
            peers[2].address,
            dead_port(),
        ],
    );
    until_picked(&pool, &[&peers[1], &peers[2]]).await;
    peers[0].readiness.set(true);
    until_picked(&pool, &[&peers[0], &peers[1], &peers[2]]).await;
    peers[0].readiness.set(false);
    until_picked(&pool, &[&peers[1], &peers[2]]).await;
    peers[0].readiness.set(true);
    peers[1].stop.cancel();
    until_picked(&pool, &[&peers[0], &peers[2]]).await;
    peers[2].kill();
    until_picked(&pool, &[&peers[0]]).await;
}
