//! The page after an approval when the editor waits for a code, when it is away, and when it
//! already has its token.

use http::StatusCode;
use tonic::Code;
use vvs_proto::relay::{Binding, LoginState};
use vvs_proto::session::AuditEvent;
use vvs_proto::types::{App, Device};

use super::bench::{Bench, Browser, CODE, ID, Seen};
use super::path;

const LISTENER: &str = "http://127.0.0.1:50000/done";
const TYPED: &str = "Approved. Now type this code into your editor";
const UNSAFE: &str = "There is no safe way back to this editor";
const LINK: &str = "Approved. Now back to your editor";

/// A login whose delivery is held, and the page that its approval leads to.
async fn held(return_uri: &'static str, min_binding: Binding) -> (Bench, Browser, Seen) {
    let bench = Bench::new();
    *bench.script.delivery.lock().unwrap() = Ok(LoginState::Held);
    *bench.script.way_back.lock().unwrap() = (return_uri, min_binding);
    let (mut browser, page) = bench.approver("ada@example.com").await;
    let handed = browser.approve(&page.csrf()).await;
    (bench, browser, handed)
}

#[tokio::test]
async fn an_approval_leads_to_the_code_and_the_same_one_again_to_the_same_code() {
    let (bench, mut browser, page) = held("", Binding::Typed).await;
    assert_eq!((page.status, page.title()), (StatusCode::OK, TYPED));
    assert!(
        page.text.contains(">BCDF-GHJK<") && page.text.contains("Never give this code to anyone.")
    );
    assert!(!page.headers.contains_key("location") && !page.text.contains("the-token"));
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_approvals_total{outcome=\"held\"} 1")
    );

    // Coming back by the link, or from the callback, leads there again by a form, and never by
    // itself.
    for back in ["/login", "/api/auth/callback"] {
        let back = browser.get(&path(back)).await;
        assert_eq!(
            (back.status, back.title()),
            (StatusCode::OK, "Approved. One step is left")
        );
        assert!(!back.text.contains("BCDF") && back.text.contains("data-resume"));
        assert_eq!(browser.approve(&back.csrf()).await.title(), TYPED);
    }

    let deliveries = bench.script.deliveries.lock().unwrap();
    assert_eq!(deliveries.len(), 3, "a GET has delivered");
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.request_id == deliveries[0].request_id)
    );
}

#[tokio::test]
async fn a_link_carries_the_code_and_shows_it_only_where_the_server_lets_it_be_typed() {
    for (min_binding, shown) in [
        (Binding::Confirm, true),
        (Binding::Typed, true),
        (Binding::Link, false),
    ] {
        let (_, _, page) = held(LISTENER, min_binding).await;
        assert_eq!((page.status, page.title()), (StatusCode::OK, LINK));
        assert!(
            page.text.contains(&format!(
                "data-return-uri=\"{LISTENER}\" data-code=\"{CODE}\""
            )),
            "{}",
            page.text
        );
        assert_eq!(page.text.contains("BCDF-GHJK"), shown, "{min_binding:?}");
        assert_eq!(
            page.text.contains("Signing in on another machine?"),
            shown,
            "{min_binding:?}"
        );
    }
}

#[tokio::test]
async fn a_way_back_that_no_browser_should_take_is_said_and_not_shown() {
    for uri in [
        "javascript:alert(1)",
        "http://127.0.0.1:50000/it's",
        "vvs://auth/a|b",
        "http://127.0.0.1:50000//evil.example/x",
        "http://127.0.0.1:8080/login",
    ] {
        let (bench, mut browser, page) = held(uri, Binding::Confirm).await;
        assert_eq!(
            (page.status, page.title()),
            (StatusCode::FORBIDDEN, UNSAFE),
            "{uri}"
        );
        assert!(
            !page.text.contains(uri) && !page.text.contains("BCDF"),
            "{uri}"
        );
        assert!(
            bench
                .metrics
                .scrape()
                .contains("vvs_approvals_total{outcome=\"unsafe_return\"} 1")
        );

        // Not another browser's: the same approval comes to the same end.
        let back = browser.get(&path("/login")).await;
        assert_eq!(back.title(), "Approved. One step is left");
        assert_eq!(browser.approve(&back.csrf()).await.title(), UNSAFE);
    }
}

#[tokio::test]
async fn a_login_that_no_browser_should_be_led_back_to_is_refused_before_anybody_signs_in() {
    for uri in [
        "http://127.0.0.1:50000//evil.example/x",
        "http://[::1]:8080/",
    ] {
        let bench = Bench::new();
        let (mut approver, approval) = bench.approver("ada@example.com").await;
        *bench.script.return_uri.lock().unwrap() = uri;

        for page in [
            bench.browser().get(&path("/login")).await,
            approver.get(&path("/api/auth/callback")).await,
            approver.approve(&approval.csrf()).await,
        ] {
            assert_eq!(
                (page.status, page.title()),
                (StatusCode::FORBIDDEN, UNSAFE),
                "{uri}"
            );
            assert!(
                !page.text.contains(uri) && !page.text.contains("/dev/sign-in"),
                "{uri}"
            );
        }

        assert_eq!(
            (
                bench.deliveries(),
                bench.script.created.lock().unwrap().len()
            ),
            (0, 0),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn an_approval_page_says_where_the_code_will_go() {
    let bench = Bench::new();
    *bench.script.return_uri.lock().unwrap() = "http://127.0.0.1:41873/";
    let (_, page) = bench.approver("ada@example.com").await;
    assert!(
        page.text
            .contains("to a program on this computer, port 41873"),
        "{}",
        page.text
    );
}

#[tokio::test]
async fn a_code_is_for_the_browser_and_the_account_that_approved() {
    let (bench, mut browser, page) = held("", Binding::Typed).await;
    for mut other in [bench.browser(), browser.clone()] {
        // Another browser, or another person in the same one.
        other.cookies.remove("vvs-8080-sign-in");
        let seen = other.get(&path("/login")).await;
        assert_eq!(
            (seen.status, seen.text.contains("BCDF")),
            (StatusCode::CONFLICT, false)
        );
    }

    assert_eq!(
        browser.get(&path("/auth-success")).await.status,
        StatusCode::FORBIDDEN
    );

    bench.login(Ok(LoginState::Acked));
    *bench.script.active.lock().unwrap() = true;
    assert_eq!(
        browser.get(&path("/auth-success")).await.status,
        StatusCode::OK
    );
    assert_eq!(
        browser.approve(&page.csrf()).await.location(),
        path("/auth-success")
    );
}

#[tokio::test]
async fn a_page_that_waits_for_the_code_hears_what_became_of_it() {
    let (bench, mut browser, page) = held("", Binding::Typed).await;
    let status = format!("{}&known=HELD", path("/login/status"));
    let change = async {
        bench.script.waits.notified().await;
        bench.login(Ok(LoginState::Burned));
    };

    let (answer, ()) = tokio::join!(browser.get(&status), change);
    assert_eq!(answer.text, r#"{"state":"BURNED"}"#);

    for (state, title) in [
        (LoginState::Burned, "Too many wrong codes"),
        (LoginState::Expired, "This sign-in is over"),
        (LoginState::Cancelled, "This sign-in is over"),
        (LoginState::Denied, "This sign-in is over"),
    ] {
        bench.login(Ok(state));
        let answers = [
            browser.approve(&page.csrf()).await,
            browser.get(&path("/login")).await,
        ];

        for over in answers {
            assert_eq!(
                (over.status, over.title()),
                (StatusCode::GONE, title),
                "{state:?}"
            );
        }
    }

    assert_eq!(bench.deliveries(), 1);
}

#[tokio::test]
async fn an_editor_that_is_away_is_waited_for_and_then_gets_the_same_delivery() {
    for gone in [
        Ok(LoginState::Away),
        Err((Code::Unavailable, "EDITOR_AWAY")),
        Err((Code::NotFound, "LOGIN_UNKNOWN")),
    ] {
        let (bench, mut browser, page) = held("", Binding::Typed).await;
        bench.login(gone);
        *bench.script.delivery.lock().unwrap() = Err((Code::Unavailable, "EDITOR_AWAY"));

        for waiting in [
            browser.approve(&page.csrf()).await,
            browser.get(&path("/login")).await,
        ] {
            assert_eq!(waiting.status, StatusCode::SERVICE_UNAVAILABLE, "{gone:?}");
            assert!(
                waiting.text.contains("data-deliver")
                    && waiting.text.contains("Your editor has lost")
            );
        }

        // It is back, at a relay that knows of no approval.
        bench.login(Ok(LoginState::Waiting));
        *bench.script.delivery.lock().unwrap() = Ok(LoginState::Held);
        let back = browser.get(&path("/login")).await;
        assert!(
            back.text.contains("data-deliver"),
            "{gone:?} is asked about again"
        );
        assert_eq!(
            browser.approve(&back.csrf()).await.title(),
            TYPED,
            "{gone:?}"
        );

        let deliveries = bench.script.deliveries.lock().unwrap();
        assert!(
            deliveries
                .iter()
                .all(|delivery| delivery.request_id == deliveries[0].request_id)
        );
    }
}

#[tokio::test]
async fn a_login_whose_session_is_in_use_has_succeeded_whatever_the_relays_know() {
    for found in [
        Err((Code::NotFound, "LOGIN_UNKNOWN")),
        Err((Code::Unavailable, "BACKPLANE_DOWN")),
        Ok(LoginState::Expired),
        Ok(LoginState::Cancelled),
        Ok(LoginState::Waiting),
    ] {
        let (bench, mut browser, page) = held("", Binding::Typed).await;
        bench.login(found);
        *bench.script.active.lock().unwrap() = true;
        assert_eq!(
            browser.approve(&page.csrf()).await.location(),
            path("/auth-success"),
            "{found:?}"
        );
        assert_eq!(
            bench.deliveries(),
            1,
            "{found:?}: what the editor has was delivered again"
        );
        assert_eq!(
            browser.get(&path("/auth-success")).await.status,
            StatusCode::OK,
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn a_session_in_use_is_nobodys_success_but_of_who_approved_it() {
    let bench = Bench::new();
    *bench.script.delivery.lock().unwrap() = Ok(LoginState::Held);
    let (mut browser, his) = bench.approver("bob@example.com").await;
    let hers = browser.sign_in("ada@example.com").await;
    browser.approve(&hers.csrf()).await;

    // Bob is back in the same browser, with the page that he had left open.
    let page = browser.get("/account/sign-in").await;
    browser
        .post(
            "/dev/sign-in",
            &[("csrf", &page.csrf()), ("email", "bob@example.com")],
        )
        .await;
    bench.login(Ok(LoginState::Expired));
    *bench.script.active.lock().unwrap() = true;
    assert_eq!(browser.approve(&his.csrf()).await.status, StatusCode::GONE);
}

#[tokio::test]
async fn a_session_that_has_ended_cannot_be_delivered() {
    for (code, reason) in [
        (Code::FailedPrecondition, "SESSION_REVOKED"),
        (Code::FailedPrecondition, "SESSION_EXPIRED"),
    ] {
        let (bench, mut browser, page) = held("", Binding::Typed).await;
        *bench.script.sessions.lock().unwrap() = Err((code, reason));
        let over = browser.approve(&page.csrf()).await;
        assert_eq!(
            (over.status, over.title()),
            (StatusCode::GONE, "This sign-in is over"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn a_session_is_made_for_the_editor_as_the_relay_knows_it() {
    let (bench, _, _) = held("", Binding::Typed).await;
    let created = bench.script.created.lock().unwrap()[0].clone();
    let device = Device {
        name: "laptop".to_owned(),
        os: "Debian".to_owned(),
        jwk: "the-key".to_owned(),
    };
    let app = App {
        name: "VVS Editor".to_owned(),
        version: "1.4.0".to_owned(),
    };
    assert_eq!((created.device, created.app), (Some(device), Some(app)));
    assert_eq!(
        (&*created.connection_id, &*created.address),
        (ID, "127.0.0.1")
    );
}

#[tokio::test]
async fn a_denial_is_written_down_and_stands_when_it_cannot_be() {
    for sessions in [Ok(()), Err((Code::Unavailable, "DATABASE_DOWN"))] {
        let bench = Bench::new();
        let (mut browser, page) = bench.approver("ada@example.com").await;
        *bench.script.sessions.lock().unwrap() = sessions;
        let denied = browser
            .post(
                "/login/deny",
                &[("connection_id", ID), ("csrf", &page.csrf())],
            )
            .await;
        assert_eq!(denied.title(), "Denied");

        let heard = bench.audit.lock().await.recv().await.unwrap();
        assert_eq!(
            (heard.event(), &*heard.connection_id, &*heard.address),
            (AuditEvent::Denied, ID, "127.0.0.1")
        );
        assert_eq!(
            (
                heard.provider_user.unwrap().subject,
                heard.device.unwrap().name
            ),
            ("ada@example.com".to_owned(), "laptop".to_owned())
        );
    }
}

#[tokio::test]
async fn another_account_approves_and_the_old_tabs_form_does_not() {
    let bench = Bench::new();
    let (mut browser, hers) = bench.approver("ada@example.com").await;
    browser
        .post(
            "/login/another",
            &[("connection_id", ID), ("csrf", &hers.csrf())],
        )
        .await;
    let refused = browser.approve(&hers.csrf()).await;
    assert_eq!(
        (refused.status, refused.title()),
        (StatusCode::FORBIDDEN, "This page was out of date")
    );
    assert!(
        refused
            .text
            .contains(&format!("href=\"{}\"", path("/login"))),
        "the way on is missing"
    );

    let his = browser.sign_in("bob@example.com").await;
    assert_eq!(his.title(), "Let this editor sign in as you?");
    assert_eq!(
        browser.approve(&hers.csrf()).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        browser.approve(&his.csrf()).await.location(),
        path("/auth-success")
    );

    let created = bench.script.created.lock().unwrap();
    assert_eq!(
        (
            created.len(),
            &*created[0].identity.as_ref().unwrap().subject
        ),
        (1, "bob@example.com")
    );
}
