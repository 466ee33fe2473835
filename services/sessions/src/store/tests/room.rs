//! How many sessions one user may have, and which one gives way.

use super::*;
use crate::session::DAY;

/// Two live sessions, of which one may wait.
fn small() -> Terms {
    Terms {
        max_live: 2,
        max_pending: 1,
        ..terms()
    }
}

async fn make(store: &Store, number: u32, subject: &str, terms: &Terms, now: Seconds) -> SessionId {
    let id = store
        .create(&approval(number, subject), terms, now)
        .await
        .unwrap()
        .session
        .id;
    store.activate(&id, "", terms, now).await.unwrap();
    id
}

/// Returns why each session in the feed has ended.
async fn ended(store: &Store) -> Vec<(SessionId, String)> {
    let entries = store.revocations(0, 0).await.unwrap().entries;
    entries
        .into_iter()
        .map(|entry| (entry.session, entry.reason))
        .collect()
}

async fn a_user_has_so_many_live_sessions_and_the_next_one_is_refused(place: &Location) {
    let (store, terms) = (place.open().await, small());
    let first = make(&store, 1, "ada", &terms, 1000).await;
    make(&store, 2, "ada", &terms, 1000).await;
    let before = events(&store).await;
    let full = store
        .create(&approval(3, "ada"), &terms, 1000 + 7 * DAY - 1)
        .await
        .unwrap_err();
    assert!(matches!(full, Error::SessionsFull(_)), "{full}");
    assert_eq!(store.ration.reached.times("VVS_SESSIONS_MAX_PER_USER"), 1);
    assert_eq!(
        (events(&store).await, ended(&store).await),
        (before, Vec::new()),
        "something was changed"
    );
    assert!(
        !store
            .create(&approval(1, "ada"), &terms, 1001)
            .await
            .unwrap()
            .new,
        "a repeat takes no place"
    );

    make(&store, 4, "bob", &terms, 1001).await;

    // The same approval again, once there is room.
    store
        .revoke(&first, &cause("signed_out_by_user"), 1002)
        .await
        .unwrap();
    assert!(
        store
            .create(&approval(3, "ada"), &terms, 1003)
            .await
            .unwrap()
            .new
    );
}

async fn the_session_that_was_silent_the_longest_gives_way_and_its_editor_hears_why(
    place: &Location,
) {
    let (store, key, terms) = (
        place.open().await,
        device_key(),
        Terms {
            max_live: 3,
            ..terms()
        },
    );
    let mut ids = Vec::new();
    for number in 1..4 {
        ids.push(
            store
                .create(&bound(number, "ada", &key), &terms, 1000)
                .await
                .unwrap()
                .session
                .id,
        );
    }

    let refresh = async |id: &SessionId, now| {
        store
            .refresh(id, &key.thumbprint(), "", &terms, now)
            .await
            .unwrap()
    };
    refresh(&ids[0], 3000).await;
    refresh(&ids[1], 2000).await;
    refresh(&ids[2], 2500).await;
    refresh(&ids[2], 2000 + 7 * DAY).await;
    let watcher = store.revoked();
    let late = make(&store, 4, "ada", &terms, 2000 + 7 * DAY).await;
    assert_eq!(
        ended(&store).await,
        [(ids[1].clone(), "replaced".to_owned())]
    );
    assert!(watcher.has_changed().unwrap(), "nobody was woken");

    let full = store
        .create(&approval(5, "ada"), &terms, 2999 + 7 * DAY)
        .await
        .unwrap_err();
    assert!(matches!(full, Error::SessionsFull(_)), "{full}");

    make(&store, 6, "ada", &terms, 3000 + 7 * DAY).await;
    let over: Vec<_> = ended(&store).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(over, [ids[1].clone(), ids[0].clone()]);
    assert!(store.session(&late).await.unwrap().revoked_at.is_none());

    let row = "SELECT reason FROM audit WHERE event = 'revoked' ORDER BY at LIMIT 1";
    let reason: String = sqlx::query_scalar(row)
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!(reason, "replaced");
}

async fn what_is_over_or_waits_no_more_takes_no_room(place: &Location) {
    let (store, terms) = (
        place.open().await,
        Terms {
            max_live: 2,
            ..terms()
        },
    );
    let brief = Terms {
        bearer_ttl: 100,
        ..terms.clone()
    };
    make(&store, 1, "ada", &brief, 1000).await;
    let waiting = store
        .create(&approval(2, "ada"), &terms, 1000)
        .await
        .unwrap()
        .session
        .id;
    assert!(matches!(
        store.create(&approval(3, "ada"), &terms, 1099).await,
        Err(Error::SessionsFull(_))
    ));

    make(&store, 3, "ada", &terms, 1100).await;
    assert!(matches!(
        store.create(&approval(4, "ada"), &terms, 1000 + 5399).await,
        Err(Error::SessionsFull(_))
    ));

    make(&store, 4, "ada", &terms, 1000 + 5400).await;
    assert!(
        store.session(&waiting).await.is_ok(),
        "the sweep is yet to find it"
    );
}

async fn a_user_has_so_many_sessions_that_wait_and_the_newest_is_refused(place: &Location) {
    let (store, terms) = (
        place.open().await,
        Terms {
            max_pending: 2,
            ..terms()
        },
    );
    let first = store
        .create(&approval(1, "ada"), &terms, 1000)
        .await
        .unwrap()
        .session
        .id;
    store
        .create(&approval(2, "ada"), &terms, 1000)
        .await
        .unwrap();
    let full = store
        .create(&approval(3, "ada"), &terms, 1001)
        .await
        .unwrap_err();
    assert!(matches!(full, Error::PendingFull(_)), "{full}");
    assert_eq!(
        store
            .ration
            .reached
            .times("VVS_SESSIONS_MAX_PENDING_PER_USER"),
        1
    );

    store
        .create(&approval(4, "bob"), &terms, 1001)
        .await
        .unwrap();
    store.activate(&first, "", &terms, 1002).await.unwrap();
    assert!(
        store
            .create(&approval(3, "ada"), &terms, 1003)
            .await
            .unwrap()
            .new
    );
}

async fn without_a_bound_there_are_as_many_as_there_are(place: &Location) {
    let (store, terms) = (
        place.open().await,
        Terms {
            max_live: 0,
            ..small()
        },
    );
    for number in 0..5 {
        make(&store, number, "ada", &terms, 1000).await;
    }
    assert_eq!(count(&store, "SELECT count(*) FROM sessions").await, 5);
}

async fn of_two_approvals_at_once_one_gets_the_last_place(place: &Location) {
    let stores = [place.open().await, place.open().await];
    let terms = Terms {
        max_live: 1,
        ..terms()
    };
    for round in 0..10 {
        let subject = format!("user{round}");
        let (one, two) = (
            approval(2 * round, &subject),
            approval(2 * round + 1, &subject),
        );
        let made = tokio::join!(
            stores[0].create(&one, &terms, 1000),
            stores[1].create(&two, &terms, 1000)
        );
        assert!(made.0.is_ok() != made.1.is_ok(), "{made:?}");
        assert!(matches!(made.0.and(made.1), Err(Error::SessionsFull(_))));
    }

    assert_eq!(count(&stores[0], "SELECT count(*) FROM sessions").await, 10);
}

async fn a_session_that_is_refreshed_in_between_does_not_give_way(place: &Location) {
    let (store, terms) = (
        place.open().await,
        Terms {
            max_live: 1,
            ..terms()
        },
    );
    let id = make(&store, 1, "ada", &terms, 1000).await;
    let approval = approval(2, "ada");
    let creating = store.create(&approval, &terms, 1000 + 8 * DAY);
    let full = end::meanwhile(
        place,
        end::SESSIONS,
        "UPDATE sessions SET refreshed_at = 692000",
        creating,
    )
    .await;

    assert!(matches!(full, Err(Error::SessionsFull(_))), "{full:?}");
    assert!(store.session(&id).await.unwrap().revoked_at.is_none());
}

on_both_databases! {
    a_user_has_so_many_live_sessions_and_the_next_one_is_refused
    the_session_that_was_silent_the_longest_gives_way_and_its_editor_hears_why
    what_is_over_or_waits_no_more_takes_no_room
    a_user_has_so_many_sessions_that_wait_and_the_newest_is_refused
    without_a_bound_there_are_as_many_as_there_are
    of_two_approvals_at_once_one_gets_the_last_place
    a_session_that_is_refreshed_in_between_does_not_give_way
}
