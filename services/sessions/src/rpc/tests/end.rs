//! Who may end which sessions, and which answers say that one is over.

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::Row as _;
use vvs_auth::key::base64url;
use vvs_auth::method;
use vvs_proto::session::revoke_user_sessions_request::Whose;

use super::*;

/// A login that was burned, cancelled or refused.
fn burned(id: &str) -> internal::EndSessionRequest {
    internal::EndSessionRequest {
        only_pending: true,
        ..ending(id, RevocationReason::Burned)
    }
}

async fn a_relay_ends_a_pending_session_without_the_editors_proof_only_as_such(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let pending = bench.create(editor.approved(1)).await.unwrap().0.id;
    assert_eq!(
        bench
            .end_session(ending(&pending, RevocationReason::Burned))
            .await
            .unwrap_err(),
        "BAD_PROOF"
    );

    bench.end_session(burned(&pending)).await.unwrap();
    assert_eq!(bench.not_activated(&pending).await, "SESSION_REVOKED");

    let active = bench.create(editor.approved(2)).await.unwrap().0.id;
    bench.activate(&active).await.unwrap();
    bench.end_session(burned(&active)).await.unwrap();
    bench.refresh(editor.refresh(&active)).await.unwrap();
    assert_eq!(
        bench.end_session(burned("ses_x")).await.unwrap_err(),
        "SESSION_UNKNOWN"
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_revoked_total 1\n")
    );

    // Nor does web end an active one for a delivery that was refused.
    let undelivered = |id: &str| wire::RevokeSessionRequest {
        only_pending: true,
        ..revocation(id, RevocationReason::NotDelivered)
    };
    bench.revoke(undelivered(&active)).await.unwrap();
    bench.refresh(editor.refresh(&active)).await.unwrap();
    let another = bench.create(editor.approved(3)).await.unwrap().0.id;
    bench.revoke(undelivered(&another)).await.unwrap();
    assert_eq!(bench.not_activated(&another).await, "SESSION_REVOKED");

    for nothing in [0, 4711] {
        let unclear = internal::EndSessionRequest {
            reason: nothing,
            ..burned(&active)
        };
        assert_eq!(bench.end_session(unclear).await.unwrap_err(), "MALFORMED");
    }

    // Web has asked its user.
    bench
        .revoke(revocation(&active, RevocationReason::SignedOutByUser))
        .await
        .unwrap();
    assert_eq!(
        reason(&bench.refresh(editor.refresh(&active)).await.unwrap_err()),
        "SESSION_REVOKED"
    );
}

/// A person at the provider of the tests.
fn provider_user(subject: &str) -> wire::ProviderUser {
    wire::ProviderUser {
        provider: "dev".into(),
        subject: subject.to_owned(),
    }
}

fn person(subject: &str) -> Whose {
    Whose::ProviderUser(provider_user(subject))
}

/// A session at the provider of the tests.
fn signed_in(subject: &str, session: &str) -> Whose {
    Whose::ProviderSession(wire::ProviderSession {
        provider: "dev".into(),
        session: session.to_owned(),
        subject: subject.to_owned(),
    })
}

fn user(id: &str) -> Whose {
    Whose::UserId(id.to_owned())
}

impl Bench {
    async fn revoke_all(&self, whose: impl Into<Option<Whose>>) -> Result<u32, String> {
        let request = wire::RevokeUserSessionsRequest {
            whose: whose.into(),
            reason: RevocationReason::UserBanned.into(),
            address: "192.0.2.9".into(),
        };
        let told = self
            .service
            .revoke_user_sessions(Request::new(request))
            .await;
        told.map(|told| told.into_inner().revoked)
            .map_err(|status| reason(&status))
    }

    async fn active(&self, number: u32, subject: &str, provider_session: &str) -> wire::Session {
        let mut request = request(number, subject);
        request.identity.as_mut().unwrap().provider_session = provider_session.to_owned();
        let session = self.create(request).await.unwrap().0;
        self.activate(&session.id).await.unwrap();
        session
    }

    /// Returns why a session is over; empty while it is not.
    async fn over(&self, session: &wire::Session) -> String {
        self.get(&session.id)
            .await
            .map_or_else(|status| reason(&status), |_| String::new())
    }
}

async fn a_user_is_signed_out_by_our_id_or_as_the_provider_names_him(place: &Location) {
    let bench = bench(place).await;
    let (one, two) = (
        bench.active(1, "ada", "s1").await,
        bench.active(2, "ada", "s2").await,
    );
    let (bob, eve) = (
        bench.active(3, "bob", "s1").await,
        bench.active(4, "eve", "").await,
    );
    let pending = bench.create(request(5, "ada")).await.unwrap().0;
    assert_eq!(bench.revoke_all(person("nobody")).await.unwrap(), 0);
    assert_eq!(bench.revoke_all(signed_in("eve", "s1")).await.unwrap(), 0);
    assert_eq!(bench.over(&eve).await, "");
    assert_eq!(bench.revoke_all(signed_in("ada", "s1")).await.unwrap(), 1);
    assert_eq!(
        (
            bench.over(&one).await.as_str(),
            bench.over(&two).await.as_str()
        ),
        ("SESSION_REVOKED", "")
    );
    assert_eq!(
        bench.revoke_all(person("ada")).await.unwrap(),
        2,
        "one waited for its editor"
    );
    assert_eq!(bench.over(&two).await, "SESSION_REVOKED");
    assert_eq!(bench.over(&pending).await, "SESSION_REVOKED");
    assert_eq!(bench.over(&bob).await, "");
    assert_eq!(bench.revoke_all(signed_in("", "s1")).await.unwrap(), 1);
    assert_eq!(bench.over(&bob).await, "SESSION_REVOKED");
    assert_eq!(
        bench.revoke_all(user(&eve.user.unwrap().id)).await.unwrap(),
        1
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_revoked_total 5\n")
    );

    let query = "SELECT count(*) FROM audit WHERE event = 'revoked' AND reason = 'user_banned' AND \
        address = '192.0.2.9'";
    assert_eq!(count(&bench.service.store, query).await, 5);
}

async fn whose_sessions_end_is_said_in_one_way(place: &Location) {
    let bench = bench(place).await;
    let id = bench.active(1, "ada", "s1").await.user.unwrap().id;
    let nowhere = |mut whose: Whose| {
        match &mut whose {
            Whose::UserId(id) => id.clear(),
            Whose::ProviderUser(user) => user.provider.clear(),
            Whose::ProviderSession(session) => session.provider.clear(),
        }
        whose
    };
    assert_eq!(bench.revoke_all(None).await.unwrap_err(), "MALFORMED");
    for whose in [
        user(""),
        user("ada"),
        person(""),
        person(&"s".repeat(256)),
        signed_in("", ""),
        signed_in("ada", ""),
        signed_in(&"s".repeat(256), "s1"),
        signed_in("ada", &"s".repeat(256)),
        nowhere(person("ada")),
        nowhere(signed_in("ada", "s1")),
    ] {
        let said = format!("{whose:?}");
        assert_eq!(
            bench.revoke_all(whose).await.unwrap_err(),
            "MALFORMED",
            "{said}"
        );
    }

    for nothing in [0, 4711] {
        let unclear = wire::RevokeUserSessionsRequest {
            whose: Some(user(&id)),
            reason: nothing,
            ..wire::RevokeUserSessionsRequest::default()
        };
        let told = bench
            .service
            .revoke_user_sessions(Request::new(unclear))
            .await;
        assert_eq!(reason(&told.unwrap_err()), "MALFORMED");
    }

    assert_eq!(bench.revoke_all(user(&id)).await.unwrap(), 1);
}

async fn stale_users_are_handed_out_for_one_provider(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let take = async |provider: &str, limit| {
        let request = wire::TakeStaleUsersRequest {
            provider: provider.to_owned(),
            limit,
        };
        let told = bench.service.take_stale_users(Request::new(request)).await;
        told.map(|told| told.into_inner().subjects)
            .map_err(|status| reason(&status))
    };
    let id = bench.create(editor.approved(1)).await.unwrap().0.id;
    bench
        .execute("UPDATE users SET checked_at = checked_at - 86401")
        .await;
    bench.refresh(editor.refresh(&id)).await.unwrap();

    for (provider, limit) in [("", 1), ("dev", 0), ("dev", 101)] {
        assert_eq!(
            take(provider, limit).await.unwrap_err(),
            "MALFORMED",
            "{provider} {limit}"
        );
    }

    assert!(take("https://id.test", 1).await.unwrap().is_empty());
    assert_eq!(take("dev", 100).await.unwrap(), ["ada"]);
    assert!(take("dev", 1).await.unwrap().is_empty());
}

async fn an_unknown_session_is_over_only_if_its_token_was_signed_here(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    // Of another database, with everything else the same.
    let elsewhere = Location::new();
    let other = super::bench(&elsewhere).await;
    let (session, token) = other.create(editor.approved(1)).await.unwrap();
    let (_, own) = bench.create(editor.approved(1)).await.unwrap();
    let kid = |token: &str| decode_header(token).unwrap().kid.unwrap();
    let ask = async |token: &str, key_id: &str| {
        let mut request = internal::RefreshTokenRequest {
            key_id: key_id.to_owned(),
            ..editor.refresh(&session.id)
        };
        if !token.is_empty() {
            let hash = base64url(digest(&SHA256, token.as_bytes()).as_ref());
            request.token = token.to_owned();
            request.proof = editor.prove("authenticate", &serde_json::json!({"ath": hash}));
        }

        let told = bench.refresh(request).await.unwrap_err();
        assert_eq!(
            told.get_details_retry_info().is_some(),
            told.code() == Code::Unavailable
        );

        (told.code(), reason(&told))
    };
    let unclear = (Code::Unavailable, "KEY_UNKNOWN".to_owned());
    let over = (Code::NotFound, "SESSION_UNKNOWN".to_owned());
    let known = kid(&own.token);
    assert_eq!(ask(&token.token, "").await, unclear);
    assert_eq!(
        ask(&token.token, &known).await,
        unclear,
        "the token says it"
    );
    assert_eq!(ask("abc", &known).await, unclear);

    for strange in ["", "\0", &kid(&token.token), &"k".repeat(300)] {
        assert_eq!(ask("", strange).await, unclear, "{strange:?}");
    }

    assert_eq!(ask("", &known).await, over);
    assert_eq!(ask(&own.token, "").await, over);

    // A deleted key was still here, even if somebody has deleted it by hand.
    bench.execute("DELETE FROM signing_keys").await;
    assert_eq!(ask("", &known).await, over);
}

async fn a_logout_of_an_unknown_session_is_done_only_if_its_token_was_signed_here(
    place: &Location,
) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let elsewhere = Location::new();
    let (_, strange) = super::bench(&elsewhere)
        .await
        .create(editor.approved(1))
        .await
        .unwrap();
    let (session, own) = bench.create(editor.approved(1)).await.unwrap();
    let kid = |token: &str| decode_header(token).unwrap().kid.unwrap();
    let logout = async |id: &str, key_id: &str| {
        let (proof, key_id) = (
            editor.prove("logout", &serde_json::json!({})),
            key_id.to_owned(),
        );
        let request = internal::EndSessionRequest {
            proof,
            nonce: "socket".into(),
            key_id,
            ..ending(id, RevocationReason::Logout)
        };
        bench.end_session(request).await
    };
    let (known, strange) = (kid(&own.token), kid(&strange.token));
    for unclear in [&strange, "\0", &"k".repeat(300)] {
        assert_eq!(
            logout("ses_x", unclear).await.unwrap_err(),
            "KEY_UNKNOWN",
            "{unclear:?}"
        );
    }

    for over in [&known, ""] {
        assert_eq!(
            logout("ses_x", over).await.unwrap_err(),
            "SESSION_UNKNOWN",
            "{over:?}"
        );
    }

    // One that is here ends, whichever key somebody names.
    logout(&session.id, &strange).await.unwrap();
    assert_eq!(bench.over(&session).await, "SESSION_REVOKED");
}

async fn a_refused_proof_is_written_down_with_the_login_of_its_session(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let session = bench.create(editor.approved(1)).await.unwrap().0;
    let proof = editor.prove("hello", &serde_json::json!({}));
    let bad = internal::RefreshTokenRequest {
        proof,
        ..editor.refresh(&session.id)
    };
    bench.refresh(bad.clone()).await.unwrap_err();
    bench
        .refresh(Editor::new().refresh(&session.id))
        .await
        .unwrap_err();
    let told = internal::RecordRefusedProofRequest {
        session_id: session.id.clone(),
        ..internal::RecordRefusedProofRequest::default()
    };
    let connection_id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8".to_owned();
    let again = internal::RecordRefusedProofRequest {
        connection_id,
        ..told.clone()
    };
    for told in [told, again] {
        bench
            .service
            .record_refused_proof(Request::new(told))
            .await
            .unwrap();
    }
    bench
        .refresh(internal::RefreshTokenRequest {
            session_id: "ses_x".into(),
            ..bad
        })
        .await
        .unwrap_err();

    let query = "SELECT session_id, user_id, connection_id, device FROM audit WHERE event = \
        'proof_refused'";
    let rows = sqlx::query(query)
        .fetch_all(bench.service.store.pool())
        .await
        .unwrap();
    let mut rows: Vec<[String; 4]> = rows
        .iter()
        .map(|row| std::array::from_fn(|at| row.get(at)))
        .collect();
    rows.sort();
    let user = session.user.unwrap().id;
    let row = |connection_id: &str| {
        [session.id.as_str(), user.as_str(), connection_id, "laptop"].map(str::to_owned)
    };
    let approved = || row("1b4e28ba-2fa1-41d2-883f-0016d3cca427");

    // One by the session's own key, and what a relay has told: nothing of a stranger, nor of a
    // session that does not exist.
    let mut expected = vec![
        approved(),
        approved(),
        row("6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
    ];
    expected.sort();
    assert_eq!(rows, expected);
}

async fn what_web_tells_the_audit_log_is_written_down_as_it_is_told(place: &Location) {
    let bench = bench(place).await;
    let user = bench
        .create(request(1, "ada"))
        .await
        .unwrap()
        .0
        .user
        .unwrap()
        .id;
    let denied = |subject: &str| wire::RecordAuditRequest {
        event: wire::AuditEvent::Denied.into(),
        connection_id: "6ba7b810-9dad-41d1-80b4-00c04fd430c8".into(),
        provider_user: Some(provider_user(subject)),
        address: "192.0.2.9".into(),
        device: Some(types::Device {
            name: "desk".into(),
            os: "Linux".into(),
            ..types::Device::default()
        }),
        app: Some(types::App {
            name: "Studio".into(),
            version: "1.2".into(),
        }),
    };
    let record = async |told| {
        let told = bench.service.record_audit(Request::new(told)).await;
        told.map(drop).map_err(|status| reason(&status))
    };
    record(denied("ada")).await.unwrap();
    record(denied("eve")).await.unwrap();
    let query = "SELECT session_id, user_id, connection_id, address, device, reason FROM audit WHERE event = 'denied'
                 ORDER BY reason";
    let rows = sqlx::query(query)
        .fetch_all(bench.service.store.pool())
        .await
        .unwrap();
    let rows: Vec<[String; 6]> = rows
        .iter()
        .map(|row| std::array::from_fn(|at| row.get(at)))
        .collect();
    let row = |user: &str, reason: &str| {
        [
            "",
            user,
            "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
            "192.0.2.9",
            "desk, Linux, Studio 1.2",
            reason,
        ]
        .map(str::to_owned)
    };
    assert_eq!(rows, [row(&user, ""), row("", "by eve of dev")]);

    // The events of other roles have other methods, which the method table refuses to web.
    for event in [wire::AuditEvent::Unspecified.into(), 2] {
        let told = wire::RecordAuditRequest {
            event,
            ..denied("ada")
        };
        assert_eq!(record(told).await.unwrap_err(), "MALFORMED");
    }

    for (method, role) in [
        ("/vvs.session.v1.Sessions/RecordAudit", Role::Web),
        ("/vvs.internal.v1.Editors/RecordRefusedProof", Role::Relay),
    ] {
        let row = method::TABLE.iter().find(|(path, _)| *path == method);
        assert_eq!(row.unwrap().1, [role], "{method}");
    }

    assert_eq!(
        count(
            &bench.service.store,
            "SELECT count(*) FROM audit WHERE event = 'denied'"
        )
        .await,
        2
    );
}

on_both_databases! {
    what_web_tells_the_audit_log_is_written_down_as_it_is_told
    a_relay_ends_a_pending_session_without_the_editors_proof_only_as_such
    a_user_is_signed_out_by_our_id_or_as_the_provider_names_him
    whose_sessions_end_is_said_in_one_way
    stale_users_are_handed_out_for_one_provider
    an_unknown_session_is_over_only_if_its_token_was_signed_here
    a_logout_of_an_unknown_session_is_done_only_if_its_token_was_signed_here
    a_refused_proof_is_written_down_with_the_login_of_its_session
}
