//! The requests of one connection, so that a quiet connection can be distinguished from a busy one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The event that a quiet connection waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum WaitsFor {
    First,
    /// A further request after this many.
    Next(usize),
    /// The end of a connection that is being closed.
    End,
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Asked {
    count: AtomicUsize,
    /// Requests without the beginning of an answer.
    under_way: AtomicUsize,
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Asked>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Asked {
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.count() > 0
    }

    pub(super) fn is_idle_since(&self, before: usize) -> bool {
        self.count() == before && self.under_way.load(Ordering::Relaxed) == 0
    }
}
