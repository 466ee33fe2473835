//! What goes on by itself beside the calls: sessions that nobody activated are swept, keys take turns, and what is over is
//! forgotten, a batch at a time. Every process does it; whoever comes second finds nothing to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::key::Keys;
use crate::metric::Counts;
use crate::session::{Seconds, Terms};
use crate::store::{BATCH, Store};
use crate::{Error, clock};

const INTERVAL: Duration = Duration::from_mins(1);
/// How long a session that is over is remembered, so that its editor hears why.
const REMEMBERED: Seconds = 86_400;

#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    pub(crate) store: Store,
    pub(crate) terms: Terms,
    pub(crate) counts: Counts,
    pub(crate) keys: Arc<Keys>,
    /// How long audit rows are kept.
    pub(crate) audit_ttl: Seconds,
}

impl Upkeep {
    /// Now and every minute.
    pub(crate) async fn clean(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.told(self.clean_once(clock()).await, "what is over was not cleaned up");
        }
    }

    /// Several times in the time for which a key is published before it signs, so that no process learns of it too late.
    pub(crate) async fn turn_keys(self, lead: Duration) {
        let mut ticks = interval((lead / 4).min(INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.told(self.keys.turn(clock()).await, "the signing keys were not looked at");
        }
    }

    fn told(&self, done: Result<(), Error>, what: &'static str) {
        match done {
            Ok(()) => {}
            Err(error @ Error::Database { .. }) => {
                self.counts.failed(&error);
                tracing::warn!(detail = %error, what);
            }
            Err(error) => tracing::error!(detail = %error, what),
        }
    }

    pub(crate) async fn clean_once(&self, now: Seconds) -> Result<(), Error> {
        let Self { store, terms, counts, .. } = self;
        loop {
            let swept = store.sweep(terms, now).await?;
            counts.swept.inc_by(swept.into());
            if swept < BATCH {
                break;
            }
        }
        while store.prune(now).await? == u64::from(BATCH) {}
        while store.delete_dead_sessions(now.saturating_sub(REMEMBERED)).await? == u64::from(BATCH) {}
        while store.delete_old_audit(now.saturating_sub(self.audit_ttl)).await? == u64::from(BATCH) {}
        Ok(())
    }
}
