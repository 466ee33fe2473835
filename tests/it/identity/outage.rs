//! An identity provider that is down, slow or out of its mind: people are told what to do, nothing
//! hangs, and no editor is signed out.

use http::StatusCode;
use tokio::time::timeout;
use vvs_tests::{Fault, Front, Install, Page, Stack};

use super::{Provider, SLOW, approve, signed_in};

/// What takes longer hangs: a few calls of five seconds one after the other, on a machine that is
/// busy with other tests. That a single call is given up in time shows in its page, since the slow
/// front does answer in the end.
const DEADLINE: std::time::Duration = std::time::Duration::from_mins(1);

fn faults() -> [Fault; 5] {
    [
        Fault::Closed,
        Fault::Garbage,
        Fault::Slow(SLOW),
        Fault::Status(500),
        Fault::TooMany { retry_after: 7 },
    ]
}

fn front(provider: &Provider) -> &Front {
    match provider {
        Provider::Clerk(clerk) => clerk.front(),
        Provider::Oidc(oidc) => oidc.front(),
        Provider::Dev => unreachable!(),
    }
}

fn says_what_to_do(page: &Page, what: &str) {
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{what}: {}",
        page.body
    );
    assert!(
        page.body.contains("The sign-in service does not answer")
            && page.body.contains("Try again"),
        "{what}"
    );
}

/// An editor comes back and gets a fresh token, whatever the provider does.
async fn stays_signed_in(stack: &Stack) {
    let install = Install::make(stack, stack.addresses().sessions_rpc, "eve").await;
    let mut editor = install.sign_on(stack).await;
    assert_eq!(editor.refresh(&install.key).await["type"], "auth:token");
    editor.read_on().await;
}

/// Signs in while this part of the provider fails; then the part heals, and the same editor signs
/// in.
async fn suffer(provider: &Provider, stack: &Stack, path: &str, fault: Fault) {
    let what = format!("{path} {fault:?}");
    let (mut editor, mut browser) = (stack.editor().await, stack.browser());
    front(provider).fail(path, fault);
    let page = timeout(
        DEADLINE,
        provider.sign_in(stack, &mut browser, &editor, "ada"),
    )
    .await;
    says_what_to_do(&page.unwrap(), &what);
    front(provider).heal();
    let approval = provider.sign_in(stack, &mut browser, &editor, "ada").await;
    approve(&mut browser, &approval, &mut editor).await;
}

#[tokio::test]
async fn while_clerk_fails_people_are_told_and_editors_stay() {
    let provider = Provider::clerk();
    let stack = provider.stack().await;
    let (mut editor, _, _) = signed_in(&provider, &stack, "bob").await;
    for fault in faults() {
        suffer(&provider, &stack, "/v1/users/", fault).await;
        editor.read_on().await;
    }
}

#[tokio::test]
async fn without_clerks_keys_nobody_is_believed_and_nobody_signed_out() {
    for fault in faults() {
        let provider = Provider::clerk();
        let stack = provider.stack().await;
        let (editor, mut browser) = (stack.editor().await, stack.browser());
        front(&provider).fail("/v1/jwks", fault);
        let page = timeout(
            DEADLINE,
            provider.sign_in(&stack, &mut browser, &editor, "ada"),
        )
        .await;
        says_what_to_do(&page.unwrap(), &format!("{fault:?}"));
        stays_signed_in(&stack).await;
    }
}

#[tokio::test]
async fn an_approval_waits_for_clerk_to_say_that_the_sign_in_holds() {
    let provider = Provider::clerk();
    let stack = provider.stack().await;
    let (mut editor, mut browser) = (stack.editor().await, stack.browser());
    let approval = provider.sign_in(&stack, &mut browser, &editor, "ada").await;
    for path in ["/v1/users/", "/v1/sessions/"] {
        front(&provider).fail(path, Fault::Status(503));
        let page = browser.approve(&approval).await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            page.body
                .contains("The service that signs you in does not answer"),
            "{}",
            page.body
        );
        front(&provider).heal();
    }

    editor.read_on().await;
    approve(&mut browser, &approval, &mut editor).await;
}

#[tokio::test]
async fn while_the_openid_provider_fails_people_are_told_and_editors_stay() {
    let provider = Provider::oidc().await;
    for path in [
        "/.well-known/openid-configuration",
        "/token",
        "/jwks",
        "/me",
    ] {
        for fault in faults() {
            // Each with a stack of its own: what has failed is not asked again at once.
            front(&provider).fail(path, fault);
            let stack = provider.stack().await;
            let (editor, mut browser) = (stack.editor().await, stack.browser());
            let page = timeout(
                DEADLINE,
                provider.sign_in(&stack, &mut browser, &editor, "ada"),
            )
            .await;
            says_what_to_do(
                &page.unwrap_or_else(|_| panic!("{path} {fault:?} hangs")),
                &format!("{path} {fault:?}"),
            );
            stays_signed_in(&stack).await;
            front(&provider).heal();
        }
    }
}

#[tokio::test]
async fn a_stack_starts_and_keeps_its_editors_while_the_provider_is_not_there() {
    let provider = Provider::oidc().await;
    front(&provider).refuse().await;
    let Provider::Oidc(oidc) = &provider else {
        unreachable!()
    };

    let mut flags = oidc.flags();
    flags.extend(["--web-allow".to_owned(), "everyone".to_owned()]);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let stack = Stack::start_with(&flags).await;
    let (mut editor, mut browser) = (stack.editor().await, stack.browser());
    let login = browser.get(&editor.login_path()).await;
    assert_eq!(login.status, StatusCode::OK, "{}", login.body);

    let page = browser
        .get(&format!("/login/oidc?connection_id={}", editor.id()))
        .await;
    says_what_to_do(&page, "refused");
    stays_signed_in(&stack).await;
    front(&provider).accept();
    oidc.register(
        &stack.addresses().public_url.to_string(),
        serde_json::json!({}),
    )
    .await;
    editor.read_on().await;
}
