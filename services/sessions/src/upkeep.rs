//! Background work: it deletes sessions that nobody activated, rotates keys, and deletes expired
//! data, a batch at a time. Every process does it; the second one finds nothing to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::clock::clock;
use crate::error::Error;
use crate::key::SigningKeys;
use crate::limit::Refreshes;
use crate::metric::Counts;
use crate::session::{Seconds, Terms};
use crate::store::{BATCH, Store};

const INTERVAL: Duration = Duration::from_mins(1);
/// How long a session that is over is kept, so that its editor learns why.
const REMEMBERED: Seconds = 86_400;

#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    pub(crate) store: Store,
    pub(crate) terms: Terms,
    pub(crate) counts: Counts,
    pub(crate) keys: Arc<SigningKeys>,
    pub(crate) refreshes: Arc<Refreshes>,
    /// How long audit rows are kept.
    pub(crate) audit_ttl: Seconds,
}

impl Upkeep {
    /// Cleans up now and every minute.
    pub(crate) async fn clean(self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.told(
                self.clean_once(clock()).await,
                "what is over was not cleaned up",
            );
            self.refreshes.forget_quiet();
        }
    }

    /// Rotates keys, several times within the time for which a key is published before it signs, so
    /// that no process learns of it too late.
    pub(crate) async fn turn_keys(self, lead: Duration) {
        let mut ticks = interval((lead / 4).min(INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.told(
                self.keys.turn(clock()).await,
                "the signing keys were not looked at",
            );
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
        let Self {
            store,
            terms,
            counts,
            ..
        } = self;
        loop {
            let swept = store.sweep(terms, now).await?;
            counts.swept.inc_by(swept.into());
            if swept < BATCH {
                break;
            }
        }

        while store.prune(now).await? == u64::from(BATCH) {}

        while store
            .delete_dead_sessions(now.saturating_sub(REMEMBERED))
            .await?
            == u64::from(BATCH)
        {}

        while store.forget_ends(now).await? == u64::from(BATCH) {}

        while store
            .delete_old_audit(now.saturating_sub(self.audit_ttl))
            .await?
            == u64::from(BATCH)
        {}

        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vvs_auth::key::Keyring;

    use super::*;
    use crate::key::Rotation;
    use crate::limit::tests::refreshes;
    use crate::store::tests::{
        Location, approval, bound, cause, count, device_key, on_both_databases, terms,
    };

    const NOW: Seconds = 10_000_000;
    /// Of a session without a device key.
    const BEARER: Seconds = 2_592_000;

    async fn upkeep(place: &Location) -> Upkeep {
        let (store, keyring) = (
            place.open().await,
            Keyring::parse(&Keyring::generate().unwrap()).unwrap(),
        );
        let rotation = Rotation {
            interval: NOW,
            lead: 1000,
        };
        let keys = Arc::new(
            SigningKeys::load(&store, &keyring, rotation, 1)
                .await
                .unwrap(),
        );
        let refreshes = refreshes();

        Upkeep {
            store,
            terms: terms(),
            counts: Counts::default(),
            keys,
            refreshes,
            audit_ttl: 1000,
        }
    }

    async fn what_is_over_goes_and_what_still_matters_stays(place: &Location) {
        let upkeep = upkeep(place).await;
        let Upkeep { store, terms, .. } = &upkeep;
        let bearer = async |number, at| {
            store
                .create(&approval(number, "ada"), terms, at)
                .await
                .unwrap()
                .session
                .id
        };
        let key = device_key();
        let keyed = |number, at| {
            let approval = bound(number, "ada", &key);
            async move { store.create(&approval, terms, at).await.unwrap().session.id }
        };
        let live = bearer(1, NOW - 100_000).await;
        let over = bearer(2, NOW - BEARER - 86_400).await;
        let just_over = bearer(3, NOW - BEARER - 86_399).await;
        for (id, at) in [
            (&live, NOW - 100_000),
            (&over, NOW - BEARER - 86_400),
            (&just_over, NOW - BEARER - 86_399),
        ] {
            store.activate(id, "", terms, at).await.unwrap();
        }

        let (stale, young) = (bearer(4, NOW - 5400).await, bearer(5, NOW - 5399).await);

        // Their tokens live for an hour, and a bearer's as long as it does.
        let (revoked, long_revoked) = (keyed(6, NOW - 3000).await, keyed(7, NOW - 100_000).await);
        let just_revoked = keyed(8, NOW - 100_000).await;
        let still_good = bearer(9, NOW - 100_000).await;
        for (id, at) in [
            (&long_revoked, NOW - 86_400),
            (&just_revoked, NOW - 86_399),
            (&revoked, NOW - 1),
            (&still_good, NOW - 90_000),
        ] {
            store
                .revoke(id, &cause("signed_out_by_user"), at)
                .await
                .unwrap();
        }

        upkeep.clean_once(NOW).await.unwrap();

        for id in [&over, &stale, &long_revoked] {
            assert!(
                matches!(store.session(id).await, Err(Error::SessionUnknown(_))),
                "{id} is still there"
            );
        }

        for id in [
            &live,
            &just_over,
            &young,
            &revoked,
            &just_revoked,
            &still_good,
        ] {
            assert!(store.session(id).await.is_ok(), "{id} is gone");
        }

        assert_eq!(upkeep.counts.swept.get(), 1);

        let feed = store.revocations(0, NOW).await.unwrap().entries;
        let feed: Vec<_> = feed
            .into_iter()
            .map(|end| (end.sequence, end.session))
            .collect();
        assert_eq!(feed, [(3, revoked), (4, still_good), (5, stale)]);
        assert_eq!(count(store, "SELECT count(*) FROM revocations").await, 3);
        assert_eq!(store.feed_ends().await.unwrap(), (5, 2));

        // Only what was written less than a time ago: the revocation, and that of the swept one.
        assert_eq!(count(store, "SELECT min(at) FROM audit").await, NOW - 1);
        assert_eq!(count(store, "SELECT count(*) FROM audit").await, 2);
        assert_eq!(count(store, "SELECT count(*) FROM users").await, 1);
    }

    async fn an_audit_row_is_kept_as_long_as_the_setting_says(place: &Location) {
        let upkeep = upkeep(place).await;
        for at in [NOW - 1000, NOW - 999] {
            let entry = crate::audit::AuditRow::new(crate::audit::Event::Denied);
            upkeep.store.record(entry, at).await.unwrap();
        }
        upkeep.clean_once(NOW).await.unwrap();
        assert_eq!(
            count(&upkeep.store, "SELECT min(at) FROM audit").await,
            NOW - 999
        );
    }

    async fn more_than_one_batch_is_cleaned_up_at_once(place: &Location) {
        let upkeep = upkeep(place).await;
        let store = &upkeep.store;
        for number in 0..=BATCH {
            store
                .create(&approval(number, "ada"), &upkeep.terms, 1000)
                .await
                .unwrap();
        }

        upkeep.clean_once(1000 + 5400).await.unwrap();
        assert_eq!(upkeep.counts.swept.get(), u64::from(BATCH) + 1);
        assert_eq!(count(store, "SELECT count(*) FROM sessions").await, 0);

        for number in 0..=BATCH {
            let id = store
                .create(&approval(number, "ada"), &upkeep.terms, 10_000)
                .await
                .unwrap()
                .session
                .id;
            store
                .activate(&id, "", &upkeep.terms, 10_000)
                .await
                .unwrap();
        }

        upkeep.clean_once(NOW).await.unwrap();

        for query in [
            "SELECT count(*) FROM sessions",
            "SELECT count(*) FROM revocations",
            "SELECT count(*) FROM audit",
        ] {
            assert_eq!(count(store, query).await, 0, "{query}");
        }
    }

    async fn a_key_that_ever_signed_is_known_when_it_is_gone(place: &Location) {
        let upkeep = upkeep(place).await;
        let store = &upkeep.store;
        let first = store.signing_keys().await.unwrap().remove(0);
        let next = upkeep.keys.rotate(NOW).await.unwrap();
        upkeep.keys.turn(NOW + 200_000).await.unwrap();
        upkeep.clean_once(NOW + 200_000).await.unwrap();
        let left: Vec<_> = store
            .signing_keys()
            .await
            .unwrap()
            .into_iter()
            .map(|key| key.kid)
            .collect();
        assert_eq!(left, std::slice::from_ref(&next.kid));

        for kid in [&first.kid, &next.kid] {
            assert!(
                store.has_known_key(kid).await.unwrap(),
                "{kid} is forgotten"
            );
        }

        assert!(!store.has_known_key("x").await.unwrap());
    }

    on_both_databases! {
        what_is_over_goes_and_what_still_matters_stays
        an_audit_row_is_kept_as_long_as_the_setting_says
        more_than_one_batch_is_cleaned_up_at_once
        a_key_that_ever_signed_is_known_when_it_is_gone
    }
}
