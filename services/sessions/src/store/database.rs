//! Opens the database that a URL names: a file of SQLite or a server of PostgreSQL. It upgrades the
//! schema, refuses unsafe settings, and waits for a server that is not there yet.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgListener, PgSslMode};
use sqlx::{
    AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::feed::{self, CHANNEL};
use super::{Ration, Room, Store};
use crate::Error;

/// How long a call waits for other users of the database: once for its turn in this process, once
/// for other processes.
pub(crate) const WAIT: Duration = Duration::from_secs(2);
/// How long a start waits for a server that is not there yet.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// Version, name and text of each migration.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "sessions",
        include_str!("../../migrations/0001_sessions.sql"),
    ),
    (
        2,
        "lasting",
        include_str!("../../migrations/0002_lasting.sql"),
    ),
    (
        3,
        "providers",
        include_str!("../../migrations/0003_providers.sql"),
    ),
    (4, "feed", include_str!("../../migrations/0004_feed.sql")),
    (
        5,
        "limits",
        include_str!("../../migrations/0005_limits.sql"),
    ),
    (
        6,
        "browser_sign_ins",
        include_str!("../../migrations/0006_browser_sign_ins.sql"),
    ),
    (
        7,
        "contract",
        include_str!("../../migrations/0007_contract.sql"),
    ),
];

/// Commits reach the disk before they are answered.
const SQLITE: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = \
    ON; PRAGMA busy_timeout = 2000";
/// Neither this process nor another one that hangs or was cut off may delay the others.
const POSTGRES: &str = "SET lock_timeout = '2s'; SET statement_timeout = '5s'; \
                        SET idle_in_transaction_session_timeout = '5s'";

/// The parameters that may follow the `?` of a URL of PostgreSQL. The driver would print the value
/// of an unknown one.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Where a database is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Location {
    File(PathBuf),
    Server(Url),
}

/// A URL may hold a password.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Server(url) => f.debug_tuple("Server").field(&url.host_str()).finish(),
        }
    }
}

impl Location {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Ok(Self::File(file(path)?));
        }
        let url = Url::parse(url).map_err(|_cause| Error::DatabaseUrl)?;
        if matches!(url.scheme(), "postgres" | "postgresql") {
            Ok(Self::Server(server(url)?))
        } else {
            Err(Error::DatabaseUrl)
        }
    }

    /// Returns the files that it consists of, or that lead to it, and whether others may not read
    /// them.
    pub(crate) fn files(&self) -> Vec<(PathBuf, bool)> {
        match self {
            Self::File(path) => {
                // SQLite puts its own files beside the one behind the link.
                let path = std::fs::canonicalize(path).unwrap_or_else(|_missing| path.clone());
                let beside = |suffix| {
                    let mut beside = path.clone().into_os_string();
                    beside.push(suffix);
                    (PathBuf::from(beside), true)
                };
                ["", "-wal", "-shm", "-journal"].map(beside).into()
            }
            Self::Server(url) => {
                let named = |(name, value): (Cow<'_, str>, Cow<'_, str>)| match &*name {
                    "sslkey" => Some((PathBuf::from(&*value), true)),
                    "sslcert" | "sslrootcert" => Some((PathBuf::from(&*value), false)),
                    _ => None,
                };
                url.query_pairs().filter_map(named).collect()
            }
        }
    }

    fn options(&self) -> Result<AnyConnectOptions, Error> {
        let url = match self {
            Self::File(path) => {
                let path = std::path::absolute(path).map_err(|source| Error::File {
                    path: path.clone(),
                    source,
                })?;
                let mut url = Url::from_file_path(path).map_err(|()| Error::DatabaseUrl)?;

                // Made before, with the right mode. What is gone later must be missed, not replaced
                // by an empty one.
                url.set_query(Some("mode=rw"));

                url.as_str()
                    .replacen("file:", "sqlite:", 1)
                    .parse()
                    .map_err(|_cause| Error::DatabaseUrl)?
            }
            Self::Server(url) => url.clone(),
        };

        Ok(AnyConnectOptions::from_url(&url)?.disable_statement_logging())
    }

    fn setup(&self) -> &'static str {
        match self {
            Self::File(_) => SQLITE,
            Self::Server(_) => POSTGRES,
        }
    }
}

/// Returns the path of a file of SQLite: `PATH`, or `//PATH`, as people write it. A database in
/// memory would forget who is signed in.
fn file(path: &str) -> Result<PathBuf, Error> {
    let path = path.strip_prefix("//").unwrap_or(path);
    // SQLite itself reads what begins so as a URI, or as no file at all.
    let special = path.starts_with(':') || path.starts_with("file:");
    if path.is_empty() || special || path.contains('?') {
        Err(Error::DatabaseUrl)
    } else {
        Ok(path.into())
    }
}

/// Returns a server's URL with the choice of TLS made. Without one, names and keys would cross a
/// network in plain text as soon as somebody in the middle claims that the server has no TLS.
fn server(mut url: Url) -> Result<Url, Error> {
    if let Some((name, _)) = url
        .query_pairs()
        .find(|(name, _)| !PARAMETERS.contains(&name.as_ref()))
    {
        return Err(Error::DatabaseParameter(name.into_owned()));
    }

    let options = PgConnectOptions::from_url(&url).map_err(|_cause| Error::DatabaseUrl)?;
    let host = options
        .get_host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    let local = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || address.is_ok_and(|address| address.is_loopback());
    if !local && matches!(options.get_ssl_mode(), PgSslMode::Prefer | PgSslMode::Allow) {
        if url.query_pairs().any(|(name, _)| name == "sslmode") {
            return Err(Error::DatabaseInClear);
        }
        url.query_pairs_mut().append_pair("sslmode", "verify-full");
    }

    Ok(url)
}

impl Store {
    /// Opens the database and upgrades its schema. Creates a missing file, for its owner only;
    /// SQLite gives its own files beside it the same mode. Waits a while for a server.
    pub(crate) async fn open(url: &str, connections: u32) -> Result<Self, Error> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let place = Location::parse(url)?;
        if let Location::File(path) = &place {
            OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path)
                .map_err(|source| Error::File {
                    path: path.clone(),
                    source,
                })?;
        }

        let options = place.options()?;
        let mut first = connect(&place, &options).await?;
        migrate(&mut first).await?;
        feed::name(&mut first).await?;
        first.close().await?;
        let pool = pool(&place, options, connections);

        Ok(Self {
            pool,
            place,
            ration: Ration::default(),
            room: Room::default(),
            revoked: watch::Sender::new(()),
        })
    }

    /// Returns whether other processes may use the same database.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.place, Location::Server(_))
    }

    /// Wakes the watchers of the feed when other processes revoke. Never ends.
    pub(crate) async fn follow(self) {
        let Location::Server(url) = &self.place else {
            return std::future::pending().await;
        };

        let mut told = false;

        loop {
            let Err(cause) = self.listen(url, &mut told).await;
            if !told {
                tracing::warn!(%cause, "not listening to other processes: revocations are looked \
                    for every 5 s");
                told = true;
            }
            sleep(RETRY).await;
        }
    }

    async fn listen(&self, url: &Url, told: &mut bool) -> Result<Infallible, sqlx::Error> {
        let mut listener = PgListener::connect(url.as_str()).await?;
        listener.listen(CHANNEL).await?;
        *told = false;
        loop {
            // Also when the connection was lost: something may have been missed.
            self.wake();
            listener.try_recv().await?;
        }
    }
}

/// A connection in a box with its inputs, because the compiler does not see that the driver's own
/// future is `Send`.
fn connection(
    options: AnyConnectOptions,
) -> BoxFuture<'static, Result<AnyConnection, sqlx::Error>> {
    Box::pin(async move { AnyConnection::connect_with(&options).await })
}

/// Opens the first connection. Immediately reports errors that waiting does not fix.
async fn connect(place: &Location, options: &AnyConnectOptions) -> Result<AnyConnection, Error> {
    let Location::Server(_) = place else {
        let mut connection = connection(options.clone()).await?;
        connection.execute(SQLITE).await?;
        return Ok(connection);
    };

    let end = Instant::now() + START_PATIENCE;

    loop {
        let timed_out = || sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
        let connected = timeout(WAIT * 2, connection(options.clone())).await;
        let source = match connected.unwrap_or_else(|_elapsed| Err(timed_out())) {
            Ok(connection) => return Ok(connection),
            Err(source) => source,
        };

        // Shutting down, starting up, too many connections (PostgreSQL, appendix A).
        let code = source
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        let is_busy = code.is_some_and(|code| code.starts_with("57P") || code.starts_with("53"));

        // TLS that comes to nothing is no data from the network, and will come to nothing again.
        let is_cut_off = matches!(
            &source,
            sqlx::Error::Io(cause) if cause.kind() != std::io::ErrorKind::InvalidData
        );
        let may_come = is_busy || is_cut_off;
        if !may_come || Instant::now() >= end {
            return Err(Error::Server(source));
        }

        tracing::warn!(cause = %source, "the database cannot be reached yet");
        sleep(RETRY).await;
    }
}

/// Upgrades the schema. On PostgreSQL it holds a lock, so that two processes that start at the same
/// time do it one after the other.
async fn migrate(connection: &mut AnyConnection) -> Result<(), Error> {
    let migrations = MIGRATIONS.iter().map(|&(version, name, sql)| {
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    let known = MIGRATIONS
        .iter()
        .map(|migration| migration.0)
        .max()
        .unwrap_or_default();
    let outcome = Migrator::with_migrations(migrations.collect())
        .run_direct(None, connection, false)
        .await;
    if let Err(MigrateError::VersionMissing(found)) = outcome
        && found > known
    {
        return Err(Error::NewerSchema { found, known });
    }

    outcome.map_err(Error::Migrate)
}

/// Creates the pool of connections to a database, made on first use and again whenever they are
/// gone.
fn pool(place: &Location, options: AnyConnectOptions, connections: u32) -> AnyPool {
    let (setup, noted) = (place.setup(), Arc::new(AtomicU64::new(0)));
    let inode = {
        let place = place.clone();
        move || match &place {
            Location::File(path) => std::fs::metadata(path).map_or(0, |found| found.ino()),
            Location::Server(_) => 0,
        }
    };
    let (opened, inode_again) = (noted.clone(), inode.clone());
    let pool = AnyPoolOptions::new()
        .acquire_timeout(WAIT)
        .after_connect(move |connection, _meta| {
            opened.store(inode(), Ordering::Release);
            Box::pin(async move { connection.execute(setup).await.map(drop) })
        })
        // SQLite would go on writing to a file that has been deleted, and lose it all at the next
        // start.
        .before_acquire(move |_connection, _meta| {
            let same = noted.load(Ordering::Acquire) == inode_again();
            Box::pin(async move { Ok(same) })
        });
    let pool = match place {
        // SQLite has one writer at a time, and waiting here is fair and wakes at once, waiting
        // there is polling.
        Location::File(_) => pool
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None),
        Location::Server(_) => pool.max_connections(connections),
    };

    pool.connect_lazy_with(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_of_sqlite() {
        for (url, path) in [
            ("sqlite:a.db", "a.db"),
            ("sqlite:///var/a b.db", "/var/a b.db"),
            ("sqlite://a.db", "a.db"),
        ] {
            assert_eq!(Location::parse(url).unwrap(), Location::File(path.into()));
        }

        for bad in [
            "",
            "a.db",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:file:a.db",
            "sqlite:a.db?mode=memory",
            "mysql://h/d",
        ] {
            assert!(
                matches!(Location::parse(bad), Err(Error::DatabaseUrl)),
                "{bad} was taken"
            );
        }
    }

    #[test]
    fn a_server_off_this_machine_is_reached_over_tls_unless_somebody_says_otherwise() {
        let used = |url: &str| match Location::parse(url) {
            Ok(Location::Server(url)) => Ok(url.to_string()),
            Ok(Location::File(path)) => panic!("{} is no file", path.display()),
            Err(refused) => Err(refused.to_string()),
        };
        for kept in [
            "postgres://vvs@127.0.0.1/vvs",
            "postgresql://vvs@localhost:5433/vvs",
            "postgres://vvs@[::1]/vvs",
            "postgres:///vvs?host=/run/postgresql",
            "postgres://vvs@db.test/vvs?sslmode=disable",
            "postgres://vvs@db.test/vvs?sslmode=require",
            "postgres://vvs@db.test/vvs?sslmode=verify-full&sslrootcert=/etc/ca.crt",
        ] {
            assert_eq!(used(kept).unwrap(), kept);
        }

        assert_eq!(
            used("postgres://vvs@db.test/vvs").unwrap(),
            "postgres://vvs@db.test/vvs?sslmode=verify-full"
        );

        for mode in ["prefer", "allow"] {
            let refused = used(&format!("postgres://vvs@10.0.0.1/vvs?sslmode={mode}")).unwrap_err();
            assert!(refused.contains("sslmode=verify-full"), "{refused}");
        }
    }

    #[test]
    fn a_parameter_that_is_not_known_is_named_and_its_value_is_not() {
        let refused = Location::parse("postgres://vvs@localhost/vvs?passwort=hunter2")
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("passwort") && !refused.contains("hunter2"),
            "{refused}"
        );
        let place = Location::parse("postgres://vvs:hunter2@localhost/vvs").unwrap();
        assert!(!format!("{place:?}").contains("hunter2"));
    }
}
