//! A database that is locked, full, busy, gone or away.

use super::*;

#[tokio::test]
async fn a_locked_database_loses_nothing() {
    let place = Location::new();
    let bench = bench(&place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench.execute("PRAGMA busy_timeout = 0").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.file());
    let mut other = options.connect().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    bench.down(
        &bench.create(request(2, "bob")).await.unwrap_err(),
        "locked",
    );
    bench.down(&bench.activate(&id).await.unwrap_err(), "locked");

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(bench.left().await, (1, 1));

    bench.create(request(2, "bob")).await.unwrap();
    bench.activate(&id).await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_written_loses_nothing() {
    let place = Location::new();
    let bench = bench(&place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench.execute("PRAGMA query_only = ON").await;
    bench.down(
        &bench.create(request(2, "bob")).await.unwrap_err(),
        "read_only",
    );
    bench.down(&bench.activate(&id).await.unwrap_err(), "read_only");

    bench.execute("PRAGMA query_only = OFF").await;
    assert_eq!(bench.left().await, (1, 1));

    bench.create(request(2, "bob")).await.unwrap();
    bench.activate(&id).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let place = Location::new();
    let bench = bench(&place).await;

    // No page more than there is: users still fit in theirs when sessions, which are long, do not.
    bench.execute("PRAGMA max_page_count = 1").await;
    let long = |number: u32| {
        let mut request = request(number, &format!("user {number}"));
        request.app.get_or_insert_default().name = "app".repeat(85);
        request
    };
    let mut made = 0;
    let told = loop {
        match bench.create(long(made)).await {
            Ok(_) => made += 1,
            Err(told) => break told,
        }
    };

    bench.down(&told, "full");
    assert_eq!(bench.left().await, (made.into(), made.into()));

    bench.execute("PRAGMA max_page_count = 1000000").await;
    bench.create(long(made)).await.unwrap();
    assert_eq!(
        bench.left().await,
        (i64::from(made) + 1, i64::from(made) + 1)
    );
}

#[tokio::test]
async fn a_database_file_that_is_gone_is_missed_and_not_replaced() {
    let place = Location::new();
    let bench = bench(&place).await;
    let (session, _) = bench.create(request(1, "ada")).await.unwrap();
    let away = place.file().with_extension("away");
    std::fs::rename(place.file(), &away).unwrap();
    bench.down(
        &bench.create(request(2, "bob")).await.unwrap_err(),
        "missing",
    );
    assert!(!place.file().exists());

    std::fs::rename(&away, place.file()).unwrap();
    assert_eq!(bench.create(request(1, "ada")).await.unwrap().0, session);
    assert_eq!(bench.left().await, (1, 1));
}

#[tokio::test]
async fn a_database_that_is_always_busy_is_not_waited_for_without_end() {
    let place = Location::new();
    let bench = bench(&place).await;
    let held = bench.service.store.pool().acquire().await.unwrap();
    tokio::time::pause();
    let asked = tokio::time::Instant::now();
    let told = bench.create(request(1, "ada")).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(5));

    tokio::time::resume();
    bench.down(&told, "busy");

    drop(held);
    bench.create(request(1, "ada")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_is_an_outage_and_loses_nothing() {
    let cluster = Postgres::start().await;
    let place = Location::Server(cluster.database().await);
    let bench = bench(&place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    let mut stream = bench.watch(0).await.unwrap();
    assert_eq!(next(&mut stream).await, caught_up(0));

    cluster.stop();
    let told = bench.activate(&id).await.unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "DATABASE_DOWN")
    );

    cluster.resume().await;
    bench.activate(&id).await.unwrap();

    cluster.freeze();
    let told = bench.create(request(2, "bob")).await.unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "DATABASE_DOWN")
    );
    assert!(!format!("{told:?}").contains(PASSWORD));

    cluster.thaw();
    bench.create(request(2, "bob")).await.unwrap();

    bench
        .revoke(revocation(&id, RevocationReason::SignedOutByUser))
        .await
        .unwrap();
    let heard = next_change(&mut stream).await;

    assert_eq!(revoked(heard), (1, id, RevocationReason::SignedOutByUser));
}
