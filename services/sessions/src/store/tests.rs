//! The store on a real file, with a clock of its own.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::session::{Identity, RequestId};

/// A directory with one database.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("sessions.db")
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url()).await.unwrap()
    }

    /// What lies on the disk, in whatever file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.0.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

pub(crate) fn terms() -> Terms {
    Terms { issuer: "https://auth.test".into(), audience: "vvs".into(), bearer_ttl: 2_592_000, pending_ttl: 5400 }
}

pub(crate) async fn count(store: &Store, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&store.pool).await.unwrap()
}

fn request(number: u32) -> RequestId {
    format!("00000000-0000-4000-8000-{number:012}").parse().unwrap()
}

fn approval(number: u32, subject: &str) -> Approval {
    let profile = Profile::new(Some("ada@example.com".into()), Some("Ada".into()), None).unwrap();
    Approval {
        request_id: request(number),
        identity: Identity::new("dev".into(), subject.into(), String::new(), profile).unwrap(),
        device: Device::new("laptop".into(), "Linux".into(), "VVS 1.0".into()).unwrap(),
        address: "192.0.2.1".into(),
    }
}

#[tokio::test]
async fn a_repeat_gives_the_same_session() {
    let place = Place::new();
    let store = place.open().await;
    let first = store.create(&approval(1, "ada"), &terms(), 1000).await.unwrap();
    let again = store.create(&approval(1, "ada"), &terms(), 1005).await.unwrap();
    assert!(first.new && !again.new);
    assert_eq!(first.session, again.session);
    assert_eq!((first.session.created_at, first.session.expires_at), (1000, 1000 + 2_592_000));
    assert_eq!(first.session.activated_at, None);
    let other = store.create(&approval(2, "ada"), &terms(), 1005).await.unwrap();
    assert_ne!(other.session.id, first.session.id);
    assert_eq!(other.session.user, first.session.user);
}

#[tokio::test]
async fn two_calls_at_once_make_one_session() {
    let place = Place::new();
    let (one, two) = (place.open().await, place.open().await);
    for number in 0..20 {
        let (approval, terms) = (approval(number, "ada"), terms());
        let (first, second) = tokio::join!(one.create(&approval, &terms, 1000), two.create(&approval, &terms, 1000));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.session, second.session);
        assert_ne!(first.new, second.new);
    }
    assert_eq!(count(&one, "SELECT count(*) FROM sessions").await, 20);
}

#[tokio::test]
async fn a_request_id_is_not_good_for_somebody_else() {
    let place = Place::new();
    let store = place.open().await;
    let made = store.create(&approval(1, "ada"), &terms(), 1000).await.unwrap();
    let refused = store.create(&approval(1, "bob"), &terms(), 1001).await.unwrap_err();
    assert!(matches!(refused, Error::RequestClaimed(id) if id == made.session.id));
    assert_eq!(count(&store, "SELECT count(*) FROM users").await, 1, "bob was noted all the same");
}

#[tokio::test]
async fn a_user_keeps_the_id_and_takes_the_new_profile() {
    let place = Place::new();
    let store = place.open().await;
    let first = store.create(&approval(1, "ada"), &terms(), 1000).await.unwrap().session;
    assert_eq!(first.profile.email.as_deref(), Some("ada@example.com"));

    let mut later = approval(2, "ada");
    later.identity.profile = Profile::new(None, Some("Ada L.".into()), Some("https://a.test/a.png".into())).unwrap();
    let second = store.create(&later, &terms(), 2000).await.unwrap().session;
    assert_eq!(second.user, first.user);
    assert_eq!(second.profile, later.identity.profile);

    // The same subject, or the same email, at another provider is another person.
    let mut elsewhere = approval(3, "ada");
    elsewhere.identity.provider = "https://id.test".into();
    assert_ne!(store.create(&elsewhere, &terms(), 2000).await.unwrap().session.user, first.user);
}

#[tokio::test]
async fn only_what_nobody_activated_in_time_is_swept() {
    let place = Place::new();
    let store = place.open().await;
    let [old, young, active] = [(1, 1000), (2, 1001), (3, 1000)];
    let mut ids = Vec::new();
    for (number, now) in [old, young, active] {
        ids.push(store.create(&approval(number, "ada"), &terms(), now).await.unwrap().session.id);
    }
    store.activate(&ids[2], &terms(), 1002).await.unwrap();

    assert_eq!(store.sweep(&terms(), 1000 + 5399).await.unwrap(), 0);
    assert_eq!(store.sweep(&terms(), 1000 + 5400).await.unwrap(), 1);
    assert!(matches!(store.activate(&ids[0], &terms(), 1003).await, Err(Error::SessionUnknown(_))));
    assert!(store.activate(&ids[1], &terms(), 1003).await.is_ok());
    assert!(store.activate(&ids[2], &terms(), 1003).await.is_ok());
}

#[tokio::test]
async fn one_sweep_is_bounded_and_the_next_goes_on() {
    let place = Place::new();
    let store = place.open().await;
    for number in 0..SWEEP_BATCH + 3 {
        store.create(&approval(number, "ada"), &terms(), 1000).await.unwrap();
    }
    assert_eq!(store.sweep(&terms(), 1_000_000).await.unwrap(), u64::from(SWEEP_BATCH));
    assert_eq!(store.sweep(&terms(), 1_000_000).await.unwrap(), 3);
}

#[tokio::test]
async fn the_first_activation_counts() {
    let place = Place::new();
    let store = place.open().await;
    let id = store.create(&approval(1, "ada"), &terms(), 1000).await.unwrap().session.id;
    assert_eq!(store.activate(&id, &terms(), 1010).await.unwrap(), Activated { at: 1010, new: true });
    assert_eq!(store.activate(&id, &terms(), 9999).await.unwrap(), Activated { at: 1010, new: false });
    let again = store.create(&approval(1, "ada"), &terms(), 9999).await.unwrap().session;
    assert_eq!((again.id, again.activated_at), (id, Some(1010)));
}

#[tokio::test]
async fn a_pending_session_is_over_before_the_sweep_finds_it() {
    let place = Place::new();
    let store = place.open().await;
    let stale = store.create(&approval(1, "ada"), &terms(), 1000).await.unwrap().session.id;
    assert!(matches!(store.activate(&stale, &terms(), 1000 + 5400).await, Err(Error::SessionUnknown(_))));

    let fresh = store.create(&approval(1, "ada"), &terms(), 1000 + 5400).await.unwrap();
    assert!(fresh.new);
    assert_ne!(fresh.session.id, stale);
    assert_eq!(store.activate(&fresh.session.id, &terms(), 1000 + 5401).await.unwrap().at, 1000 + 5401);
}

#[tokio::test]
async fn an_expired_session_is_not_activated() {
    let place = Place::new();
    let store = place.open().await;
    let terms = Terms { bearer_ttl: 60, ..terms() };
    let id = store.create(&approval(1, "ada"), &terms, 1000).await.unwrap().session.id;
    assert!(matches!(store.activate(&id, &terms, 1060).await, Err(Error::SessionExpired(_))));
    assert!(store.activate(&id, &terms, 1059).await.is_ok());
    assert!(matches!(store.activate(&id, &terms, 1060).await, Err(Error::SessionExpired(_))));
    assert!(matches!(store.activate(&"ses_x".parse().unwrap(), &terms, 1).await, Err(Error::SessionUnknown(_))));
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let place = Place::new();
    let made = place.open().await.create(&approval(1, "ada"), &terms(), 1000).await.unwrap();
    let again = place.open().await.create(&approval(1, "ada"), &terms(), 1001).await.unwrap();
    assert_eq!(again.session, made.session);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = Place::new();
    let store = place.open().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations SELECT 99, description, installed_on, success, checksum, 0 FROM _sqlx_migrations",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    let refused = Store::open(&place.url()).await.unwrap_err();
    assert!(matches!(refused, Error::NewerSchema { found: 99, known: 1 }));
    assert!(refused.to_string().contains("run a newer program"));
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let place = Place::new();
    let store = place.open().await;
    sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'").execute(&store.pool).await.unwrap();
    assert!(matches!(Store::open(&place.url()).await, Err(Error::Migrate(_))));
}

#[tokio::test]
async fn the_database_is_for_its_owner_only() {
    let place = Place::new();
    let store = place.open().await;
    store.create(&approval(1, "ada"), &terms(), 1000).await.unwrap();
    for file in std::fs::read_dir(place.0.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.path().display());
    }
}

#[tokio::test]
async fn a_commit_is_on_the_disk_before_it_is_answered() {
    let place = Place::new();
    let store = place.open().await;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&store.pool).await.unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.pool).await.unwrap();
    let foreign_keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&store.pool).await.unwrap();
    assert_eq!((synchronous, journal.as_str(), foreign_keys), (2, "wal", 1));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named() {
    let place = Place::new();
    let missing = format!("sqlite:{}/none/sessions.db", place.0.path().display());
    let directory = format!("sqlite:{}", place.0.path().display());
    for url in [missing, directory] {
        let refused = Store::open(&url).await.unwrap_err();
        assert!(matches!(refused, Error::File { .. }));
        assert!(refused.to_string().contains(url.strip_prefix("sqlite:").unwrap()));
    }
}

#[test]
fn a_url_names_a_file_of_sqlite() {
    for (url, path) in [("sqlite:a.db", "a.db"), ("sqlite:///var/a b.db", "/var/a b.db"), ("sqlite://a.db", "a.db")] {
        assert_eq!(file(url).unwrap(), Path::new(path));
    }
    for bad in
        ["", "a.db", "sqlite:", "sqlite::memory:", "sqlite:file:a.db", "sqlite:a.db?mode=memory", "postgres://u:p@h/d"]
    {
        assert!(matches!(file(bad), Err(Error::DatabaseUrl)), "{bad} was taken");
    }
}
