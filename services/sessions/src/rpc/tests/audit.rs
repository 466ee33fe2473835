//! The audit log of everything that happens to a session.

use sqlx::Row as _;
use vvs_proto::session::revoke_user_sessions_request::Whose;

use super::*;

const APPROVED_FROM: &str = "192.0.2.1";
const ACTIVATED_FROM: &str = "203.0.113.5";
const REFRESHED_FROM: &str = "198.51.100.7";
const ENDED_FROM: &str = "192.0.2.9";

/// Returns the rows of a session: event, reason and address, in the order in which a session lives.
/// The rest of each row describes the session.
async fn rows(bench: &Bench, session: &wire::Session) -> Vec<String> {
    let query = "SELECT user_id, connection_id, device, event, reason, address FROM audit WHERE \
        session_id = $1";
    let found = sqlx::query(query)
        .bind(&session.id)
        .fetch_all(bench.service.store.pool())
        .await
        .unwrap();
    let user = &session.user.as_ref().unwrap().id;
    let mut rows = Vec::new();
    for row in found {
        let [user_id, connection_id, device, event, reason, address]: [String; 6] =
            std::array::from_fn(|at| row.get(at));
        let whose = (user_id.as_str(), connection_id.as_str(), device.as_str());
        assert_eq!(
            whose,
            (
                user.as_str(),
                "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
                "laptop"
            ),
            "{event} {reason}"
        );

        rows.push(format!("{event} {reason} {address}"));
    }

    rows.sort();

    rows
}

fn sorted<const N: usize>(rows: [(&str, &str, &str); N]) -> Vec<String> {
    let mut rows: Vec<_> = rows
        .iter()
        .map(|(event, reason, address)| format!("{event} {reason} {address}"))
        .collect();
    rows.sort();
    rows
}

async fn every_row_says_whose_session_it_was_from_where_and_on_what(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let session = bench.create(editor.approved(1)).await.unwrap().0;
    bench.activate(&session.id).await.unwrap();
    bench.refresh(editor.refresh(&session.id)).await.unwrap();

    let none = serde_json::json!({});
    let bad = editor.prove("hello", &none);
    bench
        .refresh(internal::RefreshTokenRequest {
            proof: bad.clone(),
            ..editor.refresh(&session.id)
        })
        .await
        .unwrap_err();

    let logout = internal::EndSessionRequest {
        address: ENDED_FROM.into(),
        ..ending(&session.id, RevocationReason::Logout)
    };
    bench
        .end_session(internal::EndSessionRequest {
            proof: bad,
            ..logout.clone()
        })
        .await
        .unwrap_err();

    let proof = editor.prove("logout", &serde_json::json!({}));
    bench
        .end_session(internal::EndSessionRequest {
            proof,
            nonce: "socket".into(),
            ..logout
        })
        .await
        .unwrap();

    let expected = sorted([
        ("approved", "", APPROVED_FROM),
        ("session_created", "", APPROVED_FROM),
        ("activated", "", ACTIVATED_FROM),
        ("refreshed", "", REFRESHED_FROM),
        ("proof_refused", "BAD_PROOF", REFRESHED_FROM),
        ("proof_refused", "BAD_PROOF", ENDED_FROM),
        ("revoked", "logout", ENDED_FROM),
    ]);
    assert_eq!(rows(&bench, &session).await, expected);
}

async fn an_address_that_nobody_names_is_where_the_session_was_last(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let begun = [
        ("approved", "", APPROVED_FROM),
        ("session_created", "", APPROVED_FROM),
    ];
    for (number, reason) in [
        (1, RevocationReason::Burned),
        (2, RevocationReason::Cancelled),
        (3, RevocationReason::Expired),
        (4, RevocationReason::Refused),
    ] {
        let session = bench.create(editor.approved(number)).await.unwrap().0;
        let ended = internal::EndSessionRequest {
            only_pending: true,
            ..ending(&session.id, reason)
        };
        bench.end_session(ended).await.unwrap();
        let word = reason.word();
        let event = if reason == RevocationReason::Burned {
            "burned"
        } else {
            "revoked"
        };

        assert_eq!(
            rows(&bench, &session).await,
            sorted([begun[0], begun[1], (event, word.as_str(), APPROVED_FROM)])
        );
    }

    let session = bench.create(editor.approved(5)).await.unwrap().0;
    let silent = || internal::RefreshTokenRequest {
        address: String::new(),
        ..editor.refresh(&session.id)
    };
    let silently = internal::Activation {
        address: String::new(),
        ..activation(&session.id)
    };
    let told = bench
        .service
        .activate_sessions(Request::new(internal::ActivateSessionsRequest {
            activations: vec![silently],
        }))
        .await
        .unwrap();
    assert!(told.into_inner().not_activated.is_empty());
    bench.refresh(silent()).await.unwrap();
    bench.refresh(editor.refresh(&session.id)).await.unwrap();
    bench.refresh(silent()).await.unwrap();

    // This need not have been the editor.
    let bad = editor.prove("hello", &serde_json::json!({}));
    bench
        .refresh(internal::RefreshTokenRequest {
            proof: bad,
            ..silent()
        })
        .await
        .unwrap_err();
    let user_id = session.user.as_ref().unwrap().id.clone();
    let all = wire::RevokeUserSessionsRequest {
        whose: Some(Whose::UserId(user_id)),
        reason: RevocationReason::UserBanned.into(),
        ..Default::default()
    };
    bench
        .service
        .revoke_user_sessions(Request::new(all))
        .await
        .unwrap();
    let expected = sorted([
        begun[0],
        begun[1],
        ("activated", "", APPROVED_FROM),
        ("refreshed", "", APPROVED_FROM),
        ("proof_refused", "BAD_PROOF", ""),
        ("revoked", "user_banned", REFRESHED_FROM),
    ]);
    assert_eq!(rows(&bench, &session).await, expected);

    let swept = bench.create(editor.approved(6)).await.unwrap().0;
    assert_eq!(
        bench
            .service
            .store
            .sweep(&terms(), clock() + 5400)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        rows(&bench, &swept).await,
        sorted([begun[0], begun[1], ("revoked", "swept", APPROVED_FROM)])
    );
}

on_both_databases! {
    every_row_says_whose_session_it_was_from_where_and_on_what
    an_address_that_nobody_names_is_where_the_session_was_last
}
