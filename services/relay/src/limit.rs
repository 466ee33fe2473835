//! How much one subscriber, and everyone together, may ask of this relay before they are signed in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use vvs_runtime::forwarded::subscriber;
use vvs_runtime::limit::Reached;

use crate::memory::{Memory, Share};

/// What a WebSocket counts as, whatever waits in it: what was measured behind mutual TLS, and room for a login.
pub(crate) const SOCKET_BYTES: usize = 16 * 1024;
/// What a login without a WebSocket counts as.
const LOGIN_BYTES: usize = 4 * 1024;

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) handshakes_per_minute: NonZeroU32,
    pub(crate) handshake_burst: NonZeroU32,
    pub(crate) logins_per_address: usize,
    pub(crate) connections: usize,
    /// In bytes.
    pub(crate) memory: usize,
    /// Of web, under way at once.
    pub(crate) calls: usize,
}

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
    handshakes: Arc<Handshakes>,
    logins_per_address: usize,
    logins: Arc<Mutex<HashMap<IpAddr, usize>>>,
    connections: Arc<Semaphore>,
    /// As many as connections.
    detached: Arc<Semaphore>,
    /// A tenth of them.
    over: Arc<Semaphore>,
    pub(crate) memory: Memory,
    calls: Arc<Semaphore>,
    pub(crate) reached: Reached,
}

/// A place among all connections of the process, and what one keeps.
#[derive(Debug)]
pub(crate) struct ConnectionPlace {
    share: Share,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPlace {
    /// So many bytes wait in it: of what is to be sent, and of a message that has not come whole.
    pub(crate) fn buffers(&mut self, bytes: usize) {
        self.share.set(SOCKET_BYTES.saturating_add(bytes));
    }
}

/// A place among all logins of the process whose socket is gone.
#[derive(Debug)]
pub(crate) struct DetachedPlace(#[expect(dead_code, reason = "held for its drop")] (OwnedSemaphorePermit, Share));

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

/// The handshake of a socket that is not signed in.
#[derive(Debug)]
pub(crate) struct HandshakePlace {
    address: IpAddr,
    handshakes: Arc<Handshakes>,
}

impl HandshakePlace {
    /// The socket is signed in: its handshake counts for nothing.
    pub(crate) fn give_back(self) {
        if let Some(spent) = self.handshakes.spent().get_mut(&self.address) {
            spent.until = spent.until.checked_sub(self.handshakes.each).unwrap_or(spent.until);
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

/// A bucket of handshakes for each address, counted as the time in which they are regained.
#[derive(Debug)]
struct Handshakes {
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
    /// Sockets that are not signed in. What they have taken is not regained while they are open, or an address could heap
    /// them up.
    open: u32,
}

impl Handshakes {
    fn spent(&self) -> MutexGuard<'_, HashMap<IpAddr, Spent>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one, or says how long it is until there is one.
    fn take(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut spent = self.spent();
        if spent.len() >= self.addresses && !spent.contains_key(&address) {
            // Whoever has so many addresses is not kept by what one of them may.
            spent.retain(|_, spent| spent.open > 0);
        }
        let spent = spent.entry(address).or_insert(Spent { until: now, open: 0 });
        let owed = spent.until.saturating_duration_since(now).max(self.each * spent.open) + self.each;
        if let Some(wait) = owed.checked_sub(self.all).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        *spent = Spent { until: now + owed, open: spent.open + 1 };
        Ok(())
    }
}

impl Limits {
    pub(crate) fn new(bounds: Bounds, reached: Reached) -> Self {
        let Bounds { handshakes_per_minute, handshake_burst, logins_per_address, connections, memory, calls } = bounds;
        let each = Duration::from_mins(1) / handshakes_per_minute.get();
        let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            handshakes: Arc::new(Handshakes {
                each,
                all: each * handshake_burst.get(),
                // Those with an open socket, and as many others.
                addresses: connections.saturating_mul(2),
                spent: Mutex::default(),
            }),
            logins_per_address,
            logins: Arc::default(),
            connections: places(connections),
            detached: places(connections),
            over: places(connections.div_ceil(10)),
            memory: Memory::new(memory),
            calls: places(calls),
            reached,
        }
    }

    fn full(&self, setting: &'static str, full: Full) -> Full {
        self.reached.tell(setting);
        full
    }

    /// Takes a handshake from this address, for a socket that is not signed in.
    pub(crate) fn handshake(&self, address: IpAddr, now: Instant) -> Result<HandshakePlace, Full> {
        let address = subscriber(address);
        self.handshakes.take(address, now).map_err(|retry_after| {
            let full = Full { reason: "handshake_rate", own_doing: true, retry_after };
            self.full("VVS_RELAY_HANDSHAKES_PER_MINUTE", full)
        })?;
        Ok(HandshakePlace { address, handshakes: self.handshakes.clone() })
    }

    /// Takes a place for one more socket.
    pub(crate) fn connection(&self) -> Result<ConnectionPlace, Full> {
        let full = |reason| Full { reason, own_doing: false, retry_after: Duration::from_secs(10) };
        let permit = self.connections.clone().try_acquire_owned();
        let permit = permit.map_err(|_cause| self.full("VVS_RELAY_MAX_CONNECTIONS", full("connections")))?;
        let share = self.memory.take(SOCKET_BYTES);
        let share = share.ok_or_else(|| self.full("VVS_RELAY_MAX_MEMORY", full("memory")))?;
        Ok(ConnectionPlace { share, _permit: permit })
    }

    /// Takes a place for one more unfinished login of this address.
    pub(crate) fn login(&self, address: IpAddr) -> Result<LoginPlace, Full> {
        let address = subscriber(address);
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let held = logins.get(&address).copied().unwrap_or_default();
        if held >= self.logins_per_address {
            let full = Full { reason: "logins_per_address", own_doing: true, retry_after: Duration::from_secs(30) };
            return Err(self.full("VVS_RELAY_MAX_LOGINS_PER_ADDRESS", full));
        }
        logins.insert(address, held + 1);
        Ok(LoginPlace { address, logins: self.logins.clone() })
    }

    /// Takes a place for one more login whose socket is gone.
    pub(crate) fn detached(&self) -> Option<DetachedPlace> {
        let permit = self.detached.clone().try_acquire_owned().ok();
        if permit.is_none() {
            self.reached.tell("VVS_RELAY_MAX_CONNECTIONS");
        }
        permit.map(|permit| DetachedPlace((permit, self.memory.keep(LOGIN_BYTES))))
    }

    /// Takes a place for one more login that came to nothing, and is kept for those who ask. Apart from the others, for it
    /// costs nobody anything to have many of them.
    pub(crate) fn over(&self) -> Option<DetachedPlace> {
        let permit = self.over.clone().try_acquire_owned().ok()?;
        Some(DetachedPlace((permit, self.memory.keep(LOGIN_BYTES))))
    }

    /// Takes a place for one more call of web.
    pub(crate) fn call(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.calls.clone().try_acquire_owned().ok();
        if permit.is_none() {
            self.reached.tell("VVS_RELAY_MAX_CALLS");
        }
        permit
    }

    /// Forgets addresses that have been quiet; call now and then.
    pub(crate) fn forget_quiet(&self, now: Instant) {
        let mut spent = self.handshakes.spent();
        spent.retain(|_, spent| spent.open > 0 || spent.until > now);
        spent.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const SECOND: Duration = Duration::from_secs(1);

    /// One handshake is regained each second.
    fn limits(burst: u32, logins_per_address: usize, connections: usize) -> Limits {
        let handshakes_per_minute = NonZeroU32::new(60).unwrap();
        let handshake_burst = NonZeroU32::new(burst).unwrap();
        let memory = 10 * SOCKET_BYTES;
        let bounds =
            Bounds { handshakes_per_minute, handshake_burst, logins_per_address, connections, memory, calls: 2 };
        Limits::new(bounds, Reached::default())
    }

    #[test]
    fn a_hoarder_gets_his_share_of_logins_and_keeps_nobody_out() {
        let limits = limits(100, 2, 10);
        let held = [limits.login(ADA).unwrap(), limits.login(ADA).unwrap()];
        let full = limits.login(ADA).unwrap_err();
        assert_eq!((full.reason, full.own_doing), ("logins_per_address", true));
        let _bobs = limits.login(BOB).unwrap();
        drop(held);
        limits.login(ADA).unwrap();
    }

    #[test]
    fn a_flood_that_does_not_authenticate_is_told_when_to_come_back() {
        let (limits, now) = (limits(3, 100, 100), Instant::now());
        for _ in 0..3 {
            limits.handshake(ADA, now).unwrap();
        }
        let full = limits.handshake(ADA, now).unwrap_err();
        assert_eq!((full.reason, full.own_doing, full.retry_after), ("handshake_rate", true, SECOND));
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
            let crowd: Vec<_> = (0..250).map(|_| limits.handshake(ADA, now).unwrap()).collect();
            crowd.into_iter().for_each(HandshakePlace::give_back);
        }
        // And they have left the address all that it had.
        let _crowd: Vec<_> = (0..300).map(|_| limits.handshake(ADA, now).unwrap()).collect();
        limits.handshake(ADA, now).unwrap_err();
    }

    #[test]
    fn sockets_that_are_open_and_not_signed_in_are_not_regained() {
        let (limits, now) = (limits(3, 100, 100), Instant::now());
        let mut open: Vec<_> = (0..3).map(|_| limits.handshake(ADA, now).unwrap()).collect();
        let later = now + SECOND * 1000;
        limits.forget_quiet(later);
        limits.handshake(ADA, later).unwrap_err();
        open.pop();
        limits.handshake(ADA, later).unwrap();
    }

    #[test]
    fn an_address_that_is_quiet_is_forgotten_and_a_crowd_of_them_too() {
        let (limits, now) = (limits(3, 100, 100), Instant::now());
        let remembered = || limits.handshakes.spent().len();
        limits.handshake(ADA, now).unwrap();
        limits.forget_quiet(now);
        assert_eq!(remembered(), 1);
        limits.forget_quiet(now + SECOND);
        assert_eq!(remembered(), 0);
        let _open: Vec<_> = (0..3).map(|_| limits.handshake(BOB, now).unwrap()).collect();
        for number in 0..10_000 {
            limits.handshake(Ipv4Addr::from_bits(number).into(), now).unwrap();
            assert!(remembered() <= 200);
        }
        limits.handshake(BOB, now).unwrap_err();
    }

    #[test]
    fn logins_that_came_to_nothing_have_places_of_their_own_and_few() {
        let limits = limits(100, 100, 20);
        let over: Vec<_> = std::iter::from_fn(|| limits.over()).collect();
        let detached: Vec<_> = std::iter::from_fn(|| limits.detached()).collect();
        assert_eq!((over.len(), detached.len()), (2, 20));
    }

    #[test]
    fn a_full_process_says_so_and_counts_sockets_until_they_are_gone() {
        let limits = limits(100, 100, 1);
        let connection = limits.connection().unwrap();
        let full = limits.connection().unwrap_err();
        assert_eq!((full.reason, full.own_doing), ("connections", false));
        drop(connection);
        limits.connection().unwrap();
    }

    #[test]
    fn memory_that_waits_in_sockets_and_logins_leaves_less_for_new_ones() {
        let limits = limits(100, 100, 100);
        let mut held: Vec<_> = std::iter::from_fn(|| limits.connection().ok()).collect();
        assert_eq!(held.len(), 10);
        let full = limits.connection().unwrap_err();
        assert_eq!((full.reason, full.own_doing), ("memory", false));
        held.truncate(5);
        held[0].buffers(3 * SOCKET_BYTES);
        let more: Vec<_> = std::iter::from_fn(|| limits.connection().ok()).collect();
        assert_eq!(more.len(), 2);
        drop(more);
        held[0].buffers(0);
        let logins: Vec<_> = (0..8).map(|_| limits.detached().unwrap()).collect();
        let more: Vec<_> = std::iter::from_fn(|| limits.connection().ok()).collect();
        assert_eq!(more.len(), 3);
        drop((held, more, logins));
        assert!(limits.memory.take(10 * SOCKET_BYTES).is_some(), "all of it is back");
    }

    #[test]
    fn so_many_calls_are_under_way_at_once() {
        let limits = limits(100, 100, 100);
        let held = [limits.call().unwrap(), limits.call().unwrap()];
        assert!(limits.call().is_none());
        drop(held);
        assert!(limits.call().is_some());
    }
}
