//! A person's signed-in editors: who sees them, and who ends them.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use tonic::Code;
use vvs_proto::session::ProviderUser;
use vvs_proto::session::revoke_user_sessions_request::Whose;
use vvs_proto::types::RevocationReason;

use super::bench::{Bench, Browser, ID, ORIGIN, Seen};
use super::path;

const LIST: &str = "/account/sessions";
const ALL: &str = "/account/sessions/revoke-all";

fn revoke(sid: &str) -> String {
    format!("/account/sessions/{sid}/revoke")
}

/// Ada has two editors and Bob has one.
fn bench() -> Bench {
    let bench = Bench::new();
    for (subject, id, device) in [
        ("ada@example.com", "ses_laptop", "laptop"),
        ("ada@example.com", "ses_desk", "desk"),
        ("bob@example.com", "ses_bob", "tablet"),
    ] {
        bench.install(subject, id, device);
    }
    bench
}

async fn ada(bench: &Bench) -> (Browser, Seen) {
    let mut browser = bench.browser();
    let list = browser.sign_in_to_account("ada@example.com").await;
    (browser, list)
}

#[tokio::test]
async fn a_person_sees_their_own_editors_and_nobody_elses() {
    let bench = bench();
    let (_, list) = ada(&bench).await;
    assert_eq!(
        (list.status, list.title()),
        (StatusCode::OK, "Your editors")
    );

    for text in [
        "laptop",
        "desk",
        "VVS 1",
        "203.0.113.7",
        "datetime=\"2026-11-20T09:30:00Z\"",
        "ada@example.com",
    ] {
        assert!(list.text.contains(text), "{text}");
    }

    assert!(!list.text.contains("tablet") && !list.text.contains("ses_bob"));

    let empty = bench.browser().sign_in_to_account("eve@example.com").await;
    assert!(
        empty
            .text
            .contains("No editor is signed in with this account.")
            && !empty.text.contains("/revoke\"")
    );
}

#[tokio::test]
async fn an_editor_that_has_not_acknowledged_is_marked_and_can_be_signed_out() {
    const MARK: &str =
        "VVS has not confirmed that it has this sign-in. If you do not recognize it, end it.";
    let bench = bench();
    let (mut browser, list) = ada(&bench).await;
    assert!(!list.text.contains("Not confirmed yet."));

    bench.script.installs.lock().unwrap()[0].1.activated_at = None;
    let list = browser.get(LIST).await;
    let (_, laptop) = list.text.split_once("<bdi>laptop</bdi>").unwrap();
    let (laptop, desk) = laptop.split_once("<bdi>desk</bdi></h2>").unwrap();
    assert!(
        laptop.contains("Not confirmed yet.") && laptop.contains(MARK) && !desk.contains(MARK),
        "{}",
        list.text
    );

    // Nobody has seen it yet.
    assert!(!laptop.contains("Last seen") && desk.contains("Last seen"));

    let next = browser
        .post(&revoke("ses_laptop"), &[("csrf", &list.csrf())])
        .await
        .location()
        .to_owned();
    assert!(
        browser
            .get(&next)
            .await
            .text
            .contains("That editor is signed out.")
    );
    assert_eq!(
        bench.script.revocations.lock().unwrap()[0].session_id,
        "ses_laptop"
    );
}

#[tokio::test]
async fn one_editor_is_signed_out_and_the_page_says_so() {
    let bench = bench();
    let (mut browser, list) = ada(&bench).await;
    let next = browser
        .post(&revoke("ses_laptop"), &[("csrf", &list.csrf())])
        .await
        .location()
        .to_owned();
    let list = browser.get(&next).await;
    assert!(
        list.text.contains("That editor is signed out.") && !list.text.contains("laptop"),
        "{}",
        list.text
    );
    assert!(list.text.contains("desk"));

    let revocation = bench.script.revocations.lock().unwrap()[0].clone();
    assert_eq!(
        (&*revocation.session_id, &*revocation.user_id),
        ("ses_laptop", "usr of ada@example.com")
    );
    assert_eq!(
        (revocation.reason(), &*revocation.address),
        (RevocationReason::SignedOutByUser, "127.0.0.1")
    );

    // A second click finds nothing to do.
    let next = browser
        .post(&revoke("ses_laptop"), &[("csrf", &list.csrf())])
        .await
        .location()
        .to_owned();
    assert!(
        browser
            .get(&next)
            .await
            .text
            .contains("There was nothing to do.")
    );
    assert_eq!(bench.script.revocations.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn all_editors_of_one_person_are_signed_out_at_once() {
    let bench = bench();
    let (mut browser, list) = ada(&bench).await;
    let next = browser
        .post(ALL, &[("csrf", &list.csrf())])
        .await
        .location()
        .to_owned();
    let list = browser.get(&next).await;
    let told = "All your editors are signed out. Those were 2 sign-ins. Every browser is signed \
        out, this one too.";
    assert!(list.text.contains(told), "{}", list.text);

    let left = bench
        .script
        .installs
        .lock()
        .unwrap()
        .iter()
        .map(|(subject, _)| *subject)
        .collect::<Vec<_>>();
    assert_eq!(left, ["bob@example.com"]);

    let sign_out = bench.script.sign_outs.lock().unwrap()[0].clone();
    assert_eq!(
        (sign_out.reason(), &*sign_out.address),
        (RevocationReason::SignedOutByUser, "127.0.0.1")
    );
}

#[tokio::test]
async fn a_list_that_shows_nothing_still_signs_out_everywhere() {
    let bench = bench();
    let mut browser = bench.browser();
    let list = browser.sign_in_to_account("eve@example.com").await;
    assert!(
        list.text
            .contains("No editor is signed in with this account.")
            && list.text.contains(ALL)
    );

    let next = browser
        .post(ALL, &[("csrf", &list.csrf())])
        .await
        .location()
        .to_owned();
    assert!(
        browser
            .get(&next)
            .await
            .text
            .contains("No editor was signed in as you.")
    );

    let list = browser.sign_in_to_account("eve@example.com").await;

    // What came up behind the list.
    bench.install("eve@example.com", "ses_late", "late");
    let next = browser
        .post(ALL, &[("csrf", &list.csrf())])
        .await
        .location()
        .to_owned();
    assert!(
        browser
            .get(&next)
            .await
            .text
            .contains("That was 1 sign-in.")
    );

    let sign_outs = bench.script.sign_outs.lock().unwrap();
    let whole = Whose::ProviderUser(ProviderUser {
        provider: "dev".to_owned(),
        subject: "eve@example.com".to_owned(),
    });
    for sign_out in &*sign_outs {
        // A user id or a session at the provider would say less than everything.
        assert_eq!(sign_out.whose.as_ref(), Some(&whole));
    }

    assert_eq!(sign_outs.len(), 2);
}

#[tokio::test]
async fn nobody_ends_a_session_of_somebody_else() {
    let bench = bench();
    let (mut browser, list) = ada(&bench).await;
    for sid in ["ses_bob", "ses_unknown", "..", "%2e%2e"] {
        let answer = browser.post(&revoke(sid), &[("csrf", &list.csrf())]).await;
        assert_eq!(answer.location(), "/account/sessions?done=gone", "{sid}");
    }
    assert!(bench.script.revocations.lock().unwrap().is_empty());
    assert_eq!(bench.script.installs.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_form_is_taken_from_its_own_page_browser_and_account_only() {
    let bench = bench();
    let (mut ada, list) = ada(&bench).await;
    let mut bob = bench.browser();
    bob.sign_in_to_account("bob@example.com").await;
    let (mut approver, approval) = bench.approver("ada@example.com").await;
    for form in [
        ALL.to_owned(),
        revoke("ses_laptop"),
        "/account/sign-out".to_owned(),
    ] {
        let mut foreign = ada.clone();
        foreign.site = "cross-site";
        let refused = foreign.post(&form, &[("csrf", &list.csrf())]).await;
        assert_eq!(
            (refused.status, refused.title()),
            (StatusCode::FORBIDDEN, "Another site sent you here"),
            "{form}"
        );

        for (browser, csrf) in [
            (&bob, list.csrf()),
            (&ada, String::new()),
            (&ada, "AAAA".to_owned()),
        ] {
            let refused = browser.clone().post(&form, &[("csrf", &csrf)]).await;
            assert_eq!(refused.title(), "This page was out of date", "{form}");
            assert!(
                refused.text.contains("href=\"/account/sessions\""),
                "the way on is missing"
            );
        }

        // A value that was made to approve a login with ends no session, and the other way round.
        let refused = approver.post(&form, &[("csrf", &approval.csrf())]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{form}");

        if form != "/account/sign-out" {
            let fields = [("csrf", &*approval.csrf()), ("connection_id", ID)];
            assert_eq!(
                approver.post(&form, &fields).await.status,
                StatusCode::FORBIDDEN,
                "{form}"
            );
        }
    }

    for form in ["/login/approve", "/login/deny", "/login/another"] {
        let refused = ada
            .post(form, &[("csrf", &list.csrf()), ("confirmed", "yes")])
            .await;
        assert!(
            refused.status.is_client_error(),
            "{form}: {}",
            refused.status
        );
    }

    assert!(bench.script.revocations.lock().unwrap().is_empty());
    assert!(bench.script.denials.lock().unwrap().is_empty() && bench.deliveries() == 0);
}

#[tokio::test]
async fn what_was_made_for_nobody_signs_in_and_decides_nothing() {
    let bench = bench();
    let mut browser = bench.browser();
    let (login, account) = (
        browser.get(&path("/login")).await,
        browser.get("/account/sign-in").await,
    );
    browser.sign_in_to_account("ada@example.com").await;

    for (form, fields) in [
        (ALL, vec![("csrf", account.csrf())]),
        (
            "/login/deny",
            vec![("csrf", login.csrf()), ("connection_id", ID.to_owned())],
        ),
        (
            "/login/approve",
            vec![("csrf", login.csrf()), ("connection_id", ID.to_owned())],
        ),
    ] {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(
            browser.post(form, &fields).await.title(),
            "This page was out of date",
            "{form}"
        );
    }

    let again = browser
        .post(
            "/dev/sign-in",
            &[("csrf", &account.csrf()), ("email", "bob@example.com")],
        )
        .await;
    assert_eq!(again.location(), LIST);
}

#[tokio::test]
async fn an_old_tabs_form_is_refused_once_somebody_else_is_signed_in() {
    let bench = bench();
    let (mut browser, hers) = ada(&bench).await;
    browser
        .post("/account/sign-out", &[("csrf", &hers.csrf())])
        .await;
    let his = browser.sign_in_to_account("bob@example.com").await;
    let refused = browser.post(ALL, &[("csrf", &hers.csrf())]).await;
    assert_eq!(refused.title(), "This page was out of date");
    assert_eq!(
        browser.post(ALL, &[("csrf", &his.csrf())]).await.location(),
        "/account/sign-in?done=all-1"
    );
    assert_eq!(bench.script.installs.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn whoever_signs_out_here_is_asked_again_and_keeps_the_editors() {
    let bench = bench();
    let (mut browser, list) = ada(&bench).await;
    let next = browser
        .post("/account/sign-out", &[("csrf", &list.csrf())])
        .await
        .location()
        .to_owned();
    let page = browser.get(&next).await;
    assert!(
        page.text.contains("Your editors stay signed in.")
            && !page.text.contains("ada@example.com")
    );
    assert_eq!(browser.get(LIST).await.location(), "/account/sign-in");
    assert_eq!(bench.script.installs.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_sign_in_that_has_lain_idle_is_asked_for_again_and_one_in_use_is_not() {
    // Too old to approve with, and good for this.
    let bench = Bench::with(Duration::ZERO, |_| {});
    let mut browser = bench.browser();
    assert_eq!(
        browser.sign_in_to_account("ada@example.com").await.status,
        StatusCode::OK
    );

    let idle = Bench::with(Duration::from_mins(15), |web| {
        web.account_ttl = Duration::ZERO;
    });
    let mut browser = idle.browser();
    browser.sign_in_to_account("ada@example.com").await;
    assert_eq!(browser.get(LIST).await.location(), "/account/sign-in");

    let page = browser.get("/account/sign-in").await;

    for form in [ALL.to_owned(), revoke("ses_laptop")] {
        // The form is whole: it was made for this account.
        assert_eq!(
            browser
                .post(&form, &[("csrf", &page.csrf())])
                .await
                .location(),
            "/account/sign-in",
            "{form}"
        );
    }
}

#[tokio::test]
async fn a_page_that_answers_late_does_not_bring_back_who_was_signed_in() {
    let bench = bench();
    let (mut browser, list) = ada(&bench).await;
    let late = browser.clone().get(LIST).await;
    browser
        .post("/account/sign-out", &[("csrf", &list.csrf())])
        .await;
    let set = late
        .headers
        .get_all("set-cookie")
        .into_iter()
        .map(|line| line.to_str().unwrap())
        .collect::<Vec<_>>();
    assert!(
        set.iter().all(|line| line.starts_with("vvs-8080-seen=")) && set.len() == 1,
        "{set:?}"
    );
}

#[tokio::test]
async fn a_wrong_email_is_said_on_the_accounts_own_form() {
    let bench = bench();
    let mut browser = bench.browser();
    let page = browser.get("/account/sign-in").await;
    let again = browser
        .post(
            "/dev/sign-in",
            &[("csrf", &page.csrf()), ("email", "ada@"), ("name", "Ada")],
        )
        .await;
    assert_eq!(
        (again.status, again.title()),
        (StatusCode::BAD_REQUEST, "Sign in to see your editors")
    );
    assert!(
        again.text.contains("Enter a whole email address.") && again.text.contains("value=\"Ada\"")
    );

    // What signs in for the account does not lead into a login.
    let fields = [
        ("csrf", &*page.csrf()),
        ("connection_id", ID),
        ("email", "ada@example.com"),
    ];
    assert_eq!(
        browser.post("/dev/sign-in", &fields).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn without_sessions_nothing_is_said_to_be_done() {
    let bench = bench();
    let (mut browser, list) = ada(&bench).await;
    *bench.script.sessions.lock().unwrap() = Err((Code::Unavailable, "DATABASE_DOWN"));
    let csrf = list.csrf();
    let answers = [
        browser.get(LIST).await,
        browser
            .post(&revoke("ses_laptop"), &[("csrf", &csrf)])
            .await,
        browser.post(ALL, &[("csrf", &csrf)]).await,
    ];

    for answer in answers {
        let unchecked = "Your sign-in cannot be checked right now";
        let titles = ["A part of VVS does not answer", unchecked];
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(titles.contains(&answer.title()), "{}", answer.title());
        assert!(answer.text.contains("href=\"/account/sessions\""));
    }
}

#[tokio::test]
async fn the_accounts_forms_are_posts() {
    let mut browser = bench().browser();
    for path in [
        ALL.to_owned(),
        revoke("ses_laptop"),
        "/account/sign-out".to_owned(),
    ] {
        assert_eq!(
            browser.get(&path).await.status,
            StatusCode::METHOD_NOT_ALLOWED,
            "{path}"
        );
        let request = Request::post(&path)
            .header("origin", ORIGIN)
            .header("content-type", "text/plain");
        let refused = browser.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}");
    }
}
