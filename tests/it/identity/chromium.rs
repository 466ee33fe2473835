//! The same in a real browser, with the real ClerkJS and a real OpenID provider.

use fantoccini::key::Key;
use serde_json::Value;
use vvs_tests::clerk;
use vvs_tests::{Chromium, Stack};

use super::{Provider, signed_in};

const SIGN_IN: &str = "Sign in to VVS";
const APPROVAL: &str = "Let this editor sign in as you?";
const SUCCESS: &str = "Your editor is signed in";
const APPROVE: &str = "form[action='/login/approve'] button:not(.deny)";

/// What the person types at the provider.
async fn say_who(provider: &Provider, chromium: &Chromium, name: &str) {
    match provider {
        Provider::Dev => {
            chromium
                .fill("#email", &format!("{name}@example.com"))
                .await;
            chromium.click("form[action='/dev/sign-in'] button").await;
        }
        Provider::Clerk(clerk) => {
            clerk
                .sign_in_with(chromium, &format!("{name}@example.com"))
                .await;
        }
        Provider::Oidc(oidc) => oidc.sign_in_with(chromium, name).await,
    }
}

/// From the link to the editor that is signed in; the user that it is told.
async fn sign_in(provider: &Provider, stack: &Stack, chromium: &Chromium, name: &str) -> Value {
    let mut editor = stack.editor().await;
    chromium
        .open(editor.connection["loginUrl"].as_str().unwrap())
        .await;
    say_who(provider, chromium, name).await;
    chromium.arrive(200, APPROVAL).await;
    assert!(chromium.text(".code").await.contains(editor.user_code()));

    chromium.click("[name=confirmed]").await;
    let receiving = async {
        let success = editor.next().await;
        editor.read_on().await;
        success
    };

    let ((), success) = tokio::join!(chromium.click(APPROVE), receiving);
    chromium.arrive(200, SUCCESS).await;
    assert_eq!(success["type"], "auth:success", "{success}");

    success["user"].clone()
}

/// What there is to do on the way to the approval: a field to type into, which gets the focus, or
/// nothing any more. It knows what fields are called, and no provider.
const NEXT: &str = "
    if (document.querySelector('form[action=\"/login/approve\"]')) return 'there';
    const consent = document.querySelector('button[name=consent][value=yes]');
    if (consent) return consent.click();
    const names = ['email', 'login', 'identifier', 'password'];
    const fields = [...document.querySelectorAll('input')].filter((field) => names.includes(field.name));
    const field = fields.find((field) => field.tabIndex >= 0 && field.checkVisibility() && !field.value);
    field?.focus();
    return field && (field.name === 'password' ? 'password' : 'name');";

/// The whole way of a person through the browser, whoever provides the sign-in.
async fn script(stack: &Stack, chromium: &Chromium, name: &str, password: &str) -> Value {
    let mut editor = stack.editor().await;
    chromium
        .open(editor.connection["loginUrl"].as_str().unwrap())
        .await;

    loop {
        match chromium.until(NEXT).await.as_str() {
            "there" => break,
            "password" => chromium.write(password).await,
            _ => chromium.write(name).await,
        }
        chromium.press(Key::Enter).await;
    }

    chromium.arrive(200, APPROVAL).await;
    chromium.click("[name=confirmed]").await;
    let ((), success) = tokio::join!(chromium.click(APPROVE), async {
        let success = editor.next().await;
        editor.read_on().await;
        success
    });
    chromium.arrive(200, SUCCESS).await;

    success["user"].clone()
}

#[tokio::test]
async fn one_script_signs_in_through_each_provider_by_its_settings_alone() {
    let address = "ada@example.com";
    for (provider, scenario, name) in [
        (Provider::Dev, "dev", address),
        (Provider::clerk(), "clerk", address),
        (Provider::oidc().await, "oidc", "ada"),
    ] {
        let stack = provider.stack().await;
        let chromium = Chromium::start(&stack, scenario).await;
        let user = script(&stack, &chromium, name, clerk::PASSWORD).await;
        assert_eq!(user["email"], address, "{scenario}");
    }
}

#[tokio::test]
async fn clerks_form_stands_on_our_page_and_breaks_no_rule_of_its_policy() {
    let provider = Provider::clerk();
    let stack = provider.stack().await;
    let chromium = Chromium::start(&stack, "clerk-form").await;
    let editor = stack.editor().await;
    chromium
        .open(editor.connection["loginUrl"].as_str().unwrap())
        .await;
    chromium.wait_for("//input[@name='identifier']").await;
    chromium.arrive(200, SIGN_IN).await;

    // The styles that ClerkJS puts in carry the nonce: without them the button would have no colour
    // of its own.
    let colour =
        "return getComputedStyle(document.querySelector('.cl-formButtonPrimary')).backgroundColor";
    assert_ne!(chromium.run(colour).await, "rgba(0, 0, 0, 0)");
}

#[tokio::test]
async fn whoever_has_no_account_at_clerk_makes_one_on_the_way() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let chromium = Chromium::start(&stack, "clerk-sign-up").await;
    let editor = stack.editor().await;
    chromium
        .open(editor.connection["loginUrl"].as_str().unwrap())
        .await;
    clerk.sign_up_with(&chromium, "carol@example.com").await;

    // The console speaks of a sign-in that Clerk has refused, and it is right.
    chromium.wait_for(&format!("//h1[.='{APPROVAL}']")).await;
    assert!(chromium.text("main").await.contains("carol@example.com"));
}

#[tokio::test]
async fn another_account_of_clerks_can_be_used_instead() {
    let provider = Provider::clerk();
    let stack = provider.stack().await;
    let chromium = Chromium::start(&stack, "clerk-another").await;
    let editor = stack.editor().await;
    chromium
        .open(editor.connection["loginUrl"].as_str().unwrap())
        .await;
    say_who(&provider, &chromium, "ada").await;
    chromium.arrive(200, APPROVAL).await;
    chromium.click("form[action='/login/another'] button").await;
    say_who(&provider, &chromium, "bob").await;
    chromium.arrive(200, APPROVAL).await;
    assert!(chromium.text("main").await.contains("bob@example.com"));
}

#[tokio::test]
async fn clerks_scripts_can_come_from_our_own_origin() {
    let provider = Provider::clerk();
    let folder = clerk::scripts();
    let stack = provider
        .stack_with(&["--web-clerk-js-dir", folder.to_str().unwrap()])
        .await;
    let chromium = Chromium::start(&stack, "clerk-own").await;
    let user = sign_in(&provider, &stack, &chromium, "ada").await;
    assert_eq!(user["email"], "ada@example.com");

    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    assert_eq!(clerk.front().requests("/npm/"), 0);
}

#[tokio::test]
async fn a_page_whose_clerk_script_does_not_come_says_so() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    clerk.front().fail("/npm/", vvs_tests::Fault::Status(503));
    let chromium = Chromium::start(&stack, "clerk-no-script").await;
    let editor = stack.editor().await;
    chromium
        .open(editor.connection["loginUrl"].as_str().unwrap())
        .await;
    chromium
        .wait_for("//*[contains(., 'script could not be loaded')]")
        .await;
    clerk.front().heal();
    chromium.click("#clerk-failure a").await;
    chromium.wait_for("//input[@name='identifier']").await;
}

#[tokio::test]
async fn another_account_of_the_openid_providers_can_be_used_and_left_there_too() {
    let provider = Provider::oidc().await;
    let Provider::Oidc(oidc) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let chromium = Chromium::start(&stack, "oidc-another").await;
    let editor = stack.editor().await;
    chromium
        .open(editor.connection["loginUrl"].as_str().unwrap())
        .await;
    say_who(&provider, &chromium, "ada").await;
    chromium.arrive(200, APPROVAL).await;
    chromium.click("form[action='/login/another'] button").await;
    chromium.arrive(200, SIGN_IN).await;
    chromium.click(".actions a").await;
    oidc.sign_in_with(&chromium, "bob").await;
    chromium.arrive(200, APPROVAL).await;
    assert!(chromium.text("main").await.contains("bob@example.com"));

    chromium
        .open(&stack.addresses().public_url.join("/account/sessions"))
        .await;
    chromium
        .click("form[action='/account/sign-out'] button")
        .await;
    chromium
        .wait_for("//a[contains(., 'as well')]")
        .await
        .click()
        .await
        .unwrap();
    chromium
        .wait_for("//button[@name='logout']")
        .await
        .click()
        .await
        .unwrap();
    chromium.arrive(200, "Sign in to see your editors").await;
}

#[tokio::test]
async fn whoever_is_signed_in_at_the_openid_provider_types_nothing_again() {
    let provider = Provider::oidc().await;
    let stack = provider.stack().await;
    signed_in(&provider, &stack, "bob").await;
    let chromium = Chromium::start(&stack, "oidc-again").await;
    sign_in(&provider, &stack, &chromium, "ada").await;
    let editor = stack.editor().await;
    chromium
        .open(editor.connection["loginUrl"].as_str().unwrap())
        .await;
    chromium.arrive(200, APPROVAL).await;
    assert!(chromium.text("main").await.contains("ada@example.com"));
}
