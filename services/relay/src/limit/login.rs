//! The places of unfinished logins. When an address has its maximum, a login whose editor has said
//! nothing and that nobody has looked at gives way: silent sockets must not shut out the people
//! behind that address.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use tokio::time::Instant;
use vvs_runtime::share::Place;

/// A place among the unfinished logins of one address.
#[derive(Debug)]
pub(crate) struct LoginPlace(Tenure);

#[derive(Debug)]
enum Tenure {
    /// A newer login may take it.
    Silent {
        address: IpAddr,
        number: u64,
        silent: Arc<Silent>,
        taken: oneshot::Receiver<()>,
    },
    Kept {
        _place: Place,
    },
    /// A newer login has it.
    Lost,
}

impl LoginPlace {
    /// Makes the place permanent: the editor has said something about the login, or somebody has
    /// looked at it. Returns whether it still has a place.
    pub(crate) fn keep(&mut self) -> bool {
        if let Tenure::Silent {
            address,
            number,
            silent,
            ..
        } = &self.0
        {
            let waiting = silent.remove(*address, *number);
            let kept = waiting.map_or(Tenure::Lost, |waiting| Tenure::Kept {
                _place: waiting.place,
            });
            drop(mem::replace(&mut self.0, kept));
        }

        matches!(self.0, Tenure::Kept { .. })
    }

    /// Resolves when a newer login has taken the place.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Tenure::Silent { taken, .. } => Pin::new(taken).poll(cx).map(|_taken| ()),
            Tenure::Kept { .. } => Poll::Pending,
            Tenure::Lost => Poll::Ready(()),
        }
    }
}

impl Drop for LoginPlace {
    fn drop(&mut self) {
        self.keep();
    }
}

/// The silent logins of each address.
#[derive(Debug)]
pub(super) struct Silent {
    /// How old one must be to give way.
    age: Duration,
    addresses: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    last: u64,
    /// By number, so that the oldest comes first.
    waiting: HashMap<IpAddr, BTreeMap<u64, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    place: Place,
    taken: oneshot::Sender<()>,
}

impl Silent {
    pub(super) fn new(age: Duration) -> Arc<Self> {
        Arc::new(Self {
            age,
            addresses: Mutex::default(),
        })
    }

    fn addresses(&self) -> MutexGuard<'_, Counted> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place to a new login.
    pub(super) fn add(self: &Arc<Self>, address: IpAddr, place: Place, now: Instant) -> LoginPlace {
        let (sender, taken) = oneshot::channel();
        let mut addresses = self.addresses();
        addresses.last += 1;
        let number = addresses.last;
        let waiting = Waiting {
            since: now,
            place,
            taken: sender,
        };
        addresses
            .waiting
            .entry(address)
            .or_default()
            .insert(number, waiting);

        LoginPlace(Tenure::Silent {
            address,
            number,
            silent: self.clone(),
            taken,
        })
    }

    /// Takes the place of the oldest silent login of this address, if that is old enough.
    pub(super) fn give_way(&self, address: IpAddr, now: Instant) -> Option<Place> {
        let number = {
            let addresses = self.addresses();
            let (number, oldest) = addresses.waiting.get(&address)?.first_key_value()?;
            (now.saturating_duration_since(oldest.since) > self.age).then_some(*number)?
        };
        let Waiting { place, taken, .. } = self.remove(address, number)?;
        // It learns of it immediately, or is over already.
        taken.send(()).ok();
        Some(place)
    }

    fn remove(&self, address: IpAddr, number: u64) -> Option<Waiting> {
        let mut addresses = self.addresses();
        let of_address = addresses.waiting.get_mut(&address)?;
        let waiting = of_address.remove(&number);
        if of_address.is_empty() {
            addresses.waiting.remove(&address);
        }
        waiting
    }
}
