//! How much each peer may hold at the same time, over all its connections. This module does not
//! know what is held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::peer::SpiffeId;

/// The purpose of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Connection,
    /// A call with one answer.
    Call,
    /// A call that streams until one side ends it.
    Stream,
}

/// The number of places for each peer, and the setting that limits it.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub most: u32,
    pub setting: &'static str,
}

/// The bounds of one process.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub connections: Bound,
    pub calls: Bound,
    pub streams: Bound,
}

/// All unknown peers share the places of `None`.
type Key = (Option<SpiffeId>, Kind);

/// Counts what each peer holds. Processes that share a name share its places.
#[derive(Debug, Clone)]
pub struct Quota {
    bounds: Bounds,
    held: Arc<Mutex<HashMap<Key, u32>>>,
}

/// One place, held until it is dropped.
#[derive(Debug)]
pub struct Place {
    key: Key,
    held: Arc<Mutex<HashMap<Key, u32>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.key);
            }
        }
    }
}

impl Quota {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            held: Arc::default(),
        }
    }

    /// Takes a place of this peer. The error is the setting that limits it.
    pub fn take(&self, peer: Option<&SpiffeId>, kind: Kind) -> Result<Place, &'static str> {
        let bound = match kind {
            Kind::Connection => self.bounds.connections,
            Kind::Call => self.bounds.calls,
            Kind::Stream => self.bounds.streams,
        };

        let key = (peer.cloned(), kind);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(key.clone()).or_default();
        if *count >= bound.most {
            return Err(bound.setting);
        }

        *count += 1;

        Ok(Place {
            key,
            held: self.held.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Role;

    #[test]
    fn a_peer_that_holds_all_its_places_takes_nobody_elses() {
        let bound = |most, setting| Bound { most, setting };
        let quota = Quota::new(Bounds {
            connections: bound(1, "A"),
            calls: bound(2, "B"),
            streams: bound(1, "C"),
        });
        let [backend, web] =
            [Role::Backend, Role::Web].map(|role| SpiffeId::of("vvs.internal", role).unwrap());

        let held = [Kind::Call, Kind::Call, Kind::Stream, Kind::Connection]
            .map(|kind| quota.take(Some(&backend), kind));
        assert!(held.iter().all(Result::is_ok));

        for (kind, setting) in [
            (Kind::Connection, "A"),
            (Kind::Call, "B"),
            (Kind::Stream, "C"),
        ] {
            assert_eq!(quota.take(Some(&backend), kind).unwrap_err(), setting);
            assert!(quota.take(Some(&web), kind).is_ok() && quota.take(None, kind).is_ok());
        }

        let [first, ..] = held;
        drop(first);
        let again = quota.take(Some(&backend), Kind::Call).unwrap();
        assert!(quota.take(Some(&backend), Kind::Call).is_err());

        drop(again);
    }

    #[test]
    fn nothing_is_remembered_of_a_peer_that_holds_nothing() {
        let bound = Bound {
            most: 1,
            setting: "A",
        };
        let quota = Quota::new(Bounds {
            connections: bound,
            calls: bound,
            streams: bound,
        });
        drop(quota.take(None, Kind::Call).unwrap());
        assert!(quota.held.lock().unwrap().is_empty());
    }
}
