//! The database: users, sessions, revocations, ended browser sign-ins, sealed signing keys, the
//! audit log. Every change is one transaction that begins with a write, so that it waits for its
//! turn instead of failing halfway. One set of queries serves SQLite and PostgreSQL. Knows no key,
//! no token and no wire.

use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AnyPool, Row as _, Transaction};
use tokio::sync::watch;
use vvs_auth::device::DeviceKey;

use crate::Error;
use crate::audit::{AuditRow, Event};
use crate::id::{SessionId, UserId};
use crate::session::{Approval, Device, Portion, Profile, Seconds, Session, Terms};

mod audit;
mod browser;
pub(crate) mod database;
pub(crate) mod feed;
mod key;
#[cfg(test)]
mod model;
mod refresh;
mod room;
#[cfg(test)]
pub(crate) mod tests;
mod user;

pub(crate) use audit::Ration;
pub(crate) use browser::Room;
pub(crate) use feed::{Cause, Revocation, Whose};
pub(crate) use key::SealedKey;

/// Rows that one change cleans up, so that it does not delay callers.
pub(crate) const BATCH: u32 = 100;

type Change = Transaction<'static, Any>;

/// A session as the store has it after `create`.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) session: Session,
    /// `false` when an earlier call with the same request id made it.
    pub(crate) new: bool,
}

/// When a session was activated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Activated {
    pub(crate) at: Seconds,
    /// `false` when an earlier call did it.
    pub(crate) new: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: AnyPool,
    place: database::Location,
    ration: Ration,
    room: Room,
    /// Marked when the feed may have new entries.
    revoked: watch::Sender<()>,
}

macro_rules! select_session {
    ($rest:literal) => {
        concat!(
            "SELECT sessions.*, users.email, users.name, users.avatar_url
             FROM sessions JOIN users ON users.id = sessions.user_id WHERE ",
            $rest
        )
    };
}

impl Store {
    /// Its connections, to put one into a bad state.
    #[cfg(test)]
    pub(crate) fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Returns the session of this approval: the one that its request id made before, or a new one.
    pub(crate) async fn create(
        &self,
        approval: &Approval,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Created, Error> {
        let created = self.find_or_create(approval, terms, now).await?;
        if terms.is_stale(&created.session, now) {
            // The sweep has yet to find it, but it is over.
            self.sweep_session(&created.session.id, now).await?;
            return self.find_or_create(approval, terms, now).await;
        }
        terms.check_live(&created.session, now)?;
        Ok(created)
    }

    async fn find_or_create(
        &self,
        approval: &Approval,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Created, Error> {
        let mut change = self.pool.begin().await?;
        let user = user::note(&mut change, approval, now).await?;
        let new = insert_session(&mut change, approval, &user, terms, now).await?;
        let row = sqlx::query(select_session!("request_id = $1"))
            .bind(approval.request_id.to_string())
            .fetch_one(&mut *change)
            .await?;
        let session = session(&row)?;
        if session.user != user || session.device.key != approval.device.key {
            // The transaction goes with it, and what it has noted of the other user.
            return Err(Error::RequestClaimed(session.id));
        }

        if new {
            let entries = [
                AuditRow::of(Event::Approved, &session),
                AuditRow::of(Event::SessionCreated, &session),
            ];
            self.audit(&mut change, &entries, now).await?;
            let ended = self.make_room(&mut change, &session, terms, now).await?;
            commit(change, &entries).await?;
            if !ended.is_empty() {
                ended.iter().for_each(AuditRow::log);
                self.wake();
            }
        } else {
            // A repeat gets a new token.
            let token_end = terms
                .token_end(&session.device, session.expires_at, now)
                .max(session.tokens_expire_at);
            let noted = sqlx::query(
                "UPDATE sessions SET tokens_expire_at = $1 WHERE id = $2 AND revoked_at IS NULL",
            )
            .bind(token_end)
            .bind(session.id.as_str())
            .execute(&mut *change)
            .await?;
            if noted.rows_affected() == 0 {
                // Perhaps since it was read: its entry in the feed would be deleted before that
                // token is over.
                return Err(Error::SessionRevoked(session.id));
            }

            change.commit().await?;
        }

        Ok(Created { session, new })
    }

    /// Records that editors have their tokens, each with its address; the first time counts. The
    /// results come back in any order.
    pub(crate) async fn activate_all(
        &self,
        mut sessions: Vec<(SessionId, String)>,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Vec<(SessionId, Result<Activated, Error>)>, Error> {
        // In the order in which they are ended, or either could wait for the other.
        sessions.sort_unstable();
        let (mut outcomes, mut entries) = (Vec::new(), Vec::new());
        let mut change = self.pool.begin().await?;
        for (id, address) in sessions {
            let updated = sqlx::query(
                "UPDATE sessions SET activated_at = $1
                 WHERE id = $2 AND activated_at IS NULL AND revoked_at IS NULL AND created_at > $3
                 AND expires_at > $4",
            )
            .bind(now)
            .bind(id.as_str())
            .bind(terms.pending_since(now))
            .bind(now)
            .execute(&mut *change)
            .await?;
            let outcome = match find(&mut change, &id).await {
                Ok(session) if updated.rows_affected() == 1 => {
                    entries.push(AuditRow::of(Event::Activated, &session).from(&address));
                    Ok(Activated { at: now, new: true })
                }
                Ok(session) => {
                    terms
                        .check_live(&session, now)
                        .and_then(|()| match session.activated_at {
                            Some(at) => Ok(Activated { at, new: false }),
                            None => Err(Error::SessionUnknown(id.clone())),
                        })
                }
                Err(unknown @ Error::SessionUnknown(_)) => Err(unknown),
                Err(error) => return Err(error),
            };

            outcomes.push((id, outcome));
        }

        if !entries.is_empty() {
            self.audit(&mut change, &entries, now).await?;
            commit(change, &entries).await?;
        }

        Ok(outcomes)
    }

    /// Returns a session, over or not.
    pub(crate) async fn session(&self, id: &SessionId) -> Result<Session, Error> {
        find(&mut *self.pool.acquire().await?, id).await
    }

    /// Returns the live sessions of a user: the most recently used first, and then those that wait
    /// for their editor. Many waiting sessions cannot hide one that is used. The second value says
    /// whether there are more.
    pub(crate) async fn sessions_of(
        &self,
        user: &UserId,
        page: &Portion,
        terms: &Terms,
        now: Seconds,
    ) -> Result<(Vec<Session>, bool), Error> {
        let is_pending = page
            .after
            .as_ref()
            .map_or(-1, |last| last.is_pending.into());
        let (refreshed_at, id) = page
            .after
            .as_ref()
            .map_or((0, ""), |last| (last.refreshed_at, last.id.as_str()));

        let rows = sqlx::query(select_session!(
            "sessions.user_id = $1 AND sessions.revoked_at IS NULL AND sessions.expires_at > $2
             AND (sessions.activated_at IS NOT NULL OR sessions.created_at > $3)
             AND (CASE WHEN sessions.activated_at IS NULL THEN 1 ELSE 0 END > $4
               OR (CASE WHEN sessions.activated_at IS NULL THEN 1 ELSE 0 END = $5
                 AND (sessions.refreshed_at < $6
                   OR (sessions.refreshed_at = $7 AND sessions.id > $8))))
             ORDER BY sessions.activated_at IS NULL, sessions.refreshed_at DESC, sessions.id
             LIMIT $9"
        ))
        .bind(user.as_str())
        .bind(now)
        .bind(terms.pending_since(now))
        .bind(is_pending)
        .bind(is_pending)
        .bind(refreshed_at)
        .bind(refreshed_at)
        .bind(id)
        .bind(i64::from(page.size) + 1)
        .fetch_all(&self.pool)
        .await?;
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        let sessions = rows.iter().take(size).map(session);

        Ok((sessions.collect::<Result<_, _>>()?, rows.len() > size))
    }

    /// Returns when the oldest session that waits for its editor was approved.
    pub(crate) async fn oldest_pending(&self) -> Result<Option<Seconds>, Error> {
        let oldest = "SELECT MIN(created_at) FROM sessions WHERE activated_at IS NULL AND \
            revoked_at IS NULL";
        Ok(sqlx::query_scalar(oldest).fetch_one(&self.pool).await?)
    }

    /// Deletes sessions that have been over since then, with all their tokens. Returns how many.
    pub(crate) async fn delete_dead_sessions(&self, since: Seconds) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "DELETE FROM sessions WHERE id IN
             (SELECT id FROM sessions WHERE tokens_expire_at <= $1 AND (expires_at <= $2
             OR revoked_at <= $3) LIMIT $4)",
        )
        .bind(since)
        .bind(since)
        .bind(since)
        .bind(i64::from(BATCH))
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

/// Commits, and only then tells the log.
async fn commit(change: Change, entries: &[AuditRow]) -> Result<(), Error> {
    change.commit().await?;
    entries.iter().for_each(AuditRow::log);
    Ok(())
}

/// Makes a pending session, unless its request id has made one. Returns whether it did.
async fn insert_session(
    change: &mut Change,
    approval: &Approval,
    user: &UserId,
    terms: &Terms,
    now: Seconds,
) -> Result<bool, Error> {
    let Approval {
        request_id,
        identity,
        device,
        address,
        connection_id,
    } = approval;
    let end = terms.session_end(device, now, now);
    let inserted = sqlx::query(
        "INSERT INTO sessions (id, request_id, user_id, provider_session, device_name, device_os,
         device_app, device_app_version, device_key, address, connection_id, created_at,
         refreshed_at, expires_at, tokens_expire_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         ON CONFLICT (request_id) DO NOTHING",
    )
    .bind(SessionId::mint()?.as_str())
    .bind(request_id.to_string())
    .bind(user.as_str())
    .bind(&identity.provider_session)
    .bind(&device.name)
    .bind(&device.os)
    .bind(&device.app)
    .bind(&device.app_version)
    .bind(device.key.as_ref().map(DeviceKey::to_json))
    .bind(address)
    .bind(connection_id)
    .bind(now)
    .bind(now)
    .bind(end)
    .bind(terms.token_end(device, end, now))
    .execute(&mut **change)
    .await?;

    Ok(inserted.rows_affected() == 1)
}

async fn find(connection: &mut AnyConnection, id: &SessionId) -> Result<Session, Error> {
    let row = sqlx::query(select_session!("sessions.id = $1"))
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    row.as_ref()
        .map(session)
        .transpose()?
        .ok_or_else(|| Error::SessionUnknown(id.clone()))
}

fn session(row: &AnyRow) -> Result<Session, Error> {
    let key: Option<String> = row.try_get("device_key")?;
    Ok(Session {
        id: SessionId::known(row.try_get("id")?),
        user: UserId::known(row.try_get("user_id")?),
        profile: Profile {
            email: row.try_get("email")?,
            name: row.try_get("name")?,
            avatar_url: row.try_get("avatar_url")?,
        },
        device: Device {
            name: row.try_get("device_name")?,
            os: row.try_get("device_os")?,
            app: row.try_get("device_app")?,
            app_version: row.try_get("device_app_version")?,
            // One that cannot be read must not become a bearer session.
            key: key.as_deref().map(DeviceKey::from_json).transpose()?,
        },
        address: row.try_get("address")?,
        connection_id: row.try_get("connection_id")?,
        created_at: row.try_get("created_at")?,
        activated_at: row.try_get("activated_at")?,
        refreshed_at: row.try_get("refreshed_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
        tokens_expire_at: row.try_get("tokens_expire_at")?,
    })
}
