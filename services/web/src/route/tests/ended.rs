//! The value of a copy of a browser's cookies once the browser has signed out, or was signed out.

use std::time::Duration;

use http::StatusCode;
use tokio::time::advance;
use tonic::Code;
use vvs_identity::dev;
use vvs_proto::relay::LoginState;
use vvs_proto::types::RevocationReason;

use super::bench::{Bench, Browser, ID, OTHER_ID};
use super::{TTL, path};

const ADA: &str = "ada@example.com";
/// The text that appears only in the list of her editors.
const DEVICE: &str = "her own machine";
const LIST: &str = "/account/sessions";
const SECOND: Duration = Duration::from_secs(1);

/// All routes, and whether they show who is signed in or do something in their name.
const ROUTES: &[(&str, &str, bool)] = &[
    ("GET", "/login", false),
    ("POST", "/login/another", false),
    ("GET", "/api/auth/callback", true),
    ("POST", "/login/approve", true),
    ("POST", "/login/deny", false),
    ("GET", "/login/status", false),
    ("GET", "/auth-success", true),
    ("GET", LIST, true),
    ("POST", "/account/sessions/ses_laptop/revoke", true),
    ("POST", "/account/sessions/revoke-all", true),
    ("GET", "/account/sign-in", false),
    ("POST", "/account/sign-out", false),
    ("GET", "/.well-known/jwks.json", false),
];

/// The same browser at another process of this role: a copy of its cookies.
fn copy(bench: &Bench, browser: &Browser) -> Browser {
    Browser {
        router: bench.twin(|_| {}),
        ..browser.clone()
    }
}

async fn sign_out(browser: &mut Browser, csrf: &str) -> String {
    browser
        .post("/account/sign-out", &[("csrf", csrf)])
        .await
        .location()
        .to_owned()
}

/// Channels this route, with a form whose value was made for the login or for the account.
async fn ask(
    browser: &mut Browser,
    (method, route): (&str, &str),
    forms: &[String; 2],
) -> super::bench::Seen {
    let is_account = route.starts_with("/account");
    if method == "GET" {
        return browser
            .get(&if is_account {
                route.to_owned()
            } else {
                path(route)
            })
            .await;
    }

    let csrf = ("csrf", &*forms[usize::from(is_account)]);
    let login = [csrf, ("connection_id", OTHER_ID), ("confirmed", "yes")];

    browser
        .post(route, if is_account { &login[..1] } else { &login })
        .await
}

/// A browser that has approved a login and looks at another one, and the values of its forms.
async fn approved(bench: &Bench) -> (Browser, [String; 2]) {
    bench.install(ADA, "ses_laptop", DEVICE);
    let (mut browser, approval) = bench.approver(ADA).await;
    browser.approve(&approval.csrf()).await;
    assert!(browser.get(&path("/auth-success")).await.text.contains(ADA));
    bench.login(Ok(LoginState::Waiting));
    let approval = browser
        .get(&format!("/api/auth/callback?connection_id={OTHER_ID}"))
        .await;
    let list = browser.get(LIST).await;
    assert!(approval.text.contains(ADA) && list.text.contains(ADA) && list.text.contains(DEVICE));
    (browser, [approval.csrf(), list.csrf()])
}

#[test]
fn every_route_is_walked() {
    let source = include_str!("../../route.rs");
    let (_, routes) = source.split_once("Router::new()").unwrap();
    let (routes, _) = routes.split_once("for asset in").unwrap();
    assert_eq!(routes.matches(".route(").count(), ROUTES.len());
}

#[tokio::test(start_paused = true)]
async fn a_copied_cookie_is_worth_nothing_a_second_after_signing_out_and_on_another_process_too() {
    let bench = Bench::new();
    let (mut browser, forms) = approved(&bench).await;
    let copies = [browser.clone(), copy(&bench, &browser)];
    for mut copy in copies.clone() {
        assert!(
            copy.get(LIST).await.text.contains(ADA),
            "the copy was worth nothing before"
        );
    }

    let delivered = bench.deliveries();
    sign_out(&mut browser, &forms[1]).await;
    advance(SECOND).await;

    for (method, route, is_personal) in ROUTES {
        for copy in &copies {
            let seen = ask(&mut copy.clone(), (method, route), &forms).await;
            assert!(
                !seen.text.contains(ADA) && !seen.text.contains(DEVICE),
                "{method} {route}: {}",
                seen.text
            );
            if *method == "POST" && *is_personal {
                let is_refused =
                    seen.status == StatusCode::FORBIDDEN || seen.location() == "/account/sign-in";
                assert!(is_refused, "{method} {route}: {}", seen.status);
            }
        }
    }

    assert_eq!(bench.deliveries(), delivered);
    assert!(
        bench.script.revocations.lock().unwrap().is_empty()
            && bench.script.sign_outs.lock().unwrap().is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn without_sessions_nobody_is_shown_and_nothing_is_done_in_anybodys_name() {
    let bench = Bench::new();
    let (browser, forms) = approved(&bench).await;
    advance(SECOND).await;
    let (sessions, delivered) = (&bench.script.sessions, bench.deliveries());
    for (method, route, is_personal) in ROUTES {
        *sessions.lock().unwrap() = Err((Code::Unavailable, "DATABASE_DOWN"));
        let seen = ask(&mut browser.clone(), (method, route), &forms).await;
        assert!(
            !seen.text.contains(ADA) && !seen.text.contains(DEVICE),
            "{method} {route}: {}",
            seen.text
        );

        if *is_personal {
            assert_eq!(
                seen.status,
                StatusCode::SERVICE_UNAVAILABLE,
                "{method} {route}"
            );
            let tries_again = ["data-retry", "data-deliver"]
                .iter()
                .any(|mark| seen.text.contains(mark));
            assert!(tries_again, "{method} {route}: {}", seen.text);
        }

        // It stands again as soon as somebody can say so.
        *sessions.lock().unwrap() = Ok(());
        assert!(browser.clone().get(LIST).await.text.contains(ADA));

        advance(SECOND).await;
    }

    assert_eq!(bench.deliveries(), delivered);
    assert!(
        bench.script.revocations.lock().unwrap().is_empty()
            && bench.script.sign_outs.lock().unwrap().is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_is_asked_once_a_second() {
    let bench = Bench::new();
    let mut browser = bench.browser();
    browser.sign_in_to_account(ADA).await;
    let asked = || bench.script.checks.lock().unwrap().len();
    advance(SECOND).await;
    let before = asked();
    for _ in 0..5 {
        browser.get(LIST).await;
    }

    assert_eq!(asked(), before + 1);

    advance(Duration::from_millis(999)).await;
    browser.get(LIST).await;
    assert_eq!(asked(), before + 1);

    advance(Duration::from_millis(1)).await;
    browser.get(LIST).await;
    assert_eq!(asked(), before + 2);
}

#[tokio::test]
async fn a_cookie_of_the_version_before_is_signed_out_and_no_error() {
    let bench = Bench::new();
    let who = dev::sign_in(
        ADA,
        "",
        "s".to_owned(),
        time::OffsetDateTime::now_utc().unix_timestamp(),
    )
    .unwrap();
    let mut before = Browser {
        cookies: bench.cookies_before(&who),
        ..bench.browser()
    };
    assert!(before.cookies.contains_key("vvs-8080-sign-in"));

    for _ in 0..2 {
        assert_eq!(before.get(LIST).await.location(), "/account/sign-in");
        let callback = before.get(&path("/api/auth/callback")).await;
        assert_eq!(callback.location(), format!("{}&retry=1", path("/login")));
    }

    let form = before.get("/account/sign-in").await;
    assert!(!form.text.contains(ADA));

    // A page that was open meanwhile leads to the sign-in too.
    let login = before.get(&path("/login")).await;
    assert_eq!(
        before.approve(&login.csrf()).await.location(),
        format!("{}&retry=1", path("/login"))
    );
    assert_eq!(
        before
            .clone()
            .post("/account/sessions/revoke-all", &[("csrf", &form.csrf())])
            .await
            .location(),
        "/account/sign-in"
    );
    assert_eq!(
        before
            .clone()
            .post("/account/sign-out", &[("csrf", &form.csrf())])
            .await
            .location(),
        "/account/sign-in?done=here"
    );
    assert!(before.sign_in_to_account(ADA).await.text.contains(ADA));
    assert!(bench.script.ends.lock().unwrap().is_empty() && bench.deliveries() == 0);
}

#[tokio::test]
async fn signing_out_has_ended_the_sign_in_before_it_answers() {
    let bench = Bench::new();
    let mut browser = bench.browser();
    let list = browser.sign_in_to_account(ADA).await;
    let next = sign_out(&mut browser, &list.csrf()).await;
    assert_eq!(next, "/account/sign-in?done=here");

    let (end, asked) = (
        bench.script.ends.lock().unwrap()[0].clone(),
        bench.script.checks.lock().unwrap()[0].clone(),
    );
    assert_eq!(
        (&end.sign_in_id, end.reason()),
        (&asked.sign_in_id, RevocationReason::SignedOutByUser)
    );
    assert_eq!(end.remember_for.unwrap().seconds, 86_400);
    assert_eq!(browser.get(LIST).await.location(), "/account/sign-in");
}

#[tokio::test]
async fn a_sign_out_that_sessions_does_not_hear_of_says_so_and_leaves_nothing_in_this_browser() {
    let bench = Bench::new();
    let (mut approver, approval) = bench.approver(ADA).await;
    let mut browser = bench.browser();
    let list = browser.sign_in_to_account(ADA).await;
    *bench.script.sessions.lock().unwrap() = Err((Code::Unavailable, "DATABASE_DOWN"));
    let (account, login) = (list.csrf(), approval.csrf());
    for (browser, form, fields, next) in [
        (
            &mut browser,
            "/account/sign-out",
            &[("csrf", &*account)][..],
            "/account/sign-in?done=here".to_owned(),
        ),
        (
            &mut approver,
            "/login/another",
            &[("csrf", &*login), ("connection_id", ID)],
            path("/login") + "&#38;another=1",
        ),
    ] {
        let told = browser.post(form, fields).await;
        let expected = (
            StatusCode::SERVICE_UNAVAILABLE,
            "Signed out in this browser only",
        );
        assert_eq!((told.status, told.title()), expected, "{form}");
        assert!(
            told.text.contains(&format!("href=\"{next}\"")),
            "{}",
            told.text
        );
        assert!(!browser.cookies.contains_key("vvs-8080-sign-in"), "{form}");
    }

    *bench.script.sessions.lock().unwrap() = Ok(());
    assert_eq!(browser.get(LIST).await.location(), "/account/sign-in");
}

#[tokio::test(start_paused = true)]
async fn signing_out_everywhere_ends_every_browser_and_who_signs_in_again_is_signed_in() {
    let bench = Bench::new();
    let (mut here, mut there, mut bob) = (bench.browser(), bench.browser(), bench.browser());
    let list = here.sign_in_to_account(ADA).await;
    let copied = here.clone();
    there.sign_in_to_account(ADA).await;
    bob.sign_in_to_account("bob@example.com").await;
    let next = here
        .post("/account/sessions/revoke-all", &[("csrf", &list.csrf())])
        .await
        .location()
        .to_owned();
    assert_eq!(next, "/account/sign-in?done=all-0");
    assert!(
        here.get(&next)
            .await
            .text
            .contains("Every browser is signed out, this one too.")
    );

    // Browsers first, and the editors after them.
    assert_eq!(bench.script.sign_outs.lock().unwrap().len(), 1);
    assert!(
        here.sign_in_to_account(ADA).await.text.contains(ADA),
        "locked out"
    );

    advance(SECOND).await;
    for mut ended in [copied, there] {
        assert_eq!(ended.get(LIST).await.location(), "/account/sign-in");
    }

    assert!(
        here.get(LIST).await.text.contains(ADA)
            && bob.get(LIST).await.text.contains("bob@example.com")
    );
}

#[tokio::test]
async fn what_ends_while_it_is_used_to_approve_is_taken_back() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver(ADA).await;
    let mut elsewhere = bench.browser();
    let list = elsewhere.sign_in_to_account(ADA).await;
    elsewhere
        .post("/account/sessions/revoke-all", &[("csrf", &list.csrf())])
        .await;

    // The cut-off is committed between the question and the session.
    let cut_off = bench.script.ends.lock().unwrap().pop().unwrap();
    *bench.script.ends_with_approval.lock().unwrap() = Some(cut_off);
    let refused = browser.approve(&page.csrf()).await;
    assert_eq!(
        (refused.status, refused.title()),
        (StatusCode::FORBIDDEN, "You are no longer signed in")
    );
    assert_eq!(bench.deliveries(), 0);
    assert_eq!(
        bench
            .script
            .revocations
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .reason(),
        RevocationReason::SignInOver
    );
    assert!(!browser.cookies.contains_key("vvs-8080-sign-in"));
}

#[tokio::test(start_paused = true)]
async fn no_copy_outlives_a_sign_out_because_somebody_signed_in_again_in_between() {
    let bench = Bench::new();
    let mut browser = bench.browser();
    browser.sign_in_to_account(ADA).await;
    let mut first = browser.clone();
    let again = browser.get("/account/sign-in").await;
    browser
        .post("/dev/sign-in", &[("csrf", &again.csrf()), ("email", ADA)])
        .await;
    let mut second = browser.clone();

    // Somebody else signs in, without anybody signing out.
    let other = browser.get("/account/sign-in").await;
    browser
        .post(
            "/dev/sign-in",
            &[("csrf", &other.csrf()), ("email", "bob@example.com")],
        )
        .await;
    advance(SECOND).await;
    for copy in [&mut first, &mut second] {
        assert_eq!(copy.get(LIST).await.location(), "/account/sign-in");
    }

    let mut third = browser.clone();
    let his = browser.get(LIST).await;
    sign_out(&mut browser, &his.csrf()).await;
    advance(SECOND).await;
    assert_eq!(third.get(LIST).await.location(), "/account/sign-in");
}

#[tokio::test]
async fn a_sign_in_is_over_after_its_longest_time_however_often_it_is_used() {
    let bench = Bench::with(TTL, |web| web.sign_in_max_ttl = Duration::from_hours(1));
    let mut browser = bench.browser();
    browser.sign_in_to_account(ADA).await;
    let sealed = browser.cookies["vvs-8080-sign-in"].clone();
    for _ in 0..3 {
        assert_eq!(browser.get(LIST).await.status, StatusCode::OK);
    }

    assert_eq!(
        browser.cookies["vvs-8080-sign-in"], sealed,
        "its use has sealed it again"
    );
    assert!(browser.cookies.contains_key("vvs-8080-seen"));

    let router = bench.twin(|web| web.sign_in_max_ttl = Duration::ZERO);
    let mut over = Browser { router, ..browser };
    assert_eq!(over.get(LIST).await.location(), "/account/sign-in");
    assert_eq!(
        over.get(&path("/api/auth/callback")).await.location(),
        format!("{}&retry=1", path("/login"))
    );
}
