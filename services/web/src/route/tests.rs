//! The whole role except its port: the answers to browsers, whatever the other roles answer.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use tonic::Code;
use vvs_auth::peer::Peers;
use vvs_identity::SignIn;
use vvs_identity::dev::{self, Dev};
use vvs_proto::relay::LoginState;
use vvs_proto::types::RevocationReason;

use self::bench::{Bench, ID, ORIGIN, OTHER_ID};
use crate::cookie::Jar;
use crate::kept::{Kept, SignInId};

mod account;
mod bench;
mod dev_key;
mod ended;
mod handback;
mod oidc;
mod outcome;
mod provider;
mod quota;

const TTL: Duration = Duration::from_mins(15);

fn path(page: &str) -> String {
    format!("{page}?connection_id={ID}")
}

#[tokio::test]
async fn an_approval_delivers_once_and_the_success_page_is_its_browsers_own() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver("ada@example.com").await;
    assert_eq!(
        (page.status, page.title()),
        (StatusCode::OK, "Let this editor sign in as you?")
    );
    assert!(page.text.contains("WXBK-RTQH") && page.text.contains("ada@example.com"));
    assert_eq!(bench.deliveries(), 0, "a GET has delivered");

    let mut watcher = bench.browser();
    watcher.get(&path("/login")).await;

    for _ in 0..2 {
        assert_eq!(
            browser.approve(&page.csrf()).await.location(),
            path("/auth-success")
        );
    }

    assert_eq!(
        bench.deliveries(),
        1,
        "the second approval was not to push again"
    );

    for page in [
        path("/auth-success"),
        "/auth-success".to_owned(),
        path("/login"),
    ] {
        let success = browser.get(&page).await;
        assert_eq!(
            (success.status, success.title()),
            (StatusCode::OK, "Your editor is signed in"),
            "{page}"
        );
        assert!(success.text.contains("ada@example.com"));
    }

    assert_eq!(
        browser.get(&path("/api/auth/callback")).await.location(),
        path("/auth-success")
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_approvals_total{outcome=\"acked\"} 1")
    );

    let mut other = bench.browser();
    for (page, status) in [
        ("/auth-success", 403),
        ("/login", 410),
        ("/login/status", 403),
    ] {
        assert_eq!(
            other.get(&path(page)).await.status.as_u16(),
            status,
            "{page}"
        );
    }

    assert_eq!(
        other.get("/auth-success").await.status,
        StatusCode::FORBIDDEN
    );

    // It has seen the login, and did not approve it.
    assert_eq!(
        watcher.get(&path("/auth-success")).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn a_delivery_carries_what_was_approved_and_where() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver("ada@example.com").await;
    browser.approve(&page.csrf()).await;
    let created = bench.script.created.lock().unwrap()[0].clone();
    let delivered = bench.script.deliveries.lock().unwrap()[0].clone();
    assert_eq!(created.request_id, delivered.request_id);

    let identity = created.identity.unwrap();
    assert_eq!(
        (identity.provider.as_str(), identity.subject.as_str()),
        ("dev", "ada@example.com")
    );
    assert_eq!(
        (delivered.connection_id.as_str(), delivered.token.as_str()),
        (ID, "the-token")
    );
    assert_eq!(
        (delivered.user.unwrap().id, delivered.session.unwrap().id),
        ("usr_1".to_owned(), "ses_1".to_owned())
    );
}

#[tokio::test]
async fn a_form_sent_twice_at_once_is_one_delivery() {
    let bench = Bench::new();
    let (browser, page) = bench.approver("ada@example.com").await;

    // The second click brings the cookies from before the first one's answer.
    for mut click in [browser.clone(), browser] {
        assert_eq!(
            click.approve(&page.csrf()).await.location(),
            path("/auth-success")
        );
    }

    let deliveries = bench.script.deliveries.lock().unwrap();
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.request_id == deliveries[0].request_id)
    );
}

#[tokio::test]
async fn a_form_is_taken_from_its_own_page_browser_and_account_only() {
    let bench = Bench::new();
    let (mut ada, page) = bench.approver("ada@example.com").await;
    let (bob, _) = bench.approver("bob@example.com").await;
    for form in [
        "/login/approve",
        "/login/deny",
        "/login/another",
        "/dev/sign-in",
    ] {
        let own = [
            ("connection_id", ID),
            ("csrf", &*page.csrf()),
            ("confirmed", "yes"),
            ("email", "a@b"),
        ];
        let mut foreign = ada.clone();
        foreign.site = "cross-site";
        let refused = foreign.post(form, &own).await;
        assert_eq!(
            (refused.status, refused.title()),
            (StatusCode::FORBIDDEN, "Another site sent you here"),
            "{form}"
        );

        for (mut browser, id, csrf) in [
            (bob.clone(), ID, page.csrf()),
            (bench.browser(), ID, page.csrf()),
            (ada.clone(), OTHER_ID, page.csrf()),
            (ada.clone(), "x", page.csrf()),
            (ada.clone(), ID, "AAAA".to_owned()),
            (ada.clone(), ID, String::new()),
        ] {
            let fields = [
                ("connection_id", id),
                ("csrf", &csrf),
                ("confirmed", "yes"),
                ("email", "a@b"),
            ];
            let refused = browser.post(form, &fields).await;
            assert_eq!(
                (refused.status, refused.title()),
                (StatusCode::FORBIDDEN, "This page was out of date"),
                "{form}"
            );
        }
    }

    // Another account in another tab of the same browser.
    let second = ada.get(&path("/login")).await;
    let fields = [
        ("connection_id", ID),
        ("csrf", &*second.csrf()),
        ("email", "eve@example.com"),
    ];
    ada.post("/dev/sign-in", &fields).await;
    assert_eq!(
        ada.approve(&page.csrf()).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        (
            bench.deliveries(),
            bench.script.denials.lock().unwrap().len()
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn a_request_from_another_site_does_not_touch_the_browsers_cookies() {
    let mut browser = Bench::new().browser();
    browser.site = "cross-site";
    let refused = browser
        .post("/login/approve", &[("connection_id", ID)])
        .await;
    assert!(!refused.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn a_form_that_cannot_be_read_is_400() {
    let mut browser = Bench::new().browser();
    let long = "a".repeat(17 * 1024);

    for (content_type, body) in [
        ("application/json", "{}"),
        ("application/x-www-form-urlencoded", "csrf=a&csrf=b"),
        (
            "application/x-www-form-urlencoded",
            &*format!("csrf={long}"),
        ),
    ] {
        let request = Request::post("/login/approve")
            .header("origin", ORIGIN)
            .header("content-type", content_type);
        let refused = browser
            .send(request.body(Body::from(body.to_owned())).unwrap())
            .await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{content_type}");
    }
}

#[tokio::test]
async fn an_approval_without_the_tick_asks_again() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver("ada@example.com").await;
    for confirmed in [&[][..], &[("confirmed", "")], &[("confirmed", "no")]] {
        let csrf = page.csrf();
        let fields = [&[("connection_id", ID), ("csrf", &*csrf)], confirmed].concat();
        let asked = browser.post("/login/approve", &fields).await;
        assert_eq!(
            (asked.status, asked.title()),
            (StatusCode::BAD_REQUEST, "Let this editor sign in as you?")
        );
    }

    assert!(bench.script.created.lock().unwrap().is_empty());
}

#[tokio::test]
async fn without_a_sign_in_the_callback_goes_back_once_and_then_says_so() {
    let bench = Bench::new();
    let mut browser = bench.browser();
    let next = browser
        .get(&path("/api/auth/callback"))
        .await
        .location()
        .to_owned();
    assert_eq!(next, format!("{}&retry=1", path("/login")));

    let page = browser.get(&next).await;
    assert!(page.status == StatusCode::OK && page.text.contains("You are not signed in yet."));

    // As a browser does that keeps our first cookie and not the second one.
    let kept = browser.cookies.clone();
    let fields = [
        ("connection_id", ID),
        ("csrf", &*page.csrf()),
        ("retry", "1"),
        ("email", "ada@example.com"),
    ];
    let next = browser
        .post("/dev/sign-in", &fields)
        .await
        .location()
        .to_owned();
    assert!(next.ends_with("&retry=1"), "{next}");

    let fresh = [&fields[..2], &[("retry", ""), ("email", "ada@example.com")]].concat();
    assert!(
        !browser
            .clone()
            .post("/dev/sign-in", &fresh)
            .await
            .location()
            .contains("retry")
    );

    browser.cookies = kept;
    let refused = browser.get(&next).await;
    assert_eq!(
        (refused.status, refused.title()),
        (StatusCode::FORBIDDEN, "You are not signed in yet")
    );
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_approves_nothing() {
    let bench = Bench::new();
    let old = Bench::with(Duration::ZERO, |_| {});
    let mut browser = old.browser();
    assert_eq!(
        browser.sign_in("ada@example.com").await.location(),
        format!("{}&retry=1", path("/login"))
    );

    // The form is whole: it was made while the sign-in was young.
    let page = browser.get(&path("/login")).await;
    assert_eq!(
        browser.approve(&page.csrf()).await.location(),
        format!("{}&retry=1", path("/login"))
    );
    assert_eq!(old.deliveries() + bench.deliveries(), 0);
}

#[tokio::test]
async fn signing_in_again_goes_on_with_the_same_delivery() {
    let bench = Bench::new();
    *bench.script.delivery.lock().unwrap() = Ok(LoginState::Sent);
    let (mut browser, page) = bench.approver("ada@example.com").await;
    browser.approve(&page.csrf()).await;
    bench.login(Ok(LoginState::Waiting));
    let page = browser.sign_in("Ada@example.com").await;
    browser.approve(&page.csrf()).await;
    let deliveries = bench.script.deliveries.lock().unwrap();
    assert_eq!(
        (deliveries.len(), &deliveries[0].request_id),
        (2, &deliveries[1].request_id)
    );
}

#[tokio::test]
async fn a_wrong_email_is_said_and_what_was_typed_stays() {
    let bench = Bench::new();
    let mut browser = bench.browser();
    let page = browser.get(&path("/login")).await;
    let fields = [
        ("connection_id", ID),
        ("csrf", &*page.csrf()),
        ("email", "ada@"),
        ("name", "Ada"),
    ];
    let again = browser.post("/dev/sign-in", &fields).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
    assert!(
        again.text.contains("Enter a whole email address.") && again.text.contains("value=\"Ada\"")
    );
}

#[tokio::test]
async fn another_account_can_be_used() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver("ada@example.com").await;
    let next = browser
        .post(
            "/login/another",
            &[("connection_id", ID), ("csrf", &page.csrf())],
        )
        .await;
    assert_eq!(next.location(), path("/login") + "&another=1");
    assert!(
        !browser
            .get(next.location())
            .await
            .text
            .contains("ada@example.com")
    );
}

#[tokio::test]
async fn a_denial_reaches_the_relay() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver("ada@example.com").await;
    let denied = browser
        .post(
            "/login/deny",
            &[("connection_id", ID), ("csrf", &page.csrf())],
        )
        .await;
    assert_eq!((denied.status, denied.title()), (StatusCode::OK, "Denied"));
    assert_eq!(*bench.script.denials.lock().unwrap(), [ID]);
    assert_eq!(bench.deliveries(), 0);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one row for each case")]
async fn what_becomes_of_a_delivery_has_its_answer() {
    for (delivery, status, title) in [
        (
            Ok(LoginState::Sent),
            503,
            "Approved, but your editor does not have it yet",
        ),
        (
            Err((Code::Unavailable, "EDITOR_AWAY")),
            503,
            "Approved, but your editor does not have it yet",
        ),
        (
            Err((Code::Unavailable, "SESSIONS_DOWN")),
            503,
            "Approved, but your editor does not have it yet",
        ),
        (
            Err((Code::Unavailable, "DRAINING")),
            503,
            "Approved, but your editor does not have it yet",
        ),
        (
            Err((Code::Unavailable, "")),
            503,
            "Approved, but your editor does not have it yet",
        ),
        (
            Err((Code::Cancelled, "")),
            503,
            "Approved, but your editor does not have it yet",
        ),
        // The relay that held it is gone; the editor may come back to another one.
        (
            Err((Code::NotFound, "LOGIN_UNKNOWN")),
            503,
            "Approved, but your editor does not have it yet",
        ),
        (
            Err((Code::AlreadyExists, "LOGIN_CLAIMED")),
            409,
            "This sign-in is already taken",
        ),
        (
            Err((Code::FailedPrecondition, "LOGIN_OVER")),
            410,
            "This sign-in is over",
        ),
        (
            Err((Code::FailedPrecondition, "EDITOR_REFUSED")),
            410,
            "Your editor did not take the sign-in",
        ),
        (
            Err((Code::FailedPrecondition, "EDITOR_CANNOT_BIND")),
            403,
            "This editor cannot sign in here",
        ),
        (
            Err((Code::PermissionDenied, "PEER_NOT_ALLOWED")),
            500,
            "Something broke on our side",
        ),
    ] {
        let bench = Bench::new();
        *bench.script.delivery.lock().unwrap() = delivery;
        let (mut browser, page) = bench.approver("ada@example.com").await;
        let answer = browser.approve(&page.csrf()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.title()),
            (status, title),
            "{delivery:?}"
        );
        assert!(!answer.text.contains("the-token"));
        assert!(
            !browser
                .get(&path("/auth-success"))
                .await
                .status
                .is_success(),
            "{delivery:?}"
        );

        if status != 503 {
            // No editor has its token, and none ever gets it.
            let ended = bench.script.revocations.lock().unwrap().pop().unwrap();
            assert_eq!(
                (&*ended.session_id, ended.reason(), ended.only_pending),
                ("ses_1", RevocationReason::NotDelivered, true)
            );
            continue;
        }

        assert!(
            bench.script.revocations.lock().unwrap().is_empty(),
            "{delivery:?}"
        );

        // The page's own form is the same delivery again.
        *bench.script.delivery.lock().unwrap() = Ok(LoginState::Acked);
        assert_eq!(
            browser.approve(&answer.csrf()).await.location(),
            path("/auth-success"),
            "{delivery:?}"
        );

        let deliveries = bench.script.deliveries.lock().unwrap();
        assert_eq!(deliveries[0].request_id, deliveries[1].request_id);
    }
}

#[tokio::test]
async fn an_approval_waits_for_roles_that_are_down() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver("ada@example.com").await;
    *bench.script.sessions.lock().unwrap() = Err((Code::Unavailable, "DATABASE_DOWN"));
    let waiting = browser.approve(&page.csrf()).await;
    assert_eq!(waiting.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(waiting.text.contains("data-deliver"));

    *bench.script.sessions.lock().unwrap() = Ok(());

    bench.login(Err((Code::Unavailable, "BACKPLANE_DOWN")));
    assert!(
        browser
            .approve(&waiting.csrf())
            .await
            .text
            .contains("data-deliver")
    );
    assert_eq!(bench.deliveries(), 0);

    for page in ["/login", "/api/auth/callback"] {
        let down = browser.get(&path(page)).await;
        assert_eq!(
            (down.status, down.title()),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "A part of VVS does not answer"
            )
        );
    }

    bench.login(Ok(LoginState::Waiting));
    assert_eq!(
        browser.approve(&waiting.csrf()).await.location(),
        path("/auth-success")
    );
}

#[tokio::test]
async fn a_login_that_has_failed_is_not_approved() {
    for state in [
        LoginState::Denied,
        LoginState::Cancelled,
        LoginState::Expired,
        LoginState::Burned,
    ] {
        let bench = Bench::new();
        let (mut browser, page) = bench.approver("ada@example.com").await;
        bench.login(Ok(state));
        assert_eq!(
            browser.approve(&page.csrf()).await.status,
            StatusCode::GONE,
            "{state:?}"
        );
        assert_eq!(
            browser.get(&path("/login")).await.status,
            StatusCode::GONE,
            "{state:?}"
        );
        assert!(bench.script.created.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_sent_login_is_delivered_again_where_it_was_approved_and_claimed_elsewhere() {
    let bench = Bench::new();
    *bench.script.delivery.lock().unwrap() = Ok(LoginState::Sent);
    let (mut browser, page) = bench.approver("ada@example.com").await;
    browser.approve(&page.csrf()).await;

    for page in ["/login", "/api/auth/callback"] {
        assert!(
            browser.get(&path(page)).await.text.contains("data-deliver"),
            "{page}"
        );
        assert_eq!(
            bench.browser().get(&path("/login")).await.status,
            StatusCode::CONFLICT
        );
    }

    bench.login(Ok(LoginState::Acked));
    *bench.script.active.lock().unwrap() = true;
    assert_eq!(
        browser.get(&path("/auth-success")).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn who_uses_the_browser_next_sees_no_account_of_the_one_before() {
    let bench = Bench::new();
    *bench.script.delivery.lock().unwrap() = Ok(LoginState::Sent);
    let (mut browser, page) = bench.approver("ada@example.com").await;
    browser.approve(&page.csrf()).await;
    assert_eq!(
        browser.sign_in("bob@example.com").await.status,
        StatusCode::CONFLICT
    );

    bench.login(Ok(LoginState::Acked));
    *bench.script.active.lock().unwrap() = true;
    let success = browser.get(&path("/auth-success")).await;
    assert_eq!(
        (success.status, success.title()),
        (StatusCode::OK, "Your editor is signed in")
    );
    assert!(!success.text.contains("ada@example.com") && !success.text.contains("bob@example.com"));
}

#[tokio::test]
async fn an_unknown_login_is_over_unless_this_browser_has_seen_it() {
    let bench = Bench::new();
    let mut browser = bench.browser();
    browser.get(&path("/login")).await;
    bench.login(Err((Code::NotFound, "LOGIN_UNKNOWN")));
    let page = browser.get(&path("/login")).await;
    assert_eq!(
        (page.status, page.title()),
        (StatusCode::OK, "Waiting for your editor")
    );
    assert_eq!(
        browser.get(&path("/login/status")).await.text,
        r#"{"state":"AWAY"}"#
    );
    assert_eq!(
        bench.browser().get(&path("/login")).await.status,
        StatusCode::GONE
    );
}

#[tokio::test]
async fn an_editor_that_cannot_bind_is_told_before_the_sign_in() {
    let bench = Bench::new();
    bench.login(Err((Code::FailedPrecondition, "EDITOR_CANNOT_BIND")));
    let page = bench.browser().get(&path("/login")).await;
    assert_eq!(
        (page.status, page.title()),
        (StatusCode::FORBIDDEN, "This editor cannot sign in here")
    );
}

#[tokio::test]
async fn a_malformed_link_is_400() {
    let mut browser = Bench::new().browser();
    for page in [
        "/login",
        "/api/auth/callback",
        "/login/status",
        "/auth-success",
    ] {
        for query in [
            "?connection_id=",
            "?connection_id=x",
            &format!("?connection_id={ID}&connection_id={OTHER_ID}"),
        ] {
            if page == "/auth-success" && query.contains('&') {
                continue;
            }
            let path = format!("{page}{query}");
            assert_eq!(
                browser.get(&path).await.status,
                StatusCode::BAD_REQUEST,
                "{path}"
            );
        }
    }

    assert_eq!(browser.get("/login").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_state_is_told_as_soon_as_it_changes_and_to_this_browser_only() {
    let bench = Bench::new();
    assert_eq!(
        bench.browser().get(&path("/login/status")).await.status,
        StatusCode::FORBIDDEN
    );

    let mut browser = bench.browser();
    browser.get(&path("/login")).await;
    let change = async {
        bench.script.waits.notified().await;
        bench.login(Ok(LoginState::Denied));
    };

    let status = path("/login/status");
    let (answer, ()) = tokio::join!(browser.get(&status), change);
    assert_eq!(answer.text, r#"{"state":"DENIED"}"#);
    assert_eq!(answer.headers["content-type"], "application/json");

    // A page that shows another state need not wait.
    bench.login(Ok(LoginState::Waiting));
    assert_eq!(
        browser.get(&format!("{status}&known=AWAY")).await.text,
        r#"{"state":"WAITING"}"#
    );
}

#[tokio::test]
async fn what_another_provider_has_said_does_not_count() {
    let mut set = Vec::new();
    let bench = Bench::with(TTL, |web| {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let ours = dev::sign_in("ada@example.com", "", "s".to_owned(), now).unwrap();
        let (id, mut jar) = (SignInId::mint().unwrap(), Jar::default());
        let who = SignIn {
            provider: "https://id.test".to_owned(),
            ..ours
        };
        jar.keep(
            &web.cookies,
            Kept {
                who,
                id,
                expires_at: now + 3600,
                watermark: 0,
            },
        )
        .unwrap();
        set.extend(jar.into_set());
    });
    let mut browser = bench.browser();
    for line in set {
        let (name, rest) = line.to_str().unwrap().split_once('=').unwrap();
        browser
            .cookies
            .insert(name.to_owned(), rest.split(';').next().unwrap().to_owned());
    }

    assert_eq!(
        browser.get("/account/sessions").await.location(),
        "/account/sign-in"
    );
    assert_eq!(
        browser.get(&path("/api/auth/callback")).await.location(),
        format!("{}&retry=1", path("/login"))
    );
}

#[tokio::test]
async fn whoever_waits_does_not_hold_up_a_stop() {
    let mut stop = None;
    let bench = Bench::with(TTL, |web| stop = Some(web.stop.clone()));
    let mut browser = bench.browser();
    browser.get(&path("/login")).await;
    let halt = async {
        bench.script.waits.notified().await;
        stop.unwrap().cancel();
    };
    let status = path("/login/status");
    let (answer, ()) = tokio::join!(browser.get(&status), halt);
    assert_eq!(answer.text, r#"{"state":"WAITING"}"#);
}

#[tokio::test]
async fn the_development_provider_answers_no_other_machine() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver("ada@example.com").await;
    browser.address = "192.0.2.1";

    for page in [
        "/login",
        "/api/auth/callback",
        "/auth-success",
        "/login/status",
        "/",
        "/nowhere",
    ] {
        let refused = browser.get(&path(page)).await;
        assert_eq!(
            (refused.status, refused.title()),
            (StatusCode::FORBIDDEN, "Only on the machine itself"),
            "{page}"
        );
    }

    for form in [
        "/dev/sign-in",
        "/login/approve",
        "/login/deny",
        "/login/another",
    ] {
        let fields = [
            ("connection_id", ID),
            ("csrf", &*page.csrf()),
            ("confirmed", "yes"),
        ];
        assert_eq!(
            browser.post(form, &fields).await.title(),
            "Only on the machine itself",
            "{form}"
        );
    }

    assert_eq!(bench.deliveries(), 0);
    assert!(Dev::new(&"https://auth.test".parse().unwrap(), None).is_err());
}

#[tokio::test]
async fn the_key_set_is_public_and_outlives_an_outage() {
    let down = Bench::new();
    *down.script.sessions.lock().unwrap() = Err((Code::Unavailable, "DATABASE_DOWN"));
    assert_eq!(
        down.browser().get("/.well-known/jwks.json").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );

    let old = r#"{"keys":["old"]}"#;
    let stale = Bench::with(TTL, |web| web.jwks.put(old.to_owned(), Duration::ZERO));
    let mut browser = stale.browser();
    browser.address = "192.0.2.1";
    *stale.script.sessions.lock().unwrap() = Err((Code::Unavailable, "DATABASE_DOWN"));
    let seen = browser.get("/.well-known/jwks.json").await;
    assert_eq!((seen.status, seen.text.as_str()), (StatusCode::OK, old));
    assert_eq!(seen.headers["cache-control"], "public, max-age=300");

    let bench = Bench::with(TTL, |web| web.jwks.put(old.to_owned(), Duration::ZERO));
    assert_eq!(
        bench.browser().get("/.well-known/jwks.json").await.text,
        r#"{"keys":[]}"#
    );

    *bench.script.sessions.lock().unwrap() = Err((Code::Internal, "INTERNAL"));
    assert_eq!(
        bench.browser().get("/.well-known/jwks.json").await.text,
        r#"{"keys":[]}"#
    );
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let mut browser = Bench::new().browser();
    for page in ["/", "/nowhere", "/favicon.ico", "/login/"] {
        let seen = browser.get(page).await;
        assert_eq!(
            (seen.status, seen.title()),
            (StatusCode::NOT_FOUND, "There is no such page"),
            "{page}"
        );
        assert!(seen.text.contains("Request 4bf92f3577b34da6"));
    }

    let seen = browser.get("/login/approve").await;
    assert_eq!(
        (seen.status, seen.title()),
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "This address works differently"
        )
    );
    assert_eq!(seen.headers["allow"], "POST");

    let style = browser.get("/assets/style.css").await;
    assert_eq!(
        (style.status, &style.headers["content-type"]),
        (StatusCode::OK, &"text/css; charset=utf-8".parse().unwrap())
    );
}

#[tokio::test]
async fn nobody_but_the_gateway_is_let_in() {
    let peers = Peers::new(Vec::new(), "vvs.internal").unwrap();
    let bench = Bench::with(TTL, |web| web.gateways = Some(peers.into()));

    for page in [
        "/login",
        "/assets/style.css",
        "/.well-known/jwks.json",
        "/nowhere",
    ] {
        let refused = bench.browser().get(page).await;
        assert_eq!(
            (refused.status, refused.text.as_str()),
            (StatusCode::FORBIDDEN, ""),
            "{page}"
        );
    }
}
