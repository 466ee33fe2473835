//! What a copy of a browser's cookies is worth once the browser has signed out, or was signed out:
//! nothing, with each provider and on each web process.

use std::net::SocketAddr;

use http::StatusCode;
use tokio::time::timeout;
use vvs_auth::peer::Role;
use vvs_tests::command::Running;
use vvs_tests::stack::PATIENCE;
use vvs_tests::{Browser, Stack};

use super::{Provider, callback, follow, is_signed_out, signed_in};

const LIST: &str = "/account/sessions";

/// A copy is tried again and again until it is refused, which is more often than a person may ask.
const ASKS_OFTEN: [&str; 2] = ["--web-requests-per-person", "1000000"];

/// Another web process with the same key on the same sessions, behind a gateway of its own.
struct Elsewhere {
    _processes: [Running; 2],
    address: SocketAddr,
}

impl Elsewhere {
    async fn start(provider: &Provider, stack: &Stack) -> Self {
        let at = stack.addresses();
        let (relay, sessions) = (at.relay_rpc.to_string(), at.sessions_rpc.to_string());
        let key = stack
            .data()
            .path()
            .join("keys/web.key")
            .display()
            .to_string();
        let mut flags = provider.flags(&ASKS_OFTEN);
        if matches!(provider, Provider::Dev) {
            flags.extend(["--web-identity", "dev"].map(str::to_owned));
        }

        let own = ["--web-http-addr", "127.0.0.1:0", "--web-key-file", &key];
        let others = ["--web-relay-addr", &relay, "--web-sessions-addr", &sessions];
        let all: Vec<_> = own
            .into_iter()
            .chain(others)
            .chain(flags.iter().map(String::as_str))
            .collect();
        let mut web = stack.process(Role::Web, &all);
        let http = web.ready().await["web-http"].to_string();

        // No editor comes here, so its relay is never asked for anything.
        let ways = [
            "--listen",
            "127.0.0.1:0",
            "--gateway-web-addr",
            &http,
            "--gateway-relay-addr",
            &relay,
        ];
        let mut gateway = stack.process(Role::Gateway, &ways);
        let address = gateway.addresses(2).await["listen"];

        Self {
            _processes: [web, gateway],
            address,
        }
    }
}

/// A copy of a browser's cookies, in use at the same web process and at another one.
async fn copies(browser: &Browser, elsewhere: &Elsewhere) -> [Browser; 2] {
    let mut copies = [browser.clone(), browser.copy_at(elsewhere.address)];
    for copy in &mut copies {
        // The gateway may have to find its web first.
        let seen = async { while copy.get(LIST).await.status != StatusCode::OK {} };
        timeout(PATIENCE, seen)
            .await
            .unwrap_or_else(|_elapsed| panic!("the copy was worth nothing before"));
    }
    copies
}

/// Waits until a copy is of no use, and looks that it is of none anywhere.
async fn are_worth_nothing(stack: &Stack, copies: [Browser; 2]) {
    for mut copy in copies {
        let ended = async { while copy.get(LIST).await.status != StatusCode::SEE_OTHER {} };
        timeout(PATIENCE, ended)
            .await
            .unwrap_or_else(|_elapsed| panic!("a copied cookie is still good"));

        let editor = stack.editor().await;
        for again in ["", "&retry=1"] {
            let page = copy.get(&format!("{}{again}", callback(&editor))).await;
            assert_ne!(page.status, StatusCode::OK, "{}", page.body);
            assert!(!page.body.contains("ada@example.com"), "{}", page.body);
        }

        assert_eq!(copy.get(LIST).await.location(), "/account/sign-in");
    }
}

async fn everywhere() -> [Provider; 3] {
    [Provider::Dev, Provider::clerk(), Provider::oidc().await]
}

#[tokio::test]
async fn a_copied_cookie_is_worth_nothing_after_signing_out_with_each_provider_and_on_another_process_too()
 {
    for provider in everywhere().await {
        let stack = provider.stack_with(&ASKS_OFTEN).await;
        let elsewhere = Elsewhere::start(&provider, &stack).await;
        let (mut editor, mut browser, _) = signed_in(&provider, &stack, "ada").await;
        let copies = copies(&browser, &elsewhere).await;
        let list = browser.get(LIST).await;
        let out = browser
            .post("/account/sign-out", &[("csrf", &list.field("csrf"))])
            .await;
        assert_eq!(out.location(), "/account/sign-in?done=here", "{}", out.body);

        are_worth_nothing(&stack, copies).await;
        editor.read_on().await;

        // The person signs in again at once.
        signed_in(&provider, &stack, "ada").await;
    }
}

#[tokio::test]
async fn signing_out_everywhere_ends_other_browsers_and_editors_with_each_provider() {
    for provider in everywhere().await {
        let stack = provider.stack_with(&ASKS_OFTEN).await;
        let elsewhere = Elsewhere::start(&provider, &stack).await;
        let (mut editor, browser, _) = signed_in(&provider, &stack, "ada").await;
        let (_, mut bob, _) = signed_in(&provider, &stack, "bob").await;
        let (_, mut other, _) = signed_in(&provider, &stack, "ada").await;
        let copies = copies(&browser, &elsewhere).await;
        let list = other.get(LIST).await;
        let out = other
            .post(
                "/account/sessions/revoke-all",
                &[("csrf", &list.field("csrf"))],
            )
            .await;
        assert_eq!(
            out.location(),
            "/account/sign-in?done=all-2",
            "{}",
            out.body
        );

        is_signed_out(&mut editor).await;
        are_worth_nothing(&stack, copies).await;
        assert_eq!(other.get(LIST).await.location(), "/account/sign-in");
        assert_eq!(
            bob.get(LIST).await.status,
            StatusCode::OK,
            "somebody else was signed out"
        );
    }
}

#[tokio::test]
async fn a_logout_at_the_openid_provider_is_known_to_every_web_process() {
    let provider = Provider::oidc().await;
    let Provider::Oidc(oidc) = &provider else {
        unreachable!()
    };

    let stack = provider.stack_with(&ASKS_OFTEN).await;
    let elsewhere = Elsewhere::start(&provider, &stack).await;
    let (editor, mut browser) = (stack.editor().await, stack.browser());
    let start = browser
        .get(&format!("/login/oidc?connection_id={}", editor.id()))
        .await;
    let mut ada = oidc.person();
    let back = ada.sign_in(&start.location(), "ada").await;
    assert_eq!(follow(&mut browser, &back).await.status, StatusCode::OK);

    let copies = copies(&browser, &elsewhere).await;
    ada.sign_out().await;
    are_worth_nothing(&stack, copies).await;
}

#[tokio::test]
async fn a_session_that_ends_at_clerk_ends_in_every_browser_and_leaves_editors_alone() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    let stack = provider.stack_with(&ASKS_OFTEN).await;
    let elsewhere = Elsewhere::start(&provider, &stack).await;
    let session = clerk.sign_in("user_ada");
    let (mut editor, mut browser) = (stack.editor().await, stack.browser());
    let approval = super::arrive(clerk, &stack, &mut browser, &editor, &session).await;
    super::approve(&mut browser, &approval, &mut editor).await;
    let copies = copies(&browser, &elsewhere).await;

    // Clerk itself goes on to say that the session is active: what counts is what was heard.
    assert!(
        clerk
            .session_event("session.ended", &session)
            .send(&stack)
            .await
            .status
            .is_success()
    );

    are_worth_nothing(&stack, copies).await;
    editor.read_on().await;
}

#[tokio::test]
async fn without_sessions_a_browser_is_told_that_its_sign_in_cannot_be_checked() {
    let provider = Provider::Dev;
    let stack = provider.stack_with(&ASKS_OFTEN).await;
    let (_, mut browser, _) = signed_in(&provider, &stack, "ada").await;
    let list = browser.get(LIST).await;
    assert_eq!(list.status, StatusCode::OK);

    stack.stop(Role::Sessions).await;
    let unchecked =
        async { while browser.get(LIST).await.status != StatusCode::SERVICE_UNAVAILABLE {} };
    timeout(PATIENCE, unchecked)
        .await
        .unwrap_or_else(|_elapsed| panic!("nobody asks sessions"));
    let page = browser.get(LIST).await;
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        page.body
    );
    assert!(
        page.body
            .contains("Your sign-in cannot be checked right now")
            && !page.body.contains("ada@example.com")
    );

    let out = browser
        .post("/account/sign-out", &[("csrf", &list.field("csrf"))])
        .await;
    assert_eq!(out.status, StatusCode::SERVICE_UNAVAILABLE, "{}", out.body);
    assert!(out.body.contains("Signed out in this browser only"));
    assert_eq!(browser.get(LIST).await.location(), "/account/sign-in");

    stack.restart_sessions().await;
}
