//! Trips and logouts at the trait: the calls to the browser and to the sessions.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::CONTENT_TYPE;
use bytes::Bytes;
use serde_json::json;
use time::OffsetDateTime;
use vvs_proto::types::RevocationReason;

use super::testing::{Fake, ISSUER};
use super::*;
use crate::person::{Freshness, SignIn};
use crate::provider::Stop;
use crate::testing::{Ended, RecordedSessions, TestBrowser, WATERMARK, common};

const ID: &str = "6f1f2f4e-2f0c-4a53-9d0e-8f4f3f0a9b11";

fn about() -> About {
    About::Login(ID.parse().unwrap())
}

fn call<'a>(path: &'a str, fields: &'a str, about: Option<About>) -> BrowserRequest<'a> {
    BrowserRequest {
        path,
        fields: fields.as_bytes(),
        about,
        retry: false,
        another: false,
        now: OffsetDateTime::now_utc(),
    }
}

/// Returns a provider, and its recorded ends.
fn stand() -> (Fake, Arc<dyn Provider>, Arc<RecordedSessions>) {
    let (fake, sessions) = (Fake::new(), Arc::new(RecordedSessions::default()));
    let provider = fake.provider(common(sessions.clone()), &["everyone"]);
    (fake, provider, sessions)
}

/// Signs in at the provider. Returns the browser's answer.
async fn trip(fake: &Fake, provider: &dyn Provider, browser: &mut TestBrowser) -> String {
    let away = provider.serve(call(START_PATH, "", Some(about())), browser);
    let Reply::Go(url) = away.await.unwrap() else {
        panic!("the browser stays here")
    };
    let back = fake.sign_in(&url);
    back.split_once('?').unwrap().1.to_owned()
}

async fn back(provider: &dyn Provider, browser: &mut TestBrowser, answer: &str) -> Reply {
    let back = provider.serve(call(BACK_PATH, answer, None), browser);
    back.await.unwrap()
}

fn signed_in(reply: Reply) -> (SignIn, Freshness, String) {
    match reply {
        Reply::SignedIn {
            sign_in,
            proof,
            next,
        } => (sign_in, proof, next),
        Reply::Go(_) | Reply::Ask(_) | Reply::Stopped { .. } => panic!("nobody has signed in"),
    }
}

#[tokio::test]
async fn a_trip_brings_back_a_person_whose_proof_is_as_old_as_its_beginning() {
    let (fake, provider, _) = stand();
    let mut browser = TestBrowser::default();
    let answer = trip(&fake, &*provider, &mut browser).await;
    let (trip, time) = browser.trips.values().next().unwrap().clone();
    assert_eq!((trip.about, time), (about(), Duration::from_mins(15)));

    let (who, proof, next) = signed_in(back(&*provider, &mut browser, &answer).await);
    assert_eq!((&*who.provider, &*who.subject), (ISSUER, "ada"));
    assert_eq!(proof, Freshness::Since(WATERMARK));
    assert_eq!(next, format!("/api/auth/callback?connection_id={ID}"));
}

#[tokio::test]
async fn a_trip_of_another_browser_or_one_that_is_over_signs_nobody_in() {
    let (fake, provider, _) = stand();
    let (mut ada, mut eve) = (TestBrowser::default(), TestBrowser::default());
    let answer = trip(&fake, &*provider, &mut ada).await;
    let is_unknown = |reply| {
        matches!(
            reply,
            Reply::Stopped {
                stop: Stop::Unknown,
                ..
            }
        )
    };
    assert!(is_unknown(back(&*provider, &mut eve, &answer).await));

    signed_in(back(&*provider, &mut ada, &answer).await);
    assert!(is_unknown(back(&*provider, &mut ada, &answer).await));
}

#[tokio::test]
async fn a_person_who_was_here_stays_in_the_session_that_the_provider_does_not_name() {
    let (fake, provider, _) = stand();
    fake.change(|state| state.claims["sid"] = json!(null));
    let mut browser = TestBrowser::default();
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let answer = trip(&fake, &*provider, &mut browser).await;
        let (who, ..) = signed_in(back(&*provider, &mut browser, &answer).await);
        sessions.push(who.provider_session.clone());
        browser.before = Some(who);
    }
    assert_eq!(sessions[0], sessions[1]);

    fake.change(|state| state.claims["sub"] = "bob".into());
    let answer = trip(&fake, &*provider, &mut browser).await;
    let (bob, ..) = signed_in(back(&*provider, &mut browser, &answer).await);
    assert_ne!(bob.provider_session, sessions[1]);
}

#[tokio::test]
async fn a_logout_ends_what_it_names_in_browsers_and_editors_and_only_as_a_form() {
    let (fake, provider, sessions) = stand();
    let token = fake.logout_token(json!({"sid": "s-1"}));
    let body = Bytes::from(format!("logout_token={token}"));
    for (content_type, body, status) in [
        ("text/plain", Some(&body), StatusCode::BAD_REQUEST),
        (
            "application/x-www-form-urlencoded",
            None,
            StatusCode::BAD_REQUEST,
        ),
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            Some(&body),
            StatusCode::OK,
        ),
    ] {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        let answer = provider.answer(PlainRequest {
            path: LOGOUT_PATH,
            segments: &[],
            headers: &headers,
            body,
            request_id: "",
            now: OffsetDateTime::now_utc(),
        });
        assert_eq!(answer.await.status(), status, "{content_type}");
    }

    let ended = Ended {
        provider: ISSUER.to_owned(),
        subject: String::new(),
        provider_session: "s-1".to_owned(),
        editors: true,
        reason: RevocationReason::SignedOutAtProvider,
    };
    assert_eq!(*sessions.ended.lock().unwrap(), [ended]);
}
