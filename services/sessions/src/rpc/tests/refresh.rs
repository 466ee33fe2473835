//! Fresh tokens, for those who prove their key.

use super::*;

async fn a_token_of_a_device_key_names_it_and_lives_an_hour(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let (session, token) = bench.create(editor.approved(1)).await.unwrap();
    let claims = bench.verify(&token.token).await;
    let key = vvs_auth::device::DeviceKey::from_value(&editor.jwk).unwrap();
    assert_eq!(claims.cnf.unwrap().jkt, key.thumbprint());
    assert!(claims.pending);
    assert_eq!(
        (claims.exp, claims.sxp),
        (claims.iat + 3600, claims.iat + 2_592_000)
    );
    assert_eq!(session.device.unwrap().jwk, key.to_json());
}

async fn an_editor_that_proves_its_key_gets_a_fresh_token(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let (session, token) = bench.create(editor.approved(1)).await.unwrap();
    let fresh = bench.refresh(editor.refresh(&session.id)).await.unwrap();
    let claims = bench.verify(&fresh.token.as_ref().unwrap().token).await;
    assert_eq!((claims.sid, claims.pending), (session.id.clone(), false));
    assert_eq!(fresh.session.as_ref().unwrap().address, "198.51.100.7");
    assert!(fresh.session.unwrap().activated_at.is_some());

    // A reply that was lost: the same proof again is no harm, the relay sees to it that it is taken
    // once.
    bench.refresh(editor.refresh(&session.id)).await.unwrap();

    // With an expired or foreign token beside it, the proof must be for that token.
    let hash = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
    let mut shown = editor.refresh(&session.id);
    shown.token = "abc".into();
    shown.proof = editor.prove("authenticate", &serde_json::json!({"ath": hash}));
    bench.refresh(shown.clone()).await.unwrap();
    shown.token = token.token;
    let told = bench.refresh(shown).await.unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::PermissionDenied, "BAD_PROOF")
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_refreshed_total 3\n")
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_activated_total 1\n")
    );
}

async fn a_proof_that_does_not_hold_is_refused_and_written_down_if_it_is_the_sessions_own(
    place: &Location,
) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let id = bench.create(editor.approved(1)).await.unwrap().0.id;
    let none = serde_json::json!({});
    for bad in [
        String::new(),
        editor.prove("logout", &none),
        editor.prove("hello", &none),
        editor.prove("authenticate", &none),
        editor.prove("refresh", &serde_json::json!({"nonce": "other"})),
        editor.prove("refresh", &serde_json::json!({"aud": "https://evil.test"})),
    ] {
        let told = bench
            .refresh(internal::RefreshTokenRequest {
                proof: bad,
                ..editor.refresh(&id)
            })
            .await
            .unwrap_err();
        assert_eq!(
            (told.code(), reason(&told).as_str()),
            (Code::PermissionDenied, "BAD_PROOF")
        );
    }

    // Except the one that nobody has signed.
    assert_eq!(bench.refused().await, ["BAD_PROOF"; 5]);
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_proofs_refused_total{reason=\"BAD_PROOF\"} 6\n")
    );
}

async fn a_stranger_learns_of_no_session_and_writes_nothing_about_it(place: &Location) {
    let (bench, editor, stranger) = (bench(place).await, Editor::new(), Editor::new());
    let (live, token) = bench.create(editor.approved(1)).await.unwrap();
    let key_id = decode_header(&token.token).unwrap().kid.unwrap();
    let revoked = bench.create(editor.approved(2)).await.unwrap().0;
    bench
        .revoke(revocation(&revoked.id, RevocationReason::UserBanned))
        .await
        .unwrap();
    let expired = bench.create(editor.approved(3)).await.unwrap().0;
    sqlx::query("UPDATE sessions SET expires_at = 1 WHERE id = $1")
        .bind(&expired.id)
        .execute(bench.service.store.pool())
        .await
        .unwrap();
    let bearer = bench.create(request(4, "ada")).await.unwrap().0;
    let before = count(&bench.service.store, "SELECT count(*) FROM audit").await;

    let ask = async |id: &str, by: &Editor, key_id: &str| {
        let request = internal::RefreshTokenRequest {
            key_id: key_id.to_owned(),
            ..by.refresh(id)
        };
        let told = bench.refresh(request).await.unwrap_err();
        (told.code(), reason(&told))
    };
    for id in [&live.id, &revoked.id, &expired.id, &bearer.id, "ses_x"] {
        assert_eq!(
            ask(id, &stranger, &key_id).await,
            (Code::NotFound, "SESSION_UNKNOWN".to_owned()),
            "{id}"
        );
        assert_eq!(
            ask(id, &stranger, "another").await,
            (Code::Unavailable, "KEY_UNKNOWN".to_owned()),
            "{id}"
        );

        let other = stranger.prove("refresh", &serde_json::json!({"nonce": "other"}));

        for proof in [String::new(), "a.b.c".to_owned(), other] {
            let bad = internal::RefreshTokenRequest {
                proof,
                key_id: key_id.clone(),
                ..stranger.refresh(id)
            };
            assert_eq!(
                reason(&bench.refresh(bad).await.unwrap_err()),
                "BAD_PROOF",
                "{id}"
            );
        }
    }

    assert_eq!(
        count(&bench.service.store, "SELECT count(*) FROM audit").await,
        before
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_proofs_refused_total{reason=\"KEY_MISMATCH\"} 8\n")
    );

    // Its own editor hears what has become of it.
    assert_eq!(
        ask(&revoked.id, &editor, &key_id).await.1,
        "SESSION_REVOKED"
    );
    assert_eq!(
        ask(&expired.id, &editor, &key_id).await.1,
        "SESSION_EXPIRED"
    );

    bench.refresh(editor.refresh(&live.id)).await.unwrap();
}

on_both_databases! {
    a_token_of_a_device_key_names_it_and_lives_an_hour
    an_editor_that_proves_its_key_gets_a_fresh_token
    a_proof_that_does_not_hold_is_refused_and_written_down_if_it_is_the_sessions_own
    a_stranger_learns_of_no_session_and_writes_nothing_about_it
}
