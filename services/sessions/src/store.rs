//! The database: users, sessions, sealed signing keys. Every change is one transaction that begins with a write, so that
//! it waits for its turn instead of failing halfway. Knows no key, no token and no wire.

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Row as _, SqlSafeStr as _};

use crate::Error;
use crate::key::SealedKey;
use crate::session::{Approval, Device, Profile, Seconds, Session, SessionId, Terms, UserId};

#[cfg(test)]
pub(crate) mod tests;

/// How long a call waits for others to be done with the database: once for its turn in this process, once for other
/// processes.
const WAIT: Duration = Duration::from_secs(2);
/// Rows that one statement sweeps, so that it does not keep callers waiting.
pub(crate) const SWEEP_BATCH: u32 = 500;

/// Version, name and text of each migration.
const MIGRATIONS: &[(i64, &str, &str)] = &[(1, "sessions", include_str!("../migrations/0001_sessions.sql"))];

/// A session as the store has it after `create`.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) session: Session,
    /// `false` when an earlier call with the same request id has made it.
    pub(crate) new: bool,
}

/// When a session was activated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Activated {
    pub(crate) at: Seconds,
    /// `false` when an earlier call has done it.
    pub(crate) new: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: SqlitePool,
}

impl Store {
    /// The one connection, to put it into a bad state.
    #[cfg(test)]
    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Opens the database and brings its schema up to date. A missing file is made, for its owner only; SQLite gives its
    /// own files beside it the same mode.
    pub(crate) async fn open(url: &str) -> Result<Self, Error> {
        let path = file(url)?;
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| Error::File { path: path.clone(), source })?;
        let store = Self { pool: pool(&path, options(&path)).await? };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), Error> {
        let migrations = MIGRATIONS.iter().map(|&(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        });
        let known = MIGRATIONS.iter().map(|migration| migration.0).max().unwrap_or_default();
        let outcome = Migrator::with_migrations(migrations.collect()).run(&self.pool).await;
        if let Err(MigrateError::VersionMissing(found)) = outcome
            && found > known
        {
            return Err(Error::NewerSchema { found, known });
        }
        outcome.map_err(Error::Migrate)
    }

    /// The session of this approval: the one that its request id has made before, or a new one.
    pub(crate) async fn create(&self, approval: &Approval, terms: &Terms, now: Seconds) -> Result<Created, Error> {
        let Approval { request_id, identity, device, address } = approval;
        let mut change = self.pool.begin().await?;
        let user: String = sqlx::query_scalar(
            "INSERT INTO users (id, provider, subject, email, name, avatar_url, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (provider, subject)
             DO UPDATE SET email = excluded.email, name = excluded.name, avatar_url = excluded.avatar_url
             RETURNING id",
        )
        .bind(UserId::mint()?.as_str())
        .bind(&identity.provider)
        .bind(&identity.subject)
        .bind(&identity.profile.email)
        .bind(&identity.profile.name)
        .bind(&identity.profile.avatar_url)
        .bind(now)
        .fetch_one(&mut *change)
        .await?;
        // One that the sweep has yet to find is over all the same.
        sqlx::query("DELETE FROM sessions WHERE request_id = $1 AND activated_at IS NULL AND created_at <= $2")
            .bind(request_id.as_str())
            .bind(terms.pending_since(now))
            .execute(&mut *change)
            .await?;
        let inserted = sqlx::query(
            "INSERT INTO sessions (id, request_id, user_id, provider_session, device_name, device_os, device_app, address,
                                   created_at, refreshed_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (request_id) DO NOTHING",
        )
        .bind(SessionId::mint()?.as_str())
        .bind(request_id.as_str())
        .bind(&user)
        .bind(&identity.provider_session)
        .bind(&device.name)
        .bind(&device.os)
        .bind(&device.app)
        .bind(address)
        .bind(now)
        .bind(now)
        .bind(terms.expiry(now))
        .execute(&mut *change)
        .await?;
        let row = sqlx::query(
            "SELECT sessions.*, users.email, users.name, users.avatar_url
             FROM sessions JOIN users ON users.id = sessions.user_id WHERE request_id = $1",
        )
        .bind(request_id.as_str())
        .fetch_one(&mut *change)
        .await?;
        let session = session(&row)?;
        if session.user.as_str() != user {
            // The transaction goes with it, and what it has noted of the other user.
            return Err(Error::RequestClaimed(session.id));
        }
        change.commit().await?;
        Ok(Created { session, new: inserted.rows_affected() == 1 })
    }

    /// Records that the editor has its token; the first time counts.
    pub(crate) async fn activate(&self, id: &SessionId, terms: &Terms, now: Seconds) -> Result<Activated, Error> {
        let updated = sqlx::query(
            "UPDATE sessions SET activated_at = $1
             WHERE id = $2 AND activated_at IS NULL AND created_at > $3 AND expires_at > $4",
        )
        .bind(now)
        .bind(id.as_str())
        .bind(terms.pending_since(now))
        .bind(now)
        .execute(&self.pool)
        .await?;
        if updated.rows_affected() == 1 {
            return Ok(Activated { at: now, new: true });
        }
        let row = sqlx::query("SELECT activated_at, expires_at FROM sessions WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Err(Error::SessionUnknown(id.clone())) };
        if row.try_get::<Seconds, _>("expires_at")? <= now {
            return Err(Error::SessionExpired(id.clone()));
        }
        match row.try_get("activated_at")? {
            Some(at) => Ok(Activated { at, new: false }),
            // Pending for too long; the sweep has yet to find it.
            None => Err(Error::SessionUnknown(id.clone())),
        }
    }

    /// Deletes sessions that nobody activated in time; how many. Fewer than [`SWEEP_BATCH`] means that none is left.
    pub(crate) async fn sweep(&self, terms: &Terms, now: Seconds) -> Result<u64, Error> {
        let swept = sqlx::query(
            "DELETE FROM sessions WHERE id IN
             (SELECT id FROM sessions WHERE activated_at IS NULL AND created_at <= $1 LIMIT $2)",
        )
        .bind(terms.pending_since(now))
        .bind(SWEEP_BATCH)
        .execute(&self.pool)
        .await?;
        Ok(swept.rows_affected())
    }

    /// All signing keys, the oldest first.
    pub(crate) async fn signing_keys(&self) -> Result<Vec<SealedKey>, Error> {
        let rows = sqlx::query("SELECT kid, sealed FROM signing_keys ORDER BY number").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(SealedKey { kid: row.try_get("kid")?, sealed: row.try_get("sealed")? })).collect()
    }

    /// Adds the first key, unless there is one.
    pub(crate) async fn add_first_signing_key(&self, key: &SealedKey, now: Seconds) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO signing_keys (number, kid, sealed, created_at) VALUES (1, $1, $2, $3)
             ON CONFLICT (number) DO NOTHING",
        )
        .bind(&key.kid)
        .bind(&key.sealed)
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

fn session(row: &SqliteRow) -> Result<Session, Error> {
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
        },
        address: row.try_get("address")?,
        created_at: row.try_get("created_at")?,
        activated_at: row.try_get("activated_at")?,
        refreshed_at: row.try_get("refreshed_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}

/// The file that a URL names: `sqlite:PATH`, or `sqlite://PATH`, as people write it. A database in memory would forget
/// who is signed in.
fn file(url: &str) -> Result<PathBuf, Error> {
    let path = url.strip_prefix("sqlite:").ok_or(Error::DatabaseUrl)?;
    let path = path.strip_prefix("//").unwrap_or(path);
    // SQLite itself reads what begins so as a URI, or as no file at all.
    let special = path.starts_with(':') || path.starts_with("file:");
    if path.is_empty() || special || path.contains('?') { Err(Error::DatabaseUrl) } else { Ok(path.into()) }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // Made before, with the right mode. What is gone later must be missed, not replaced by an empty one.
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(WAIT)
        .disable_statement_logging()
}

/// One connection: SQLite has one writer at a time, and waiting here is fair and wakes at once, waiting there is polling.
async fn pool(path: &Path, options: SqliteConnectOptions) -> Result<SqlitePool, Error> {
    let inode = {
        let path = path.to_owned();
        move || std::fs::metadata(&path).map_or(0, |found| found.ino())
    };
    let opened = Arc::new(AtomicU64::new(0));
    let (now_opened, inode_again) = (opened.clone(), inode.clone());
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |_connection, _meta| {
            now_opened.store(inode(), Ordering::Release);
            Box::pin(async { Ok(()) })
        })
        // SQLite would go on writing to a file that has been deleted, and lose it all at the next start.
        .before_acquire(move |_connection, _meta| {
            let same = opened.load(Ordering::Acquire) == inode_again();
            Box::pin(async move { Ok(same) })
        });
    Ok(pool.connect_with(options).await?)
}
