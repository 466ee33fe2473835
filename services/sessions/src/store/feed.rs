//! Revocations, numbered in commit order, and how watchers learn of new ones. A transaction that
//! revokes holds the counter row from before it reads until its commit: when a number is readable,
//! no lower number is still to come.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tokio::sync::watch;
use vvs_auth::token::random_id;

use super::{BATCH, Change, Store, commit, find};
use crate::Error;
use crate::audit::{AuditRow, Event};
use crate::id::{Reason, SessionId, UserId};
use crate::session::{Seconds, Session, SignIn, Terms};

/// The channel over which processes that share a PostgreSQL notify each other.
pub(super) const CHANNEL: &str = "vvs_revocations";
/// Entries that one read returns.
pub(crate) const PAGE: u32 = 100;
/// How long an entry stays after its session's last token has expired, for relays whose clocks are
/// slow.
const LATE_CLOCKS: Seconds = 300;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) sequence: i64,
    pub(crate) session: SessionId,
    pub(crate) user: UserId,
    pub(crate) reason: String,
    pub(crate) tokens_expire_at: Seconds,
}

/// A part of the feed.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) entries: Vec<Revocation>,
    /// The number up to which it reads.
    pub(crate) read_to: i64,
    /// Whether that was the newest number.
    pub(crate) complete: bool,
}

/// The reason for a revocation, and the address it came from.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) reason: Reason,
    pub(crate) address: String,
}

/// The sessions to revoke.
#[derive(Debug, Clone)]
pub(crate) enum Whose {
    User(UserId),
    /// Those that were approved with one session at the provider, of the person with that session.
    SignIn(SignIn),
}

impl Store {
    /// Marked whenever there may be new entries. Spurious marks happen.
    pub(crate) fn revoked(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    pub(super) fn wake(&self) {
        self.revoked.send_replace(());
    }

    /// Ends a session permanently; `false` when it was revoked before.
    pub(crate) async fn revoke(
        &self,
        id: &SessionId,
        cause: &Cause,
        now: Seconds,
    ) -> Result<bool, Error> {
        Ok(self.end_one(id, &End::Revoke(cause), now).await? > 0)
    }

    /// Ends a session permanently unless its editor is signed in. Returns whether it did.
    pub(crate) async fn revoke_pending(
        &self,
        id: &SessionId,
        cause: &Cause,
        now: Seconds,
    ) -> Result<bool, Error> {
        Ok(self.end_one(id, &End::RevokePending(cause), now).await? > 0)
    }

    /// Ends one session that nobody activated in time.
    pub(super) async fn sweep_session(&self, id: &SessionId, now: Seconds) -> Result<(), Error> {
        self.end_one(id, &End::Sweep, now).await.map(drop)
    }

    async fn end_one(&self, id: &SessionId, end: &End<'_>, now: Seconds) -> Result<u32, Error> {
        let mut change = self.pool.begin().await?;
        let newest = lock(&mut change).await?;
        self.end(change, newest, vec![id.as_str().to_owned()], end, now)
            .await
    }

    /// Ends all of these sessions permanently, including pending ones. Returns how many.
    pub(crate) async fn revoke_all(
        &self,
        whose: &Whose,
        cause: &Cause,
        now: Seconds,
    ) -> Result<u32, Error> {
        let mut change = self.pool.begin().await?;
        let newest = lock(&mut change).await?;
        let ids = match whose {
            Whose::User(user) => sqlx::query_scalar(
                "SELECT id FROM sessions WHERE revoked_at IS NULL AND expires_at > $1 AND user_id \
                 = $2",
            )
            .bind(now)
            .bind(user.as_str()),
            Whose::SignIn(SignIn {
                provider,
                subject,
                provider_session,
            }) => sqlx::query_scalar(
                "SELECT sessions.id FROM sessions JOIN users ON users.id = sessions.user_id
                 WHERE revoked_at IS NULL AND expires_at > $1 AND provider_session = $2
                 AND provider = $3
                 AND ($4 = '' OR subject = $5)",
            )
            .bind(now)
            .bind(provider_session)
            .bind(provider)
            .bind(subject)
            .bind(subject),
        };

        let ids = ids.fetch_all(&mut *change).await?;

        self.end(change, newest, ids, &End::Revoke(cause), now)
            .await
    }

    /// Ends sessions that nobody activated in time. Returns how many; fewer than [`BATCH`] means
    /// that none are left.
    pub(crate) async fn sweep(&self, terms: &Terms, now: Seconds) -> Result<u32, Error> {
        let mut change = self.pool.begin().await?;
        let newest = lock(&mut change).await?;
        let ids = sqlx::query_scalar(
            "SELECT id FROM sessions WHERE activated_at IS NULL AND revoked_at IS NULL AND \
             created_at <= $1 LIMIT $2",
        )
        .bind(terms.pending_since(now))
        .bind(i64::from(BATCH))
        .fetch_all(&mut *change)
        .await?;
        self.end(change, newest, ids, &End::Sweep, now).await
    }

    /// Ends those of these sessions that are not over yet, and commits. Returns how many.
    async fn end(
        &self,
        mut change: Change,
        newest: i64,
        ids: Vec<String>,
        end: &End<'_>,
        now: Seconds,
    ) -> Result<u32, Error> {
        let entries = self.end_in(&mut change, newest, ids, end, now).await?;
        if entries.is_empty() {
            return Ok(0);
        }
        commit(change, &entries).await?;
        self.wake();
        Ok(u32::try_from(entries.len()).unwrap_or(u32::MAX))
    }

    /// Does the same as part of a change. The caller commits it, and then wakes the watchers.
    pub(super) async fn end_in(
        &self,
        change: &mut Change,
        newest: i64,
        mut ids: Vec<String>,
        end: &End<'_>,
        now: Seconds,
    ) -> Result<Vec<AuditRow>, Error> {
        // In the order in which they are activated, or either could wait for the other.
        ids.sort_unstable();
        let (mut ended, mut entries) = (0_u32, Vec::new());
        for id in ids.into_iter().map(SessionId::known) {
            if !mark(change, &id, end, now).await? {
                continue;
            }

            let session = find(change, &id).await?;
            ended += 1;
            add(change, newest + i64::from(ended), &session, end.reason()).await?;
            entries.push(end.entry(&session));

            if let End::Sweep = end {
                // Its request id is free again.
                sqlx::query("DELETE FROM sessions WHERE id = $1")
                    .bind(id.as_str())
                    .execute(&mut **change)
                    .await?;
            }
        }

        if ended == 0 {
            return Ok(entries);
        }

        sqlx::query("UPDATE feed SET newest = newest + $1")
            .bind(i64::from(ended))
            .execute(&mut **change)
            .await?;
        self.audit(change, &entries, now).await?;

        if self.is_shared() {
            // Heard by the others, and by us, when it commits.
            sqlx::query("SELECT pg_notify($1, '')")
                .bind(CHANNEL)
                .execute(&mut **change)
                .await?;
        }

        Ok(entries)
    }

    /// Returns the newest number, and the highest deleted one.
    pub(crate) async fn feed_ends(&self) -> Result<(i64, i64), Error> {
        let row = sqlx::query("SELECT newest, pruned FROM feed")
            .fetch_one(&self.pool)
            .await?;
        Ok((row.try_get("newest")?, row.try_get("pruned")?))
    }

    /// Returns the database that the numbers belong to.
    pub(crate) async fn database_id(&self) -> Result<String, Error> {
        Ok(sqlx::query_scalar("SELECT database_id FROM feed")
            .fetch_one(&self.pool)
            .await?)
    }

    /// Returns the relevant entries after a number.
    pub(crate) async fn revocations(&self, after: i64, now: Seconds) -> Result<Stretch, Error> {
        let mut connection = self.pool.acquire().await?;
        let newest: i64 = sqlx::query_scalar("SELECT newest FROM feed")
            .fetch_one(&mut *connection)
            .await?;
        if newest == after {
            return Ok(Stretch {
                entries: Vec::new(),
                read_to: newest,
                complete: true,
            });
        }

        let rows = sqlx::query(
            "SELECT sequence, session_id, user_id, reason, tokens_expire_at FROM revocations
             WHERE sequence > $1 AND sequence <= $2 AND tokens_expire_at > $3 ORDER BY sequence
             LIMIT $4",
        )
        .bind(after)
        .bind(newest)
        .bind(now.saturating_sub(LATE_CLOCKS))
        .bind(i64::from(PAGE))
        .fetch_all(&mut *connection)
        .await?;
        let entry = |row: &AnyRow| {
            Ok::<_, Error>(Revocation {
                sequence: row.try_get("sequence")?,
                session: SessionId::known(row.try_get("session_id")?),
                user: UserId::known(row.try_get("user_id")?),
                reason: row.try_get("reason")?,
                tokens_expire_at: row.try_get("tokens_expire_at")?,
            })
        };
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let more = entries
            .last()
            .filter(|_| entries.len() == PAGE as usize)
            .map(|last| last.sequence);

        Ok(Stretch {
            read_to: more.unwrap_or(newest),
            complete: more.is_none(),
            entries,
        })
    }

    /// Deletes entries whose tokens are all over. Returns how many.
    pub(crate) async fn prune(&self, now: Seconds) -> Result<u64, Error> {
        let mut change = self.pool.begin().await?;
        lock(&mut change).await?;
        let gone: Vec<i64> = sqlx::query_scalar(
            "DELETE FROM revocations WHERE sequence IN
             (SELECT sequence FROM revocations WHERE tokens_expire_at <= $1 LIMIT $2)
             RETURNING sequence",
        )
        .bind(now.saturating_sub(LATE_CLOCKS))
        .bind(i64::from(BATCH))
        .fetch_all(&mut *change)
        .await?;
        let Some(highest) = gone.iter().max() else {
            return Ok(0);
        };

        sqlx::query("UPDATE feed SET pruned = $1 WHERE pruned < $2")
            .bind(highest)
            .bind(highest)
            .execute(&mut *change)
            .await?;
        change.commit().await?;

        Ok(gone.len() as u64)
    }
}

/// How sessions end.
pub(super) enum End<'a> {
    Revoke(&'a Cause),
    /// Unless its editor is signed in.
    RevokePending(&'a Cause),
    /// Nobody activated it in time.
    Sweep,
    /// It was not refreshed since then, and a new session takes its place.
    Replace {
        since: Seconds,
    },
}

impl End<'_> {
    fn reason(&self) -> &str {
        match self {
            Self::Revoke(cause) | Self::RevokePending(cause) => cause.reason.as_str(),
            Self::Sweep => "swept",
            Self::Replace { .. } => "replaced",
        }
    }

    fn entry(&self, session: &Session) -> AuditRow {
        let event = if self.reason() == "burned" {
            Event::Burned
        } else {
            Event::Revoked
        };

        let address = match self {
            Self::Revoke(cause) | Self::RevokePending(cause) => cause.address.as_str(),
            Self::Sweep | Self::Replace { .. } => "",
        };

        AuditRow::of(event, session)
            .from(address)
            .because(self.reason())
    }
}

/// Gives a database without a name a random one.
pub(super) async fn name(connection: &mut AnyConnection) -> Result<(), Error> {
    let name = "UPDATE feed SET database_id = $1 WHERE database_id = ''";
    sqlx::query(name)
        .bind(random_id()?)
        .execute(connection)
        .await?;
    Ok(())
}

/// Locks the counter. Returns the newest number.
pub(super) async fn lock(change: &mut Change) -> Result<i64, Error> {
    Ok(
        sqlx::query_scalar("UPDATE feed SET newest = newest RETURNING newest")
            .fetch_one(&mut **change)
            .await?,
    )
}

/// Marks a session as over; `false` when it already was, or is not in the state in which it is to
/// end.
async fn mark(
    change: &mut Change,
    id: &SessionId,
    end: &End<'_>,
    now: Seconds,
) -> Result<bool, Error> {
    let marked = match end {
        End::Revoke(_) => {
            sqlx::query("UPDATE sessions SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL")
        }
        End::RevokePending(_) | End::Sweep => sqlx::query(
            "UPDATE sessions SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL AND \
             activated_at IS NULL",
        ),
        End::Replace { .. } => sqlx::query(
            "UPDATE sessions SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL AND \
             refreshed_at <= $3",
        ),
    };

    let marked = marked.bind(now).bind(id.as_str());
    let marked = if let End::Replace { since } = end {
        marked.bind(*since)
    } else {
        marked
    };

    Ok(marked.execute(&mut **change).await?.rows_affected() == 1)
}

async fn add(
    change: &mut Change,
    sequence: i64,
    session: &Session,
    reason: &str,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO revocations (sequence, session_id, user_id, reason, tokens_expire_at) VALUES \
        ($1, $2, $3, $4, $5)",
    )
    .bind(sequence)
    .bind(session.id.as_str())
    .bind(session.user.as_str())
    .bind(reason)
    .bind(session.tokens_expire_at)
    .execute(&mut **change)
    .await?;
    Ok(())
}
