//! The rows of the audit log.

use sqlx::AnyConnection;
use vvs_auth::token::random_id;
use vvs_runtime::limit::Reached;

use super::{BATCH, Store, find};
use crate::Error;
use crate::audit::AuditRow;
use crate::id::SessionId;
use crate::session::{DAY, Seconds};

/// The maximum number of rows that one person adds within a day.
#[derive(Debug, Clone)]
pub(crate) struct Ration {
    pub(crate) rows: u32,
    pub(crate) reached: Reached,
}

impl Default for Ration {
    fn default() -> Self {
        Self {
            rows: u32::MAX,
            reached: Reached::default(),
        }
    }
}

impl Store {
    /// Sets the maximum number of rows that one person adds to the audit log.
    pub(crate) fn with_ration(self, ration: Ration) -> Self {
        Self { ration, ..self }
    }

    /// Writes rows for these entries, as far as their person has any left today; the log has them
    /// all.
    pub(super) async fn audit(
        &self,
        connection: &mut AnyConnection,
        entries: &[AuditRow],
        now: Seconds,
    ) -> Result<(), Error> {
        for entry in entries {
            let written = sqlx::query(
                "INSERT INTO audit (id, at, event, user_id, session_id, connection_id, address,
                 device, reason)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
                 WHERE (SELECT count(*) FROM audit WHERE user_id = $10 AND at > $11) < $12",
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
            .bind(&entry.user_id)
            .bind(now.saturating_sub(DAY))
            .bind(i64::from(self.ration.rows))
            .execute(&mut *connection)
            .await?;
            if written.rows_affected() == 0 {
                self.ration.reached.tell("VVS_SESSIONS_AUDITS_PER_DAY");
            }
        }

        Ok(())
    }

    /// Records an event that happened elsewhere or led to no change, with the known data of its
    /// session.
    pub(crate) async fn record(&self, mut entry: AuditRow, now: Seconds) -> Result<(), Error> {
        // One row, but still in a transaction: where a call was given up while it began one,
        // the connection is in the midst of that, and what is written there without a commit may be
        // lost with it.
        let mut change = self.pool.begin().await?;
        if !entry.session_id.is_empty() {
            match find(&mut change, &SessionId::known(entry.session_id.clone())).await {
                Ok(session) => entry = entry.about(&session),
                Err(Error::SessionUnknown(_)) => {}
                Err(error) => return Err(error),
            }
        }

        self.audit(&mut change, std::slice::from_ref(&entry), now)
            .await?;
        change.commit().await?;
        entry.log();

        Ok(())
    }

    /// Deletes older rows. Returns how many.
    pub(crate) async fn delete_old_audit(&self, since: Seconds) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at <= $1 LIMIT $2)",
        )
        .bind(since)
        .bind(i64::from(BATCH))
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}
