//! What those who follow the revocations hear.

use vvs_proto::session::revoke_user_sessions_request::Whose;

use super::*;

async fn a_watcher_hears_what_was_and_then_what_comes(place: &Location) {
    let bench = bench(place).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(bench.create(request(number, "ada")).await.unwrap().0.id);
    }

    bench
        .revoke(revocation(&ids[0], RevocationReason::Logout))
        .await
        .unwrap();
    bench
        .revoke(revocation(&ids[1], RevocationReason::Replaced))
        .await
        .unwrap();
    let mut all = bench.watch(0).await.unwrap();
    let mut later = bench.watch(1).await.unwrap();
    assert_eq!(
        revoked(next(&mut all).await),
        (1, ids[0].clone(), RevocationReason::Logout)
    );

    for stream in [&mut all, &mut later] {
        assert_eq!(
            revoked(next(stream).await),
            (2, ids[1].clone(), RevocationReason::Replaced)
        );
        assert_eq!(next(stream).await, caught_up(2));
    }

    bench
        .revoke(revocation(&ids[2], RevocationReason::UserDeleted))
        .await
        .unwrap();

    for stream in [&mut all, &mut later] {
        assert_eq!(
            revoked(next(stream).await),
            (3, ids[2].clone(), RevocationReason::UserDeleted)
        );
        assert_eq!(next(stream).await, heartbeat(3));
    }

    let gone = bench.watch(4).await.err().unwrap();
    assert_eq!(
        (gone.code(), reason(&gone).as_str()),
        (Code::OutOfRange, "SEQUENCE_GONE")
    );

    bench.stop.cancel();

    // Not like a stream that is complete, so that nobody trusts what it has.
    let draining = |told: &Status| {
        assert_eq!(
            (told.code(), reason(told).as_str()),
            (Code::Unavailable, "DRAINING")
        );
        assert!(told.get_details_retry_info().is_some());
    };
    draining(&all.next().await.unwrap().unwrap_err());
    assert!(all.next().await.is_none());
    draining(&bench.watch(0).await.err().unwrap());
}

async fn a_watcher_hears_at_once_of_more_than_one_reading_returns(place: &Location) {
    let bench = bench(place).await;
    let all = u64::from(PAGE) * 2 + 1;
    let mut user_id = String::new();
    for number in 0..all {
        let session = bench
            .create(request(u32::try_from(number).unwrap(), "ada"))
            .await
            .unwrap()
            .0;
        user_id = session.user.unwrap().id;
    }

    let mut stream = bench.watch(0).await.unwrap();
    assert_eq!(next(&mut stream).await, caught_up(0));

    let request = wire::RevokeUserSessionsRequest {
        whose: Some(Whose::UserId(user_id)),
        reason: RevocationReason::SignedOutByUser.into(),
        ..Default::default()
    };
    bench
        .service
        .revoke_user_sessions(Request::new(request))
        .await
        .unwrap();
    let hearing = async {
        for sequence in 1..=all {
            assert_eq!(revoked(next_change(&mut stream).await).0, sequence);
        }
    };

    // Before the heartbeat that would find them anyway.
    tokio::time::timeout(Duration::from_secs(4), hearing)
        .await
        .unwrap();

    // A snapshot of more than one reading is whole before it is said to be.
    let mut stream = bench.watch(0).await.unwrap();
    for sequence in 1..=all {
        assert_eq!(revoked(next_change(&mut stream).await).0, sequence);
    }

    assert_eq!(next(&mut stream).await, caught_up(all));
}

async fn a_watcher_hears_since_when_no_session_is_pending(place: &Location) {
    let bench = bench(place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench
        .execute("UPDATE sessions SET created_at = created_at - 1000")
        .await;
    let before = clock();
    let mut stream = bench.watch(0).await.unwrap();
    let told = next_message(&mut stream).await;
    assert_eq!(told.event, Some(Event::CaughtUp(CaughtUp {})));
    let since = told.pending_since.unwrap();
    assert!((before - 1002..before - 998).contains(&since.seconds));

    bench.activate(&id).await.unwrap();
    let told = next_message(&mut stream).await;
    assert_eq!(told.event, Some(Event::Heartbeat(Heartbeat {})));
    let since = told.pending_since.unwrap();
    assert!(since.seconds > before - 100 && since.seconds < clock() - 4);

    // One that has just been made is not the youngest whose commit may still be to come.
    let young = bench.create(request(2, "ada")).await.unwrap().0.id;
    let mut stream = bench.watch(0).await.unwrap();
    let told = next_message(&mut stream).await;
    assert_eq!(told.event, Some(Event::CaughtUp(CaughtUp {})));
    let since = told.pending_since.unwrap();
    assert!(since.seconds > before - 100 && since.seconds < clock() - 4);

    // A revocation says nothing about the others, but whose session it was.
    let user = bench.get(&young).await.unwrap().user.unwrap().id;
    bench
        .revoke(revocation(&young, RevocationReason::Logout))
        .await
        .unwrap();
    let told = loop {
        let told = next_message(&mut stream).await;
        if let Some(Event::Revocation(entry)) = told.event {
            break (entry.user_id, told.pending_since);
        }
    };
    assert_eq!(told, (user, None));
}

async fn a_watcher_that_has_missed_too_much_starts_again(place: &Location) {
    let bench = bench(place).await;
    for number in 0..3 {
        let id = bench.create(request(number, "ada")).await.unwrap().0.id;
        bench
            .revoke(revocation(&id, RevocationReason::SignedOutByUser))
            .await
            .unwrap();
    }

    bench
        .execute("UPDATE revocations SET tokens_expire_at = 0 WHERE sequence = 2")
        .await;
    bench.service.store.prune(clock()).await.unwrap();
    assert_eq!(
        reason(&bench.watch(1).await.err().unwrap()),
        "SEQUENCE_GONE"
    );

    let mut stream = bench.watch(0).await.unwrap();
    assert_eq!(
        [
            revoked(next(&mut stream).await).0,
            revoked(next(&mut stream).await).0
        ],
        [1, 3]
    );
    assert_eq!(next(&mut stream).await, caught_up(3));

    // That something older goes later does not bring it back.
    bench
        .execute("UPDATE revocations SET tokens_expire_at = 0 WHERE sequence = 1")
        .await;
    bench.service.store.prune(clock()).await.unwrap();
    assert_eq!(
        reason(&bench.watch(1).await.err().unwrap()),
        "SEQUENCE_GONE"
    );
    assert!(bench.watch(2).await.is_ok());
}

/// A thousand followers: each reads the existing revocations once, and one reader reads new ones
/// for all of them.
async fn however_many_follow_one_reads(place: &Location) {
    let bench = bench(place).await;
    let reads = || bench.service.counts.feed_reads.get();
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let mut stream = bench.watch(0).await.unwrap();
        assert_eq!(next(&mut stream).await, caught_up(0));
        streams.push(stream);
    }

    let before = reads();
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench
        .revoke(revocation(&id, RevocationReason::SignedOutByUser))
        .await
        .unwrap();

    for stream in &mut streams {
        let heard = next_change(stream).await;
        assert_eq!(revoked(heard).0, 1);
    }

    // The revocation, and a heartbeat or two of a slow machine.
    assert!(
        reads() - before < 100,
        "{} readings for 1,000 followers",
        reads() - before
    );
}

async fn whoever_joins_while_sessions_end_misses_none_and_hears_none_twice(place: &Location) {
    let bench = bench(place).await;
    let mut ids = Vec::new();
    for number in 0..60 {
        ids.push(bench.create(request(number, "ada")).await.unwrap().0.id);
    }

    let ending = async {
        for id in &ids {
            bench
                .revoke(revocation(id, RevocationReason::SignedOutByUser))
                .await
                .unwrap();
        }
    };

    let joining = async {
        let mut streams = Vec::new();
        for _ in 0..30 {
            streams.push(bench.watch(0).await.unwrap());
        }
        streams
    };

    let ((), streams) = tokio::join!(ending, joining);

    for mut stream in streams {
        let mut heard = Vec::new();
        while heard.len() < ids.len() {
            if let Event::Revocation(entry) = next(&mut stream).await.0 {
                heard.push(entry.sequence);
            }
        }

        assert!(heard.iter().copied().eq(1..=60), "{heard:?}");

        // Nothing is left over but heartbeats.
        assert!(matches!(
            next(&mut stream).await,
            (Event::CaughtUp(_) | Event::Heartbeat(_), 60)
        ));
    }
}

async fn whoever_follows_too_slowly_is_ended_and_holds_up_nobody(place: &Location) {
    let bench = bench_with(place, 4).await;
    let mut slow = bench.watch(0).await.unwrap();
    let mut quick = bench.watch(0).await.unwrap();
    assert_eq!(next(&mut slow).await, caught_up(0));
    assert_eq!(next(&mut quick).await, caught_up(0));

    for number in 1..=8 {
        let id = bench.create(request(number, "ada")).await.unwrap().0.id;
        bench
            .revoke(revocation(&id, RevocationReason::SignedOutByUser))
            .await
            .unwrap();
        let heard = next_change(&mut quick).await;
        assert_eq!(revoked(heard).0, u64::from(number));
    }

    let told = slow.next().await.unwrap().unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::ResourceExhausted, "FOLLOWER_SLOW")
    );
    assert!(told.get_details_retry_info().is_some());
    assert!(slow.next().await.is_none());
    assert_eq!(bench.metrics.reached.times("VVS_SESSIONS_FEED_BACKLOG"), 1);

    // It goes on from where it was.
    let mut again = bench.watch(0).await.unwrap();
    assert_eq!(revoked(next(&mut again).await).0, 1);
}

async fn of_too_many_who_begin_to_follow_those_without_a_turn_come_back_and_no_relay_waits(
    place: &Location,
) {
    let bench = bench(place).await;
    let turn = bench.service.feed.hold_turns_of_others().await;
    let begin = || {
        bench
            .service
            .feed
            .follow(Role::Backend, token::WatchRevocationsRequest::default())
    };
    let told = Status::from(begin().await.err().unwrap());
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::ResourceExhausted, "FOLLOWERS_BUSY")
    );
    assert!(told.get_details_retry_info().is_some());
    assert_eq!(
        bench.metrics.reached.times("VVS_SESSIONS_FEED_TURN_TIME"),
        1
    );

    let mut relay = bench.watch(0).await.unwrap();
    assert_eq!(next(&mut relay).await, caught_up(0));

    drop(turn);
    assert!(begin().await.is_ok());
}

async fn a_watcher_of_another_database_starts_again(place: &Location) {
    let elsewhere = Location::new();
    let (here, there) = (bench(place).await, bench(&elsewhere).await);
    let database = async |bench: &Bench| {
        let mut ids = Vec::new();
        let mut stream = bench.watch(0).await.unwrap();
        loop {
            let told = stream.next().await.unwrap().unwrap();
            ids.push(told.database_id);
            if let Some(Event::CaughtUp(_)) = told.event {
                assert_eq!(told.newest_sequence, 1);
                break;
            }
        }

        ids.dedup();
        assert_eq!((ids.len(), ids[0].len()), (1, 22), "{ids:?}");

        ids.remove(0)
    };
    for bench in [&here, &there] {
        let id = bench.create(request(1, "ada")).await.unwrap().0.id;
        bench
            .revoke(revocation(&id, RevocationReason::SignedOutByUser))
            .await
            .unwrap();
    }

    let (ours, theirs) = (database(&here).await, database(&there).await);
    let gone = here.watch_database(1, &theirs).await.err().unwrap();
    assert_eq!(
        (gone.code(), reason(&gone).as_str()),
        (Code::OutOfRange, "SEQUENCE_GONE")
    );

    for (after, id) in [(1, ours.as_str()), (1, ""), (0, theirs.as_str())] {
        assert!(here.watch_database(after, id).await.is_ok(), "{after} {id}");
    }

    // It is the same one after a restart, and another one when an operator has put back an older
    // state.
    assert_eq!(database(&bench(place).await).await, ours);

    here.execute("UPDATE feed SET database_id = ''").await;
    assert_ne!(database(&bench(place).await).await, ours);
}

#[tokio::test]
async fn a_watcher_hears_of_a_revocation_in_another_process() {
    let place = Location::server().await;
    let (here, there) = (bench(&place).await, bench(&place).await);
    let following = here.service.store.clone().follow();
    let id = there.create(request(1, "ada")).await.unwrap().0.id;
    let mut stream = here.watch(0).await.unwrap();
    let mut changed = here.service.store.revoked();
    let work = async {
        assert_eq!(next(&mut stream).await, caught_up(0));

        // Wakes once when it listens.
        changed.changed().await.unwrap();
        there
            .revoke(revocation(&id, RevocationReason::SignedOutByUser))
            .await
            .unwrap();

        // And again when it gets the notice; the heartbeat would find it anyway.
        tokio::time::timeout(Duration::from_secs(20), changed.changed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            revoked(next(&mut stream).await),
            (1, id.clone(), RevocationReason::SignedOutByUser)
        );
    };

    tokio::select! {
        () = following => unreachable!(),
        () = work => {}
    }
}

on_both_databases! {
    a_watcher_hears_what_was_and_then_what_comes
    a_watcher_hears_at_once_of_more_than_one_reading_returns
    a_watcher_that_has_missed_too_much_starts_again
    a_watcher_of_another_database_starts_again
    a_watcher_hears_since_when_no_session_is_pending
    however_many_follow_one_reads
    whoever_joins_while_sessions_end_misses_none_and_hears_none_twice
    whoever_follows_too_slowly_is_ended_and_holds_up_nobody
    of_too_many_who_begin_to_follow_those_without_a_turn_come_back_and_no_relay_waits
}
