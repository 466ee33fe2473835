//! The rows of the audit log.

use sqlx::AnyConnection;
use vvs_auth::token::random_id;

use super::{BATCH, Store, find};
use crate::Error;
use crate::audit::Entry;
use crate::id::SessionId;
use crate::session::Seconds;

impl Store {
    /// Writes down what happened elsewhere, or did not come to a change, with what is known of its session.
    pub(crate) async fn record(&self, mut entry: Entry, now: Seconds) -> Result<(), Error> {
        // One row, and in a transaction all the same: where a call was given up while it began one, the connection is in
        // the midst of that, and what is written there without a commit may be lost with it.
        let mut change = self.pool.begin().await?;
        if !entry.session_id.is_empty() {
            match find(&mut change, &SessionId::known(entry.session_id.clone())).await {
                Ok(session) => entry = entry.about(&session),
                Err(Error::SessionUnknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        insert(&mut change, std::slice::from_ref(&entry), now).await?;
        change.commit().await?;
        entry.log();
        Ok(())
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
