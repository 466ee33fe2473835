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

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Of one address.
    pub(crate) requests_per_minute: NonZeroU32,
    /// Of one address.
    pub(crate) connections_per_minute: NonZeroU32,
    pub(crate) requests: usize,
    pub(crate) connections: usize,
    pub(crate) per_address: usize,
}

/// Who holds how much.
#[derive(Debug)]
pub(crate) struct Limits {
    requests: DefaultKeyedRateLimiter<IpAddr>,
    handshakes: DefaultKeyedRateLimiter<IpAddr>,
    under_way: Arc<Semaphore>,
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
    pub(crate) fn new(bounds: Bounds) -> Self {
        let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            requests: RateLimiter::keyed(Quota::per_minute(bounds.requests_per_minute)),
            handshakes: RateLimiter::keyed(Quota::per_minute(bounds.connections_per_minute)),
            under_way: places(bounds.requests),
            connections: places(bounds.connections),
            per_address: bounds.per_address,
            held: Arc::default(),
        }
    }

    /// Counts one connection from this address, which costs more than a request when it begins with a TLS handshake.
    pub(crate) fn handshake(&self, address: IpAddr) -> Result<(), Refusal> {
        self.handshakes.check_key(&subscriber(address)).map_err(|_until| Refusal::ConnectionRate)
    }

    /// A place among the requests of everyone that are under way.
    pub(crate) fn under_way(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.under_way.clone().try_acquire_owned().map_err(|_cause| Refusal::Busy)
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

    /// Forgets the counts of addresses that have been quiet.
    pub(crate) fn forget_quiet(&self) {
        for counts in [&self.requests, &self.handshakes] {
            counts.retain_recent();
            counts.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn limits(per_minute: u32, connections: usize, per_address: usize) -> Limits {
        let per_minute = NonZeroU32::new(per_minute).unwrap();
        let (requests_per_minute, connections_per_minute) = (per_minute, per_minute);
        Limits::new(Bounds { requests_per_minute, connections_per_minute, requests: 2, connections, per_address })
    }

    #[test]
    fn a_flood_is_told_when_to_come_back_and_keeps_nobody_out() {
        let limits = limits(3, 1, 1);
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
        let limits = limits(1, 2, 2);
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
        let limits = limits(1, 1, 1);
        let _place = limits.place("2001:db8::1".parse().unwrap()).unwrap();
        assert!(limits.place("2001:db8::2".parse().unwrap()).is_err());
        limits.place("2001:db8:0:1::1".parse().unwrap()).unwrap();
    }

    #[test]
    fn everyone_together_has_so_many_connections() {
        let limits = limits(1, 1, 1);
        let held = limits.connection();
        assert!(held.is_some() && limits.connection().is_none());
        drop(held);
        assert!(limits.connection().is_some());
    }

    #[test]
    fn connections_are_counted_apart_from_requests_and_each_address_has_its_own() {
        let limits = limits(1, 1, 1);
        limits.handshake(ADA).unwrap();
        limits.request(ADA).unwrap();
        assert!(matches!(limits.handshake(ADA), Err(Refusal::ConnectionRate)));
        limits.handshake(BOB).unwrap();
    }

    #[test]
    fn everyone_together_has_so_many_requests_under_way() {
        let limits = limits(1, 1, 1);
        let held = [limits.under_way().unwrap(), limits.under_way().unwrap()];
        let refused = limits.under_way().unwrap_err();
        assert_eq!((refused.reason(), refused.answer().status().as_u16()), ("requests", 503));
        assert_eq!(refused.answer().headers()["retry-after"], "5");
        drop(held);
        assert!(limits.under_way().is_ok());
    }
}
