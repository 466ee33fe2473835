//! People, as their identity providers name them, and when each provider was last asked about them.

use sqlx::AnyConnection;

use super::{Change, Store};
use crate::Error;
use crate::id::UserId;
use crate::session::{Approval, Identity, Seconds};

/// How long a provider's answer about a person is valid.
const GOOD_FOR: Seconds = 86_400;

impl Store {
    /// Returns the VVS id of a person, if the person is known.
    pub(crate) async fn user_of(&self, identity: &Identity) -> Result<Option<UserId>, Error> {
        find(
            &mut *self.pool.acquire().await?,
            &identity.provider,
            &identity.subject,
        )
        .await
    }

    /// Returns the subjects of people that the provider is to be asked about. That was last done a
    /// day ago, and the person's editor was used since, or has a bearer session, whose use is not
    /// recorded. Nobody is returned twice: the condition is checked again when the row is taken.
    pub(crate) async fn take_stale_users(
        &self,
        provider: &str,
        limit: u32,
        now: Seconds,
    ) -> Result<Vec<String>, Error> {
        let since = now.saturating_sub(GOOD_FOR);
        let mut stale: Vec<String> = sqlx::query_scalar(
            "SELECT users.id FROM users WHERE provider = $1 AND checked_at <= $2 AND EXISTS
             (SELECT 1 FROM sessions WHERE user_id = users.id AND activated_at IS NOT NULL
             AND revoked_at IS NULL
              AND expires_at > $3 AND (refreshed_at > users.checked_at OR device_key IS NULL))
             ORDER BY checked_at LIMIT $4",
        )
        .bind(provider)
        .bind(since)
        .bind(now)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;

        // Two who take at once take the rows in one order, so that neither waits for the other in a
        // circle.
        stale.sort_unstable();
        let mut change = self.pool.begin().await?;
        let mut taken = Vec::new();
        for id in stale {
            let subject: Option<String> = sqlx::query_scalar(
                "UPDATE users SET checked_at = $1 WHERE id = $2 AND checked_at <= $3 RETURNING \
                 subject",
            )
            .bind(now)
            .bind(id)
            .bind(since)
            .fetch_optional(&mut *change)
            .await?;
            taken.extend(subject);
        }

        change.commit().await?;

        Ok(taken)
    }
}

/// Returns the VVS id of a person that a provider names, if the person is known.
pub(super) async fn find(
    connection: &mut AnyConnection,
    provider: &str,
    subject: &str,
) -> Result<Option<UserId>, Error> {
    let id = sqlx::query_scalar("SELECT id FROM users WHERE provider = $1 AND subject = $2")
        .bind(provider)
        .bind(subject)
        .fetch_optional(connection)
        .await?;
    Ok(id.map(UserId::known))
}

/// Returns the id of the person who approved, and stores the provider's last data about them.
pub(super) async fn note(
    change: &mut Change,
    approval: &Approval,
    now: Seconds,
) -> Result<UserId, Error> {
    let identity = &approval.identity;
    let id = sqlx::query_scalar(
        "INSERT INTO users (id, provider, subject, email, name, avatar_url, created_at, checked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (provider, subject)
         DO UPDATE SET email = excluded.email, name = excluded.name,
         avatar_url = excluded.avatar_url,
                       checked_at = excluded.checked_at
         RETURNING id",
    )
    .bind(UserId::mint()?.as_str())
    .bind(&identity.provider)
    .bind(&identity.subject)
    .bind(&identity.profile.email)
    .bind(&identity.profile.name)
    .bind(&identity.profile.avatar_url)
    .bind(now)
    .bind(now)
    .fetch_one(&mut **change)
    .await?;
    Ok(UserId::known(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::end::{USERS, meanwhile, somebody_waits};
    use crate::store::tests::{
        Location, approval, bound, cause, device_key, on_both_databases, terms,
    };

    const DAY: Seconds = 86_400;

    async fn taken(store: &Store, limit: u32, now: Seconds) -> Vec<String> {
        let mut taken = store.take_stale_users("dev", limit, now).await.unwrap();
        taken.sort();
        taken
    }

    async fn who_used_an_editor_is_asked_about_once_a_day(place: &Location) {
        let (store, key, terms) = (place.open().await, device_key(), terms());
        let id = store
            .create(&bound(1, "ada", &key), &terms, 1000)
            .await
            .unwrap()
            .session
            .id;
        let use_it = async |now| {
            store
                .refresh(&id, &key.thumbprint(), "", &terms, now)
                .await
                .unwrap()
        };
        use_it(1000).await;
        assert!(
            taken(&store, 9, 1000 + DAY).await.is_empty(),
            "it was not used since"
        );

        use_it(1001).await;
        assert!(taken(&store, 9, 999 + DAY).await.is_empty(), "it is no day");
        assert!(
            store
                .take_stale_users("https://id.test", 9, 1000 + DAY)
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(taken(&store, 9, 1000 + DAY).await, ["ada"]);

        use_it(1001 + DAY).await;
        assert!(
            taken(&store, 9, 1001 + DAY).await.is_empty(),
            "she was handed out twice"
        );
        assert_eq!(taken(&store, 9, 1000 + 2 * DAY).await, ["ada"]);

        use_it(1001 + 2 * DAY).await;
        store
            .create(&approval(2, "ada"), &terms, 1002 + 2 * DAY)
            .await
            .unwrap();
        use_it(1003 + 2 * DAY).await;
        assert!(
            taken(&store, 9, 1001 + 3 * DAY).await.is_empty(),
            "the provider was asked when she signed in"
        );
        assert_eq!(taken(&store, 9, 1002 + 3 * DAY).await, ["ada"]);
    }

    async fn nobody_is_asked_about_for_an_editor_that_is_not_signed_in(place: &Location) {
        let (store, key, terms) = (place.open().await, device_key(), terms());
        let make = async |number, subject| {
            let made = store
                .create(&bound(number, subject, &key), &terms, 1000)
                .await
                .unwrap()
                .session
                .id;
            store
                .refresh(&made, &key.thumbprint(), "", &terms, 1001)
                .await
                .unwrap();
            made
        };
        make(1, "ada").await;
        let revoked = make(2, "bob").await;
        store
            .revoke(&revoked, &cause("signed_out_by_user"), 1002)
            .await
            .unwrap();
        store
            .create(&approval(3, "eve"), &terms, 1000)
            .await
            .unwrap();

        // As if a pending one had been used.
        let query = "UPDATE sessions SET refreshed_at = 1001 WHERE activated_at IS NULL";
        sqlx::query(query).execute(store.pool()).await.unwrap();
        assert_eq!(taken(&store, 9, 1000 + DAY).await, ["ada"]);

        make(4, "kim").await;
        assert!(
            taken(&store, 9, 1001 + 2_592_000).await.is_empty(),
            "their sessions are over"
        );
    }

    async fn who_has_a_bearer_session_is_asked_about_once_a_day(place: &Location) {
        let (store, terms) = (place.open().await, terms());
        let id = store
            .create(&approval(1, "ada"), &terms, 1000)
            .await
            .unwrap()
            .session
            .id;
        store.activate(&id, "", &terms, 1001).await.unwrap();
        store
            .create(&approval(2, "bob"), &terms, 1000)
            .await
            .unwrap();

        for day in 1..4 {
            assert!(
                taken(&store, 9, 999 + day * DAY).await.is_empty(),
                "it is no day"
            );
            assert_eq!(taken(&store, 9, 1000 + day * DAY).await, ["ada"]);
            assert!(
                taken(&store, 9, 1000 + day * DAY).await.is_empty(),
                "she was handed out twice"
            );
        }

        assert_eq!(taken(&store, 9, 999 + 2_592_000).await, ["ada"]);
        assert!(
            taken(&store, 9, 999 + 2_592_000 + DAY).await.is_empty(),
            "her session is over"
        );
    }

    async fn no_more_are_handed_out_than_were_asked_for(place: &Location) {
        let (store, key, terms) = (place.open().await, device_key(), terms());
        for (number, subject) in [(1, "ada"), (2, "bob"), (3, "eve")] {
            let now = 1000 + i64::from(number);
            let id = store
                .create(&bound(number, subject, &key), &terms, now)
                .await
                .unwrap()
                .session
                .id;
            store
                .refresh(&id, &key.thumbprint(), "", &terms, 2000)
                .await
                .unwrap();
        }

        assert_eq!(
            taken(&store, 2, 2000 + DAY).await,
            ["ada", "bob"],
            "it was longer ago"
        );
        assert_eq!(taken(&store, 2, 2000 + DAY).await, ["eve"]);
        assert!(taken(&store, 2, 2000 + DAY).await.is_empty());
    }

    #[tokio::test]
    async fn whoever_holds_users_in_the_order_of_their_ids_is_never_waited_for_in_a_circle() {
        let place = &Location::server().await;
        let (store, terms) = (place.open().await, terms());
        for number in 0..8 {
            let id = store
                .create(&approval(number, &format!("u{number}")), &terms, 1000)
                .await
                .unwrap()
                .session
                .id;
            store.activate(&id, "", &terms, 1001).await.unwrap();
        }

        let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM users ORDER BY id")
            .fetch_all(store.pool())
            .await
            .unwrap();
        let take = "UPDATE users SET name = name WHERE id = $1";
        let mut held = store.pool().begin().await.unwrap();
        sqlx::query(take)
            .bind(&ids[0])
            .execute(&mut *held)
            .await
            .unwrap();
        let holding = async {
            somebody_waits(place, &place.open().await).await;
            for id in &ids[1..] {
                sqlx::query(take)
                    .bind(id)
                    .execute(&mut *held)
                    .await
                    .unwrap();
            }
            held.commit().await.unwrap();
        };

        assert_eq!(
            tokio::join!(taken(&store, 9, 1000 + DAY), holding).0.len(),
            8
        );
    }

    async fn two_who_take_at_once_do_not_get_the_same_user(place: &Location) {
        let (store, key, terms) = (place.open().await, device_key(), terms());
        let id = store
            .create(&bound(1, "ada", &key), &terms, 1000)
            .await
            .unwrap()
            .session
            .id;
        store
            .refresh(&id, &key.thumbprint(), "", &terms, 1001)
            .await
            .unwrap();
        let taking = taken(&store, 9, 1000 + DAY);
        let taken = meanwhile(place, USERS, "UPDATE users SET checked_at = 87400", taking).await;
        assert!(taken.is_empty(), "{taken:?}");
    }

    on_both_databases! {
        who_used_an_editor_is_asked_about_once_a_day
        nobody_is_asked_about_for_an_editor_that_is_not_signed_in
        who_has_a_bearer_session_is_asked_about_once_a_day
        no_more_are_handed_out_than_were_asked_for
        two_who_take_at_once_do_not_get_the_same_user
    }
}
