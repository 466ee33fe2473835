//! Refreshes: what they change, and what they write down.

use super::*;

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

    one.revoke(&id, &cause("signed_out_by_user"), 1033)
        .await
        .unwrap();
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

    store
        .revoke(&revoked, &cause("signed_out_by_user"), 1020)
        .await
        .unwrap();
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

on_both_databases! {
    a_refresh_prolongs_activates_and_notes_the_address
    behind_a_refresh_each_one_has_a_token_that_ends_like_its_and_nothing_is_written
    of_windows_that_refresh_at_once_one_prolongs_and_all_have_a_token
    refreshes_are_one_row_a_session_and_day
    two_refreshes_at_once_both_have_a_token
    a_refresh_is_for_the_key_of_the_session
    a_session_that_is_over_is_not_refreshed
}
