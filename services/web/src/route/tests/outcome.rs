//! The outcome of a login, as its browsers see it: a success that was another browser's, a denial
//! that nobody could be told, and the state that pages ask for.

use http::StatusCode;
use tonic::Code;
use vvs_proto::relay::LoginState;

use super::bench::{Bench, ID};
use super::path;

#[tokio::test]
async fn an_approval_that_came_second_is_no_success() {
    let bench = Bench::new();
    // Nobody knows how far it got.
    *bench.script.delivery.lock().unwrap() = Err((Code::Unavailable, "DRAINING"));
    let (mut browser, page) = bench.approver("ada@example.com").await;
    browser.approve(&page.csrf()).await;

    // Another browser's delivery was first, and the session of this one lies unused.
    bench.login(Ok(LoginState::Acked));

    for page in ["/auth-success", "/login", "/auth-success"] {
        let lost = browser.get(&path(page)).await;
        assert_eq!(
            (lost.status, lost.title()),
            (StatusCode::CONFLICT, "This sign-in is already taken"),
            "{page}"
        );
    }

    assert_eq!(
        browser.get("/auth-success").await.status,
        StatusCode::FORBIDDEN
    );

    *bench.script.sessions.lock().unwrap() = Err((Code::Unavailable, "DATABASE_DOWN"));
    assert_eq!(
        browser.get(&path("/auth-success")).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );

    *bench.script.sessions.lock().unwrap() = Err((Code::FailedPrecondition, "SESSION_REVOKED"));
    let over = browser.get(&path("/auth-success")).await;
    assert_eq!(
        (over.status, over.title()),
        (StatusCode::GONE, "This sign-in is over")
    );

    // It was this one's after all, and stays so when sessions can no longer say it.
    *bench.script.sessions.lock().unwrap() = Ok(());
    *bench.script.active.lock().unwrap() = true;
    assert_eq!(
        browser.get(&path("/login")).await.title(),
        "Your editor is signed in"
    );

    *bench.script.sessions.lock().unwrap() = Err((Code::Unavailable, "DATABASE_DOWN"));
    assert_eq!(
        browser.get(&path("/auth-success")).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_success_of_which_no_relay_knows_any_more_is_the_sessions_to_say() {
    for gone in [
        Err((Code::NotFound, "LOGIN_UNKNOWN")),
        Err((Code::Unavailable, "EDITOR_AWAY")),
    ] {
        let bench = Bench::new();
        *bench.script.delivery.lock().unwrap() = Err((Code::Unavailable, "DRAINING"));
        let (mut browser, page) = bench.approver("ada@example.com").await;
        browser.approve(&page.csrf()).await;
        bench.login(gone);
        assert_eq!(
            browser.get(&path("/auth-success")).await.status,
            StatusCode::FORBIDDEN,
            "{gone:?}"
        );

        *bench.script.active.lock().unwrap() = true;
        let success = browser.get(&path("/auth-success")).await;
        assert_eq!(
            (success.status, success.title()),
            (StatusCode::OK, "Your editor is signed in"),
            "{gone:?}"
        );
    }
}

#[tokio::test]
async fn a_denial_that_cannot_be_told_is_offered_again_while_the_login_lasts() {
    for (gone, why) in [
        (
            Err((Code::NotFound, "LOGIN_UNKNOWN")),
            "The editor has lost its connection",
        ),
        (
            Err((Code::Unavailable, "EDITOR_AWAY")),
            "The editor has lost its connection",
        ),
        (
            Err((Code::Unavailable, "BACKPLANE_DOWN")),
            "A part of VVS does not answer",
        ),
    ] {
        let bench = Bench::new();
        let (mut browser, page) = bench.approver("ada@example.com").await;
        bench.login(gone);
        let again = browser
            .post(
                "/login/deny",
                &[("connection_id", ID), ("csrf", &page.csrf())],
            )
            .await;
        assert_eq!(again.status, StatusCode::SERVICE_UNAVAILABLE, "{gone:?}");
        assert_eq!(again.title(), "Your denial has not arrived yet", "{gone:?}");
        assert!(
            again.text.contains(why) && again.text.contains("action=\"/login/deny\""),
            "{}",
            again.text
        );
        assert!(again.text.contains(&format!(
            "data-status=\"{}&amp;known=AWAY\"",
            path("/login/status")
        )));
        assert!(
            !bench.metrics.scrape().contains("outcome=\"denied\""),
            "{gone:?}: nobody knows of it"
        );
        assert!(bench.audit.lock().await.try_recv().is_err());

        // The editor is back, and hears it.
        bench.login(Ok(LoginState::Waiting));
        let denied = browser
            .post(
                "/login/deny",
                &[("connection_id", ID), ("csrf", &again.csrf())],
            )
            .await;
        assert_eq!(
            (denied.status, denied.title()),
            (StatusCode::OK, "Denied"),
            "{gone:?}"
        );
        assert_eq!(*bench.script.denials.lock().unwrap(), [ID, ID]);
    }
}

#[tokio::test]
async fn a_denial_of_what_is_over_says_so() {
    for (found, is_known, status, title) in [
        (
            Err((Code::NotFound, "LOGIN_UNKNOWN")),
            false,
            StatusCode::GONE,
            "This sign-in is over",
        ),
        (
            Err((Code::FailedPrecondition, "LOGIN_OVER")),
            true,
            StatusCode::GONE,
            "This sign-in is over",
        ),
        (
            Err((Code::AlreadyExists, "LOGIN_CLAIMED")),
            true,
            StatusCode::CONFLICT,
            "This sign-in is already taken",
        ),
    ] {
        let bench = Bench::new();
        if !is_known {
            // The time of the login is over.
            *bench.script.expires_at.lock().unwrap() = 0;
        }

        let (mut browser, page) = bench.approver("ada@example.com").await;
        bench.login(found);
        let over = browser
            .post(
                "/login/deny",
                &[("connection_id", ID), ("csrf", &page.csrf())],
            )
            .await;
        assert_eq!((over.status, over.title()), (status, title), "{found:?}");
    }
}

#[tokio::test]
async fn a_state_that_nothing_comes_of_is_told_at_once() {
    for (found, expires_in, state) in [
        (Ok(LoginState::Acked), 590, "ACKED"),
        (Ok(LoginState::Denied), 590, "DENIED"),
        (Err((Code::NotFound, "LOGIN_UNKNOWN")), -1, "EXPIRED"),
    ] {
        let bench = Bench::new();
        *bench.script.expires_at.lock().unwrap() =
            time::OffsetDateTime::now_utc().unix_timestamp() + expires_in;
        let mut browser = bench.browser();
        browser.get(&path("/login")).await;
        bench.login(found);
        let status = path("/login/status");

        for status in [status.clone(), format!("{status}&known={state}")] {
            assert_eq!(
                browser.get(&status).await.text,
                format!(r#"{{"state":"{state}"}}"#)
            );
        }
    }
}

#[tokio::test]
async fn an_editor_that_is_away_is_a_state_and_no_error() {
    let bench = Bench::new();
    let mut browser = bench.browser();
    browser.get(&path("/login")).await;
    bench.login(Err((Code::Unavailable, "EDITOR_AWAY")));
    assert_eq!(
        browser.get(&path("/login/status")).await.text,
        r#"{"state":"AWAY"}"#
    );
}
