//! Ports for programs that have to be told theirs before they start.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below the ports that Linux gives to connections (32768 on), one of which could take the port
/// before the program does.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// How many ports are tried at most for each one that is free.
const TRIES: usize = 100;

/// Returns different addresses of this machine that nothing listens on now.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let random = RandomState::new();
    let tried = (0..count * TRIES).map(|number| {
        let offset = random.hash_one(number) % u64::from(COUNT);
        let port = FIRST + u16::try_from(offset).unwrap();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
    });
    let held: Vec<_> = tried.flatten().take(count).collect();
    assert_eq!(held.len(), count, "too few ports are free");

    held.iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect()
}
