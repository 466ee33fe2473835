//! The store on a real file, with a test clock.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;
use vvs_auth::token::{Jwk, SigningKey};
use vvs_proto::RequestId;
use vvs_runtime::limit::Reached;
use vvs_test_servers::postgres::Postgres;

use super::*;
use crate::session::{DAY, Identity};
use crate::store::SealedKey;

pub(crate) mod end;
mod room;

/// A database of one test.
pub(crate) enum Location {
    File(TempDir),
    Server(String),
}

impl Location {
    /// A directory with a file of SQLite.
    pub(crate) fn new() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    /// A database of PostgreSQL.
    pub(crate) async fn server() -> Self {
        Self::Server(Postgres::shared().await.database().await)
    }

    fn folder(&self) -> &std::path::Path {
        match self {
            Self::File(folder) => folder.path(),
            Self::Server(url) => panic!("{url} is no file"),
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder().join("sessions.db")
    }

    fn url(&self) -> String {
        match self {
            Self::File(_) => format!("sqlite:{}", self.file().display()),
            Self::Server(url) => url.clone(),
        }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url(), 5).await.unwrap()
    }

    /// Returns the bytes on the disk, in all files.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.folder()).unwrap();
        files
            .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect()
    }
}

/// Runs each of these tests on both databases.
macro_rules! on_both_databases {
    ($($test:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&crate::store::tests::Location::new()).await;
            })*
        }

        mod on_postgresql {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&crate::store::tests::Location::server().await).await;
            })*
        }
    };
}
pub(crate) use on_both_databases;

pub(crate) fn terms() -> Terms {
    Terms {
        issuer: "https://auth.test".into(),
        audience: "vvs".into(),
        token_ttl: 3600,
        bearer_ttl: 2_592_000,
        idle_ttl: 2_592_000,
        max_ttl: 31_536_000,
        pending_ttl: 5400,
        // Each refresh counts, unless a test says otherwise.
        refresh_interval: 0,
        max_pending: u32::MAX,
        max_live: 0,
        silence: 7 * DAY,
    }
}

pub(crate) async fn count(store: &Store, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(&store.pool)
        .await
        .unwrap()
}

fn request(number: u32) -> RequestId {
    format!("00000000-0000-4000-8000-{number:012}")
        .parse()
        .unwrap()
}

pub(crate) fn approval(number: u32, subject: &str) -> Approval {
    let profile = Profile::new(Some("ada@example.com".into()), Some("Ada".into()), None).unwrap();
    Approval {
        request_id: request(number),
        identity: Identity::new("dev".into(), subject.into(), String::new(), profile).unwrap(),
        device: Device::new("laptop".into(), "Linux".into(), "VVS 1.0".into(), "").unwrap(),
        address: "192.0.2.1".into(),
        connection_id: "1b4e28ba-2fa1-41d2-883f-0016d3cca427".into(),
    }
}

/// Adds a thousand sessions to one, equal except for the device.
async fn multiply(store: &Store) {
    let many = "INSERT INTO sessions (id, request_id, user_id, provider_session, device_name, device_os, device_app,
                                      address, created_at, activated_at, refreshed_at, expires_at)
                WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
                SELECT 'ses_' || n, 'r' || n, user_id, '', '', '', '', '', created_at, activated_at, refreshed_at, expires_at
                FROM numbers, sessions";
    sqlx::query(many).execute(&store.pool).await.unwrap();
}

async fn a_repeat_gives_the_same_session(place: &Location) {
    let store = place.open().await;
    let first = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap();
    let again = store
        .create(&approval(1, "ada"), &terms(), 1005)
        .await
        .unwrap();
    assert!(first.new && !again.new);
    assert_eq!(first.session, again.session);
    assert_eq!(
        (first.session.created_at, first.session.expires_at),
        (1000, 1000 + 2_592_000)
    );
    assert_eq!(first.session.activated_at, None);

    let other = store
        .create(&approval(2, "ada"), &terms(), 1005)
        .await
        .unwrap();
    assert_ne!(other.session.id, first.session.id);
    assert_eq!(other.session.user, first.session.user);
}

async fn two_calls_at_once_make_one_session(place: &Location) {
    let (one, two) = (place.open().await, place.open().await);
    for number in 0..20 {
        let (approval, terms) = (approval(number, "ada"), terms());
        let (first, second) = tokio::join!(
            one.create(&approval, &terms, 1000),
            two.create(&approval, &terms, 1000)
        );
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.session, second.session);
        assert_ne!(first.new, second.new);
    }

    assert_eq!(count(&one, "SELECT count(*) FROM sessions").await, 20);
}

async fn a_request_id_is_not_good_for_somebody_else(place: &Location) {
    let store = place.open().await;
    let made = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap();
    let refused = store
        .create(&approval(1, "bob"), &terms(), 1001)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::RequestClaimed(id) if id == made.session.id));
    assert_eq!(
        count(&store, "SELECT count(*) FROM users").await,
        1,
        "bob was noted anyway"
    );
}

async fn a_user_keeps_the_id_and_takes_the_new_profile(place: &Location) {
    let store = place.open().await;
    let first = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    assert_eq!(first.profile.email.as_deref(), Some("ada@example.com"));

    let mut later = approval(2, "ada");
    later.identity.profile = Profile::new(
        None,
        Some("Ada L.".into()),
        Some("https://a.test/a.png".into()),
    )
    .unwrap();
    let second = store.create(&later, &terms(), 2000).await.unwrap().session;
    assert_eq!(second.user, first.user);
    assert_eq!(second.profile, later.identity.profile);

    // The same subject, or the same email, at another provider is another person.
    let mut elsewhere = approval(3, "ada");
    elsewhere.identity.provider = "https://id.test".into();
    assert_ne!(
        store
            .create(&elsewhere, &terms(), 2000)
            .await
            .unwrap()
            .session
            .user,
        first.user
    );
}

async fn only_what_nobody_activated_in_time_is_swept(place: &Location) {
    let store = place.open().await;
    let [old, young, active] = [(1, 1000), (2, 1001), (3, 1000)];
    let mut ids = Vec::new();
    for (number, now) in [old, young, active] {
        ids.push(
            store
                .create(&approval(number, "ada"), &terms(), now)
                .await
                .unwrap()
                .session
                .id,
        );
    }

    store.activate(&ids[2], "", &terms(), 1002).await.unwrap();

    assert_eq!(store.sweep(&terms(), 1000 + 5399).await.unwrap(), 0);
    assert_eq!(store.sweep(&terms(), 1000 + 5400).await.unwrap(), 1);
    assert!(matches!(
        store.activate(&ids[0], "", &terms(), 1003).await,
        Err(Error::SessionUnknown(_))
    ));
    assert!(store.activate(&ids[1], "", &terms(), 1003).await.is_ok());
    assert!(store.activate(&ids[2], "", &terms(), 1003).await.is_ok());
}

async fn one_sweep_is_bounded_and_the_next_goes_on(place: &Location) {
    let store = place.open().await;
    for number in 0..BATCH + 3 {
        store
            .create(&approval(number, "ada"), &terms(), 1000)
            .await
            .unwrap();
    }
    assert_eq!(store.sweep(&terms(), 1_000_000).await.unwrap(), BATCH);
    assert_eq!(store.sweep(&terms(), 1_000_000).await.unwrap(), 3);
}

async fn a_sweep_finds_what_is_stale_among_much_that_is_not(place: &Location) {
    let store = place.open().await;
    let active = store
        .create(&approval(1, "ada"), &terms(), 900)
        .await
        .unwrap()
        .session
        .id;
    store.activate(&active, "", &terms(), 901).await.unwrap();
    multiply(&store).await;
    store
        .create(&approval(2, "ada"), &terms(), 1000)
        .await
        .unwrap();
    assert_eq!(store.sweep(&terms(), 1000 + 5400).await.unwrap(), 1);
}

impl Store {
    /// Activates one.
    pub(crate) async fn activate(
        &self,
        id: &SessionId,
        address: &str,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Activated, Error> {
        let mut outcomes = self
            .activate_all(vec![(id.clone(), address.to_owned())], terms, now)
            .await?;
        let (of, outcome) = outcomes.pop().unwrap();
        assert_eq!((&of, outcomes.len()), (id, 0));
        outcome
    }
}

async fn several_are_activated_at_once_and_those_that_are_over_keep_none_from_it(place: &Location) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for (number, at) in [(1, 1000), (2, 7000), (3, 7000), (4, 7000)] {
        ids.push(
            store
                .create(&approval(number, "ada"), &terms(), at)
                .await
                .unwrap()
                .session
                .id,
        );
    }

    assert!(store.revoke(&ids[1], &cause("logout"), 7001).await.unwrap());

    store.activate(&ids[2], "", &terms(), 7001).await.unwrap();
    ids.push("ses_unknown".parse().unwrap());
    let asked = ids
        .iter()
        .chain([&ids[3]])
        .map(|id| (id.clone(), String::new()))
        .collect();
    let outcomes = store.activate_all(asked, &terms(), 7002).await.unwrap();
    let of = |id| {
        let those = outcomes.iter().filter(move |(of, _)| of == id);
        those
            .map(|(_, outcome)| outcome.as_ref().map_err(ToString::to_string))
            .collect::<Vec<_>>()
    };
    let said = |error: Error| vec![Err(error.to_string())];
    assert_eq!(
        of(&ids[0]),
        said(Error::SessionUnknown(ids[0].clone())),
        "nobody came for it in time"
    );
    assert_eq!(of(&ids[1]), said(Error::SessionRevoked(ids[1].clone())));
    assert_eq!(
        of(&ids[2]),
        [Ok(&Activated {
            at: 7001,
            new: false
        })]
    );

    let twice = [
        Ok(&Activated {
            at: 7002,
            new: true,
        }),
        Ok(&Activated {
            at: 7002,
            new: false,
        }),
    ];
    assert_eq!(of(&ids[3]), twice);
    assert_eq!(of(&ids[4]), said(Error::SessionUnknown(ids[4].clone())));
    assert_eq!(
        store.session(&ids[3]).await.unwrap().activated_at,
        Some(7002)
    );
    assert_eq!(
        events(&store)
            .await
            .iter()
            .filter(|event| *event == "activated")
            .count(),
        2
    );
}

async fn the_first_activation_counts(place: &Location) {
    let store = place.open().await;
    let id = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session
        .id;
    assert_eq!(
        store.activate(&id, "", &terms(), 1010).await.unwrap(),
        Activated {
            at: 1010,
            new: true
        }
    );
    assert_eq!(
        store.activate(&id, "", &terms(), 9999).await.unwrap(),
        Activated {
            at: 1010,
            new: false
        }
    );

    let again = store
        .create(&approval(1, "ada"), &terms(), 9999)
        .await
        .unwrap()
        .session;
    assert_eq!((again.id, again.activated_at), (id, Some(1010)));
}

async fn a_pending_session_is_over_before_the_sweep_finds_it(place: &Location) {
    let store = place.open().await;
    let stale = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session
        .id;
    assert!(matches!(
        store.activate(&stale, "", &terms(), 1000 + 5400).await,
        Err(Error::SessionUnknown(_))
    ));

    let fresh = store
        .create(&approval(1, "ada"), &terms(), 1000 + 5400)
        .await
        .unwrap();
    assert!(fresh.new);
    assert_ne!(fresh.session.id, stale);
    assert_eq!(
        store
            .activate(&fresh.session.id, "", &terms(), 1000 + 5401)
            .await
            .unwrap()
            .at,
        1000 + 5401
    );
}

async fn an_expired_session_is_not_activated(place: &Location) {
    let store = place.open().await;
    let terms = Terms {
        bearer_ttl: 60,
        ..terms()
    };
    let id = store
        .create(&approval(1, "ada"), &terms, 1000)
        .await
        .unwrap()
        .session
        .id;

    assert!(matches!(
        store.activate(&id, "", &terms, 1060).await,
        Err(Error::SessionExpired(_))
    ));
    assert!(store.activate(&id, "", &terms, 1059).await.is_ok());
    assert!(matches!(
        store.activate(&id, "", &terms, 1060).await,
        Err(Error::SessionExpired(_))
    ));
    assert!(matches!(
        store
            .activate(&"ses_x".parse().unwrap(), "", &terms, 1)
            .await,
        Err(Error::SessionUnknown(_))
    ));
}

async fn what_was_answered_is_there_after_a_restart(place: &Location) {
    let made = place
        .open()
        .await
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap();
    let again = place
        .open()
        .await
        .create(&approval(1, "ada"), &terms(), 1001)
        .await
        .unwrap();
    assert_eq!(again.session, made.session);
}

async fn a_newer_schema_is_refused(place: &Location) {
    let store = place.open().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations SELECT 99, description, installed_on, success, checksum, 0 \
         FROM _sqlx_migrations WHERE version = 1",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    let refused = Store::open(&place.url(), 5).await.unwrap_err();
    assert!(matches!(refused, Error::NewerSchema { found: 99, .. }));
    assert!(refused.to_string().contains("run a newer program"));
}

async fn a_database_from_before_knows_its_keys_and_has_asked_about_nobody_since(place: &Location) {
    let store = place.open().await;
    store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap();
    let key = SealedKey {
        number: 1,
        kid: "k1".into(),
        sealed: "x".into(),
        created_at: 1000,
        signs_at: 1000,
    };
    assert!(store.add_signing_key(&key).await.unwrap());

    for undo in [
        "DROP INDEX users_by_check",
        "DROP INDEX sessions_by_provider_session",
        "ALTER TABLE users DROP COLUMN checked_at",
        "DROP TABLE known_keys",
        "ALTER TABLE feed DROP COLUMN database_id",
        "ALTER TABLE sessions DROP COLUMN refresh_audited_on",
        "DROP INDEX audit_by_user",
        "DROP TABLE browser_ends",
        "DROP TABLE browser_ends_newest",
        "DELETE FROM _sqlx_migrations WHERE version >= 3",
    ] {
        sqlx::query(undo).execute(&store.pool).await.unwrap();
    }

    let store = place.open().await;
    assert!(store.has_known_key("k1").await.unwrap());
    assert_eq!(count(&store, "SELECT checked_at FROM users").await, 1000);
    assert!(
        !store
            .add_signing_key(&SealedKey {
                kid: "k2".into(),
                ..key
            })
            .await
            .unwrap()
    );
    assert!(
        !store.has_known_key("k2").await.unwrap(),
        "another process was faster"
    );
}

async fn a_key_that_an_older_program_has_added_is_known_and_stays_known(place: &Location) {
    let store = place.open().await;
    // As it does beside us, until it has been replaced.
    let added = "INSERT INTO signing_keys (number, kid, sealed, created_at, signs_at) VALUES (7, \
        'k7', 'x', 1000, 1000)";
    sqlx::query(added).execute(&store.pool).await.unwrap();
    assert!(store.has_known_key("k7").await.unwrap());
    assert!(!store.has_known_key("k8").await.unwrap());
    store.delete_signing_key(7).await.unwrap();
    assert!(store.signing_keys().await.unwrap().is_empty());
    assert!(store.has_known_key("k7").await.unwrap(), "it is forgotten");
}

async fn a_changed_migration_is_refused(place: &Location) {
    let store = place.open().await;
    sqlx::query(
        "UPDATE _sqlx_migrations SET checksum = (SELECT checksum FROM _sqlx_migrations \
        WHERE version = 2) WHERE version = 1",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    assert!(matches!(
        Store::open(&place.url(), 5).await,
        Err(Error::Migrate(_))
    ));
}

#[tokio::test]
async fn the_database_is_for_its_owner_only() {
    let place = Location::new();
    let store = place.open().await;
    store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap();

    for file in std::fs::read_dir(place.folder()).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            file.path().display()
        );
    }
}

#[tokio::test]
async fn a_commit_is_on_the_disk_before_it_is_answered() {
    let place = Location::new();
    let store = place.open().await;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    let foreign_keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!((synchronous, journal.as_str(), foreign_keys), (2, "wal", 1));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named() {
    let place = Location::new();
    let missing = format!("sqlite:{}/none/sessions.db", place.folder().display());
    let directory = format!("sqlite:{}", place.folder().display());

    for url in [missing, directory] {
        let refused = Store::open(&url, 5).await.unwrap_err();
        assert!(matches!(refused, Error::File { .. }));
        assert!(
            refused
                .to_string()
                .contains(url.strip_prefix("sqlite:").unwrap())
        );
    }
}

/// A device key as an editor sends it.
pub(crate) fn device_key() -> DeviceKey {
    let key = SigningKey::from_pkcs8("editor", &SigningKey::generate().unwrap()).unwrap();
    let Jwk { x, y, .. } = key.public();
    DeviceKey::from_json(&format!(
        r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#
    ))
    .unwrap()
}

pub(crate) fn bound(number: u32, subject: &str, key: &DeviceKey) -> Approval {
    let approval = approval(number, subject);
    Approval {
        device: Device {
            key: Some(key.clone()),
            ..approval.device
        },
        ..approval
    }
}

pub(crate) fn cause(reason: &str) -> Cause {
    Cause {
        reason: reason.parse().unwrap(),
        address: "192.0.2.9".into(),
    }
}

async fn events(store: &Store) -> Vec<String> {
    sqlx::query_scalar("SELECT event FROM audit ORDER BY event")
        .fetch_all(&store.pool)
        .await
        .unwrap()
}

async fn a_request_id_is_not_good_for_another_key(place: &Location) {
    let store = place.open().await;
    let key = device_key();
    let made = store
        .create(&bound(1, "ada", &key), &terms(), 1000)
        .await
        .unwrap()
        .session;
    for other in [approval(1, "ada"), bound(1, "ada", &device_key())] {
        let refused = store.create(&other, &terms(), 1001).await.unwrap_err();
        assert!(
            matches!(&refused, Error::RequestClaimed(id) if *id == made.id),
            "{refused}"
        );
    }

    assert_eq!(
        store
            .create(&bound(1, "ada", &key), &terms(), 1001)
            .await
            .unwrap()
            .session
            .id,
        made.id
    );
}

async fn a_refresh_prolongs_activates_and_notes_the_address(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let made = store
        .create(&bound(1, "ada", &key), &terms, 1000)
        .await
        .unwrap()
        .session;
    assert_eq!(
        (made.expires_at, made.tokens_expire_at),
        (1000 + 2_592_000, 1000 + 3600)
    );

    let first = store
        .refresh(&made.id, &key.thumbprint(), "198.51.100.7", &terms, 1010)
        .await
        .unwrap();
    assert!(first.activated);

    let again = store
        .refresh(&made.id, &key.thumbprint(), "", &terms, 2000)
        .await
        .unwrap();
    assert!(!again.activated);
    assert_eq!(store.session(&made.id).await.unwrap(), again.session);

    let session = again.session;
    assert_eq!(
        (session.activated_at, session.refreshed_at),
        (Some(1010), 2000)
    );
    assert_eq!(
        (session.expires_at, session.tokens_expire_at),
        (2000 + 2_592_000, 2000 + 3600)
    );
    assert_eq!(session.address, "198.51.100.7");
    assert_eq!(
        store.activate(&made.id, "", &terms, 3000).await.unwrap(),
        Activated {
            at: 1010,
            new: false
        }
    );
    assert_eq!(
        events(&store).await,
        ["activated", "approved", "refreshed", "session_created"]
    );
}

/// Returns the rows that a change writes about a session.
async fn written(store: &Store, id: &SessionId) -> (Session, usize) {
    (store.session(id).await.unwrap(), events(store).await.len())
}

async fn behind_a_refresh_each_one_has_a_token_that_ends_like_its_and_nothing_is_written(
    place: &Location,
) {
    let (one, two) = (place.open().await, place.open().await);
    let (key, terms) = (
        device_key(),
        Terms {
            refresh_interval: 30,
            ..terms()
        },
    );
    let id = one
        .create(&bound(1, "ada", &key), &terms, 1000)
        .await
        .unwrap()
        .session
        .id;
    let thumbprint = key.thumbprint();
    let refresh = async |store: &Store, now| {
        store
            .refresh(&id, &thumbprint, "203.0.113.9", &terms, now)
            .await
            .unwrap()
    };

    let first = refresh(&one, 1001).await;
    assert_eq!((first.activated, first.token_end), (true, 1001 + 3600));

    let before = written(&one, &id).await;
    for (store, now) in [(&one, 1001), (&two, 1000), (&two, 1002), (&one, 1030)] {
        let again = refresh(store, now).await;
        assert_eq!(
            (again.activated, again.token_end, &again.session),
            (false, 1001 + 3600, &before.0)
        );
    }

    assert_eq!(written(&one, &id).await, before);

    let later = refresh(&two, 1031).await;
    assert_eq!(
        (later.token_end, later.session.refreshed_at),
        (1031 + 3600, 1031)
    );

    let stranger = device_key().thumbprint();
    let refused = one
        .refresh(&id, &stranger, "", &terms, 1032)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::KeyMismatch(_)), "{refused}");

    one.revoke(&id, &cause("user"), 1033).await.unwrap();
    let refused = two
        .refresh(&id, &thumbprint, "", &terms, 1033)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::SessionRevoked(_)), "{refused}");
}

async fn of_windows_that_refresh_at_once_one_prolongs_and_all_have_a_token(place: &Location) {
    let stores = [
        place.open().await,
        place.open().await,
        place.open().await,
        place.open().await,
    ];
    let (key, terms) = (
        device_key(),
        Terms {
            refresh_interval: 30,
            ..terms()
        },
    );
    let id = stores[0]
        .create(&bound(1, "ada", &key), &terms, 1000)
        .await
        .unwrap()
        .session
        .id;
    let thumbprint = key.thumbprint();
    let windows = stores
        .iter()
        .zip(2000..)
        .map(|(store, now)| store.refresh(&id, &thumbprint, "", &terms, now));
    let ends: Vec<_> = futures_util::future::join_all(windows)
        .await
        .into_iter()
        .map(|done| done.unwrap().token_end)
        .collect();
    let session = stores[0].session(&id).await.unwrap();

    assert_eq!(
        ends, [session.tokens_expire_at; 4],
        "one of them was the first"
    );
    assert_eq!(session.tokens_expire_at, session.refreshed_at + 3600);
    assert_eq!(
        events(&stores[0])
            .await
            .iter()
            .filter(|event| *event == "refreshed")
            .count(),
        1
    );
}

async fn refreshes_are_one_row_a_session_and_day(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let make = async |number| {
        store
            .create(&bound(number, "ada", &key), &terms, DAY)
            .await
            .unwrap()
            .session
            .id
    };
    let (one, two) = (make(1).await, make(2).await);
    for now in [
        DAY + 1,
        DAY + 40_000,
        2 * DAY - 1,
        2 * DAY,
        2 * DAY + 1,
        5 * DAY,
    ] {
        store
            .refresh(&one, &key.thumbprint(), "", &terms, now)
            .await
            .unwrap();
        store
            .refresh(&two, &key.thumbprint(), "", &terms, now)
            .await
            .unwrap();
    }

    let rows = "SELECT at FROM audit WHERE event = 'refreshed' ORDER BY at";
    let rows: Vec<i64> = sqlx::query_scalar(rows)
        .fetch_all(&store.pool)
        .await
        .unwrap();
    assert_eq!(rows, [DAY + 1, DAY + 1, 2 * DAY, 2 * DAY, 5 * DAY, 5 * DAY]);
}

async fn a_person_adds_so_many_rows_a_day_and_takes_none_from_others(place: &Location) {
    let reached = Reached::default();
    let store = place.open().await.with_ration(Ration {
        rows: 5,
        reached: reached.clone(),
    });
    let rows = async |user: &UserId| {
        let rows =
            sqlx::query_scalar("SELECT count(*) FROM audit WHERE user_id = $1").bind(user.as_str());
        rows.fetch_one(&store.pool).await.unwrap()
    };
    let make = async |number, subject, now| {
        store
            .create(&approval(number, subject), &terms(), now)
            .await
            .unwrap()
    };
    let ada = make(1, "ada", 1000).await.session;
    for number in 2..5 {
        make(number, "ada", 1000).await;
    }

    store.revoke(&ada.id, &cause("user"), 1001).await.unwrap();
    let refused = AuditRow::proof_refused(&ada.id, "192.0.2.7");
    store.record(refused, 1001).await.unwrap();
    let told: i64 = rows(&ada.user).await;
    assert_eq!((told, reached.times("VVS_SESSIONS_AUDITS_PER_DAY")), (5, 5));
    assert!(
        store.session(&ada.id).await.unwrap().revoked_at.is_some(),
        "what happens does not depend on it"
    );

    let bob = make(6, "bob", 1001).await.session;
    assert_eq!(rows(&bob.user).await, 2);

    for _ in 0..7 {
        store
            .record(AuditRow::new(Event::Denied), 1001)
            .await
            .unwrap();
    }

    assert_eq!(rows(&UserId::known(String::new())).await, 5);

    make(7, "ada", 1000 + DAY).await;
    assert_eq!(rows(&ada.user).await, 7);
}

async fn two_refreshes_at_once_both_have_a_token(place: &Location) {
    let (one, two) = (place.open().await, place.open().await);
    let (key, terms) = (device_key(), terms());
    let id = one
        .create(&bound(1, "ada", &key), &terms, 1000)
        .await
        .unwrap()
        .session
        .id;
    let thumbprint = key.thumbprint();
    for now in 1001..1011 {
        let (first, second) = tokio::join!(
            one.refresh(&id, &thumbprint, "", &terms, now),
            two.refresh(&id, &thumbprint, "", &terms, now + 1)
        );
        assert!(first.is_ok() && second.is_ok());
    }

    assert_eq!(
        one.session(&id).await.unwrap().tokens_expire_at,
        1011 + 3600
    );
    assert_eq!(
        events(&one)
            .await
            .iter()
            .filter(|event| *event == "activated")
            .count(),
        1
    );
}

async fn a_refresh_is_for_the_key_of_the_session(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let session = store
        .create(&bound(1, "ada", &key), &terms, 1000)
        .await
        .unwrap()
        .session;
    let stranger = device_key().thumbprint();
    let refused = store
        .refresh(&session.id, &stranger, "", &terms, 1001)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::KeyMismatch(_)));
    assert_eq!(
        store.session(&session.id).await.unwrap(),
        session,
        "it was changed anyway"
    );

    let bearer = store
        .create(&approval(2, "ada"), &terms, 1000)
        .await
        .unwrap()
        .session
        .id;
    assert!(matches!(
        store.refresh(&bearer, &stranger, "", &terms, 1001).await,
        Err(Error::KeyMismatch(_))
    ));

    let nobody = "ses_x".parse().unwrap();
    assert!(matches!(
        store.refresh(&nobody, &stranger, "", &terms, 1001).await,
        Err(Error::SessionUnknown(_))
    ));
}

async fn a_session_that_is_over_is_not_refreshed(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (
        device_key(),
        Terms {
            idle_ttl: 100,
            max_ttl: 150,
            ..terms()
        },
    );
    let make = async |number| {
        store
            .create(&bound(number, "ada", &key), &terms, 1000)
            .await
            .unwrap()
            .session
            .id
    };
    let (idle, used, revoked, stale) = (make(1).await, make(2).await, make(3).await, make(4).await);
    let refresh =
        async |id: &SessionId, now| store.refresh(id, &key.thumbprint(), "", &terms, now).await;
    refresh(&idle, 1010).await.unwrap();
    assert!(matches!(
        refresh(&idle, 1110).await,
        Err(Error::SessionExpired(_))
    ));

    refresh(&used, 1090).await.unwrap();
    assert_eq!(refresh(&used, 1149).await.unwrap().session.expires_at, 1150);
    assert!(matches!(
        refresh(&used, 1150).await,
        Err(Error::SessionExpired(_))
    ));

    store.revoke(&revoked, &cause("user"), 1020).await.unwrap();
    assert!(matches!(
        refresh(&revoked, 1021).await,
        Err(Error::SessionRevoked(_))
    ));

    let terms = Terms {
        pending_ttl: 20,
        ..terms.clone()
    };
    assert!(matches!(
        store
            .refresh(&stale, &key.thumbprint(), "", &terms, 1020)
            .await,
        Err(Error::SessionUnknown(_))
    ));
}

async fn a_live_session_is_listed_the_last_used_first(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let mut ids = Vec::new();
    for number in 0..5 {
        let made = store
            .create(&bound(number, "ada", &key), &terms, 1000)
            .await
            .unwrap()
            .session;
        ids.push(made.id.clone());
    }

    store
        .create(&approval(9, "bob"), &terms, 1000)
        .await
        .unwrap();
    let user = store.session(&ids[0]).await.unwrap().user;
    for (id, now) in [
        (&ids[0], 1001),
        (&ids[2], 1003),
        (&ids[1], 1002),
        (&ids[3], 1004),
    ] {
        store
            .refresh(id, &key.thumbprint(), "", &terms, now)
            .await
            .unwrap();
    }

    store.revoke(&ids[3], &cause("user"), 1005).await.unwrap();
    let listed = async |now| {
        store
            .sessions_of(&user, &terms, now)
            .await
            .unwrap()
            .into_iter()
            .map(|session| session.id)
            .collect::<Vec<_>>()
    };
    let lasting = [ids[2].clone(), ids[1].clone(), ids[0].clone()];
    assert_eq!(listed(1000 + 5400).await, lasting);
    assert_eq!(listed(1001 + 2_592_000).await, lasting[..2]);

    // Behind them what still waits for its editor, the newest first.
    let newer = store
        .create(&bound(5, "ada", &key), &terms, 1010)
        .await
        .unwrap()
        .session
        .id;
    let and = |waiting: &[&SessionId]| {
        lasting
            .iter()
            .chain(waiting.iter().copied())
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(1000 + 5399).await, and(&[&newer, &ids[4]]));
    assert_eq!(listed(1000 + 5400).await, and(&[&newer]));

    store.revoke(&newer, &cause("burned"), 1011).await.unwrap();
    assert_eq!(listed(1000 + 5399).await, and(&[&ids[4]]));
}

async fn the_oldest_session_that_waits_for_its_editor_is_known(place: &Location) {
    let store = place.open().await;
    assert_eq!(store.oldest_pending().await.unwrap(), None);

    let mut ids = Vec::new();
    for (number, now) in [(1, 800), (2, 900), (3, 1000), (4, 1001)] {
        ids.push(
            store
                .create(&approval(number, "ada"), &terms(), now)
                .await
                .unwrap()
                .session
                .id,
        );
    }

    store.activate(&ids[0], "", &terms(), 1002).await.unwrap();
    store.revoke(&ids[1], &cause("burned"), 1002).await.unwrap();
    assert_eq!(store.oldest_pending().await.unwrap(), Some(1000));
}

async fn however_many_wait_for_their_editor_a_used_session_is_listed(place: &Location) {
    let store = place.open().await;
    let used = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    store.activate(&used.id, "", &terms(), 1000).await.unwrap();
    multiply(&store).await;
    sqlx::query(
        "UPDATE sessions SET activated_at = NULL, refreshed_at = 2000 WHERE device_app = ''",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    let listed = store.sessions_of(&used.user, &terms(), 2001).await.unwrap();
    assert_eq!(listed.first().map(|session| &session.id), Some(&used.id));
    assert_eq!(listed.len(), 1000);
}

async fn whatever_ends_a_session_is_in_the_feed_with_the_end_of_its_last_token(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let make = async |number| {
        store
            .create(&bound(number, "ada", &key), &terms, 1000)
            .await
            .unwrap()
            .session
    };
    let (burned, used, other, stale) = (make(1).await, make(2).await, make(3).await, make(4).await);
    store
        .refresh(&used.id, &key.thumbprint(), "", &terms, 2000)
        .await
        .unwrap();
    store.activate(&other.id, "", &terms, 1001).await.unwrap();
    assert!(
        store
            .revoke(&burned.id, &cause("burned"), 1002)
            .await
            .unwrap()
    );
    assert!(
        !store
            .revoke(&burned.id, &cause("again"), 1003)
            .await
            .unwrap()
    );

    let swept_from = 1000 + terms.pending_ttl;
    assert_eq!(store.sweep(&terms, swept_from).await.unwrap(), 1);
    assert_eq!(
        store
            .revoke_all(&Whose::User(used.user.clone()), &cause("everywhere"), 2001)
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        store
            .revoke_all(&Whose::User(used.user.clone()), &cause("everywhere"), 2002)
            .await
            .unwrap(),
        0
    );

    let page = store.revocations(0, 2002).await.unwrap();
    assert!(page.complete);

    let told: Vec<_> = page
        .entries
        .iter()
        .map(|entry| (entry.sequence, entry.reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (1, "burned"),
            (2, "swept"),
            (3, "everywhere"),
            (4, "everywhere")
        ]
    );
    assert_eq!(
        (&page.entries[0].session, &page.entries[1].session),
        (&burned.id, &stale.id)
    );

    let end = |id: &SessionId| {
        page.entries
            .iter()
            .find(|entry| entry.session == *id)
            .unwrap()
            .tokens_expire_at
    };
    assert_eq!((end(&used.id), end(&other.id)), (2000 + 3600, 1000 + 3600));
    assert_eq!(store.feed_ends().await.unwrap(), (4, 0));
    assert_eq!(
        events(&store)
            .await
            .iter()
            .filter(|event| *event == "burned")
            .count(),
        1
    );
    assert_eq!(
        events(&store)
            .await
            .iter()
            .filter(|event| *event == "revoked")
            .count(),
        3
    );
}

async fn a_repeated_approval_does_not_bring_back_what_has_expired(place: &Location) {
    let store = place.open().await;
    let terms = Terms {
        bearer_ttl: 60,
        ..terms()
    };
    let made = store
        .create(&approval(1, "ada"), &terms, 1000)
        .await
        .unwrap()
        .session;
    store.activate(&made.id, "", &terms, 1001).await.unwrap();
    assert_eq!(
        store
            .create(&approval(1, "ada"), &terms, 1059)
            .await
            .unwrap()
            .session
            .id,
        made.id
    );

    let refused = store
        .create(&approval(1, "ada"), &terms, 1060)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::SessionExpired(_)), "{refused}");
}

async fn the_longest_token_counts_when_the_setting_has_become_shorter(place: &Location) {
    let store = place.open().await;
    let (key, shorter) = (
        device_key(),
        Terms {
            token_ttl: 60,
            ..terms()
        },
    );
    let made = store
        .create(&bound(1, "ada", &key), &terms(), 1000)
        .await
        .unwrap()
        .session;
    store
        .create(&bound(1, "ada", &key), &shorter, 1001)
        .await
        .unwrap();
    assert_eq!(
        store.session(&made.id).await.unwrap().tokens_expire_at,
        1000 + 3600
    );

    store
        .refresh(&made.id, &key.thumbprint(), "", &shorter, 1002)
        .await
        .unwrap();
    assert_eq!(
        store.session(&made.id).await.unwrap().tokens_expire_at,
        1000 + 3600
    );
}

async fn a_repeated_approval_does_not_bring_back_what_was_revoked(place: &Location) {
    let store = place.open().await;
    let made = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    store
        .revoke(&made.id, &cause("burned"), 1001)
        .await
        .unwrap();
    assert!(matches!(
        store.create(&approval(1, "ada"), &terms(), 1002).await,
        Err(Error::SessionRevoked(_))
    ));
    assert!(matches!(
        store.activate(&made.id, "", &terms(), 1002).await,
        Err(Error::SessionRevoked(_))
    ));
}

async fn revocations_are_read_in_the_order_of_their_commits(place: &Location) {
    let stores = [place.open().await, place.open().await, place.open().await];
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(
            stores[0]
                .create(&approval(number, "ada"), &terms(), 1000)
                .await
                .unwrap()
                .session
                .id,
        );
    }

    let revoking = async |store: &Store, ids: Vec<SessionId>| {
        for id in ids {
            store.revoke(&id, &cause("user"), 1001).await.unwrap();
        }
    };
    let reading = async {
        let mut seen = Vec::new();
        let mut after = 0;
        while seen.len() < ids.len() {
            let page = stores[2].revocations(after, 1001).await.unwrap();
            after = page.read_to;
            seen.extend(page.entries.into_iter().map(|entry| entry.sequence));
            tokio::task::yield_now().await;
        }
        seen
    };

    let half = |odd: usize| ids.iter().skip(odd).step_by(2).cloned().collect::<Vec<_>>();
    let ((), (), seen) = tokio::join!(
        revoking(&stores[0], half(0)),
        revoking(&stores[1], half(1)),
        reading
    );
    assert_eq!(
        seen,
        (1..=30).collect::<Vec<_>>(),
        "a number came behind a higher one"
    );
}

async fn what_is_over_is_forgotten_and_what_is_not_stays(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let make = async |number| {
        store
            .create(&bound(number, "ada", &key), &terms, 1000)
            .await
            .unwrap()
            .session
            .id
    };
    let (revoked, live) = (make(1).await, make(2).await);
    store.activate(&live, "", &terms, 1001).await.unwrap();
    store.revoke(&revoked, &cause("user"), 1002).await.unwrap();

    let end = 1000 + 3600;
    assert_eq!(
        store.revocations(0, end + 299).await.unwrap().entries.len(),
        1,
        "a clock may be late"
    );
    assert!(
        store
            .revocations(0, end + 300)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert_eq!(store.prune(end + 299).await.unwrap(), 0);
    assert_eq!(store.prune(end + 300).await.unwrap(), 1);
    assert_eq!(store.feed_ends().await.unwrap(), (1, 1));
    assert!(store.revocations(0, 2000).await.unwrap().entries.is_empty());
    assert_eq!(store.delete_dead_sessions(end - 1).await.unwrap(), 0);
    assert_eq!(store.delete_dead_sessions(end).await.unwrap(), 1);
    assert!(matches!(
        store.session(&revoked).await,
        Err(Error::SessionUnknown(_))
    ));
    assert!(store.session(&live).await.is_ok());
    assert_eq!(
        store.delete_dead_sessions(1000 + 2_592_000).await.unwrap(),
        1
    );
    assert_eq!(store.delete_old_audit(1001).await.unwrap(), 5);
    assert_eq!(events(&store).await, ["revoked"]);
}

async fn an_audit_row_says_who_from_where_and_on_what(place: &Location) {
    let store = place.open().await;
    let made = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    store.revoke(&made.id, &cause("user"), 1001).await.unwrap();

    let row = sqlx::query("SELECT * FROM audit WHERE event = 'revoked'")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    let text = |name: &str| row.try_get::<String, _>(name).unwrap();
    assert_eq!(row.try_get::<i64, _>("at").unwrap(), 1001);
    assert_eq!(
        (text("user_id"), text("session_id")),
        (made.user.as_str().to_owned(), made.id.as_str().to_owned())
    );
    assert_eq!(text("connection_id"), approval(1, "ada").connection_id);
    assert_eq!(
        (text("address"), text("device")),
        ("192.0.2.9".into(), "laptop, Linux, VVS 1.0".into())
    );
    assert_eq!(text("reason"), "user");
}

async fn two_first_starts_at_once_make_one_schema(place: &Location) {
    let (one, two) = tokio::join!(place.open(), place.open());
    one.create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap();
    assert!(
        !two.create(&approval(1, "ada"), &terms(), 1000)
            .await
            .unwrap()
            .new
    );
}

on_both_databases! {
    a_repeat_gives_the_same_session
    two_calls_at_once_make_one_session
    a_request_id_is_not_good_for_somebody_else
    a_user_keeps_the_id_and_takes_the_new_profile
    only_what_nobody_activated_in_time_is_swept
    one_sweep_is_bounded_and_the_next_goes_on
    a_sweep_finds_what_is_stale_among_much_that_is_not
    the_first_activation_counts
    several_are_activated_at_once_and_those_that_are_over_keep_none_from_it
    a_pending_session_is_over_before_the_sweep_finds_it
    an_expired_session_is_not_activated
    what_was_answered_is_there_after_a_restart
    a_newer_schema_is_refused
    a_database_from_before_knows_its_keys_and_has_asked_about_nobody_since
    a_key_that_an_older_program_has_added_is_known_and_stays_known
    a_changed_migration_is_refused
    a_request_id_is_not_good_for_another_key
    a_refresh_prolongs_activates_and_notes_the_address
    behind_a_refresh_each_one_has_a_token_that_ends_like_its_and_nothing_is_written
    of_windows_that_refresh_at_once_one_prolongs_and_all_have_a_token
    refreshes_are_one_row_a_session_and_day
    a_person_adds_so_many_rows_a_day_and_takes_none_from_others
    two_refreshes_at_once_both_have_a_token
    a_refresh_is_for_the_key_of_the_session
    a_session_that_is_over_is_not_refreshed
    a_live_session_is_listed_the_last_used_first
    whatever_ends_a_session_is_in_the_feed_with_the_end_of_its_last_token
    a_repeated_approval_does_not_bring_back_what_was_revoked
    a_repeated_approval_does_not_bring_back_what_has_expired
    the_longest_token_counts_when_the_setting_has_become_shorter
    the_oldest_session_that_waits_for_its_editor_is_known
    however_many_wait_for_their_editor_a_used_session_is_listed
    revocations_are_read_in_the_order_of_their_commits
    what_is_over_is_forgotten_and_what_is_not_stays
    an_audit_row_says_who_from_where_and_on_what
}

#[tokio::test]
async fn two_first_starts_of_replicas_at_once_make_one_schema() {
    two_first_starts_at_once_make_one_schema(&Location::server().await).await;
}
