//! Clerk as a provider, against an API and a sessions role that do what a test tells them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use vvs_proto::types::RevocationReason;
use vvs_runtime::limit::Reached;

use self::stand::{ISSUER, NOW, Stand, WEBHOOK_SECRET, session, unknown, user};
use super::*;
use crate::fetch::Failed;

mod stand;

/// Returns the kind of a refusal.
fn kind(refusal: &Refusal) -> &'static str {
    let kinds = [
        ("not believed", matches!(refusal, Refusal::NotBelieved(_))),
        ("not allowed", matches!(refusal, Refusal::NotAllowed(_))),
        ("over", matches!(refusal, Refusal::SignInOver(_))),
        (
            "unavailable",
            matches!(refusal, Refusal::Provider(Failed::Unavailable { .. })),
        ),
        (
            "unreadable",
            matches!(refusal, Refusal::Provider(Failed::Unreadable { .. })),
        ),
        (
            "refused",
            matches!(refusal, Refusal::Provider(Failed::Refused { .. })),
        ),
    ];
    kinds
        .into_iter()
        .find_map(|(kind, is_it)| is_it.then_some(kind))
        .unwrap_or("something else")
}

fn outcome(arrival: &Result<Arrival, Refusal>) -> &'static str {
    match arrival {
        Ok(Arrival::SignedIn(..)) => "signed in",
        Ok(Arrival::Stale) => "stale",
        Ok(Arrival::Before) => "before",
        Err(refusal) => kind(refusal),
    }
}

#[tokio::test]
async fn whoever_arrives_is_who_the_token_and_clerk_say() {
    let stand = Stand::new().await;
    let sign_in = stand.arrive_well().await.unwrap();
    let expected = SignIn {
        provider: ISSUER.to_owned(),
        subject: "user_1".to_owned(),
        provider_session: "sess_1".to_owned(),
        email: Some("ada@example.com".to_owned()),
        email_verified: true,
        name: Some("Ada Lovelace".to_owned()),
        avatar_url: Some("https://img.clerk.com/ada".to_owned()),
        at: NOW,
    };
    assert_eq!(sign_in, expected);
    assert_eq!(stand.clerk.name(), ISSUER);
}

#[tokio::test]
async fn clerk_is_asked_about_one_person_as_often_as_the_setting_says() {
    let mut stand = Stand::new().await;
    let people = People::new(std::num::NonZeroU32::new(2).unwrap(), Reached::default());
    Arc::get_mut(&mut stand.clerk).unwrap().people = people;
    stand
        .script
        .answer("/v1/users/user_2", 200, &user(&json!({"id": "user_2"})));
    for _ in 0..2 {
        stand.arrive_well().await.unwrap();
    }

    for _ in 0..20 {
        assert!(matches!(stand.arrive_well().await, Err(Refusal::TooOften)));
    }

    assert_eq!(stand.script.count("/v1/users/user_1"), 2);

    let other = stand::token(&json!({}), &json!({"sub": "user_2"}));
    assert_eq!(
        outcome(&stand.arrive(&format!("__session={other}")).await),
        "signed in"
    );
}

#[tokio::test]
async fn a_token_is_fetched_anew_when_only_its_time_is_wrong_and_otherwise_not_believed() {
    let stand = Stand::new().await;
    for (header, claims, expected) in [
        (json!({}), json!({}), "signed in"),
        (json!({}), json!({"exp": NOW - 5}), "stale"),
        (json!({}), json!({"nbf": NOW + 6}), "stale"),
        (json!({}), json!({"iat": NOW + 6}), "stale"),
        (
            json!({}),
            json!({"iss": "https://clerk.example.org"}),
            "not believed",
        ),
        (
            json!({}),
            json!({"azp": "https://evil.example"}),
            "not believed",
        ),
        (json!({}), json!({"azp": null}), "not believed"),
        (json!({}), json!({"sid": null}), "not believed"),
        (json!({}), json!({"sts": "pending"}), "not believed"),
        (
            json!({}),
            json!({"act": {"sub": "user_staff"}}),
            "not believed",
        ),
        (
            json!({}),
            json!({"act": {"sub": "user_staff"}, "exp": NOW - 60}),
            "not believed",
        ),
        (json!({"cat": "cl_B7d4PD222AAA"}), json!({}), "not believed"),
        (json!({"alg": "none"}), json!({}), "not believed"),
        (json!({"kid": "ins_other"}), json!({}), "not believed"),
        // A malformed id belongs to nobody; it never becomes a part of a path.
        (json!({}), json!({"sub": "../jwks"}), "not allowed"),
        (json!({}), json!({"sub": "user_2"}), "not allowed"),
    ] {
        let token = stand::token(&header, &claims);
        let arrival = stand.arrive(&format!("__session={token}")).await;
        assert_eq!(outcome(&arrival), expected, "{header} {claims}");
    }

    assert_eq!(
        stand.script.count("/v1/jwks"),
        1,
        "an unknown key was asked for more than once in ten seconds"
    );

    let token = stand::token(&json!({}), &json!({}));
    assert_eq!(
        outcome(
            &stand
                .arrive(&format!("__session={}", &token[..token.len() - 4]))
                .await
        ),
        "not believed"
    );

    for none in ["", "__session=", "other=1", "__session_00000000=x"] {
        assert_eq!(outcome(&stand.arrive(none).await), "stale", "{none}");
    }
}

#[test]
fn the_cookie_of_this_instance_goes_before_the_one_that_all_share() {
    assert_eq!(
        suffix("pk_test_aGFwcHktZmFrZS0wMS5jbGVyay5hY2NvdW50cy5kZXYk"),
        "9cIJ4HtH"
    );

    let found = |lines: &[&'static str]| {
        let headers = lines
            .iter()
            .map(|line| (COOKIE, line.parse().unwrap()))
            .collect();
        token(&headers, "9cIJ4HtH").map(str::to_owned)
    };
    assert_eq!(
        found(&["__session=a; __session_9cIJ4HtH=b"]).as_deref(),
        Some("b")
    );
    assert_eq!(
        found(&["__session=a", "x=1; __session_9cIJ4HtH=b;"]).as_deref(),
        Some("b")
    );
    assert_eq!(
        found(&["__session_9cIJ4HtI=b;__session=a"]).as_deref(),
        Some("a")
    );
    assert_eq!(
        found(&["__session_9cIJ4HtH=; __session=a"]).as_deref(),
        Some("a")
    );
    assert_eq!(found(&["x__session=a; __sessio=b; __session"]), None);
    assert_eq!(found(&[]), None);
}

#[tokio::test]
async fn what_clerk_says_of_the_user_decides_and_its_outage_is_no_verdict() {
    let stand = Stand::new().await;
    let other = user(&json!({"id": "user_2"})).to_string();

    for (status, body, expected) in [
        (200, user(&json!({})).to_string(), "signed in"),
        (
            200,
            user(&json!({"banned": true})).to_string(),
            "not allowed",
        ),
        (
            200,
            user(&json!({"locked": true})).to_string(),
            "not allowed",
        ),
        (
            200,
            user(&json!({"banned": null})).to_string(),
            "unreadable",
        ),
        (200, "<html>".to_owned(), "unreadable"),
        (200, "{}".to_owned(), "unreadable"),
        (200, other, "unreadable"),
        (404, unknown(), "not allowed"),
        // Somebody in between, who knows no users.
        (404, "<html>".to_owned(), "refused"),
        (
            404,
            json!({"errors": [{"code": "other"}]}).to_string(),
            "refused",
        ),
        (
            401,
            json!({"errors": [{"code": "clerk_key_invalid"}]}).to_string(),
            "refused",
        ),
        (403, String::new(), "refused"),
        (302, String::new(), "refused"),
        (429, String::new(), "unavailable"),
        (500, String::new(), "unavailable"),
        (503, user(&json!({})).to_string(), "unavailable"),
    ] {
        stand.script.answer("/v1/users/user_1", status, &body);
        let arrival = stand
            .arrive(&format!(
                "__session={}",
                stand::token(&json!({}), &json!({}))
            ))
            .await;
        assert_eq!(outcome(&arrival), expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_clerks_code_and_trace() {
    let stand = Stand::new().await;
    let told = async |headers: &[(&'static str, &'static str)], body: Value| {
        let answer = (401, headers.to_vec(), body.to_string());
        stand
            .script
            .answers
            .lock()
            .unwrap()
            .insert("/v1/users/user_1".to_owned(), answer);
        stand.arrive_well().await.unwrap_err().to_string()
    };
    let errors = json!([{"code": "clerk_key_invalid", "message": "sk_live_secret is wrong"}]);
    let with_trace = told(
        &[("cf-ray", "ray-1")],
        json!({"errors": errors, "clerk_trace_id": "trace-1"}),
    )
    .await;
    assert!(
        with_trace.contains("clerk_key_invalid (trace trace-1)"),
        "{with_trace}"
    );

    let with_ray = told(&[("cf-ray", "ray-1")], json!({"errors": errors})).await;
    assert!(
        with_ray.contains("401") && with_ray.contains("(trace ray-1)"),
        "{with_ray}"
    );

    let forged = told(
        &[],
        json!({"errors": [{"code": format!("a\n{}", "b".repeat(200))}]}),
    )
    .await;
    assert!(
        !forged.contains('\n')
            && forged.contains(&"b".repeat(99))
            && !forged.contains(&"b".repeat(100))
    );
    assert!(!with_trace.contains("sk_live_secret"));
}

#[tokio::test]
async fn without_keys_nobody_can_say_and_with_one_of_our_own_nobody_is_asked() {
    let stand = Stand::new().await;
    stand.script.answer("/v1/jwks", 503, &"");
    assert_eq!(kind(&stand.arrive_well().await.unwrap_err()), "unavailable");

    let stand = Stand::with(&[], &[], true).await;
    stand.script.answer("/v1/jwks", 503, &"");
    stand.arrive_well().await.unwrap();
    assert_eq!(stand.script.count("/v1/jwks"), 0);

    // The key stands for every name, and for no other key.
    let other = stand::signed(&stand::KEYS[1], &json!({}), &json!({}));
    assert_eq!(
        outcome(&stand.arrive(&format!("__session={other}")).await),
        "not believed"
    );
}

#[tokio::test]
async fn only_whom_a_rule_fits_is_let_in() {
    let unverified =
        json!([{"id": "idn_2", "email_address": "ada@example.com", "verification": null}]);
    for (rules, claims, changes, expected) in [
        (
            &[][..],
            json!({}),
            json!({"email_addresses": []}),
            "signed in",
        ),
        (&["domain:example.com"], json!({}), json!({}), "signed in"),
        (
            &["domain:example.com"],
            json!({}),
            json!({"email_addresses": unverified}),
            "not allowed",
        ),
        (&["domain:example.org"], json!({}), json!({}), "not allowed"),
        (
            &["organization:org_1"],
            json!({"o": {"id": "org_1"}}),
            json!({}),
            "signed in",
        ),
        (
            &["organization:org_1"],
            json!({"o": {"id": "org_2"}}),
            json!({}),
            "not allowed",
        ),
        (
            &["organization:org_1"],
            json!({"org_id": "org_1"}),
            json!({}),
            "not allowed",
        ),
        (&["organization:org_1"], json!({}), json!({}), "not allowed"),
        (
            &["organization:org_1", "domain:example.com"],
            json!({}),
            json!({}),
            "signed in",
        ),
    ] {
        let stand = Stand::with(&[], rules, false).await;
        stand
            .script
            .answer("/v1/users/user_1", 200, &user(&changes));
        let token = stand::token(&json!({}), &claims);
        assert_eq!(
            outcome(&stand.arrive(&format!("__session={token}")).await),
            expected,
            "{rules:?} {claims}"
        );
    }
}

#[tokio::test]
async fn the_settings_say_whether_staff_may_stand_in_and_where_a_token_may_come_from() {
    let flags = [
        "--web-clerk-allow-impersonation",
        "true",
        "--web-clerk-authorized-parties",
        "https://a.test,https://b.test",
    ];
    let stand = Stand::with(&flags, &[], false).await;

    for (party, expected) in [
        ("https://a.test", "signed in"),
        ("https://b.test", "signed in"),
        (stand::ORIGIN, "not believed"),
    ] {
        let token = stand::token(
            &json!({}),
            &json!({"azp": party, "act": {"sub": "user_staff"}}),
        );
        assert_eq!(
            outcome(&stand.arrive(&format!("__session={token}")).await),
            expected,
            "{party}"
        );
    }
}

#[tokio::test]
async fn a_sign_in_holds_while_clerk_has_its_session_and_its_user() {
    let stand = Stand::new().await;
    let sign_in = stand.arrive_well().await.unwrap();
    let (good_user, good_session) = ((200, user(&json!({}))), (200, session(&json!({}))));
    let gone = || (404, serde_json::from_str(&unknown()).unwrap());
    let down = || (500, json!(null));

    for (user, session, expected) in [
        (good_user.clone(), good_session.clone(), "holds"),
        (
            good_user.clone(),
            (200, session(&json!({"status": "ended"}))),
            "over",
        ),
        (
            good_user.clone(),
            (200, session(&json!({"status": "pending"}))),
            "over",
        ),
        (
            good_user.clone(),
            (200, session(&json!({"user_id": "user_2"}))),
            "over",
        ),
        (good_user.clone(), gone(), "over"),
        (
            (200, user(&json!({"banned": true}))),
            good_session.clone(),
            "not allowed",
        ),
        (
            (200, user(&json!({"locked": true}))),
            good_session.clone(),
            "not allowed",
        ),
        (gone(), good_session.clone(), "not allowed"),
        (gone(), gone(), "not allowed"),
        (gone(), down(), "not allowed"),
        (down(), gone(), "over"),
        (down(), good_session, "unavailable"),
        (good_user, down(), "unavailable"),
    ] {
        stand.script.answer("/v1/users/user_1", user.0, &user.1);
        stand
            .script
            .answer("/v1/sessions/sess_1", session.0, &session.1);
        let confirmed = stand.clerk.confirm(&sign_in).await;
        assert_eq!(
            confirmed.as_ref().map_or_else(kind, |()| "holds"),
            expected,
            "{user:?} {session:?}"
        );
    }
}

/// Returns the headers of a delivery that is made now, with this id.
fn delivery(id: &str, body: &str, secret: &[u8]) -> HeaderMap {
    let at = OffsetDateTime::now_utc().unix_timestamp().to_string();
    let signed = format!("{id}.{at}.{body}");
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        signed.as_bytes(),
    );
    let signature = format!("v1,{}", BASE64_STANDARD.encode(tag));
    let headers = [
        ("svix-id", id),
        ("svix-timestamp", &at),
        ("svix-signature", &signature),
    ];

    headers
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

async fn deliver(stand: &Stand, id: &str, body: &Value, secret: &[u8]) -> StatusCode {
    let body = body.to_string();
    let headers = delivery(id, &body, secret);
    ask(stand, WEBHOOK_PATH, &[], &headers, Some(&body.into())).await
}

/// Sends a request to one of Clerk's paths.
async fn ask(
    stand: &Stand,
    path: &str,
    segments: &[&str],
    headers: &HeaderMap,
    body: Option<&Bytes>,
) -> StatusCode {
    let segments: Vec<_> = segments.iter().map(|text| (*text).to_owned()).collect();
    let answer = stand.clerk.answer(PlainRequest {
        path,
        segments: &segments,
        headers,
        body,
        request_id: "",
        now: OffsetDateTime::now_utc(),
    });

    answer.await.status()
}

#[tokio::test]
async fn a_delivery_needs_no_browser_but_a_body_of_a_sensible_length_and_a_secret_of_ours() {
    let mut stand = Stand::new().await;
    let webhook = Path {
        path: WEBHOOK_PATH,
        kind: PathKind::Message(64 * 1024),
    };
    assert_eq!(stand.clerk.paths(), [webhook]);

    let whole = |length: usize| json!({"type": "user.deleted", "data": {"id": "user_1"}, "padding": "a".repeat(length)});
    for length in [0, 60 * 1024] {
        let id = format!("msg_{length}");
        let status = deliver(&stand, &id, &whole(length), &WEBHOOK_SECRET).await;
        assert_eq!(status, StatusCode::OK, "{length}");
    }

    // One that is longer than the path says comes without a body.
    let headers = delivery("msg_long", "", &WEBHOOK_SECRET);
    assert_eq!(
        ask(&stand, WEBHOOK_PATH, &[], &headers, None).await,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(stand.sessions.of_editors().len(), 2);

    Arc::get_mut(&mut stand.clerk).unwrap().inbox = None;
    assert_eq!(stand.clerk.paths(), []);
    assert_eq!(
        deliver(&stand, "msg_1", &whole(0), &WEBHOOK_SECRET).await,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn clerks_scripts_are_served_from_here_only_if_there_is_a_directory_with_them() {
    let directory = tempfile::tempdir().unwrap();
    for (package, first) in [("clerk-js", "clerk.browser.js"), ("ui", "ui.browser.js")] {
        let dist = directory.path().join("@clerk").join(package).join("dist");
        std::fs::create_dir_all(&dist).unwrap();
        std::fs::write(dist.join(first), "script").unwrap();
    }

    std::fs::write(directory.path().join("secret.js"), "no").unwrap();
    let own = Stand::with(
        &["--web-clerk-js-dir", directory.path().to_str().unwrap()],
        &[],
        false,
    )
    .await;
    let none = Stand::new().await;
    let script = Path {
        path: "/npm/@clerk/{package}/dist/{file}",
        kind: PathKind::File,
    };
    assert!(own.clerk.paths().contains(&script) && !none.clerk.paths().contains(&script));

    for (stand, package, file, status) in [
        (&own, "ui@1", "ui.browser.js", StatusCode::OK),
        (&own, "clerk-js@6.34.1", "clerk.browser.js", StatusCode::OK),
        (&own, "ui@1", "../../../secret.js", StatusCode::NOT_FOUND),
        (&own, "../../ui", "ui.browser.js", StatusCode::NOT_FOUND),
        (&own, "ui@1", "", StatusCode::NOT_FOUND),
        (&none, "ui@1", "ui.browser.js", StatusCode::NOT_FOUND),
    ] {
        let found = ask(
            stand,
            script.path,
            &[package, file],
            &HeaderMap::new(),
            Some(&Bytes::new()),
        )
        .await;
        assert_eq!(found, status, "{package} {file}");
    }
}

#[tokio::test]
async fn a_genuine_delivery_signs_out_once_and_a_forged_one_nobody() {
    let stand = Stand::new().await;
    let deleted = json!({"type": "user.deleted", "data": {"id": "user_1", "deleted": true}});
    let revoked = json!({"type": "session.revoked", "data": {"id": "sess_1", "user_id": "user_1"}});
    assert_eq!(
        deliver(&stand, "msg_1", &deleted, &[8; 24]).await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        deliver(
            &stand,
            "msg_0",
            &json!({"type": "user.created", "data": {}}),
            &WEBHOOK_SECRET
        )
        .await,
        StatusCode::OK
    );
    assert_eq!(stand.sessions.of_editors().len(), 0);

    // Svix sends again what has found nobody at home.
    *stand.sessions.is_down.lock().unwrap() = true;
    assert_eq!(
        deliver(&stand, "msg_1", &deleted, &WEBHOOK_SECRET).await,
        StatusCode::SERVICE_UNAVAILABLE
    );

    *stand.sessions.is_down.lock().unwrap() = false;

    for _ in 0..2 {
        assert_eq!(
            deliver(&stand, "msg_1", &deleted, &WEBHOOK_SECRET).await,
            StatusCode::OK
        );
    }

    assert_eq!(
        deliver(&stand, "msg_2", &revoked, &WEBHOOK_SECRET).await,
        StatusCode::OK
    );

    let told = stand.sessions.of_editors();
    let told: Vec<_> = told
        .iter()
        .map(|end| {
            (
                &*end.provider,
                &*end.subject,
                &*end.provider_session,
                end.reason,
            )
        })
        .collect();
    let all = (ISSUER, "user_1", "", RevocationReason::UserDeleted);
    assert_eq!(
        told,
        [
            all,
            (
                ISSUER,
                "user_1",
                "sess_1",
                RevocationReason::ProviderSessionRevoked
            )
        ]
    );
    assert_eq!(stand.sessions.ended.lock().unwrap().len(), 2);

    let metrics = stand.metrics.scrape();

    for (outcome, count) in [
        ("forged", 1),
        ("ignored", 1),
        ("failed", 1),
        ("revoked", 2),
        ("repeated", 1),
    ] {
        let line = format!("vvs_clerk_webhooks_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn a_session_that_has_ended_at_clerk_ends_in_browsers_and_only_by_a_setting_in_editors() {
    for (flags, editors) in [(&[][..], 0), (&["--web-clerk-end-with-session", "true"], 1)] {
        let stand = Stand::with(flags, &[], false).await;
        let ended = json!({"type": "session.ended", "data": {"id": "sess_1", "user_id": "user_1"}});
        assert_eq!(
            deliver(&stand, "msg_1", &ended, &WEBHOOK_SECRET).await,
            StatusCode::OK
        );

        let told = stand.sessions.ended.lock().unwrap().clone();
        assert_eq!(
            (&*told[0].subject, &*told[0].provider_session),
            ("user_1", "sess_1")
        );
        assert_eq!(
            (told.len(), stand.sessions.of_editors().len()),
            (1, editors)
        );
    }
}

#[tokio::test]
async fn a_sign_in_is_as_old_as_the_token_that_shows_it() {
    let stand = Stand::new().await;
    for (issued_at, age) in [(NOW, 0), (NOW - 40, 40), (NOW + 3, 0)] {
        let token = stand::token(&json!({}), &json!({"iat": issued_at}));
        let arrival = stand
            .arrive(&format!("__session={token}"))
            .await
            .ok()
            .unwrap();
        let Arrival::SignedIn(_, proof) = arrival else {
            panic!("a good token is stale")
        };
        assert_eq!(proof, Freshness::Aged(Duration::from_secs(age)));
    }
}

#[tokio::test]
async fn who_is_gone_or_barred_is_signed_out_when_clerk_is_asked_again() {
    let stand = Stand::new().await;
    let ids = [
        "user_1",
        "user_banned",
        "user_gone",
        "user_unsure",
        "user_last",
    ];
    stand.stale(&ids);
    let banned = user(&json!({"id": "user_banned", "banned": true}));
    stand.script.answer("/v1/users/user_banned", 200, &banned);
    stand.script.answer("/v1/users/user_unsure", 500, &"");
    let mut waiting = std::collections::VecDeque::new();
    assert_eq!(
        recheck::once(&stand.clerk, &mut waiting).await,
        Duration::from_secs(10)
    );
    assert_eq!(
        waiting,
        ["user_last", "user_unsure"],
        "an outage is no logout, and nobody is forgotten"
    );

    let told = stand.sessions.of_editors();
    let told: Vec<_> = told
        .iter()
        .map(|end| (&*end.subject, &*end.provider_session, end.reason))
        .collect();
    let all = |subject: &'static str, reason| (subject, "", reason);
    assert_eq!(
        told,
        [
            all("user_banned", RevocationReason::UserBanned),
            all("user_gone", RevocationReason::UserDeleted)
        ]
    );
    assert!(
        stand
            .metrics
            .scrape()
            .contains("vvs_clerk_rechecks_total{outcome=\"ended\"} 2\n")
    );
}

#[tokio::test]
async fn a_secret_key_of_another_instance_signs_nobody_out() {
    let stand = Stand::new().await;
    stand.stale(&["user_gone", "user_1"]);
    let mut waiting = std::collections::VecDeque::new();
    // To that instance all of our users are strangers.
    recheck::once(&stand.clerk, &mut waiting).await;
    assert_eq!(waiting, ["user_1", "user_gone"]);
    assert!(stand.sessions.of_editors().is_empty());
    // A user that it knows shows that it is the right one.
    recheck::once(&stand.clerk, &mut waiting).await;
    assert!(waiting.is_empty());
    assert_eq!(stand.sessions.of_editors().len(), 1);
}
