//! The paths of a provider: the checks in front of them, and the calls to the provider.

use std::future::ready;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use http::{HeaderValue, Request, StatusCode};
use secrecy::ExposeSecret as _;
use tonic::Code;
use vvs_identity::{
    Ask, Asking, Browser, BrowserRequest, Part, Path, PathKind, Provider, Reply, Response, Whose,
};
use vvs_proto::types::RevocationReason;

use super::TTL;
use super::bench::{Bench, common};

/// The longest message, in bytes.
const LONGEST: usize = 64 * 1024;

/// Returns its request.
struct Echo;

impl Provider for Echo {
    fn name(&self) -> &'static str {
        "dev"
    }

    fn part(&self, ask: &Ask<'_>) -> Part {
        Part {
            html: format!(
                "<input name=\"csrf\" value=\"{}\">",
                ask.csrf.expose_secret()
            ),
            ..Part::default()
        }
    }

    fn paths(&self) -> Vec<Path> {
        let path = |path, kind| Path { path, kind };
        vec![
            path("/echo/page", PathKind::Page),
            path("/echo/form", PathKind::Form),
            path("/echo/file/{one}/{two}", PathKind::File),
            path("/echo/message", PathKind::Message(LONGEST)),
        ]
    }

    fn serve<'a>(
        &'a self,
        call: BrowserRequest<'a>,
        browser: &'a mut dyn Browser,
    ) -> Asking<'a, Result<Reply, vvs_identity::Refusal>> {
        let said = String::from_utf8_lossy(call.fields).into_owned();
        let before = browser.before().is_some();
        Box::pin(ready(Ok(Reply::Go(format!(
            "{}?{said}&before={before}",
            call.path
        )))))
    }

    fn answer<'a>(&'a self, request: vvs_identity::PlainRequest<'a>) -> Asking<'a, Response> {
        let length = request.body.map(Bytes::len);
        let said = format!("{} {:?} {length:?}", request.path, request.segments);
        let mut answer = Response::new(said.into());
        if !request.segments.is_empty() {
            let kept = HeaderValue::from_static("public");
            answer.headers_mut().insert(CACHE_CONTROL, kept);
        }
        Box::pin(ready(answer))
    }
}

fn bench() -> Bench {
    Bench::with(TTL, |web| web.identity = Arc::new(Echo))
}

#[tokio::test]
async fn a_form_of_the_providers_is_ours_before_it_is_the_providers() {
    let bench = bench();
    let mut browser = bench.browser();
    let csrf = browser.get("/account/sign-in").await.csrf();
    let taken = browser
        .post("/echo/form", &[("csrf", &csrf), ("more", "1")])
        .await;
    assert_eq!(
        taken.location(),
        format!("/echo/form?csrf={csrf}&more=1&before=false")
    );

    for wrong in ["", "x"] {
        let refused = browser.post("/echo/form", &[("csrf", wrong)]).await;
        assert_eq!(refused.title(), "This page was out of date");
    }

    browser.site = "cross-site";
    let refused = browser.post("/echo/form", &[("csrf", &csrf)]).await;
    assert_eq!(refused.title(), "Another site sent you here");
}

#[tokio::test]
async fn a_path_is_served_for_its_own_method_only() {
    let bench = bench();
    let mut browser = bench.browser();
    let opened = browser.get("/echo/page?x=1").await;
    assert_eq!(opened.location(), "/echo/page?x=1&before=false");

    for path in ["/echo/form", "/echo/message"] {
        let refused = browser.get(path).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }

    for path in ["/echo/page", "/echo/file/a/b"] {
        let refused = browser.post(path, &[]).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}

#[tokio::test]
async fn a_file_is_asked_for_by_what_its_address_means_and_kept_as_the_provider_says() {
    let bench = bench();
    let file = bench.browser().get("/echo/file/a%2fb/..%2fc").await;
    assert_eq!(
        file.text,
        r#"/echo/file/{one}/{two} ["a/b", "../c"] Some(0)"#
    );
    assert_eq!(file.headers[CACHE_CONTROL], "public");
    assert!(!file.headers.contains_key(CONTENT_SECURITY_POLICY));
}

#[tokio::test]
async fn a_message_is_as_long_as_its_path_takes_and_its_answer_is_kept_by_nobody() {
    let bench = bench();
    for (length, said) in [
        (0, "Some(0)"),
        (LONGEST, "Some(65536)"),
        (LONGEST + 1, "None"),
    ] {
        let request = Request::post("/echo/message").body(Body::from("a".repeat(length)));
        let answer = bench.browser().send(request.unwrap()).await;
        assert_eq!(answer.text, format!("/echo/message [] {said}"));
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        assert!(answer.headers.contains_key(CONTENT_SECURITY_POLICY));
    }
}

#[tokio::test]
async fn what_a_provider_ends_has_ended_in_browsers_and_if_it_says_so_in_editors() {
    for editors in [false, true] {
        let bench = Bench::with(TTL, |_| {});
        bench.install("ada@example.com", "ses_laptop", "laptop");
        let whose = Whose {
            provider: "dev",
            subject: "ada@example.com",
            provider_session: "",
        };
        let sessions = common(bench.web()).sessions;
        let ended = sessions
            .end(whose, editors, RevocationReason::UserDeleted)
            .await
            .unwrap();

        assert_eq!(ended, u32::from(editors));
        let (in_browsers, in_editors) = (
            bench.script.ends.lock().unwrap(),
            bench.script.sign_outs.lock().unwrap(),
        );
        assert_eq!(
            (in_browsers.len(), in_editors.len()),
            (1, usize::from(editors))
        );
        assert_eq!(in_browsers[0].reason(), RevocationReason::UserDeleted);
        assert!(
            in_editors
                .iter()
                .all(|end| end.reason() == RevocationReason::UserDeleted)
        );
    }
}

#[tokio::test]
async fn a_provider_hears_what_passes_and_what_does_not() {
    let bench = Bench::new();
    for (code, reason, is_broken) in [
        (Code::Unavailable, "", false),
        (Code::PermissionDenied, "PEER_NOT_ALLOWED", true),
    ] {
        *bench.script.sessions.lock().unwrap() = Err((code, reason));
        let whose = Whose {
            provider: "dev",
            subject: "ada@example.com",
            provider_session: "",
        };
        let sessions = common(bench.web()).sessions;
        let heard = sessions
            .end(whose, true, RevocationReason::UserDeleted)
            .await
            .unwrap_err();
        assert_eq!(
            heard.as_str(),
            if is_broken { "broken" } else { "unavailable" }
        );
        assert!(heard.to_string().starts_with("sessions "), "{heard}");
    }
}
