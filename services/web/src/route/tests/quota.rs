//! Limits on the requests and sessions of a signed-in person.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use tonic::Code;
use vvs_identity::People;
use vvs_runtime::limit::Reached;

use super::bench::{Bench, ID};
use super::path;

#[tokio::test]
async fn a_person_with_too_many_editors_is_led_to_them_and_approves_when_one_is_gone() {
    for (reason, status, title) in [
        (
            "SESSIONS_FULL",
            StatusCode::FORBIDDEN,
            "Too many editors are signed in",
        ),
        (
            "PENDING_FULL",
            StatusCode::TOO_MANY_REQUESTS,
            "Too many sign-ins are unfinished",
        ),
    ] {
        let bench = Bench::new();
        let (mut browser, page) = bench.approver("ada@example.com").await;
        *bench.script.sessions.lock().unwrap() = Err((Code::ResourceExhausted, reason));
        let full = browser.approve(&page.csrf()).await;
        assert_eq!((full.status, full.title()), (status, title));
        assert!(
            full.text
                .contains(r#"<a class="button" href="/account/sessions">Show your editors</a>"#)
        );
        assert!(
            full.text
                .contains(&format!(r#"href="{}">Try again</a>"#, path("/login"))),
            "{}",
            full.text
        );
        assert_eq!(bench.deliveries(), 0);
        assert!(
            bench.script.denials.lock().unwrap().is_empty(),
            "the login was ended"
        );

        *bench.script.sessions.lock().unwrap() = Ok(());
        assert_eq!(
            browser.approve(&page.csrf()).await.location(),
            path("/auth-success")
        );
        assert_eq!(bench.deliveries(), 1);
    }
}

#[tokio::test]
async fn one_person_asks_so_often_in_whatever_browser_and_keeps_nobody_else_from_it() {
    let bench = Bench::with(Duration::from_mins(15), |web| {
        web.people = People::new(NonZeroU32::new(2).unwrap(), Reached::default());
    });
    let (mut browser, page) = bench.approver("ada@example.com").await;
    let csrf = page.csrf();
    let form = [("connection_id", ID), ("csrf", &*csrf)];
    for _ in 0..2 {
        assert_eq!(
            browser.post("/login/approve", &form).await.status,
            StatusCode::BAD_REQUEST,
            "without the tick"
        );
    }

    for form_of in ["/login/approve", "/login/deny"] {
        let told = browser.post(form_of, &form).await;
        assert_eq!(
            (told.status, told.title()),
            (StatusCode::TOO_MANY_REQUESTS, "That was too fast"),
            "{form_of}"
        );
        assert!(told.text.contains("Try again in a moment."));
    }

    let list = bench.browser().sign_in_to_account("ada@example.com").await;
    assert_eq!(list.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(bench.script.denials.lock().unwrap().is_empty());
    assert_eq!(bench.deliveries(), 0);

    let (mut bob, page) = bench.approver("bob@example.com").await;
    assert_eq!(
        bob.approve(&page.csrf()).await.location(),
        path("/auth-success")
    );
}
