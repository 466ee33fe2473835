//! How much one subscriber, and everyone together, may ask of the edge. What they ask for is not its business.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vvs_runtime::forwarded::subscriber;

use crate::error::Refusal;

/// Who holds how much.
#[derive(Debug)]
pub(crate) struct Limits {
    requests: DefaultKeyedRateLimiter<IpAddr>,
    connections: Arc<Semaphore>,
    per_address: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of the connections that an address may hold.
#[derive(Debug)]
pub(crate) struct Place {
    address: IpAddr,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

impl Limits {
    pub(crate) fn new(requests_per_minute: NonZeroU32, connections: usize, per_address: usize) -> Self {
        Self {
            requests: RateLimiter::keyed(Quota::per_minute(requests_per_minute)),
            connections: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))),
            per_address,
            held: Arc::default(),
        }
    }

    /// Counts one request from this address.
    pub(crate) fn request(&self, address: IpAddr) -> Result<(), Refusal> {
        let checked = self.requests.check_key(&subscriber(address));
        checked.map_err(|until| Refusal::Rate { wait: until.wait_time_from(DefaultClock::default().now()) })
    }

    /// A place among the connections of everyone; `None` when all are taken.
    pub(crate) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// A place among the connections of this address.
    pub(crate) fn place(&self, address: IpAddr) -> Result<Place, Refusal> {
        let address = subscriber(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.per_address {
            return Err(Refusal::AddressFull);
        }
        *count += 1;
        Ok(Place { address, held: self.held.clone() })
    }

    /// Forgets the request counts of addresses that have been quiet.
    pub(crate) fn forget_quiet(&self) {
        self.requests.retain_recent();
        self.requests.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_flood_is_told_when_to_come_back_and_keeps_nobody_out() {
        let limits = Limits::new(NonZeroU32::new(3).unwrap(), 1, 1);
        for _ in 0..3 {
            limits.request(ADA).unwrap();
        }
        let refused = limits.request(ADA).unwrap_err().answer();
        assert_eq!(refused.status(), 429);
        let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=21).contains(&seconds), "{seconds}");
        limits.request(BOB).unwrap();
    }

    #[test]
    fn an_address_gets_its_places_back_and_leaves_nothing_behind() {
        let limits = Limits::new(NonZeroU32::MIN, 1, 2);
        let places = [limits.place(ADA).unwrap(), limits.place(ADA).unwrap()];
        assert!(matches!(limits.place(ADA), Err(Refusal::AddressFull)));
        let bob = limits.place(BOB).unwrap();
        drop(places);
        drop(limits.place(ADA).unwrap());
        drop(bob);
        assert!(limits.held.lock().unwrap().is_empty());
    }

    #[test]
    fn a_subscriber_is_one_address_whatever_he_calls_himself() {
        let limits = Limits::new(NonZeroU32::MIN, 1, 1);
        let _place = limits.place("2001:db8::1".parse().unwrap()).unwrap();
        assert!(limits.place("2001:db8::2".parse().unwrap()).is_err());
        limits.place("2001:db8:0:1::1".parse().unwrap()).unwrap();
    }

    #[test]
    fn everyone_together_has_so_many_connections() {
        let limits = Limits::new(NonZeroU32::MIN, 1, 1);
        let held = limits.connection();
        assert!(held.is_some() && limits.connection().is_none());
        drop(held);
        assert!(limits.connection().is_some());
    }
}
