//! The public keys of our tokens, as last received from sessions. A slightly old set is better than
//! none: a new key is published well before it signs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The last received set.
#[derive(Default)]
pub(crate) struct KnownKeys(Mutex<Option<PublishedKeys>>);

#[derive(Clone)]
pub(crate) struct PublishedKeys {
    pub(crate) set: String,
    pub(crate) fresh_until: Instant,
}

impl KnownKeys {
    pub(crate) fn get(&self) -> Option<PublishedKeys> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn put(&self, set: String, time: Duration) {
        let known = PublishedKeys {
            set,
            fresh_until: Instant::now() + time,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}
