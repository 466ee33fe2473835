//! A bucket of handshakes for each address, which those that sign in give back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The handshake of a socket that is not signed in.
#[derive(Debug)]
pub(crate) struct HandshakePlace {
    address: IpAddr,
    /// In which it is regained.
    each: Duration,
    handshakes: Arc<Handshakes>,
}

impl HandshakePlace {
    /// The socket is signed in: its handshake counts for nothing.
    pub(crate) fn give_back(self) {
        if let Some(spent) = self.handshakes.spent().get_mut(&self.address) {
            spent.until = spent.until.checked_sub(self.each).unwrap_or(spent.until);
        }
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        if let Some(spent) = self.handshakes.spent().get_mut(&self.address) {
            spent.open -= 1;
        }
    }
}

/// Handshakes of each address, counted as the time in which they are regained.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// In which one is regained.
    each: Duration,
    /// In which all are.
    all: Duration,
    /// Addresses that are remembered.
    addresses: usize,
    spent: Mutex<HashMap<IpAddr, Spent>>,
}

/// What one address has taken out of its bucket.
#[derive(Debug)]
struct Spent {
    /// When all will have been regained.
    until: Instant,
    /// Sockets that are not signed in. What they have taken is not regained while they are open, or
    /// an address could heap them up.
    open: u32,
}

impl Handshakes {
    pub(super) fn new(each: Duration, burst: u32, addresses: usize) -> Arc<Self> {
        Arc::new(Self {
            each,
            all: each * burst,
            addresses,
            spent: Mutex::default(),
        })
    }

    fn spent(&self) -> MutexGuard<'_, HashMap<IpAddr, Spent>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one, or says how long it is until there is one. An address that stands for many people
    /// has so many times the bucket of another.
    pub(super) fn take(
        self: &Arc<Self>,
        address: IpAddr,
        times: u32,
        now: Instant,
    ) -> Result<HandshakePlace, Duration> {
        let each = self.each / times;
        let mut all = self.spent();
        if all.len() >= self.addresses && !all.contains_key(&address) {
            // Whoever has so many addresses is not kept by what one of them may.
            all.retain(|_, spent| spent.open > 0);
        }

        let spent = all.entry(address).or_insert(Spent {
            until: now,
            open: 0,
        });
        let owed = spent
            .until
            .saturating_duration_since(now)
            .max(each * spent.open)
            + each;
        if let Some(wait) = owed.checked_sub(self.all).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }

        *spent = Spent {
            until: now + owed,
            open: spent.open + 1,
        };

        Ok(HandshakePlace {
            address,
            each,
            handshakes: self.clone(),
        })
    }

    /// How many addresses are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.spent().len()
    }

    /// Forgets addresses that have been quiet.
    pub(super) fn forget_quiet(&self, now: Instant) {
        let mut spent = self.spent();
        spent.retain(|_, spent| spent.open > 0 || spent.until > now);
        spent.shrink_to_fit();
    }
}
