//! What is revoked, in the order of its commits, and how long that is remembered.

use super::*;

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
            .revoke(&burned.id, &cause("logout"), 1003)
            .await
            .unwrap()
    );

    let swept_from = 1000 + terms.pending_ttl;
    assert_eq!(store.sweep(&terms, swept_from).await.unwrap(), 1);
    assert_eq!(
        store
            .revoke_all(
                &Whose::User(used.user.clone()),
                &cause("user_deleted"),
                2001
            )
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        store
            .revoke_all(
                &Whose::User(used.user.clone()),
                &cause("user_deleted"),
                2002
            )
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
            (3, "user_deleted"),
            (4, "user_deleted")
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
            store
                .revoke(&id, &cause("signed_out_by_user"), 1001)
                .await
                .unwrap();
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
    store
        .revoke(&revoked, &cause("signed_out_by_user"), 1002)
        .await
        .unwrap();

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

on_both_databases! {
    whatever_ends_a_session_is_in_the_feed_with_the_end_of_its_last_token
    a_repeated_approval_does_not_bring_back_what_was_revoked
    a_repeated_approval_does_not_bring_back_what_has_expired
    the_longest_token_counts_when_the_setting_has_become_shorter
    revocations_are_read_in_the_order_of_their_commits
    what_is_over_is_forgotten_and_what_is_not_stays
}
