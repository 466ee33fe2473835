//! A relay's knowledge and calls, against a scripted sessions role, with a clock that the tests
//! advance.

use std::task::Poll;

use futures_util::future::join_all;
use futures_util::poll;
use tokio::time::sleep;
use tonic::Code;

use vvs_proto::types::ErrorReason;

use super::fake::{ADDRESS, Fake, Key, claims, now, terms};
use super::*;

const DOWN: Option<(Code, &str)> = Some((Code::Unavailable, "DATABASE_DOWN"));

async fn reason(watch: &mut Watch) -> Arc<str> {
    std::future::poll_fn(|cx| watch.poll(cx)).await
}

fn wish(session_id: &str) -> Refresh {
    Refresh {
        session_id: session_id.to_owned(),
        proof: Secret::new("proof"),
        nonce: "nonce".to_owned(),
        token: None,
        key_id: String::new(),
        address: ADDRESS,
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_is_ready_with_keys_and_a_whole_snapshot_and_stays_so() {
    let fake = Fake::default();
    fake.script()
        .refusals
        .insert("GetSigningKeys", (Code::Unavailable, "DATABASE_DOWN"));
    let authority = fake.authority(terms());
    let token = fake.sign(&claims("ses_1", Some(&Key::new())));
    let check = || authority.check_token(token.expose(), now());
    sleep(Duration::from_mins(1)).await;
    assert!(poll!(Box::pin(authority.ready())).is_pending(), "no keys");
    assert_eq!(check(), Err(Untrusted::NotReady));

    {
        let mut script = fake.script();
        script.refusals.clear();
        script.never_caught_up = true;
    }
    fake.cut_off();
    let half = fake.authority(terms());
    sleep(Duration::from_mins(1)).await;
    assert!(
        poll!(Box::pin(half.ready())).is_pending(),
        "half a snapshot"
    );
    assert_eq!(
        half.check_token(token.expose(), now()),
        Err(Untrusted::NotReady)
    );

    fake.script().never_caught_up = false;
    authority.ready().await;
    half.ready().await;
    assert!(check().is_ok());

    fake.script().down = DOWN;
    fake.cut_off();
    sleep(Duration::from_hours(5)).await;
    assert!(poll!(Box::pin(authority.ready())).is_ready());
    assert!(check().is_ok(), "an outage of sessions signs nobody out");
}

#[tokio::test(start_paused = true)]
async fn a_good_token_costs_sessions_nothing() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let before = fake.script().calls.len();
    for number in 0..1000 {
        let claims = claims(&format!("ses_{number}"), Some(&Key::new()));
        let shown = authority
            .check_token(fake.sign(&claims).expose(), now())
            .unwrap();
        authority.shown(&shown, ADDRESS, now());
        assert_eq!(shown, claims);
    }

    fake.settle().await;
    assert_eq!(fake.script().calls.len(), before);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_has_the_keys_fetched_once_in_a_while_however_many_ask() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.rotate();
    let token = fake.sign(&claims("ses_1", None));
    let unknown = Err(Untrusted::Bad(Distrust::UnknownKey));
    let fetched = fake.called("GetSigningKeys");
    for _ in 0..1000 {
        assert_eq!(authority.check_token(token.expose(), now()), unknown);
        sleep(Duration::from_millis(1)).await;
    }

    assert_eq!(
        fake.called("GetSigningKeys"),
        fetched,
        "the last fetch was within the pause"
    );

    sleep(Duration::from_secs(10)).await;
    assert!(authority.check_token(token.expose(), now()).is_ok());
    assert_eq!(fake.called("GetSigningKeys"), fetched + 1);

    // A key that nobody has.
    fake.rotate();
    let foreign = fake.sign(&claims("ses_1", None));
    fake.script().keys.pop();
    for _ in 0..600 {
        assert_eq!(authority.check_token(foreign.expose(), now()), unknown);
        sleep(Duration::from_millis(100)).await;
    }

    let more = fake.called("GetSigningKeys") - fetched - 1;
    assert!((5..=7).contains(&more), "{more} in a minute");
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_now_and_then_and_old_ones_are_kept_when_that_fails() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.rotate();
    let rotated = fake.sign(&claims("ses_1", None));
    sleep(Duration::from_secs(71)).await;
    fake.heartbeat();
    fake.settle().await;
    assert!(
        authority.check_token(rotated.expose(), now()).is_ok(),
        "nobody had to ask"
    );

    fake.script().keys.clear();
    sleep(Duration::from_mins(5)).await;
    fake.rotate();
    fake.heartbeat();
    fake.settle().await;
    assert!(
        authority.check_token(rotated.expose(), now()).is_ok(),
        "an empty set is no set"
    );
}

#[tokio::test(start_paused = true)]
async fn a_revocation_reaches_every_socket_of_its_session_and_no_other() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let mut watches: Vec<Watch> = (0..1000)
        .map(|_| authority.watch("ses_1").unwrap())
        .collect();
    let mut other = authority.watch("ses_2").unwrap();
    fake.revoke("ses_1");

    let reasons = join_all(watches.iter_mut().map(reason)).await;
    assert!(
        reasons
            .iter()
            .all(|reason| &**reason == "signed_out_by_user")
    );
    assert!(
        std::future::poll_fn(|cx| Poll::Ready(other.poll(cx)))
            .await
            .is_pending()
    );
    assert_eq!(
        &*reason(&mut authority.watch("ses_1").unwrap()).await,
        "signed_out_by_user",
        "and one that comes later"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_takes_away_itself_and_nothing_else() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let (old, mut new) = (
        authority.watch("ses_1").unwrap(),
        authority.watch("ses_1").unwrap(),
    );
    drop(old);
    assert_eq!(authority.known.watches(), 1);

    fake.revoke("ses_1");
    reason(&mut new).await;
    drop(new);
    assert_eq!(authority.known.watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_was_cut_off_hears_what_it_missed_from_where_it_was() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.revoke("ses_1");
    fake.settle().await;
    let mut watch = authority.watch("ses_2").unwrap();
    fake.script().down = DOWN;
    fake.cut_off();
    sleep(Duration::from_secs(30)).await;
    fake.revoke("ses_2");
    fake.script().down = None;
    reason(&mut watch).await;
    assert_eq!(fake.script().asked_from, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_has_forgotten_where_the_relay_was_is_heard_from_nothing() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.revoke("ses_1");
    fake.settle().await;
    let mut watch = authority.watch("ses_3").unwrap();
    {
        let mut script = fake.script();
        script.feed.clear();
        script.forgotten = 7;
    }
    fake.cut_off();
    fake.revoke("ses_3");
    reason(&mut watch).await;
    assert_eq!(fake.script().asked_from, [0, 1, 0]);

    let token = fake.sign(&claims("ses_1", None));
    assert!(
        matches!(
            authority.check_token(token.expose(), now()),
            Err(Untrusted::Revoked(_))
        ),
        "and it forgets nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_feed_of_another_database_is_heard_from_nothing() {
    let fake = Fake::default();
    fake.script().database_id = "one".to_owned();
    let authority = fake.ready(terms()).await;
    fake.revoke("ses_1");
    fake.settle().await;
    let mut watch = authority.watch("ses_2").unwrap();
    {
        let mut script = fake.script();
        script.database_id = "two".to_owned();
        script.feed.clear();
    }

    // Its number was received from the other one.
    fake.cut_off();
    fake.revoke("ses_2");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(fake.script().asked_from, [0, 1, 0]);

    reason(&mut watch).await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_says_nothing_is_opened_again() {
    let fake = Fake::default();
    let _authority = fake.ready(terms()).await;
    sleep(Duration::from_secs(17)).await;
    assert_eq!(fake.called("WatchRevocations"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bearer_is_not_taken_on_a_feed_that_has_been_silent_for_too_long() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let key = Key::new();
    let (bearer, bound) = (
        fake.sign(&claims("ses_1", None)),
        fake.sign(&claims("ses_1", Some(&key))),
    );
    fake.script().down = DOWN;
    fake.cut_off();
    sleep(Duration::from_secs(59)).await;
    assert!(authority.check_token(bearer.expose(), now()).is_ok());

    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        authority.check_token(bearer.expose(), now()),
        Err(Untrusted::StaleFeed)
    );
    assert!(authority.check_token(bound.expose(), now()).is_ok());
    assert!(matches!(
        authority.check_bearer(&format!("Bearer {}", bearer.expose()), now()),
        Err(BearerRefused::NotNow)
    ));

    fake.script().down = None;
    sleep(Duration::from_secs(6)).await;
    assert!(authority.check_token(bearer.expose(), now()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn half_a_snapshot_does_not_count_as_hearing_the_feed() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let bearer = fake.sign(&claims("ses_1", None));
    fake.script().never_caught_up = true;
    fake.cut_off();
    for _ in 0..70 {
        fake.revoke("ses_2");
        sleep(Duration::from_secs(1)).await;
    }

    assert_eq!(
        authority.check_token(bearer.expose(), now()),
        Err(Untrusted::StaleFeed)
    );
}

#[tokio::test(start_paused = true)]
async fn the_authorization_of_an_upgrade_is_a_good_token_without_a_key() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let check = |text: &str| {
        authority
            .check_bearer(text, now())
            .map(|bearer| bearer.claims.sid)
    };
    let bearer = fake.sign(&claims("ses_1", None));
    let bound = fake.sign(&claims("ses_1", Some(&Key::new())));
    let old = fake.sign(&Claims {
        exp: now(),
        ..claims("ses_1", None)
    });
    assert_eq!(
        check(&format!("Bearer {}", bearer.expose())),
        Ok("ses_1".to_owned())
    );
    assert_eq!(
        check(&format!("bearer {}", bearer.expose())),
        Ok("ses_1".to_owned())
    );

    for bad in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer x".to_owned(),
        bearer.expose().to_owned(),
        format!("Basic {}", bearer.expose()),
        format!("Bearer {}", bound.expose()),
        format!("Bearer {}", old.expose()),
    ] {
        assert_eq!(check(&bad), Err(BearerRefused::Bad), "{bad}");
    }

    fake.revoke("ses_1");
    fake.settle().await;
    assert_eq!(
        check(&format!("Bearer {}", bearer.expose())),
        Err(BearerRefused::Bad)
    );

    fake.rotate();
    let young = fake.sign(&claims("ses_2", None));
    assert_eq!(
        check(&format!("Bearer {}", young.expose())),
        Err(BearerRefused::NotNow),
        "the relay's keys are old"
    );
}

#[tokio::test(start_paused = true)]
async fn what_sessions_says_of_a_session_is_its_verdict_and_all_else_is_not() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    for (code, reason, failure) in [
        (
            Code::FailedPrecondition,
            "SESSION_REVOKED",
            Failure::Revoked,
        ),
        (
            Code::FailedPrecondition,
            "SESSION_EXPIRED",
            Failure::Expired,
        ),
        (Code::NotFound, "SESSION_UNKNOWN", Failure::UnknownSession),
        // A reason that an earlier version had.
        (Code::PermissionDenied, "KEY_MISMATCH", Failure::Unavailable),
        (Code::PermissionDenied, "BAD_PROOF", Failure::BadProof),
        (Code::InvalidArgument, "MALFORMED", Failure::BadToken),
        (
            Code::ResourceExhausted,
            "REFRESHED_TOO_OFTEN",
            Failure::TooOften(Duration::from_secs(7)),
        ),
        (
            Code::ResourceExhausted,
            "SOMETHING_NEW",
            Failure::Unavailable,
        ),
        (
            Code::PermissionDenied,
            "PEER_NOT_ALLOWED",
            Failure::Unavailable,
        ),
        (Code::Unavailable, "DATABASE_DOWN", Failure::Unavailable),
        (Code::Unavailable, "KEY_UNKNOWN", Failure::Unavailable),
        (Code::NotFound, "", Failure::Unavailable),
        (Code::Internal, "", Failure::Unavailable),
    ] {
        fake.script()
            .refusals
            .insert("RefreshToken", (code, reason));
        assert_eq!(
            authority.refresh(wish("ses_1")).await,
            Err(failure),
            "{reason}"
        );
    }

    fake.script().refusals.clear();
    fake.script()
        .delays
        .insert("RefreshToken", Duration::from_secs(6));
    assert_eq!(
        authority.refresh(wish("ses_1")).await,
        Err(Failure::Unavailable),
        "too slow"
    );
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_refreshes_is_one_call_each_and_a_few_at_once() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.script()
        .delays
        .insert("RefreshToken", Duration::from_millis(100));
    let storm = (0..1000).map(|number| authority.refresh(wish(&format!("ses_{number}"))));
    let fresh = join_all(storm).await;
    assert!(fresh.iter().enumerate().all(|(number, fresh)| {
        fresh
            .as_ref()
            .is_ok_and(|fresh| fresh.session_id == format!("ses_{number}"))
    }));
    assert_eq!(
        (fake.called("RefreshToken"), fake.script().most_at_once),
        (1000, 32)
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_get_a_turn_is_told_and_makes_no_call() {
    let fake = Fake::default();
    let authority = fake
        .ready(Terms {
            calls_at_once: 1,
            turn_time: Duration::from_secs(3),
            ..terms()
        })
        .await;
    fake.script()
        .delays
        .insert("RefreshToken", Duration::from_secs(4));
    let (first, second) = tokio::join!(
        authority.refresh(wish("ses_1")),
        authority.refresh(wish("ses_2"))
    );
    assert!(first.is_ok());
    assert_eq!(second, Err(Failure::Unavailable));
    assert_eq!(fake.called("RefreshToken"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_logout_goes_on_when_its_socket_is_gone() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.script()
        .delays
        .insert("EndSession", Duration::from_secs(1));
    drop(authority.logout(SignOut {
        session_id: "ses_1".to_owned(),
        proof: Some(Secret::new("p")),
        nonce: "nonce".to_owned(),
        key_id: String::new(),
        address: ADDRESS,
    }));
    sleep(Duration::from_secs(2)).await;

    let ends = fake.script().ends.clone();
    assert_eq!(
        (
            ends[0].session_id.as_str(),
            ends[0].proof.as_str(),
            ends[0].nonce.as_str()
        ),
        ("ses_1", "p", "nonce")
    );
    assert!(!ends[0].only_pending);
    assert_eq!(fake.script().at_once, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pending_session_is_ended_as_soon_as_sessions_answers_and_not_asked_for_ever() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let down = (Code::Unavailable, "DATABASE_DOWN");
    fake.script().refusals.insert("EndSession", down);
    authority.end_pending("ses_1".to_owned(), ADDRESS, RevocationReason::Burned);
    sleep(Duration::from_hours(1)).await;
    let tried = fake.called("EndSession");
    assert!((120..=250).contains(&tried), "{tried}");

    fake.script().refusals.clear();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(fake.called("EndSession"), tried + 1);

    let last = fake.script().ends[tried].clone();
    assert_eq!(
        (last.session_id.as_str(), last.reason(), last.proof.as_str()),
        ("ses_1", RevocationReason::Burned, "")
    );
    assert_eq!(last.address, ADDRESS.to_string());
    assert!(
        last.only_pending,
        "an editor that has shown its token meanwhile keeps it"
    );

    fake.script().refusals.insert("EndSession", down);
    authority.end_pending("ses_2".to_owned(), ADDRESS, RevocationReason::Burned);
    sleep(Duration::from_mins(91)).await;
    let tried = fake.called("EndSession");
    sleep(Duration::from_hours(1)).await;
    assert_eq!(fake.called("EndSession"), tried, "it is swept by then");
}

/// Sessions itself may say otherwise, so this end is not final.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_about_to_be_ended_is_not_taken_here_and_not_activated() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let token = fake.sign(&Claims {
        pending: true,
        ..claims("ses_1", None)
    });
    let authorization = format!("Bearer {}", token.expose());
    let upgraded = authority.check_bearer(&authorization, now()).unwrap();
    fake.script()
        .refusals
        .insert("EndSession", (Code::Unavailable, "DATABASE_DOWN"));
    authority.end_pending("ses_1".to_owned(), ADDRESS, RevocationReason::Burned);
    assert!(
        authority.check_token(token.expose(), now()).is_err(),
        "from the first moment on"
    );
    assert!(matches!(
        authority.check_bearer(&authorization, now()),
        Err(BearerRefused::NotNow)
    ));

    authority.shown(&upgraded.claims, ADDRESS, now());
    sleep(Duration::from_secs(30)).await;
    assert!(authority.check_token(token.expose(), now()).is_err());
    assert_eq!(fake.called("ActivateSessions"), 0);
    assert!(
        authority
            .check_token(fake.sign(&claims("ses_2", None)).expose(), now())
            .is_ok(),
        "and no other"
    );

    fake.script().refusals.clear();
    sleep(Duration::from_secs(30)).await;
    fake.heartbeat();
    fake.settle().await;
    assert!(
        authority.check_token(token.expose(), now()).is_ok(),
        "the feed tells what became of it"
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_sessions_are_remembered_as_about_to_be_ended_than_may() {
    let fake = Fake::default();
    let authority = fake
        .ready(Terms {
            ends_at_once: 1,
            ..terms()
        })
        .await;
    fake.script()
        .refusals
        .insert("EndSession", (Code::Unavailable, "DATABASE_DOWN"));
    authority.end_pending("ses_1".to_owned(), ADDRESS, RevocationReason::Burned);
    authority.end_pending("ses_2".to_owned(), ADDRESS, RevocationReason::Burned);
    sleep(Duration::from_hours(1)).await;

    let ends = fake.script().ends.clone();
    assert_eq!(
        ends.iter().filter(|end| end.session_id == "ses_2").count(),
        1,
        "still asked for once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_is_made_good_when_the_token_is_shown() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.script()
        .refusals
        .insert("ActivateSessions", (Code::Unavailable, "DATABASE_DOWN"));
    let young = Claims {
        pending: true,
        ..claims("ses_1", None)
    };
    for _ in 0..100 {
        authority.shown(&young, ADDRESS, now());
    }

    sleep(Duration::from_millis(100)).await;
    assert_eq!(
        fake.called("ActivateSessions"),
        1,
        "however often it is shown meanwhile"
    );

    fake.script().refusals.clear();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fake.activated(), ["ses_1"]);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_young_tokens_is_no_crowd_of_calls() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.script()
        .delays
        .insert("ActivateSessions", Duration::from_millis(100));

    for number in 0..1000 {
        let young = Claims {
            pending: true,
            ..claims(&format!("ses_{number}"), None)
        };
        authority.shown(&young, ADDRESS, now());
    }

    sleep(Duration::from_mins(1)).await;
    assert_eq!(fake.activated().len(), 1000, "all come to it");
    assert!(fake.script().most_at_once <= terms().calls_at_once / 2);
}

#[tokio::test(start_paused = true)]
async fn activations_that_gather_while_calls_are_under_way_go_with_one_call() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    fake.script()
        .delays
        .insert("ActivateSessions", Duration::from_millis(100));
    let outcomes =
        join_all((0..250).map(|number| authority.activate(format!("ses_{number}"), ADDRESS))).await;
    assert_eq!(outcomes, [Ok(()); 250]);
    assert_eq!(fake.activated().len(), 250);
    assert_eq!(
        (fake.called("ActivateSessions"), fake.script().most_at_once),
        (3, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn what_became_of_a_session_is_told_to_its_own_login() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let all = || {
        join_all(["ses_1", "ses_2", "ses_3"].map(|id| authority.activate(id.to_owned(), ADDRESS)))
    };
    for (reason, verdict) in [
        (ErrorReason::SessionUnknown, NotActivated::Never),
        (ErrorReason::SessionExpired, NotActivated::Never),
        (ErrorReason::SessionRevoked, NotActivated::Never),
        (ErrorReason::Malformed, NotActivated::NotYet),
    ] {
        fake.script()
            .not_activatable
            .insert("ses_2".to_owned(), reason);
        assert_eq!(all().await, [Ok(()), Err(verdict), Ok(())], "{reason:?}");
    }

    for (code, reason) in [
        (Code::Unavailable, "DATABASE_DOWN"),
        (Code::NotFound, "SESSION_UNKNOWN"),
    ] {
        fake.script()
            .refusals
            .insert("ActivateSessions", (code, reason));
        assert_eq!(
            all().await,
            [Err(NotActivated::NotYet); 3],
            "an error of the call is no verdict on a session"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_past_its_activation_costs_no_call() {
    let fake = Fake::default();
    fake.script().pending_since = Some(now() - 30);
    let authority = fake.ready(terms()).await;
    let claims = |iat, pending| Claims {
        iat: now() - iat,
        pending,
        ..claims("ses_1", None)
    };
    authority.shown(&claims(60, true), ADDRESS, now());
    authority.shown(&claims(10, false), ADDRESS, now());
    authority.shown(&claims(6000, true), ADDRESS, now());
    fake.settle().await;
    assert_eq!(fake.called("ActivateSessions"), 0);

    authority.shown(&claims(30, true), ADDRESS, now());
    fake.settle().await;
    assert_eq!(fake.called("ActivateSessions"), 1);
}

#[tokio::test(start_paused = true)]
async fn refused_proofs_fill_the_audit_log_no_faster_than_they_may() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    for number in 0..1000 {
        authority.record_proof_refused(RefusedProof {
            connection_id: format!("connection {number}"),
            session_id: String::new(),
            address: ADDRESS,
            why: "nonce",
            is_own: true,
        });
    }

    fake.settle().await;
    let audits = fake.script().audits.clone();
    assert_eq!(
        (audits.len(), audits[0].connection_id.as_str()),
        (60, "connection 0")
    );
    assert_eq!(fake.called("RecordRefusedProof"), 60);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_drains_hears_the_feed_until_its_last_socket_is_gone() {
    let (fake, stop, tasks) = (
        Fake::default(),
        CancellationToken::new(),
        TaskTracker::new(),
    );
    let authority = fake.authority_that_stops(terms(), stop.clone(), &tasks);
    authority.ready().await;
    let mut watch = authority.watch("ses_1").unwrap();
    stop.cancel();
    tasks.close();
    sleep(Duration::from_secs(1)).await;
    fake.revoke("ses_1");
    reason(&mut watch).await;
    assert!(poll!(Box::pin(tasks.wait())).is_pending());

    drop(authority);
    tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_the_feed_is_a_metric() {
    let fake = Fake::default();
    let authority = fake.ready(terms()).await;
    let registry = vvs_runtime::metrics::Metrics::default();
    registry.register(
        "vvs_revocation_lag_seconds",
        "lag",
        Lag(authority.known.clone()),
    );
    fake.script().down = DOWN;
    fake.cut_off();
    sleep(Duration::from_secs(100)).await;
    let text = registry.scrape();
    assert!(
        text.lines()
            .any(|line| line.starts_with("vvs_revocation_lag_seconds 100")),
        "{text}"
    );
}
