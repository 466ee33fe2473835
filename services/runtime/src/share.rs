//! A limited number of places, and how many of them one address and one network may hold. Callers
//! decide what a place is for, and what a client without one is told.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::forwarded::subscriber;

#[cfg(test)]
mod tests;

/// The maximum factor for an address of a shared network.
const MOST_TIMES: u32 = 10_000;
/// The longest prefixes by which addresses are counted.
const SUBSCRIBER: [u8; 2] = [32, 64];

/// The number of places.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub total: usize,
    /// Of one IPv4 address or IPv6 /64.
    pub per_address: usize,
}

/// The factors of the wider networks, and the networks whose addresses are shared by many people.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    /// 0: the network is not counted. The same applies to the others.
    pub ipv4_24: u32,
    pub ipv6_56: u32,
    pub ipv6_48: u32,
    pub shared: Vec<SharedNetwork>,
}

/// A network whose addresses are each shared by many people, such as an office or a mobile carrier:
/// `CIDR=TIMES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedNetwork {
    pub network: IpNet,
    /// The factor for the bounds of each of its addresses, and for those of its wider networks.
    pub times: u32,
}

/// The text is not a shared network.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not CIDR=TIMES, such as 203.0.113.0/24=20 or 2001:db8::/32=20, with a network of \
     IPv6 from /0 to /64 and a number from 1 to {MOST_TIMES}"
)]
pub struct BadShared(String);

impl FromStr for SharedNetwork {
    type Err = BadShared;

    fn from_str(text: &str) -> Result<Self, BadShared> {
        let parse = || {
            let (network, times) = text.trim().split_once('=')?;
            let network: IpNet = network.parse().ok()?;
            let times = times
                .parse()
                .ok()
                .filter(|times| (1..=MOST_TIMES).contains(times))?;
            let is_counted =
                network.prefix_len() <= SUBSCRIBER[usize::from(network.addr().is_ipv6())];

            is_counted.then_some(Self {
                network: network.trunc(),
                times,
            })
        };
        parse().ok_or_else(|| BadShared(text.to_owned()))
    }
}

impl Networks {
    /// Returns the factor for the bounds of an address, from the narrowest network that contains
    /// it.
    pub fn times(&self, address: IpAddr) -> u32 {
        let address = address.to_canonical();
        let around = self
            .shared
            .iter()
            .filter(|shared| shared.network.contains(&address));
        around
            .max_by_key(|shared| shared.network.prefix_len())
            .map_or(1, |shared| shared.times)
    }

    /// Returns the networks around an address, the narrowest first: the length of each prefix, its
    /// number of places, and the error when they are taken.
    fn widths(&self, address: IpAddr) -> [(u8, u32, Full); 2] {
        match address {
            IpAddr::V4(_) => [
                (24, self.ipv4_24, Full::Ipv4Net24),
                (24, 0, Full::Ipv4Net24),
            ],
            IpAddr::V6(_) => [
                (56, self.ipv6_56, Full::Ipv6Net56),
                (48, self.ipv6_48, Full::Ipv6Net48),
            ],
        }
    }
}

/// Reads how many times the places of an address a network holds: 0, or at least this many.
pub fn times(text: &str, least: u32) -> Result<u32, String> {
    let times = text
        .parse()
        .ok()
        .filter(|times| *times == 0 || (least..=MOST_TIMES).contains(times));
    times.ok_or_else(|| format!("must be 0, or from {least} to {MOST_TIMES}"))
}

/// The group that holds all the places it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All clients together.
    Everyone,
    Address,
    Ipv4Net24,
    Ipv6Net56,
    Ipv6Net48,
}

/// Places and their holders.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    networks: Arc<Networks>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by: HashMap<Bucket, usize>,
}

/// A group in which an address counts. Addresses that are shared by many people count separately
/// from their neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Bucket {
    network: IpNet,
    times: u32,
}

/// One place, until this is dropped.
#[derive(Debug)]
pub struct Place {
    /// `None` when it counts only towards the total.
    address: Option<IpAddr>,
    places: Places,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.total -= 1;

        for (bucket, ..) in self
            .address
            .iter()
            .flat_map(|address| self.places.buckets(*address))
        {
            if let Some(count) = held.by.get_mut(&bucket) {
                *count -= 1;
                if *count == 0 {
                    held.by.remove(&bucket);
                }
            }
        }
    }
}

impl Places {
    pub fn new(bounds: Bounds, networks: Arc<Networks>) -> Self {
        Self(Arc::new(Inner {
            bounds,
            networks,
            held: Mutex::default(),
        }))
    }

    /// Takes a place for this address, or says which group has too many. Networks count only while
    /// more than half of all places are taken: before that, nobody lacks the places that they hold.
    pub fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let mut held = self.held();
        let is_crowded = held.total > self.0.bounds.total / 2;
        for (bucket, most, full) in self.buckets(address) {
            let count = held.by.get(&bucket).copied().unwrap_or_default();
            if count >= most && (full == Full::Address || is_crowded) {
                return Err(full);
            }
        }

        self.count(&mut held)?;

        for (bucket, ..) in self.buckets(address) {
            *held.by.entry(bucket).or_default() += 1;
        }

        Ok(Place {
            address: Some(address),
            places: self.clone(),
        })
    }

    /// Takes a place that counts for no address.
    pub fn take_for_nobody(&self) -> Result<Place, Full> {
        self.count(&mut self.held())?;
        Ok(Place {
            address: None,
            places: self.clone(),
        })
    }

    fn count(&self, held: &mut Held) -> Result<(), Full> {
        if held.total >= self.0.bounds.total {
            return Err(Full::Everyone);
        }
        held.total += 1;
        Ok(())
    }

    /// Returns the groups in which an address counts, the maximum of each, and the error when it is
    /// reached.
    fn buckets(&self, address: IpAddr) -> impl Iterator<Item = (Bucket, usize, Full)> {
        let Inner {
            bounds, networks, ..
        } = &*self.0;
        let (times, address) = (networks.times(address), subscriber(address));
        let own = (SUBSCRIBER[usize::from(address.is_ipv6())], 1, Full::Address);
        let widths = networks
            .widths(address)
            .into_iter()
            .filter(|(_, holds, _)| *holds > 0);

        std::iter::once(own)
            .chain(widths)
            .filter_map(move |(bits, holds, full)| {
                let network = IpNet::new(address, bits).ok()?.trunc();
                let most =
                    [holds, times].map(|factor| usize::try_from(factor).unwrap_or(usize::MAX));
                let most = most
                    .into_iter()
                    .fold(bounds.per_address, usize::saturating_mul);
                Some((Bucket { network, times }, most, full))
            })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
