//! The provider's part of the page: its scripts, its texts and its policy.

use secrecy::SecretString;

use super::super::settings::InstanceKind;
use super::*;
use crate::clerk::settings;

const ID: &str = "6f1f2f4e-2f0c-4a53-9d0e-8f4f3f0a9b11";

fn form(proxy_url: Option<&str>, scripts: &str) -> ClerkForm {
    let (kind, issuer) = settings::publishable_key("pk_live_Y2xlcmsuZXhhbXBsZS5jb20k").unwrap();
    assert_eq!(kind, InstanceKind::Live);

    let proxy_url: Option<Base> = proxy_url.map(|url| url.parse().unwrap());
    let config = Config {
        publishable_key: "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k".to_owned(),
        secret_key: SecretString::from("sk_live_secret"),
        issuer,
        files: None,
        jwt_key: None,
        webhook_secret: None,
    };
    let form = ClerkForm::new(&config, proxy_url.as_ref());
    assert_eq!(form.scripts, scripts);

    form
}

fn part(form: &ClerkForm, about: About, retry: bool, another: bool) -> Part {
    let (csrf, nonce) = (SecretString::from("csrf"), Nonce::new([0; 16]));
    form.part(&Ask {
        about,
        csrf: &csrf,
        nonce: &nonce,
        before: None,
        retry,
        another,
        signed_out: false,
    })
}

fn login() -> About {
    About::Login(ID.parse().unwrap())
}

#[test]
fn the_page_loads_clerks_scripts_with_its_nonce_and_leads_to_the_callback() {
    let html = part(
        &form(None, "https://clerk.example.com"),
        login(),
        false,
        false,
    )
    .html;
    let at = |text: &str| {
        html.find(text)
            .unwrap_or_else(|| panic!("{text} is missing in {html}"))
    };
    let ours = at(r#"src="/assets/clerk.js""#);
    let ui = at(r#"src="https://clerk.example.com/npm/@clerk/ui@1/dist/ui.browser.js""#);
    let clerk =
        at(r#"src="https://clerk.example.com/npm/@clerk/clerk-js@6/dist/clerk.browser.js""#);
    assert!(ours < ui && ui < clerk);
    assert_eq!(
        html.matches(r#"nonce="AAAAAAAAAAAAAAAAAAAAAA""#).count(),
        html.matches("<script").count()
    );

    at(r#"data-clerk-publishable-key="pk_live_Y2xlcmsuZXhhbXBsZS5jb20k""#);
    at("<noscript>");
    assert!(
        !html.contains("data-clerk-proxy-url")
            && !html.contains("sk_live")
            && !html.contains("data-forgets")
    );
}

#[test]
fn the_page_comes_back_to_what_it_is_about() {
    let form = form(None, "https://clerk.example.com");
    let value = |html: &str, name: &str| {
        let (_, rest) = html.split_once(&format!("{name}=\"")).unwrap();
        rest.split('"').next().unwrap().replace("&#38;", "&")
    };
    let (login_path, callback) = (
        format!("/login?connection_id={ID}"),
        format!("/api/auth/callback?connection_id={ID}"),
    );

    for (about, retry, another, here, again, callback) in [
        (
            login(),
            false,
            false,
            &*login_path,
            login_path.clone(),
            callback.clone(),
        ),
        (
            login(),
            true,
            false,
            &login_path,
            format!("{login_path}&retry=1"),
            format!("{callback}&retry=1"),
        ),
        (
            login(),
            false,
            true,
            &login_path,
            format!("{login_path}&another=1"),
            callback.clone(),
        ),
        (
            About::Account,
            false,
            false,
            SIGN_IN_PATH,
            SIGN_IN_PATH.to_owned(),
            "/api/auth/callback?account=1".to_owned(),
        ),
    ] {
        let html = part(&form, about, retry, another).html;
        assert_eq!(value(&html, "data-here"), here);
        assert_eq!(value(&html, "data-callback"), callback);
        assert_eq!(value(&html, "href"), again);
        assert_eq!(html.contains("data-forgets"), another);
    }
}

#[test]
fn who_has_signed_out_here_is_not_signed_in_again_by_clerks_own_session() {
    let (csrf, nonce) = (SecretString::from("csrf"), Nonce::new([0; 16]));
    let ask = Ask {
        about: About::Account,
        csrf: &csrf,
        nonce: &nonce,
        before: None,
        retry: false,
        another: false,
        signed_out: true,
    };
    let html = form(None, "https://clerk.example.com").part(&ask).html;
    assert!(
        html.contains(" data-forgets>") && html.contains("href=\"/account/sign-in?another=1\""),
        "{html}"
    );
}

#[test]
fn a_proxy_takes_the_place_of_the_frontend_api() {
    let form = form(
        Some("http://127.0.0.1:9/__clerk/"),
        "http://127.0.0.1:9/__clerk",
    );
    let part = part(&form, login(), false, false);
    assert!(
        part.html
            .contains(r#"src="http://127.0.0.1:9/__clerk/npm/@clerk/ui@1/dist/ui.browser.js""#)
    );
    assert!(
        part.html
            .contains(r#"data-clerk-proxy-url="http://127.0.0.1:9/__clerk""#)
    );
    assert_eq!(
        part.sources.connect,
        "http://127.0.0.1:9 https://*.protect.clerk.com:*"
    );
}

#[test]
fn the_policy_is_strict() {
    let sources = part(
        &form(None, "https://clerk.example.com"),
        login(),
        false,
        false,
    )
    .sources;
    assert_eq!(
        sources.script,
        "'strict-dynamic' 'self' https://clerk.example.com https://challenges.cloudflare.com \
         https://*.protect.clerk.com"
    );
    assert_eq!(sources.style, "'nonce-AAAAAAAAAAAAAAAAAAAAAA'");
    assert_eq!(
        sources.connect,
        "https://clerk.example.com https://*.protect.clerk.com:*"
    );
    assert_eq!(sources.img, "https://img.clerk.com");
    assert_eq!(
        sources.frame,
        "https://challenges.cloudflare.com https://*.protect.clerk.com"
    );
    assert_eq!(sources.worker, "'self' blob:");
}
