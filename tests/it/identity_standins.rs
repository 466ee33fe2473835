//! The stand-ins for identity providers are what they stand for, as far as anyone here looks: their
//! tokens are good by our own verifier, and a browser signs in with them, with nothing of ours in
//! between.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use time::OffsetDateTime;
use url::Url;
use vvs_auth::provider::{Distrust, KeySet, clerk, oidc};
use vvs_tests::clerk::{Clerk, User};
use vvs_tests::oidc::Oidc;
use vvs_tests::{Browser, Chromium, Fault, Front, Page, Secrets, Stack};

const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";
const CLIENT: (&str, &str) = ("vvs-web", "the-secret-of-the-relying-party");

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

async fn get(front: &Front, path: &str, authorization: &str) -> Page {
    let request = Request::get(path)
        .header(HOST, front.address().to_string())
        .header(AUTHORIZATION, authorization);
    let mut browser = Browser::at(front.url(), &Secrets::default());
    browser
        .send(front.address(), request.body(Full::default()).unwrap())
        .await
}

async fn clerk_keys(clerk: &Clerk) -> KeySet {
    KeySet::from_jwks(&get(clerk.front(), "/.well-known/jwks.json", "").await.body).unwrap()
}

fn verify(
    clerk: &Clerk,
    keys: &KeySet,
    token: &str,
    origin: &str,
) -> Result<clerk::Claims, Distrust> {
    let parties = [origin.to_owned()];
    let rules = clerk::Rules {
        issuer: clerk.issuer(),
        authorized_parties: &parties,
        allow_impersonation: false,
    };
    clerk::verify(token, keys, &rules, now())
}

#[tokio::test]
async fn a_token_of_clerk_is_good_until_its_key_is_withdrawn() {
    let (clerk, origin) = (Clerk::start(), "https://vvs.example");
    let session = clerk.sign_in(&clerk.add(User::named("ada")));
    let (token, keys) = (clerk.token(&session, origin), clerk_keys(&clerk).await);
    let claims = verify(&clerk, &keys, &token, origin).unwrap();
    assert_eq!((&*claims.subject, &claims.session), ("user_ada", &session));

    let pinned = KeySet::from_pem(
        &std::fs::read_to_string(clerk.jwt_key_file()).unwrap(),
        None,
    )
    .unwrap();
    assert_eq!(verify(&clerk, &pinned, &token, origin).unwrap(), claims);

    let forged = clerk.token_by_stranger(&session, origin);
    assert_eq!(
        verify(&clerk, &keys, &forged, origin),
        Err(Distrust::BadSignature)
    );

    let late = clerk.token_with(&session, origin, |_, claims| {
        claims["exp"] = (now() - 60).into();
    });
    assert_eq!(verify(&clerk, &keys, &late, origin), Err(Distrust::Expired));

    clerk.rotate();
    let newer = clerk.token(&session, origin);
    assert_eq!(
        verify(&clerk, &keys, &newer, origin),
        Err(Distrust::UnknownKey)
    );

    let keys = clerk_keys(&clerk).await;
    assert!(
        verify(&clerk, &keys, &newer, origin).is_ok()
            && verify(&clerk, &keys, &token, origin).is_ok()
    );

    clerk.withdraw();
    let keys = clerk_keys(&clerk).await;
    assert!(verify(&clerk, &keys, &newer, origin).is_ok());
    assert_eq!(
        verify(&clerk, &keys, &token, origin),
        Err(Distrust::UnknownKey)
    );
}

#[tokio::test]
async fn the_backend_api_answers_only_whoever_has_the_secret_key() {
    let clerk = Clerk::start();
    let user = clerk.add(User::named("ada"));
    let session = clerk.sign_in(&user);
    let bearer = format!(
        "Bearer {}",
        std::fs::read_to_string(clerk.secret_key_file()).unwrap()
    );
    let ask = async |path: &str, authorization: &str| {
        let page = get(clerk.front(), path, authorization).await;
        (
            page.status,
            serde_json::from_str::<Value>(&page.body).unwrap(),
        )
    };
    for path in ["/v1/users/user_ada", "/v1/jwks"] {
        let (status, refused) = ask(path, "Bearer sk_live_other").await;
        assert_eq!(
            (status, &refused["errors"][0]["code"]),
            (StatusCode::UNAUTHORIZED, &json!("clerk_key_invalid"))
        );
    }

    let (_, ada) = ask("/v1/users/user_ada", &bearer).await;
    let primary = &ada["email_addresses"][1];
    assert_eq!(
        (&primary["id"], &primary["email_address"]),
        (&ada["primary_email_address_id"], &json!("ada@example.com"))
    );
    assert_eq!(primary["verification"]["status"], "verified");

    clerk.change(&user, |user| user.banned = true);
    assert_eq!(ask("/v1/users/user_ada", &bearer).await.1["banned"], true);

    clerk.delete(&user);
    assert_eq!(
        ask("/v1/users/user_ada", &bearer).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ask(&format!("/v1/sessions/{session}"), &bearer).await.1["status"],
        "active"
    );
    assert_eq!(clerk.front().requests("/v1/users/"), 4);
}

#[tokio::test]
async fn a_front_fails_as_it_is_told_to_and_heals() {
    let clerk = Clerk::start();
    let (front, path) = (clerk.front(), "/.well-known/jwks.json");
    front.fail("/.well-known", Fault::TooMany { retry_after: 7 });
    let page = get(front, path, "").await;
    assert_eq!(
        (page.status, &page.headers[RETRY_AFTER]),
        (StatusCode::TOO_MANY_REQUESTS, &"7".parse().unwrap())
    );

    front.fail("/.well-known", Fault::Status(500));
    assert_eq!(
        get(front, path, "").await.status,
        StatusCode::INTERNAL_SERVER_ERROR
    );

    front.fail(path, Fault::Garbage);
    assert!(serde_json::from_str::<Value>(&get(front, path, "").await.body).is_err());

    front.fail(path, Fault::Slow(Duration::from_hours(1)));
    front.heal();
    assert_eq!(get(front, path, "").await.status, StatusCode::OK);

    front.fail("", Fault::Closed);
    let mut stream = tokio::net::TcpStream::connect(front.address())
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(
        &mut stream,
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    )
    .await
    .unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer)
        .await
        .ok();
    assert!(answer.is_empty());

    front.heal();
    front.refuse().await;
    let refused = tokio::net::TcpStream::connect(front.address())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    front.accept();
    assert_eq!(get(front, path, "").await.status, StatusCode::OK);
}

/// A page of some site, for a browser that is to complain of what it does not like.
fn html(heading: &str, body: &str, policy: &str) -> Response<Bytes> {
    let page = format!(
        "<!doctype html><html lang=en><title>{heading}</title><link rel=icon \
         href='data:,'><h1>{heading}</h1>{body}"
    );
    let response = Response::builder().header(CONTENT_TYPE, "text/html; charset=utf-8");
    response
        .header("content-security-policy", policy)
        .body(page.into())
        .unwrap()
}

/// A site that signs people in with Clerk, under the strictest policy that ClerkJS works with.
fn clerk_site(clerk: &Clerk, path: &str) -> Response<Bytes> {
    let (url, key) = (clerk.url(), clerk.publishable_key());
    let policy = format!(
        "default-src 'none'; base-uri 'none'; script-src 'nonce-n1' 'strict-dynamic'; style-src \
         'nonce-n1'; connect-src {url}; img-src data:; worker-src blob:"
    );
    if path != "/sign-in" {
        return html("Arrived", "", &policy);
    }

    let body = format!(
        "<div id=here></div>
        <script nonce=n1 src='{url}/npm/@clerk/ui@1/dist/ui.browser.js'></script>
        <script nonce=n1 src='{url}/npm/@clerk/clerk-js@6/dist/clerk.browser.js'
            data-clerk-publishable-key='{key}' data-clerk-proxy-url='{url}'></script>
        <script nonce=n1>(async () => {{
            const ui = {{ ClerkUI: window.__internal_ClerkUICtor }};
            await Clerk.load({{ ui, nonce: 'n1', telemetry: false, signInUrl: '/sign-in' }});
            Clerk.mountSignIn(document.querySelector('#here'), {{
                routing: 'hash', forceRedirectUrl: '/arrived?as=known', signUpForceRedirectUrl: '/arrived?as=new',
            }});
        }})()</script>"
    );

    html("Sign in", &body, &policy)
}

/// From the sign-in page to where it leads to; the token that the site gets.
async fn arrive_with_token(
    clerk: &Clerk,
    chromium: &Chromium,
    site: &Front,
    suffix: &str,
) -> String {
    chromium.wait_for("//h1[.='Arrived']").await;
    assert_eq!(
        chromium.url().await,
        format!("{}/arrived?as={suffix}", site.url())
    );

    let cookies = chromium.run("return document.cookie").await;
    let cookies: Vec<_> = cookies
        .as_str()
        .unwrap()
        .split("; ")
        .filter_map(|it| it.split_once('='))
        .collect();
    let cookie = |name: &str| {
        cookies
            .iter()
            .find(|(it, _)| *it == name)
            .unwrap_or_else(|| panic!("no {name}"))
            .1
    };
    let token = cookie("__session").to_owned();
    assert_eq!(cookie(&format!("__session_{}", clerk.suffix())), token);
    assert_eq!(
        cookie(&format!("__client_uat_{}", clerk.suffix())),
        cookie("__client_uat")
    );

    token
}

async fn the_real_clerk_js_signs_in_at(clerk: Clerk, scenario: &'static str) -> Chromium {
    let stack = Stack::start().await;
    let (clerk, site) = (Arc::new(clerk), Front::new());
    clerk.add(User::named("ada"));
    let serving = clerk.clone();
    site.answer(move |request| clerk_site(&serving, request.uri().path()));
    let sign_in = format!("{}/sign-in", site.url());

    let chromium = Chromium::start(&stack, scenario).await;
    chromium.open(&sign_in).await;
    clerk.sign_in_with(&chromium, "ada@example.com").await;
    let token = arrive_with_token(&clerk, &chromium, &site, "known").await;
    let claims = verify(&clerk, &clerk_keys(&clerk).await, &token, site.url()).unwrap();
    assert_eq!(claims.subject, "user_ada");

    // Whoever is signed in passes through, with a fresh token.
    chromium.open(&sign_in).await;
    let fresher = arrive_with_token(&clerk, &chromium, &site, "known").await;
    assert_eq!(
        verify(&clerk, &clerk_keys(&clerk).await, &fresher, site.url())
            .unwrap()
            .session,
        claims.session
    );

    // A session that is over is asked for again.
    clerk.end(&claims.session, "revoked");
    chromium.open(&sign_in).await;
    clerk.sign_in_with(&chromium, "ada@example.com").await;
    let token = arrive_with_token(&clerk, &chromium, &site, "known").await;
    assert_ne!(
        verify(&clerk, &clerk_keys(&clerk).await, &token, site.url())
            .unwrap()
            .session,
        claims.session
    );

    chromium
}

#[tokio::test]
async fn the_real_clerk_js_signs_in_at_a_production_instance_and_the_console_is_quiet() {
    let chromium = the_real_clerk_js_signs_in_at(Clerk::start(), "clerk-production").await;
    chromium.arrive(200, "Arrived").await;
}

#[tokio::test]
async fn the_real_clerk_js_signs_in_at_a_development_instance() {
    the_real_clerk_js_signs_in_at(Clerk::start_development(), "clerk-development").await;
}

#[tokio::test]
async fn the_real_clerk_js_signs_up() {
    let stack = Stack::start().await;
    let (clerk, site) = (Arc::new(Clerk::start()), Front::new());
    let serving = clerk.clone();
    site.answer(move |request| clerk_site(&serving, request.uri().path()));
    let chromium = Chromium::start(&stack, "clerk-sign-up").await;
    chromium.open(&format!("{}/sign-in", site.url())).await;
    clerk.sign_up_with(&chromium, "bob@example.com").await;
    let token = arrive_with_token(&clerk, &chromium, &site, "new").await;
    let claims = verify(&clerk, &clerk_keys(&clerk).await, &token, site.url()).unwrap();
    assert_eq!(claims.subject, "user_bob");
}

/// Where a relying party sends a browser.
fn authorization_url(oidc: &Oidc, origin: &str, more: &[(&str, &str)]) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes()));
    let mut url = Url::parse(&format!("{}/auth", oidc.issuer())).unwrap();
    url.query_pairs_mut()
        .append_pair("client_id", CLIENT.0)
        .append_pair("redirect_uri", &format!("{origin}/api/auth/oidc"))
        .extend_pairs([
            ("response_type", "code"),
            ("scope", "openid email profile"),
            ("nonce", "n1"),
            ("state", "s1"),
        ])
        .extend_pairs([
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ])
        .extend_pairs(more);

    url.into()
}

fn parameter(url: &str, name: &str) -> Option<String> {
    Url::parse(url)
        .unwrap()
        .query_pairs()
        .find_map(|(it, value)| (it == name).then(|| value.into_owned()))
}

async fn buy(oidc: &Oidc, origin: &str, code: &str) -> Value {
    let (uri, basic) = (
        format!("{origin}/api/auth/oidc"),
        STANDARD.encode(format!("{}:{}", CLIENT.0, CLIENT.1)),
    );
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &uri),
        ("code_verifier", VERIFIER),
    ];
    let mut browser = Browser::at(oidc.issuer(), &Secrets::default());
    let page = browser
        .post_from(
            "/token",
            &fields,
            &[("authorization", &format!("Basic {basic}"))],
        )
        .await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);

    serde_json::from_str(&page.body).unwrap()
}

async fn oidc_keys(oidc: &Oidc) -> KeySet {
    KeySet::from_jwks(&get(oidc.front(), "/jwks", "").await.body).unwrap()
}

fn claims(oidc: &Oidc, keys: &KeySet, tokens: &Value) -> Result<oidc::Claims, Distrust> {
    let rules = oidc::Rules {
        issuer: oidc.issuer(),
        client_id: CLIENT.0,
        nonce: "n1",
    };
    oidc::verify_id_token(tokens["id_token"].as_str().unwrap(), keys, &rules, now())
}

#[tokio::test]
async fn a_code_of_the_provider_buys_an_id_token_and_signing_out_tells_the_client() {
    let oidc = Oidc::start().await;
    let (site, told) = (Front::new(), Arc::new(Mutex::new(String::new())));
    let telling = told.clone();
    site.answer(move |request: &Request<Bytes>| {
        *telling.lock().unwrap() = String::from_utf8(request.body().to_vec()).unwrap();
        Response::new(Bytes::new())
    });
    oidc.register(site.url(), json!({})).await;
    let mut ada = oidc.person();
    let url = authorization_url(&oidc, site.url(), &[]);
    let back = ada.sign_in(&url, "ada").await;
    assert!(
        back.starts_with(&format!("{}/api/auth/oidc?", site.url())),
        "{back}"
    );
    assert_eq!(
        (
            parameter(&back, "state").unwrap(),
            parameter(&back, "iss").unwrap()
        ),
        ("s1".into(), oidc.issuer().into())
    );

    let tokens = buy(&oidc, site.url(), &parameter(&back, "code").unwrap()).await;
    let keys = oidc_keys(&oidc).await;
    let first = claims(&oidc, &keys, &tokens).unwrap();
    assert_eq!(
        (&*first.subject, &first.email, first.session.is_some()),
        ("ada", &None, true)
    );

    let info = get(
        oidc.front(),
        "/me",
        &format!("Bearer {}", tokens["access_token"].as_str().unwrap()),
    )
    .await;
    let info: Value = serde_json::from_str(&info.body).unwrap();
    assert_eq!(
        (&info["email"], &info["groups"]),
        (&json!("ada@example.com"), &json!(["everyone"]))
    );

    // Signed in already; then asked who it is all the same.
    oidc.account("bob", json!({"email_verified": false, "groups": ["staff"]}))
        .await;
    oidc.put_claims_in_id_tokens().await;
    let back = ada.pass(&url).await;
    let again = claims(
        &oidc,
        &keys,
        &buy(&oidc, site.url(), &parameter(&back, "code").unwrap()).await,
    )
    .unwrap();
    assert_eq!(
        (again.session, again.email.as_deref()),
        (first.session.clone(), Some("ada@example.com"))
    );

    let other = authorization_url(&oidc, site.url(), &[("prompt", "select_account")]);
    let back = oidc.person().sign_in(&other, "bob").await;
    let bob = claims(
        &oidc,
        &keys,
        &buy(&oidc, site.url(), &parameter(&back, "code").unwrap()).await,
    )
    .unwrap();
    assert_eq!(
        (&*bob.subject, bob.email_verified, &bob.rest["groups"]),
        ("bob", false, &json!(["staff"]))
    );

    ada.sign_out().await;
    let body = told.lock().unwrap().clone();
    let token = body.strip_prefix("logout_token=").unwrap();
    let logout = oidc::verify_logout_token(token, &keys, oidc.issuer(), CLIENT.0, now()).unwrap();
    assert_eq!(
        (logout.subject.as_deref(), logout.session),
        (Some("ada"), first.session)
    );
}

#[tokio::test]
async fn who_does_not_consent_gives_nothing_and_new_keys_sign_from_then_on() {
    let (oidc, origin) = (Oidc::start().await, "http://127.0.0.1:9");
    oidc.register(origin, json!({})).await;
    let url = authorization_url(&oidc, origin, &[]);
    let back = oidc.person().refuse(&url, "ada").await;
    assert_eq!(
        (
            parameter(&back, "error").as_deref(),
            parameter(&back, "code")
        ),
        (Some("access_denied"), None)
    );

    let (old, mut ada) = (oidc_keys(&oidc).await, oidc.person());
    ada.sign_in(&url, "ada").await;
    oidc.rotate().await;
    let back = ada.pass(&url).await;
    let tokens = buy(&oidc, origin, &parameter(&back, "code").unwrap()).await;
    assert_eq!(claims(&oidc, &old, &tokens), Err(Distrust::UnknownKey));
    assert!(claims(&oidc, &oidc_keys(&oidc).await, &tokens).is_ok());

    let forged = oidc
        .sign(
            json!({"typ": "logout+jwt"}),
            json!({"iss": oidc.issuer(), "aud": "another"}),
        )
        .await;
    let refused = oidc::verify_logout_token(
        &forged,
        &oidc_keys(&oidc).await,
        oidc.issuer(),
        CLIENT.0,
        now(),
    );
    assert_eq!(refused, Err(Distrust::WrongAudience));
}

#[tokio::test]
async fn a_browser_signs_in_at_the_provider() {
    let (stack, oidc, site) = (Stack::start().await, Oidc::start().await, Front::new());
    oidc.register(site.url(), json!({})).await;
    let url = authorization_url(&oidc, site.url(), &[]);
    site.answer(move |request| match request.uri().path() {
        "/sign-in" => Response::builder()
            .status(303)
            .header(LOCATION, &url)
            .body(Bytes::new())
            .unwrap(),
        _ => html("Arrived", "", "default-src 'none'; img-src data:"),
    });
    let chromium = Chromium::start(&stack, "oidc").await;
    chromium.open(&format!("{}/sign-in", site.url())).await;
    oidc.sign_in_with(&chromium, "ada").await;
    chromium.arrive(200, "Arrived").await;
    assert!(parameter(&chromium.url().await, "code").is_some());
}
