//! Whose sessions end, and the result when something else happens in between.

use super::*;
use crate::session::SignIn;

/// Waits until a statement on this database waits for a lock. SQLite has one writer at a time, and
/// the order does not matter there.
pub(crate) async fn somebody_waits(place: &Location, store: &Store) {
    let Location::Server(_) = place else { return };
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND \
        wait_event_type = 'Lock'";
    let waiting = async { while count(store, query).await == 0 {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), waiting)
        .await
        .unwrap();
}

pub(crate) const SESSIONS: &str = "SELECT id FROM sessions FOR UPDATE";
pub(crate) const USERS: &str = "SELECT id FROM users FOR UPDATE";

/// Does something that finds these rows locked, and changed when it gets them.
pub(crate) async fn meanwhile<T>(
    place: &Location,
    rows: &'static str,
    change: &'static str,
    work: impl Future<Output = T>,
) -> T {
    let (other, watcher) = (place.open().await, place.open().await);
    let mut held = other.pool.begin().await.unwrap();

    // Held before they are changed: that alone holds up nobody who only reads them. SQLite has no
    // such thing.
    let begun = if let Location::Server(_) = place {
        rows
    } else {
        change
    };

    sqlx::query(begun).execute(&mut *held).await.unwrap();
    let changing = async {
        somebody_waits(place, &watcher).await;
        assert!(
            sqlx::query(change)
                .execute(&mut *held)
                .await
                .unwrap()
                .rows_affected()
                > 0
        );
        held.commit().await.unwrap();
    };

    tokio::join!(work, changing).0
}

async fn a_revocation_in_between_leaves_no_token_to_a_repeat(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let made = store
        .create(&bound(1, "ada", &key), &terms, 1000)
        .await
        .unwrap()
        .session;
    let approval = bound(1, "ada", &key);
    let repeat = store.create(&approval, &terms, 2000);
    let refused = meanwhile(
        place,
        SESSIONS,
        "UPDATE sessions SET revoked_at = 1999",
        repeat,
    )
    .await
    .unwrap_err();

    assert!(
        matches!(&refused, Error::SessionRevoked(id) if *id == made.id),
        "{refused}"
    );
    assert_eq!(
        store.session(&made.id).await.unwrap().tokens_expire_at,
        made.tokens_expire_at
    );
}

async fn an_activation_in_between_keeps_a_session_that_only_ends_while_pending(place: &Location) {
    let store = place.open().await;
    let made = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    let cause = cause("burned");
    let ending = store.revoke_pending(&made.id, &cause, 1002);

    assert!(
        !meanwhile(
            place,
            SESSIONS,
            "UPDATE sessions SET activated_at = 1001",
            ending
        )
        .await
        .unwrap()
    );
    assert_eq!(store.session(&made.id).await.unwrap().revoked_at, None);
    assert_eq!(store.feed_ends().await.unwrap(), (0, 0));
}

async fn a_revocation_in_between_is_not_prolonged(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let made = store
        .create(&bound(1, "ada", &key), &terms, 1000)
        .await
        .unwrap()
        .session;
    let thumbprint = key.thumbprint();
    let refresh = store.refresh(&made.id, &thumbprint, "", &terms, 2000);
    let refused = meanwhile(
        place,
        SESSIONS,
        "UPDATE sessions SET revoked_at = 1999",
        refresh,
    )
    .await
    .unwrap_err();

    assert!(matches!(refused, Error::SessionRevoked(_)), "{refused}");
    assert_eq!(
        store.session(&made.id).await.unwrap().tokens_expire_at,
        made.tokens_expire_at
    );
}

async fn only_what_is_pending_ends_when_only_that_is_to(place: &Location) {
    let store = place.open().await;
    let make = async |number| {
        store
            .create(&approval(number, "ada"), &terms(), 1000)
            .await
            .unwrap()
            .session
            .id
    };
    let (pending, active) = (make(1).await, make(2).await);
    store.activate(&active, "", &terms(), 1001).await.unwrap();
    assert!(
        !store
            .revoke_pending(&active, &cause("burned"), 1002)
            .await
            .unwrap()
    );
    assert!(
        store
            .revoke_pending(&pending, &cause("burned"), 1002)
            .await
            .unwrap()
    );
    assert!(
        !store
            .revoke_pending(&pending, &cause("burned"), 1003)
            .await
            .unwrap()
    );
    assert_eq!(store.session(&active).await.unwrap().revoked_at, None);

    // Unlike what is swept it stays, so that its editor hears why.
    assert_eq!(
        store.session(&pending).await.unwrap().revoked_at,
        Some(1002)
    );

    let told = store.revocations(0, 1003).await.unwrap().entries;
    assert_eq!(
        told.iter()
            .map(|end| (&end.session, end.reason.as_str()))
            .collect::<Vec<_>>(),
        [(&pending, "burned")]
    );
}

async fn a_sign_in_at_the_provider_ends_what_was_approved_with_it_and_nothing_else(
    place: &Location,
) {
    let store = place.open().await;
    let make = async |number, provider: &str, subject: &str, sign_in: &str| {
        let mut approval = approval(number, subject);
        approval.identity.provider = provider.into();
        approval.identity.provider_session = sign_in.into();
        store
            .create(&approval, &terms(), 1000)
            .await
            .unwrap()
            .session
            .id
    };
    let active = make(1, "https://id.test", "ada", "s1").await;
    store.activate(&active, "", &terms(), 1001).await.unwrap();
    let pending = make(2, "https://id.test", "ada", "s1").await;
    let other_person = make(3, "https://id.test", "bob", "s1").await;
    let other_sign_in = make(4, "https://id.test", "ada", "s2").await;
    let elsewhere = make(5, "https://other.test", "ada", "s1").await;
    let none = make(6, "https://id.test", "ada", "").await;
    let end = async |subject: &str, now| {
        let sign_in = SignIn::new("https://id.test".into(), subject.into(), "s1".into()).unwrap();
        store
            .revoke_all(
                &Whose::SignIn(sign_in),
                &cause("signed_out_at_provider"),
                now,
            )
            .await
            .unwrap()
    };
    let ended = async || {
        let page = store.revocations(0, 1010).await.unwrap().entries;
        page.into_iter().map(|end| end.session).collect::<Vec<_>>()
    };
    let has_ended = |ended: &[SessionId], all: &[&SessionId]| {
        ended.len() == all.len() && all.iter().all(|id| ended.contains(id))
    };
    assert_eq!(end("eve", 1002).await, 0);
    assert_eq!(end("ada", 1000 + 2_592_000).await, 0, "they were over");
    assert!(ended().await.is_empty());
    assert_eq!(end("ada", 1003).await, 2);
    assert!(has_ended(&ended().await, &[&active, &pending]));
    assert_eq!(end("", 1004).await, 1);
    assert!(has_ended(
        &ended().await,
        &[&active, &pending, &other_person]
    ));

    for id in [&other_sign_in, &elsewhere, &none] {
        assert_eq!(store.session(id).await.unwrap().revoked_at, None);
    }
}

async fn all_sessions_of_a_user_end_and_nobody_elses(place: &Location) {
    let store = place.open().await;
    let make = async |number, subject: &str| {
        store
            .create(&approval(number, subject), &terms(), 1000)
            .await
            .unwrap()
    };
    let (pending, other) = (make(1, "ada").await.session, make(2, "bob").await.session);
    let whose = Whose::User(pending.user);

    assert_eq!(
        store
            .revoke_all(&whose, &cause("signed_out_by_user"), 1000 + 2_592_000)
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        store.session(&pending.id).await.unwrap().revoked_at,
        None,
        "it was over already"
    );
    assert_eq!(
        store
            .revoke_all(&whose, &cause("signed_out_by_user"), 1001)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        store
            .revoke_all(&whose, &cause("signed_out_by_user"), 1002)
            .await
            .unwrap(),
        0,
        "it ended twice"
    );
    assert_eq!(
        store.session(&pending.id).await.unwrap().revoked_at,
        Some(1001)
    );
    assert_eq!(store.session(&other.id).await.unwrap().revoked_at, None);
}

/// Sessions of a user in the order of their creation: the first of them by its id is not the first.
async fn in_disorder(
    store: &Store,
    subject: &str,
    numbers: std::ops::Range<u32>,
) -> (UserId, Vec<SessionId>) {
    let (mut ids, mut user) = (Vec::new(), None);
    for number in numbers {
        let made = store
            .create(&approval(number, subject), &terms(), 1000)
            .await
            .unwrap()
            .session;
        ids.push(made.id);
        user = Some(made.user);
        if ids.len() > 7 && ids.iter().min() != ids.first() {
            break;
        }
    }

    (user.unwrap(), ids)
}

/// Does something that finds the first of these locked.
async fn holds_none_meanwhile<T>(
    place: &Location,
    ids: &[SessionId],
    work: impl Future<Output = T>,
) -> T {
    let (other, watcher) = (place.open().await, place.open().await);
    let mut held = other.pool.begin().await.unwrap();
    let first = sqlx::query("SELECT id FROM sessions WHERE id = $1 FOR UPDATE")
        .bind(ids.iter().min().unwrap().as_str());
    first.execute(&mut *held).await.unwrap();
    let taking_the_others = async {
        somebody_waits(place, &watcher).await;
        sqlx::query("SELECT id FROM sessions FOR UPDATE NOWAIT")
            .execute(&mut *held)
            .await
            .unwrap();
        held.commit().await.unwrap();
    };

    tokio::join!(work, taking_the_others).0
}

#[tokio::test]
async fn whoever_changes_several_sessions_holds_none_while_waiting_for_the_first() {
    let cluster = Postgres::start().await;
    let place = Location::Server(cluster.database().await);
    let store = place.open().await;
    let (user, ids) = in_disorder(&store, "ada", 0..100).await;
    let (whose, cause) = (Whose::User(user), cause("signed_out_by_user"));
    let revoking = store.revoke_all(&whose, &cause, 1001);
    assert_eq!(
        holds_none_meanwhile(&place, &ids, revoking).await.unwrap() as usize,
        ids.len()
    );

    let (_, ids) = in_disorder(&store, "bob", 100..200).await;
    let (sessions, terms) = (
        ids.iter().map(|id| (id.clone(), String::new())).collect(),
        terms(),
    );
    let activating = store.activate_all(sessions, &terms, 1001);
    assert_eq!(
        holds_none_meanwhile(&place, &ids, activating)
            .await
            .unwrap()
            .len(),
        ids.len()
    );
}

on_both_databases! {
    a_revocation_in_between_leaves_no_token_to_a_repeat
    an_activation_in_between_keeps_a_session_that_only_ends_while_pending
    a_revocation_in_between_is_not_prolonged
    only_what_is_pending_ends_when_only_that_is_to
    a_sign_in_at_the_provider_ends_what_was_approved_with_it_and_nothing_else
    all_sessions_of_a_user_end_and_nobody_elses
}
