//! Which clients the development sign-in serves: none behind an intermediary, and with a key only
//! those that have entered it.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::StatusCode;
use vvs_identity::DevKey;
use vvs_identity::dev::Dev;
use vvs_runtime::limit::Reached;

use super::bench::{Bench, Browser, ID, ORIGIN, Seen};
use super::{TTL, path};

const KEY: &str = "the-key-that-was-printed";
const ASKS: &str = "Enter the key of this server";
const THROUGH: &str = "Not through a proxy or a tunnel";
const PAGES: [&str; 7] = [
    "/login",
    "/api/auth/callback",
    "/auth-success",
    "/login/status",
    "/account/sessions",
    "/",
    "/nowhere",
];
const FORMS: [&str; 5] = [
    "/dev/sign-in",
    "/login/approve",
    "/login/deny",
    "/login/another",
    "/account/sign-out",
];

/// An installation with a key that checks this many guesses.
fn with_key(guesses: u32) -> Bench {
    Bench::with(TTL, |web| {
        let key = DevKey::new(
            &KEY.into(),
            NonZeroU32::new(guesses).unwrap(),
            Reached::default(),
        )
        .unwrap();
        web.identity = Arc::new(Dev::new(&ORIGIN.parse().unwrap(), Some(key)).unwrap());
    })
}

async fn show(browser: &mut Browser, page: &Seen, key: &str) -> Seen {
    browser
        .post(
            "/dev/key",
            &[("connection_id", ID), ("csrf", &page.csrf()), ("key", key)],
        )
        .await
}

#[tokio::test]
async fn the_development_provider_answers_nobody_through_other_hands() {
    let bench = Bench::new();
    let (mut browser, page) = bench.approver("ada@example.com").await;
    browser.through = Some("x-real-ip");

    for page in PAGES {
        let refused = browser.get(&path(page)).await;
        assert_eq!(
            (refused.status, refused.title()),
            (StatusCode::FORBIDDEN, THROUGH),
            "{page}"
        );
        assert!(!refused.text.contains("<form"), "{page}");
    }

    for form in FORMS {
        let fields = [
            ("connection_id", ID),
            ("csrf", &*page.csrf()),
            ("confirmed", "yes"),
            ("email", "bob@example.com"),
        ];
        let refused = browser.post(form, &fields).await;
        assert_eq!(
            (refused.status, refused.title()),
            (StatusCode::FORBIDDEN, THROUGH),
            "{form}"
        );
    }

    assert_eq!(bench.deliveries(), 0);

    browser.through = None;
    assert_eq!(
        browser.get(&path("/api/auth/callback")).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_browser_is_asked_for_the_key_once_and_goes_on_where_it_was() {
    let bench = with_key(100);
    let mut browser = bench.browser();
    for page in PAGES {
        let asked = browser.get(&path(page)).await;
        assert_eq!(
            (asked.status, asked.title()),
            (StatusCode::FORBIDDEN, ASKS),
            "{page}"
        );
        assert!(!asked.text.contains("/dev/sign-in"), "{page}");
    }

    let page = browser.get(&path("/login")).await;
    assert_eq!(
        show(&mut browser, &page, KEY).await.location(),
        path("/login")
    );
    assert_eq!(
        browser.sign_in("ada@example.com").await.title(),
        "Let this editor sign in as you?"
    );

    // Not another browser, nor this one with the other's cookie.
    let mut other = bench.browser();
    let asked = other.get(&path("/login")).await;
    let kept = browser.cookies["vvs-8080-dev-key"].clone();
    other.cookies.insert("vvs-8080-dev-key".to_owned(), kept);
    assert_eq!(
        (asked.title(), other.get(&path("/login")).await.title()),
        (ASKS, ASKS)
    );
}

#[tokio::test]
async fn no_form_is_taken_from_a_browser_that_has_not_shown_the_key() {
    let bench = with_key(100);
    let mut browser = bench.browser();
    let page = browser.get(&path("/login")).await;
    for form in FORMS {
        let fields = [
            ("connection_id", ID),
            ("csrf", &*page.csrf()),
            ("confirmed", "yes"),
            ("email", "ada@example.com"),
        ];
        assert_eq!(
            browser.post(form, &fields).await.status,
            StatusCode::FORBIDDEN,
            "{form}"
        );
    }

    assert!(!browser.cookies.contains_key("vvs-8080-sign-in"));

    browser.address = "192.0.2.1";
    assert_eq!(
        show(&mut browser, &page, KEY).await.title(),
        "Only on the machine itself"
    );

    (browser.address, browser.through) = ("127.0.0.1", Some("via"));
    assert_eq!(show(&mut browser, &page, KEY).await.title(), THROUGH);
}

#[tokio::test]
async fn wrong_keys_are_said_to_be_wrong_and_beyond_the_limit_none_is_looked_at() {
    let bench = with_key(3);
    let mut browser = bench.browser();
    let page = browser.get(&path("/login")).await;
    for wrong in ["", "THE-KEY-THAT-WAS-PRINTED", "the-key"] {
        let again = show(&mut browser, &page, wrong).await;
        assert_eq!((again.status, again.title()), (StatusCode::FORBIDDEN, ASKS));
        assert!(
            again.text.contains("This is not the key of this server."),
            "{}",
            again.text
        );
    }

    let late = show(&mut browser, &page, KEY).await;
    assert_eq!(
        (late.status, late.title()),
        (StatusCode::TOO_MANY_REQUESTS, "Too many wrong keys")
    );
    assert_eq!(browser.get(&path("/login")).await.title(), ASKS);
}

#[tokio::test]
async fn a_key_of_another_start_is_asked_for_anew() {
    let (before, after) = (with_key(100), with_key(100));
    let mut browser = before.browser();
    let page = browser.get(&path("/login")).await;
    show(&mut browser, &page, KEY).await;
    let mut later = after.browser();
    later.cookies = browser.cookies;
    assert_eq!(later.get(&path("/login")).await.title(), ASKS);
}

#[tokio::test]
async fn without_a_key_nobody_is_asked_for_one() {
    let bench = Bench::new();
    let mut browser = bench.browser();
    let page = browser.get(&path("/login")).await;
    assert!(
        page.text.contains("/dev/sign-in") && !page.text.contains("/dev/key"),
        "{}",
        page.text
    );
    assert_eq!(
        show(&mut browser, &page, KEY).await.title(),
        "There is no such page"
    );
}
