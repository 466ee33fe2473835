//! How much one subscriber, its network, and all clients together may ask of this relay before they
//! are signed in.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use vvs_runtime::forwarded::subscriber;
use vvs_runtime::limit::Reached;
use vvs_runtime::share::{self, Networks, Place, Places};

use crate::limit::handshake::Handshakes;
use crate::limit::login::Silent;
use crate::memory::{Memory, Share};

mod handshake;
mod login;

pub(crate) use handshake::HandshakePlace;
pub(crate) use login::LoginPlace;

/// The memory that a WebSocket counts as, without waiting data: the measured size behind mutual
/// TLS, and room for a login.
pub(crate) const SOCKET_BYTES: usize = 16 * 1024;
/// The memory that a login without a WebSocket counts as.
const LOGIN_BYTES: usize = 4 * 1024;
/// For this many places for sockets, there is one for a failed login.
const SOCKETS_FOR_ONE_OVER: usize = 10;

/// The size of each limit.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) handshakes_per_minute: NonZeroU32,
    pub(crate) handshake_burst: NonZeroU32,
    pub(crate) logins_per_address: usize,
    /// How old a silent login must be to give way to a newer one.
    pub(crate) silent_login_time: Duration,
    pub(crate) connections: share::Bounds,
    pub(crate) networks: Networks,
    /// In bytes.
    pub(crate) memory: usize,
    /// Calls of web under way at the same time.
    pub(crate) calls: usize,
}

/// Why a handshake is refused, and when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// The value of the metric's label.
    pub(crate) reason: &'static str,
    /// Whether the client itself caused it (429), or the process is full (503).
    pub(crate) own_doing: bool,
    pub(crate) retry_after: Duration,
}

/// The counts of all limits.
#[derive(Debug)]
pub(crate) struct Limits {
    networks: Arc<Networks>,
    handshakes: Arc<Handshakes>,
    logins: Places,
    silent: Arc<Silent>,
    connections: Places,
    /// The same number as connections.
    detached: Places,
    over: Places,
    pub(crate) memory: Memory,
    calls: Arc<Semaphore>,
    pub(crate) reached: Reached,
}

/// A place among all connections of the process, and the memory that it counts for.
#[derive(Debug)]
pub(crate) struct ConnectionPlace {
    share: Share,
    _place: Place,
}

impl ConnectionPlace {
    /// Sets the number of bytes that wait in it: data to send, and an incomplete message.
    pub(crate) fn buffers(&mut self, bytes: usize) {
        self.share.set(SOCKET_BYTES.saturating_add(bytes));
    }
}

/// A place among all logins of the process whose socket is gone.
#[derive(Debug)]
pub(crate) struct DetachedPlace(#[expect(dead_code, reason = "held for its drop")] (Place, Share));

impl Limits {
    pub(crate) fn new(bounds: Bounds, reached: Reached) -> Self {
        let Bounds {
            connections,
            networks,
            ..
        } = bounds;
        let each = Duration::from_mins(1) / bounds.handshakes_per_minute.get();

        // Those with an open socket, and as many others.
        let addresses = connections.total.saturating_mul(2);
        let networks = Arc::new(networks);
        let places = |total, per_address| {
            Places::new(share::Bounds { total, per_address }, networks.clone())
        };
        let tenth = |places: usize| places.div_ceil(SOCKETS_FOR_ONE_OVER);

        Self {
            handshakes: Handshakes::new(each, bounds.handshake_burst.get(), addresses),
            // With a socket or without.
            logins: places(addresses, bounds.logins_per_address),
            silent: Silent::new(bounds.silent_login_time),
            connections: places(connections.total, connections.per_address),
            detached: places(connections.total, connections.per_address),
            over: places(tenth(connections.total), tenth(connections.per_address)),
            memory: Memory::new(bounds.memory),
            calls: Arc::new(Semaphore::new(bounds.calls.min(Semaphore::MAX_PERMITS))),
            reached,
            networks,
        }
    }

    fn full(&self, setting: &'static str, full: Full) -> Full {
        self.reached.tell(setting);
        full
    }

    /// Returns why there is no place: for everyone (its reason and setting), or for this address.
    fn refused(
        &self,
        full: share::Full,
        everyone: (&'static str, &'static str),
        own: (&'static str, &'static str),
    ) -> Full {
        let (own_doing, (reason, setting)) = match full {
            share::Full::Everyone => (false, everyone),
            share::Full::Address => (true, own),
            share::Full::Ipv4Net24 => (true, ("network", "VVS_RELAY_PLACES_PER_24")),
            share::Full::Ipv6Net56 => (true, ("network", "VVS_RELAY_PLACES_PER_56")),
            share::Full::Ipv6Net48 => (true, ("network", "VVS_RELAY_PLACES_PER_48")),
        };

        let retry_after = Duration::from_secs(if own_doing { 30 } else { 10 });

        self.full(
            setting,
            Full {
                reason,
                own_doing,
                retry_after,
            },
        )
    }

    /// Takes a handshake from this address, for a socket that is not signed in.
    pub(crate) fn handshake(&self, address: IpAddr, now: Instant) -> Result<HandshakePlace, Full> {
        let times = self.networks.times(address);
        self.handshakes
            .take(subscriber(address), times, now)
            .map_err(|retry_after| {
                let full = Full {
                    reason: "handshake_rate",
                    own_doing: true,
                    retry_after,
                };
                self.full("VVS_RELAY_HANDSHAKES_PER_MINUTE", full)
            })
    }

    /// Takes a place for one more socket of this address.
    pub(crate) fn connection(&self, address: IpAddr) -> Result<ConnectionPlace, Full> {
        let place = self.connections.take(address).map_err(|full| {
            let own = (
                "connections_per_address",
                "VVS_RELAY_MAX_CONNECTIONS_PER_ADDRESS",
            );
            self.refused(full, ("connections", "VVS_RELAY_MAX_CONNECTIONS"), own)
        })?;
        let share = self.memory.take(SOCKET_BYTES).ok_or_else(|| {
            let full = Full {
                reason: "memory",
                own_doing: false,
                retry_after: Duration::from_secs(10),
            };
            self.full("VVS_RELAY_MAX_MEMORY", full)
        })?;

        Ok(ConnectionPlace {
            share,
            _place: place,
        })
    }

    /// Takes a place for one more unfinished login of this address; if none is free, the place of
    /// the oldest silent login.
    pub(crate) fn login(&self, address: IpAddr, now: Instant) -> Result<LoginPlace, Full> {
        let subscriber = subscriber(address);
        let place = self.logins.take(address);
        let place = place
            .or_else(|full| self.in_place_of_silent(subscriber, now).ok_or(full))
            .map_err(|full| {
                let own = ("logins_per_address", "VVS_RELAY_MAX_LOGINS_PER_ADDRESS");
                self.refused(full, ("connections", "VVS_RELAY_MAX_CONNECTIONS"), own)
            })?;
        Ok(self.silent.add(subscriber, place, now))
    }

    fn in_place_of_silent(&self, subscriber: IpAddr, now: Instant) -> Option<Place> {
        let place = self.silent.give_way(subscriber, now)?;
        self.reached.tell("VVS_RELAY_SILENT_LOGIN_TIME");
        Some(place)
    }

    /// Takes a place for one more login of this address whose socket is gone.
    pub(crate) fn detached(&self, address: IpAddr) -> Option<DetachedPlace> {
        let place = self.detached.take(address).map_err(|full| {
            let own = (
                "connections_per_address",
                "VVS_RELAY_MAX_CONNECTIONS_PER_ADDRESS",
            );
            self.refused(full, ("connections", "VVS_RELAY_MAX_CONNECTIONS"), own)
        });
        Some(DetachedPlace((place.ok()?, self.memory.keep(LOGIN_BYTES))))
    }

    /// Takes a place for one more failed login of this address, which is kept for later questions.
    /// These are counted separately, because many of them cost nobody anything.
    pub(crate) fn over(&self, address: IpAddr) -> Option<DetachedPlace> {
        let place = self.over.take(address).ok()?;
        Some(DetachedPlace((place, self.memory.keep(LOGIN_BYTES))))
    }

    /// Takes a place for one more call of web.
    pub(crate) fn call(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.calls.clone().try_acquire_owned().ok();
        if permit.is_none() {
            self.reached.tell("VVS_RELAY_MAX_CALLS");
        }
        permit
    }

    /// Deletes the counts of quiet addresses; call it now and then.
    pub(crate) fn forget_quiet(&self, now: Instant) {
        self.handshakes.forget_quiet(now);
    }
}

#[cfg(test)]
mod tests;
