//! The rows of the audit log.

use sqlx::AnyConnection;
use vvs_auth::token::random_id;

use super::{BATCH, Store};
use crate::Error;
use crate::audit::Entry;
use crate::id::UserId;
use crate::session::{Identity, Seconds};

impl Store {
    /// Writes down what happened elsewhere, or did not come to a change.
    pub(crate) async fn record(&self, entry: &Entry, now: Seconds) -> Result<(), Error> {
        insert(&mut *self.pool.acquire().await?, std::slice::from_ref(entry), now).await?;
        entry.log();
        Ok(())
    }

    /// Our id of a person, if there is one yet.
    pub(crate) async fn user_of(&self, identity: &Identity) -> Result<Option<UserId>, Error> {
        let id = sqlx::query_scalar("SELECT id FROM users WHERE provider = $1 AND subject = $2")
            .bind(&identity.provider)
            .bind(&identity.subject)
            .fetch_optional(&self.pool)
            .await?;
        Ok(id.map(UserId::known))
    }

    /// Deletes rows that are older; how many.
    pub(crate) async fn delete_old_audit(&self, since: Seconds) -> Result<u64, Error> {
        let deleted = sqlx::query("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at <= $1 LIMIT $2)")
            .bind(since)
            .bind(i64::from(BATCH))
            .execute(&self.pool)
            .await?;
        Ok(deleted.rows_affected())
    }
}

pub(super) async fn insert(connection: &mut AnyConnection, entries: &[Entry], now: Seconds) -> Result<(), Error> {
    for entry in entries {
        sqlx::query(
            "INSERT INTO audit (id, at, event, user_id, session_id, connection_id, address, device, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(random_id()?)
        .bind(now)
        .bind(entry.event.as_str())
        .bind(&entry.user_id)
        .bind(&entry.session_id)
        .bind(&entry.connection_id)
        .bind(&entry.address)
        .bind(&entry.device)
        .bind(&entry.reason)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
