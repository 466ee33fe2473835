//! The database at the start of a process: its schema, its file, and who may read it.

use super::*;

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
    let ada = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    store.revoke(&ada.id, &cause("logout"), 1001).await.unwrap();
    let deleted = "INSERT INTO revocations (sequence, session_id, reason, tokens_expire_at) VALUES \
        (2, 'ses_x', 'logout', 9999999)";
    for sql in [deleted, "UPDATE feed SET newest = 2"] {
        sqlx::query(sql).execute(&store.pool).await.unwrap();
    }
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
        "ALTER TABLE sessions DROP COLUMN device_app_version",
        "ALTER TABLE revocations DROP COLUMN user_id",
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

    // Its app is one text, and its revocation has a user only while there is a session.
    let session = store.session(&ada.id).await.unwrap();
    assert_eq!(
        (&*session.device.app, &*session.device.app_version),
        ("VVS", "")
    );

    let page = store.revocations(0, 1002).await.unwrap();
    let users: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.user.as_str())
        .collect();
    assert_eq!(users, [ada.user.as_str(), ""]);
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

#[tokio::test]
async fn two_first_starts_of_replicas_at_once_make_one_schema() {
    two_first_starts_at_once_make_one_schema(&Location::server().await).await;
}

on_both_databases! {
    what_was_answered_is_there_after_a_restart
    a_newer_schema_is_refused
    a_database_from_before_knows_its_keys_and_has_asked_about_nobody_since
    a_key_that_an_older_program_has_added_is_known_and_stays_known
    a_changed_migration_is_refused
}
