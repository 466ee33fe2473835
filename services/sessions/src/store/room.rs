//! Room for one more session of a user: how many may wait for their editors, how many there may be,
//! and which one gives way.

use sqlx::Row as _;

use super::feed::{End, lock};
use super::{Change, Store};
use crate::Error;
use crate::audit::AuditRow;
use crate::session::{Seconds, Session, Terms};

/// How many candidates are tried, each of which may be refreshed at the same moment.
const TRIES: i64 = 10;

/// The number of sessions that are not over.
struct LiveSessions {
    pending: i64,
    active: i64,
}

impl Store {
    /// Makes room for a session that this change has made, while it holds the row of its user:
    /// other calls for the same user have finished, or wait. Returns the session that ended for it;
    /// the caller wakes the watchers of the feed.
    pub(super) async fn make_room(
        &self,
        change: &mut Change,
        made: &Session,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Vec<AuditRow>, Error> {
        let held = held(change, made, terms, now).await?;
        if held.pending > i64::from(terms.max_pending) {
            self.ration
                .reached
                .tell("VVS_SESSIONS_MAX_PENDING_PER_USER");
            return Err(Error::PendingFull(made.user.clone()));
        }

        // One that waits for its editor may be active at any moment, so it has its place already.
        if terms.max_live == 0 || held.pending + held.active <= i64::from(terms.max_live) {
            return Ok(Vec::new());
        }

        self.ration.reached.tell("VVS_SESSIONS_MAX_PER_USER");
        let ended = self.replace(change, made, terms, now).await?;

        if ended.is_empty() {
            Err(Error::SessionsFull(made.user.clone()))
        } else {
            Ok(ended)
        }
    }

    /// Ends the session of this user that was silent the longest, if it was silent long enough.
    async fn replace(
        &self,
        change: &mut Change,
        made: &Session,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Vec<AuditRow>, Error> {
        let newest = lock(change).await?;
        let since = now.saturating_sub(terms.silence);
        let silent: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM sessions WHERE user_id = $1 AND activated_at IS NOT NULL
             AND revoked_at IS NULL
             AND expires_at > $2 AND refreshed_at <= $3 ORDER BY refreshed_at, id LIMIT $4",
        )
        .bind(made.user.as_str())
        .bind(now)
        .bind(since)
        .bind(TRIES)
        .fetch_all(&mut **change)
        .await?;
        for id in silent {
            let ended = self
                .end_in(change, newest, vec![id], &End::Replace { since }, now)
                .await?;
            if !ended.is_empty() {
                return Ok(ended);
            }
        }

        Ok(Vec::new())
    }
}

async fn held(
    change: &mut Change,
    made: &Session,
    terms: &Terms,
    now: Seconds,
) -> Result<LiveSessions, Error> {
    let row = sqlx::query(
        "SELECT count(*) AS live, count(activated_at) AS active FROM sessions
         WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
         AND (activated_at IS NOT NULL OR created_at > $3)",
    )
    .bind(made.user.as_str())
    .bind(now)
    .bind(terms.pending_since(now))
    .fetch_one(&mut **change)
    .await?;
    let (live, active): (i64, i64) = (row.try_get("live")?, row.try_get("active")?);

    Ok(LiveSessions {
        pending: live - active,
        active,
    })
}
