//! A bucket of handshakes for each address. Editors that sign in give theirs back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The handshake of a socket that is not signed in.
#[derive(Debug)]
pub(crate) struct HandshakePlace {
    address: IpAddr,
    /// The time in which it is regained.
    each: Duration,
    handshakes: Arc<Handshakes>,
}

impl HandshakePlace {
    /// The socket is signed in: its handshake no longer counts.
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
    /// The time in which one is regained.
    each: Duration,
    /// The time in which all are regained.
    all: Duration,
    /// The maximum number of addresses that are stored.
    addresses: usize,
    spent: Mutex<HashMap<IpAddr, Spent>>,
}

/// The handshakes that one address has taken out of its bucket.
#[derive(Debug)]
struct Spent {
    /// When all will have been regained.
    until: Instant,
    /// Sockets that are not signed in. Their handshakes are not regained while they are open, or an
    /// address could accumulate them.
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

    /// Takes one, or returns how long it is until there is one. The bucket of an address that is
    /// shared by many people is larger by its factor.
    pub(super) fn take(
        self: &Arc<Self>,
        address: IpAddr,
        times: u32,
        now: Instant,
    ) -> Result<HandshakePlace, Duration> {
        let each = self.each / times;
        let mut all = self.spent();
        if all.len() >= self.addresses && !all.contains_key(&address) {
            // A client with this many addresses is not stopped by the limit of one of them.
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

    /// Returns how many addresses are stored.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.spent().len()
    }

    /// Deletes the counts of quiet addresses.
    pub(super) fn forget_quiet(&self, now: Instant) {
        let mut spent = self.spent();
        spent.retain(|_, spent| spent.open > 0 || spent.until > now);
        spent.shrink_to_fit();
    }
}
