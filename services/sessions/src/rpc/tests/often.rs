//! Editors that refresh more often than they need to.

use std::num::NonZeroU32;

use aws_lc_rs::digest::{SHA256, digest};
use vvs_auth::key::base64url;

use super::*;
use crate::limit::Refreshes;

/// A service with this many refreshes of a session a minute, and an interval that outlasts every
/// test.
async fn held(place: &Location, per_minute: u32) -> Bench {
    let mut bench = bench(place).await;
    bench.service.terms.refresh_interval = 600;
    let per_minute = NonZeroU32::new(per_minute).unwrap();
    bench.service.refreshes = Arc::new(Refreshes::new(
        per_minute,
        bench.metrics.reached.clone(),
        governor::clock::DefaultClock::default(),
    ));
    bench
}

impl Editor {
    /// Presents a token that no relay can trust any longer.
    fn show(&self, id: &str, token: &str) -> internal::RefreshTokenRequest {
        let hash = base64url(digest(&SHA256, token.as_bytes()).as_ref());
        let proof = self.prove("authenticate", &serde_json::json!({"ath": hash}));
        internal::RefreshTokenRequest {
            token: token.to_owned(),
            proof,
            ..self.refresh(id)
        }
    }
}

/// Dates the last write back by a minute: within one second a second write could not be seen.
async fn age(bench: &Bench) {
    bench
        .execute(
            "UPDATE sessions SET created_at = created_at - 60, activated_at = activated_at - 60, \
             refreshed_at = refreshed_at - 60, expires_at = expires_at - 60, \
             tokens_expire_at = tokens_expire_at - 60",
        )
        .await;
}

/// Returns every trace that a change leaves.
async fn trace(bench: &Bench) -> Vec<i64> {
    let store = &bench.service.store;
    let mut trace = Vec::new();
    for query in [
        "SELECT count(*) FROM audit",
        "SELECT max(refreshed_at) FROM sessions",
        "SELECT max(expires_at) FROM sessions",
        "SELECT max(tokens_expire_at) FROM sessions",
    ] {
        trace.push(count(store, query).await);
    }
    trace
}

async fn when_the_answer_to_a_first_refresh_is_lost_the_second_at_once_has_a_token(
    place: &Location,
) {
    let (bench, editor) = (held(place, 20).await, Editor::new());
    let (session, token) = bench.create(editor.approved(1)).await.unwrap();
    let lost = bench
        .refresh(editor.refresh(&session.id))
        .await
        .unwrap()
        .token
        .unwrap();
    age(&bench).await;
    let before = trace(&bench).await;
    for request in [
        editor.refresh(&session.id),
        editor.show(&session.id, &token.token),
    ] {
        let again = bench.refresh(request).await.unwrap().token.unwrap();
        let (lost, again) = (
            bench.verify(&lost.token).await,
            bench.verify(&again.token).await,
        );
        assert_eq!(
            (again.exp, again.sxp, again.sid),
            (lost.exp - 60, lost.sxp - 60, lost.sid)
        );
        assert!(again.iat >= lost.iat && again.jti != lost.jti && !again.pending);
    }

    assert_eq!(trace(&bench).await, before);
}

async fn a_session_that_refreshes_without_end_writes_no_more_than_one_that_does_it_once(
    place: &Location,
) {
    let (bench, editor) = (held(place, 20).await, Editor::new());
    let id = bench.create(editor.approved(1)).await.unwrap().0.id;
    bench.refresh(editor.refresh(&id)).await.unwrap();
    age(&bench).await;
    let before = trace(&bench).await;
    let mut refused = 0;
    for _ in 0..201 {
        let Err(told) = bench.refresh(editor.refresh(&id)).await else {
            continue;
        };
        assert_eq!(
            (told.code(), reason(&told).as_str()),
            (Code::ResourceExhausted, "REFRESHED_TOO_OFTEN")
        );
        assert!(vvs_runtime::rpc::retry_after(&told).is_some_and(|wait| wait > Duration::ZERO));
        refused += 1;
    }

    assert!(refused > 0);
    assert_eq!(
        bench
            .metrics
            .reached
            .times("VVS_SESSIONS_REFRESHES_PER_MINUTE"),
        refused
    );
    assert_eq!(trace(&bench).await, before);
    assert_eq!(
        count(
            &bench.service.store,
            "SELECT count(*) FROM audit WHERE event = 'refreshed'"
        )
        .await,
        1
    );
}

async fn nobody_elses_calls_count_against_an_editor(place: &Location) {
    let (bench, editor, stranger) = (held(place, 1).await, Editor::new(), Editor::new());
    let id = bench.create(editor.approved(1)).await.unwrap().0.id;
    assert_eq!(
        reason(&bench.refresh(stranger.refresh(&id)).await.unwrap_err()),
        "KEY_UNKNOWN"
    );
    assert_eq!(
        reason(&bench.refresh(stranger.refresh(&id)).await.unwrap_err()),
        "REFRESHED_TOO_OFTEN"
    );
    bench.refresh(editor.refresh(&id)).await.unwrap();
}

on_both_databases! {
    when_the_answer_to_a_first_refresh_is_lost_the_second_at_once_has_a_token
    a_session_that_refreshes_without_end_writes_no_more_than_one_that_does_it_once
    nobody_elses_calls_count_against_an_editor
}
