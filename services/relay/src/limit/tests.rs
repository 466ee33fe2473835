use std::net::Ipv4Addr;

use super::*;

const ADA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const BOB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const SECOND: Duration = Duration::from_secs(1);

/// One handshake is regained each second.
fn limits(burst: u32, logins_per_address: usize, connections: usize) -> Limits {
    let handshakes_per_minute = NonZeroU32::new(60).unwrap();
    let handshake_burst = NonZeroU32::new(burst).unwrap();
    let shared = vec!["203.0.113.0/24=3".parse().unwrap()];
    let bounds = Bounds {
        handshakes_per_minute,
        handshake_burst,
        logins_per_address,
        silent_login_time: SECOND * 60,
        connections: share::Bounds {
            total: connections,
            per_address: connections.div_ceil(2),
        },
        networks: Networks {
            ipv4_24: 8,
            ipv6_56: 8,
            ipv6_48: 16,
            shared,
        },
        memory: 10 * SOCKET_BYTES,
        calls: 2,
    };

    Limits::new(bounds, Reached::default())
}

#[test]
fn a_hoarder_gets_his_share_of_logins_and_keeps_nobody_out() {
    let (limits, now) = (limits(100, 2, 10), Instant::now());
    let held = [
        limits.login(ADA, now).unwrap(),
        limits.login(ADA, now).unwrap(),
    ];
    let full = limits.login(ADA, now).unwrap_err();
    assert_eq!((full.reason, full.own_doing), ("logins_per_address", true));
    let _bobs = limits.login(BOB, now).unwrap();
    drop(held);
    limits.login(ADA, now).unwrap();
}

#[test]
fn a_flood_that_does_not_authenticate_is_told_when_to_come_back() {
    let (limits, now) = (limits(3, 100, 100), Instant::now());
    for _ in 0..3 {
        limits.handshake(ADA, now).unwrap();
    }

    let full = limits.handshake(ADA, now).unwrap_err();
    assert_eq!(
        (full.reason, full.own_doing, full.retry_after),
        ("handshake_rate", true, SECOND)
    );

    limits.handshake(BOB, now).unwrap();
    limits.handshake(ADA, now + SECOND).unwrap();
    limits.handshake(ADA, now + SECOND).unwrap_err();

    for _ in 0..3 {
        limits.handshake(ADA, now + SECOND * 100).unwrap();
    }
}

#[test]
fn a_thousand_editors_behind_one_address_that_authenticate_are_never_refused() {
    let (limits, now) = (limits(300, 20, 10_000), Instant::now());
    for _ in 0..4 {
        let crowd: Vec<_> = (0..250)
            .map(|_| limits.handshake(ADA, now).unwrap())
            .collect();
        crowd.into_iter().for_each(HandshakePlace::give_back);
    }

    // And they have left the address all that it had.
    let _crowd: Vec<_> = (0..300)
        .map(|_| limits.handshake(ADA, now).unwrap())
        .collect();
    limits.handshake(ADA, now).unwrap_err();
}

#[test]
fn sockets_that_are_open_and_not_signed_in_are_not_regained() {
    let (limits, now) = (limits(3, 100, 100), Instant::now());
    let mut open: Vec<_> = (0..3)
        .map(|_| limits.handshake(ADA, now).unwrap())
        .collect();
    let later = now + SECOND * 1000;
    limits.forget_quiet(later);
    limits.handshake(ADA, later).unwrap_err();
    open.pop();
    limits.handshake(ADA, later).unwrap();
}

#[test]
fn an_address_that_is_quiet_is_forgotten_and_a_crowd_of_them_too() {
    let (limits, now) = (limits(3, 100, 100), Instant::now());
    let remembered = || limits.handshakes.remembered();
    limits.handshake(ADA, now).unwrap();
    limits.forget_quiet(now);
    assert_eq!(remembered(), 1);

    limits.forget_quiet(now + SECOND);
    assert_eq!(remembered(), 0);

    let _open: Vec<_> = (0..3)
        .map(|_| limits.handshake(BOB, now).unwrap())
        .collect();
    for number in 0..10_000 {
        limits
            .handshake(Ipv4Addr::from_bits(number).into(), now)
            .unwrap();
        assert!(remembered() <= 200);
    }

    limits.handshake(BOB, now).unwrap_err();
}

#[test]
fn logins_that_came_to_nothing_have_places_of_their_own_and_few() {
    let limits = limits(100, 100, 20);
    let of = |address| {
        let over: Vec<_> = std::iter::from_fn(|| limits.over(address)).collect();
        let detached: Vec<_> = std::iter::from_fn(|| limits.detached(address)).collect();
        (over, detached)
    };
    let (ada, bob) = (of(ADA), of(BOB));
    assert_eq!(
        (ada.0.len(), ada.1.len()),
        (1, 10),
        "one address has half of them here"
    );
    assert_eq!((bob.0.len(), bob.1.len()), (1, 10));
}

#[test]
fn a_full_process_says_so_and_counts_sockets_until_they_are_gone() {
    let limits = limits(100, 100, 1);
    let connection = limits.connection(ADA).unwrap();
    let full = limits.connection(BOB).unwrap_err();
    assert_eq!((full.reason, full.own_doing), ("connections", false));
    drop(connection);
    limits.connection(BOB).unwrap();
}

#[test]
fn memory_that_waits_in_sockets_and_logins_leaves_less_for_new_ones() {
    let limits = limits(100, 100, 100);
    let mut held: Vec<_> = std::iter::from_fn(|| limits.connection(ADA).ok()).collect();
    assert_eq!(held.len(), 10);

    let full = limits.connection(ADA).unwrap_err();
    assert_eq!((full.reason, full.own_doing), ("memory", false));

    held.truncate(5);
    held[0].buffers(3 * SOCKET_BYTES);
    let more: Vec<_> = std::iter::from_fn(|| limits.connection(ADA).ok()).collect();
    assert_eq!(more.len(), 2);

    drop(more);
    held[0].buffers(0);
    let logins: Vec<_> = (0..8).map(|_| limits.detached(ADA).unwrap()).collect();
    let more: Vec<_> = std::iter::from_fn(|| limits.connection(ADA).ok()).collect();
    assert_eq!(more.len(), 3);

    drop((held, more, logins));
    assert!(
        limits.memory.take(10 * SOCKET_BYTES).is_some(),
        "all of it is back"
    );
}

#[test]
fn so_many_calls_are_under_way_at_once() {
    let limits = limits(100, 100, 100);
    let held = [limits.call().unwrap(), limits.call().unwrap()];
    assert!(limits.call().is_none());
    drop(held);
    assert!(limits.call().is_some());
}

#[test]
fn an_address_has_its_share_of_sockets_and_keeps_nobody_out() {
    let limits = limits(100, 100, 4);
    let held = [
        limits.connection(ADA).unwrap(),
        limits.connection(ADA).unwrap(),
    ];
    let full = limits.connection(ADA).unwrap_err();
    assert_eq!(
        (full.reason, full.own_doing),
        ("connections_per_address", true)
    );

    let _bobs = limits.connection(BOB).unwrap();
    assert_eq!(
        limits
            .reached
            .times("VVS_RELAY_MAX_CONNECTIONS_PER_ADDRESS"),
        1
    );

    drop(held);
}

#[test]
fn a_shared_network_has_so_many_times_the_bounds_of_an_address() {
    let (limits, now) = (limits(2, 2, 100), Instant::now());
    let office: IpAddr = "203.0.113.7".parse().unwrap();
    let _logins: Vec<_> = (0..6).map(|_| limits.login(office, now).unwrap()).collect();
    limits.login(office, now).unwrap_err();
    let mut open: Vec<_> = (0..6)
        .map(|_| limits.handshake(office, now).unwrap())
        .collect();
    limits.handshake(office, now).unwrap_err();
    open.pop().unwrap().give_back();
    limits.handshake(office, now).unwrap();
}

/// Returns whether another login has its place now.
fn is_lost(place: &mut LoginPlace) -> bool {
    place
        .poll_lost(&mut std::task::Context::from_waker(std::task::Waker::noop()))
        .is_ready()
}

#[test]
fn a_silent_login_gives_way_once_it_is_old_enough_and_the_oldest_first() {
    let (limits, now) = (limits(100, 2, 100), Instant::now());
    let mut first = limits.login(ADA, now).unwrap();
    let mut second = limits.login(ADA, now + SECOND).unwrap();
    limits.login(ADA, now + SECOND * 60).unwrap_err();
    let _bob = limits.login(BOB, now).unwrap();
    assert!(!is_lost(&mut first));

    let mut third = limits.login(ADA, now + SECOND * 62).unwrap();
    assert_eq!(
        (
            is_lost(&mut first),
            is_lost(&mut second),
            is_lost(&mut third)
        ),
        (true, false, false)
    );
    assert!(!first.keep(), "it no longer has a place");
    assert_eq!(limits.reached.times("VVS_RELAY_SILENT_LOGIN_TIME"), 1);

    // What is left of it takes nothing from those who are there.
    drop(first);
    let _fourth = limits.login(ADA, now + SECOND * 62).unwrap();
    assert!(is_lost(&mut second) && !is_lost(&mut third));

    limits.login(ADA, now + SECOND * 62).unwrap_err();
}

#[test]
fn a_login_that_somebody_has_looked_at_gives_way_to_nobody() {
    let (limits, now) = (limits(100, 2, 100), Instant::now());
    let later = now + SECOND * 1000;
    let mut first = limits.login(ADA, now).unwrap();
    let mut second = limits.login(ADA, now).unwrap();
    assert!(first.keep() && first.keep());

    let third = limits.login(ADA, later).unwrap();
    assert!(is_lost(&mut second) && !is_lost(&mut first));

    limits.login(ADA, later).unwrap_err();
    drop((second, third));
    let _fourth = limits.login(ADA, later).unwrap();
    limits.login(ADA, later).unwrap_err();
    drop(first);
    limits.login(ADA, later).unwrap();
}
