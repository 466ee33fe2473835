//! How much one subscriber, and everyone together, may ask of this relay before they are signed in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vvs_runtime::forwarded::subscriber;

/// Why a handshake is refused, and when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// As the metric spells it.
    pub(crate) reason: &'static str,
    /// Whether it is this client's own doing (429), or the process is full (503).
    pub(crate) own_doing: bool,
    pub(crate) retry_after: Duration,
}

/// Who holds how much.
#[derive(Debug)]
pub(crate) struct Limits {
    handshakes: DefaultKeyedRateLimiter<IpAddr>,
    logins_per_address: usize,
    logins: Arc<Mutex<HashMap<IpAddr, usize>>>,
    connections: Arc<Semaphore>,
}

/// A place among all connections of the process.
#[derive(Debug)]
pub(crate) struct ConnectionPlace(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A place among the unfinished logins of one address.
#[derive(Debug)]
pub(crate) struct LoginPlace {
    address: IpAddr,
    logins: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for LoginPlace {
    fn drop(&mut self) {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = logins.get_mut(&self.address) {
            *held -= 1;
            if *held == 0 {
                logins.remove(&self.address);
            }
        }
    }
}

impl Limits {
    pub(crate) fn new(
        per_minute: NonZeroU32,
        burst: NonZeroU32,
        logins_per_address: usize,
        connections: usize,
    ) -> Self {
        Self {
            handshakes: RateLimiter::keyed(Quota::per_minute(per_minute).allow_burst(burst)),
            logins_per_address,
            logins: Arc::default(),
            connections: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes a place for one more socket with an unfinished login from this address.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<(ConnectionPlace, LoginPlace), Full> {
        let address = subscriber(address);
        self.handshakes.check_key(&address).map_err(|until| Full {
            reason: "handshake_rate",
            own_doing: true,
            retry_after: until.wait_time_from(DefaultClock::default().now()),
        })?;
        let connection = self.connections.clone().try_acquire_owned().map_err(|_cause| Full {
            reason: "connections",
            own_doing: false,
            retry_after: Duration::from_secs(10),
        })?;
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let held = logins.entry(address).or_default();
        if *held >= self.logins_per_address {
            return Err(Full { reason: "logins_per_address", own_doing: true, retry_after: Duration::from_secs(30) });
        }
        *held += 1;
        Ok((ConnectionPlace(connection), LoginPlace { address, logins: self.logins.clone() }))
    }

    /// Forgets addresses that have been quiet; call now and then.
    pub(crate) fn forget_quiet(&self) {
        self.handshakes.retain_recent();
        self.handshakes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn limits(burst: u32, per_address: usize, connections: usize) -> Limits {
        Limits::new(NonZeroU32::MIN, NonZeroU32::new(burst).unwrap(), per_address, connections)
    }

    #[test]
    fn a_hoarder_gets_his_share_and_keeps_nobody_out() {
        let limits = limits(100, 2, 10);
        let held = [limits.admit(ADA).unwrap(), limits.admit(ADA).unwrap()];
        let full = limits.admit(ADA).unwrap_err();
        assert_eq!((full.reason, full.own_doing), ("logins_per_address", true));
        limits.admit(BOB).unwrap();
        drop(held);
        limits.admit(ADA).unwrap();
    }

    #[test]
    fn a_finished_login_gives_its_place_back_while_its_socket_lives() {
        let limits = limits(100, 1, 10);
        let (_connection, login) = limits.admit(ADA).unwrap();
        drop(login);
        limits.admit(ADA).unwrap();
    }

    #[test]
    fn a_flood_of_handshakes_is_told_when_to_come_back() {
        let limits = limits(3, 100, 100);
        for _ in 0..3 {
            limits.admit(ADA).unwrap();
        }
        let full = limits.admit(ADA).unwrap_err();
        assert_eq!((full.reason, full.own_doing), ("handshake_rate", true));
        assert!(full.retry_after > Duration::ZERO);
        limits.admit(BOB).unwrap();
    }

    #[test]
    fn a_full_process_says_so_and_counts_sockets_until_they_are_gone() {
        let limits = limits(100, 100, 1);
        let (connection, login) = limits.admit(ADA).unwrap();
        drop(login);
        let full = limits.admit(BOB).unwrap_err();
        assert_eq!((full.reason, full.own_doing), ("connections", false));
        drop(connection);
        limits.admit(BOB).unwrap();
    }
}
