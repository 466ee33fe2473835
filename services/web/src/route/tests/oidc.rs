//! Signing in with an OpenID provider, from our page and back to it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use serde_json::{Value, json};
use tonic::Code;
use vvs_identity::openid::{CLIENT_ID, Fake, Fault, ISSUER, SECRET};
use vvs_proto::session::revoke_user_sessions_request::Whose;
use vvs_proto::types::RevocationReason;

use super::TTL;
use super::bench::{Bench, Browser, ID, OTHER_ID, Seen, common};

const DISCOVERY: &str = "/realms/a/.well-known/openid-configuration";

/// A role whose people sign in with this provider.
fn bench(allow: &[&str]) -> (Bench, Fake) {
    let fake = Fake::new();
    let bench = Bench::with(TTL, |web| {
        web.identity = fake.provider(common(web), allow);
    });
    (bench, fake)
}

/// Signs in at the provider. Returns where the browser is sent back to.
async fn trip(browser: &mut Browser, fake: &Fake, id: &str) -> String {
    let away = browser
        .get(&format!("/login/oidc?connection_id={id}"))
        .await
        .location()
        .to_owned();
    fake.sign_in(&away)
}

/// Goes from the provider's answer to the page after it.
async fn sign_in(browser: &mut Browser, fake: &Fake) -> Seen {
    let back = trip(browser, fake, ID).await;
    let next = browser.get(&back).await;
    if next.status == StatusCode::SEE_OTHER {
        browser.get(next.location()).await
    } else {
        next
    }
}

/// Signs in at a provider whose ID token contains these claims too; `null` omits one.
async fn sign_in_as(allow: &[&str], claims: Value, userinfo: Value) -> (Seen, Fake) {
    let (bench, fake) = bench(allow);
    fake.change(|state| (state.claims, state.userinfo) = (claims, userinfo));
    let page = sign_in(&mut bench.browser(), &fake).await;
    (page, fake)
}

fn is_approval(page: &Seen) -> bool {
    (page.status, page.title()) == (StatusCode::OK, "Let this editor sign in as you?")
}

#[tokio::test]
async fn a_person_goes_to_the_provider_and_comes_back_to_approve() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    let page = browser.get(&format!("/login?connection_id={ID}")).await;
    let link = format!("/login/oidc?connection_id={ID}");
    assert!(
        page.text.contains(&format!("href=\"{link}\" data-go-on")),
        "{}",
        page.text
    );
    assert!(
        page.text.contains("Continue with <bdi>Example</bdi>")
            && page.text.contains("/assets/oidc.js")
    );

    let away = browser.get(&link).await.location().to_owned();
    assert!(
        away.starts_with("https://id.test/authorize?response_type=code&client_id=vvs&"),
        "{away}"
    );

    for part in [
        "&redirect_uri=http%3A%2F%2F127.0.0.1%3A8080%2Fapi%2Fauth%2Foidc",
        "&scope=openid+profile+email",
    ] {
        assert!(away.contains(part), "{away}");
    }

    assert!(!away.contains("prompt="));

    let back = browser
        .get(&fake.sign_in(&away))
        .await
        .location()
        .to_owned();
    assert_eq!(back, format!("/api/auth/callback?connection_id={ID}"));

    let page = browser.get(&back).await;
    assert!(
        is_approval(&page)
            && page.text.contains("ada@example.com")
            && !page.text.contains("not verified")
    );

    browser.approve(&page.csrf()).await;
    let created = bench.script.created.lock().unwrap()[0]
        .clone()
        .identity
        .unwrap();
    assert_eq!(
        (
            &*created.provider,
            &*created.subject,
            &*created.provider_session
        ),
        (ISSUER, "ada", "s-1")
    );
    assert_eq!(
        (created.email.as_deref(), created.name.as_deref()),
        (Some("ada@example.com"), Some("Ada"))
    );
    assert_eq!(fake.calls("/userinfo"), 0, "the ID token says all");
}

#[tokio::test]
async fn the_account_has_a_trip_of_its_own() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    let page = browser.get("/account/sign-in").await;
    assert!(
        page.text.contains("href=\"/login/oidc?account=1\">") && !page.text.contains("oidc.js"),
        "{}",
        page.text
    );

    let away = browser
        .get("/login/oidc?account=1")
        .await
        .location()
        .to_owned();
    let next = browser
        .get(&fake.sign_in(&away))
        .await
        .location()
        .to_owned();
    assert_eq!(next, "/api/auth/callback?account=1");
    assert_eq!(
        browser.get("/login/oidc").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        browser.get("/login/oidc?connection_id=x").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn whoever_wants_another_account_is_asked_which() {
    let (bench, _) = bench(&["everyone"]);
    let mut browser = bench.browser();
    let page = browser
        .get(&format!("/login?connection_id={ID}&another=1"))
        .await;
    let link = format!("/login/oidc?connection_id={ID}&another=1");
    assert!(
        page.text.contains(&link.replace('&', "&#38;")),
        "{}",
        page.text
    );
    assert!(!page.text.contains("oidc.js") && !page.text.contains("data-go-on"));
    assert!(
        browser
            .get(&link)
            .await
            .location()
            .contains("&prompt=select_account")
    );

    // A link on somebody else's page must not decide that.
    for site in ["cross-site", "same-site", "none"] {
        browser.site = site;
        assert!(
            !browser
                .get(&link)
                .await
                .location()
                .contains("&prompt=select_account"),
            "{site}"
        );
    }

    let retry = browser
        .get(&format!("/login?connection_id={ID}&retry=1"))
        .await;
    assert!(retry.text.contains("/login/oidc?") && !retry.text.contains("oidc.js"));
}

const END_SESSION: &str = "href=\"https://id.test/end?realm=a&#38;client_id=vvs&#38;post_logout_redirect_uri=http%3A%2F%2F127.0.0.1%3A8080%2Faccount%2Fsign-in\"";

#[tokio::test]
async fn whoever_has_signed_out_here_can_sign_out_there() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    sign_in(&mut browser, &fake).await;
    let page = browser.get("/account/sign-in?done=here").await;
    assert!(
        page.text.contains(END_SESSION) && !page.text.contains("oidc.js"),
        "{}",
        page.text
    );
    assert!(
        !browser
            .get("/account/sign-in")
            .await
            .text
            .contains("id.test/end")
    );

    browser.site = "cross-site";
    assert!(
        !browser
            .get("/account/sign-in?done=here")
            .await
            .text
            .contains("id.test/end")
    );
}

#[tokio::test]
async fn a_trip_ends_once_and_in_its_own_browser() {
    let (bench, fake) = bench(&["everyone"]);
    let (mut ada, mut eve) = (bench.browser(), bench.browser());
    let back = trip(&mut ada, &fake, ID).await;
    trip(&mut eve, &fake, ID).await;
    let refused = eve.get(&back).await;
    assert_eq!(
        (refused.status, refused.title()),
        (StatusCode::FORBIDDEN, "This sign-in did not begin here")
    );
    assert_eq!(
        fake.calls("/token"),
        0,
        "a code was used that is not this browser's"
    );

    let before = ada.clone();
    assert_eq!(ada.get(&back).await.status, StatusCode::SEE_OTHER);
    assert_eq!(
        ada.get(&back).await.title(),
        "This sign-in did not begin here"
    );

    // The cookies from before, kept by somebody: the code is used up.
    assert_eq!(
        before.clone().get(&back).await.status,
        StatusCode::UNAUTHORIZED
    );

    for nothing in ["", "?state=", "?state=x", "?code=x", "?state=a&state=b"] {
        let refused = ada.get(&format!("/api/auth/oidc{nothing}")).await;
        assert_eq!(
            (refused.status, refused.title()),
            (StatusCode::FORBIDDEN, "This sign-in did not begin here")
        );
    }
}

#[tokio::test]
async fn two_tabs_come_back_each_to_its_own_login() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    let one = trip(&mut browser, &fake, ID).await;
    let other = trip(&mut browser, &fake, OTHER_ID).await;
    for (back, id) in [(other, OTHER_ID), (one, ID)] {
        let next = browser.get(&back).await.location().to_owned();
        assert_eq!(next, format!("/api/auth/callback?connection_id={id}"));
    }
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_no_answer() {
    let wrong = [
        "&iss=https%3A%2F%2Fevil.test",
        "&iss=",
        "&iss=https%3A%2F%2Fid.test%2Frealms%2Fa%2F",
        "",
    ];
    for (is_advertised, iss, is_good) in wrong
        .map(|iss| (true, iss, false))
        .into_iter()
        .chain([(false, "", true), (false, wrong[0], false)])
    {
        let (bench, fake) = bench(&["everyone"]);
        fake.change(|state| {
            state.discovery["authorization_response_iss_parameter_supported"] =
                is_advertised.into();
        });
        let mut browser = bench.browser();
        let back = trip(&mut browser, &fake, ID).await;
        let bare = back.split("&iss=").next().unwrap();
        let answer = browser.get(&format!("{bare}{iss}")).await;
        if is_good {
            assert_eq!(answer.status, StatusCode::SEE_OTHER);
        } else {
            assert_eq!(
                (answer.status, answer.title()),
                (StatusCode::UNAUTHORIZED, "This sign-in cannot be trusted")
            );
            assert_eq!(fake.calls("/token"), 0, "the code went to somebody else");
        }

        let error = trip(&mut browser, &fake, ID)
            .await
            .replace("code=", "error=access_denied&x=");
        let error = browser
            .get(&format!("{}{iss}", error.split("&iss=").next().unwrap()))
            .await;
        assert_eq!(error.title() == "You did not sign in", is_good, "{iss}");
    }
}

#[tokio::test]
async fn an_error_is_a_page_that_leads_on() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    for (error, status, title) in [
        ("access_denied", 403, "You did not sign in"),
        ("login_required", 403, "You did not sign in"),
        ("%3Cscript%3E", 403, "You did not sign in"),
        ("server_error", 503, "The sign-in service does not answer"),
        (
            "temporarily_unavailable",
            503,
            "The sign-in service does not answer",
        ),
    ] {
        // An error counts, whatever stands beside it.
        let back = trip(&mut browser, &fake, ID).await;
        let page = browser.get(&format!("{back}&error={error}")).await;

        assert_eq!(
            (page.status.as_u16(), page.title()),
            (status, title),
            "{error}"
        );
        assert!(
            page.text
                .contains(&format!("href=\"/login?connection_id={ID}")),
            "{}",
            page.text
        );
        assert!(!page.text.contains("<script>"));
        assert_eq!(
            browser.get(&back).await.title(),
            "This sign-in did not begin here",
            "{error}"
        );
    }

    let neither = trip(&mut browser, &fake, ID).await.replace("code=", "x=");
    assert_eq!(browser.get(&neither).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(fake.calls("/token"), 0);
}

#[tokio::test]
async fn an_id_token_must_be_the_answer_to_this_trip() {
    let whole = json!({"sub": "ada", "name": "Ada", "email": "ada@example.com"});
    assert!(is_approval(
        &sign_in_as(&["everyone"], whole.clone(), json!({})).await.0
    ));

    for (claim, value) in [
        ("nonce", json!("another")),
        ("nonce", json!(null)),
        ("iss", json!("https://id.test/realms/b")),
        ("aud", json!("another")),
        ("aud", json!([CLIENT_ID, "another"])),
        ("exp", json!(1)),
        ("sub", json!(null)),
        ("sub", json!("a\nb")),
        ("sid", json!("s".repeat(256))),
    ] {
        let mut claims = whole.clone();
        claims[claim] = value;
        let (page, _) = sign_in_as(&["everyone"], claims, json!({})).await;
        let expected = (StatusCode::UNAUTHORIZED, "This sign-in cannot be trusted");
        assert_eq!((page.status, page.title()), expected, "{claim}");
    }
}

#[tokio::test]
async fn what_the_id_token_lacks_is_asked_for_and_must_be_about_the_same_person() {
    let userinfo =
        json!({"sub": "ada", "email": "ada@example.com", "email_verified": true, "name": "Ada"});
    let (page, fake) = sign_in_as(
        &["domain:example.com"],
        json!({"sub": "ada"}),
        userinfo.clone(),
    )
    .await;
    assert!(
        is_approval(&page) && page.text.contains("ada@example.com"),
        "{}",
        page.text
    );
    assert_eq!(fake.calls("/userinfo"), 1);

    for sub in [json!("eve"), json!(null), json!(["ada"])] {
        let mut userinfo = userinfo.clone();
        userinfo["sub"] = sub;
        let (page, _) = sign_in_as(&["everyone"], json!({"sub": "ada"}), userinfo).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn only_those_may_sign_in_whom_a_rule_fits() {
    let ada = json!({"sub": "ada", "name": "Ada", "email": "ada@example.com"});
    let person = |verified: bool, groups: Value| {
        let mut claims = ada.clone();
        (claims["email_verified"], claims["groups"]) = (verified.into(), groups);
        claims
    };
    for (rule, claims, may) in [
        ("domain:example.com", person(true, json!(null)), true),
        ("domain:example.com", person(false, json!(null)), false),
        ("domain:example.org", person(true, json!(null)), false),
        ("group:staff", person(false, json!(["ops", "staff"])), true),
        ("group:staff", person(false, json!("staff")), true),
        ("group:staff", person(true, json!(["ops"])), false),
        ("group:staff", person(true, json!([])), false),
    ] {
        let (page, _) = sign_in_as(
            &[rule],
            claims.clone(),
            json!({"sub": "ada", "groups": ["staff"]}),
        )
        .await;
        assert_eq!(is_approval(&page), may, "{rule} {claims}");

        if !may {
            assert_eq!(
                (page.status, page.title()),
                (StatusCode::FORBIDDEN, "This account may not sign in here")
            );

            let again = format!("href=\"/login?connection_id={ID}&#38;another=1\"");
            assert!(
                page.text.contains(&again)
                    && !page.headers["set-cookie"]
                        .to_str()
                        .unwrap()
                        .contains("sign-in")
            );
        }
    }

    // Groups that only userinfo tells.
    let (page, fake) = sign_in_as(
        &["group:staff"],
        person(true, json!(null)),
        json!({"sub": "ada", "groups": ["staff"]}),
    )
    .await;
    assert!(is_approval(&page));
    assert_eq!(fake.calls("/userinfo"), 1);
}

#[tokio::test]
async fn an_unverified_address_is_shown_as_one_and_goes_no_further() {
    let (bench, fake) = bench(&["everyone"]);
    fake.change(|state| state.claims["email_verified"] = false.into());
    let mut browser = bench.browser();
    let page = sign_in(&mut browser, &fake).await;
    assert!(
        page.text.contains("this address is not verified"),
        "{}",
        page.text
    );

    browser.approve(&page.csrf()).await;
    assert_eq!(
        bench.script.created.lock().unwrap()[0]
            .clone()
            .identity
            .unwrap()
            .email,
        None
    );
}

#[tokio::test]
async fn whoever_signs_in_again_stays_in_the_session_that_the_provider_does_not_name() {
    let (bench, fake) = bench(&["everyone"]);
    fake.change(|state| state.claims["sid"] = Value::Null);
    let mut browser = bench.browser();
    let session = |number: usize| {
        let created = bench.script.created.lock().unwrap();
        created[number].clone().identity.unwrap().provider_session
    };
    for _ in 0..2 {
        let page = sign_in(&mut browser, &fake).await;
        browser.approve(&page.csrf()).await;
        bench.login(Ok(vvs_proto::relay::LoginState::Waiting));
        browser.cookies.retain(|name, _| !name.contains("login-"));
    }

    assert_eq!(session(0), session(1));
    assert_eq!(session(0).len(), 22);

    fake.change(|state| state.claims["sub"] = "bob".into());
    let page = sign_in(&mut browser, &fake).await;
    browser.approve(&page.csrf()).await;
    assert_ne!(session(1), session(2), "another user");
}

#[tokio::test]
async fn the_secret_and_the_verifier_go_with_the_code() {
    for (methods, is_post) in [
        (json!(["client_secret_basic"]), false),
        (json!(["client_secret_post"]), true),
    ] {
        let (bench, fake) = bench(&["everyone"]);
        fake.change(|state| state.discovery["token_endpoint_auth_methods_supported"] = methods);
        assert!(is_approval(&sign_in(&mut bench.browser(), &fake).await));

        let (headers, form) = fake.state.lock().unwrap().exchange.clone().unwrap();
        assert_eq!(form["redirect_uri"], "http://127.0.0.1:8080/api/auth/oidc");
        assert_eq!(
            (form["code_verifier"].len(), &*form["grant_type"]),
            (43, "authorization_code")
        );

        if is_post {
            assert_eq!(
                (form["client_id"].as_str(), form["client_secret"].as_str()),
                (CLIENT_ID, SECRET)
            );
            assert!(!headers.contains_key(AUTHORIZATION));
        } else {
            let basic = STANDARD.encode("vvs:s3cr%2Fet");
            assert_eq!(headers[AUTHORIZATION], format!("Basic {basic}"));
            assert!(!form.contains_key("client_secret"));
        }
    }
}

#[tokio::test]
async fn a_provider_that_is_down_or_talks_nonsense_is_a_page_that_says_so() {
    let down = (503, "The sign-in service does not answer");
    let broken = (500, "Something broke on our side");
    for path in [DISCOVERY, "/token", "/keys", "/userinfo"] {
        for (fault, expected) in [
            (Fault::Down, down),
            (Fault::Says(200, "<html>"), down),
            (Fault::Says(200, ""), down),
            (Fault::Says(200, "[]"), down),
            (
                Fault::Says(302, ""),
                if path == "/token" { down } else { broken },
            ),
            (
                Fault::Says(404, "no"),
                if path == "/token" { down } else { broken },
            ),
        ] {
            let (bench, fake) = bench(&["everyone"]);
            fake.change(|state| state.claims["name"] = Value::Null);
            let mut browser = bench.browser();
            fake.fail(path, fault);
            let page = if path == DISCOVERY {
                browser
                    .get(&format!("/login/oidc?connection_id={ID}"))
                    .await
            } else {
                sign_in(&mut browser, &fake).await
            };

            assert_eq!((page.status.as_u16(), page.title()), expected, "{path}");
            assert!(
                page.text
                    .contains(&format!("href=\"/login?connection_id={ID}\"")),
                "{}",
                page.text
            );
        }
    }

    for (error, status) in [
        (r#"{"error":"invalid_client"}"#, 500),
        (r#"{"error":"invalid_grant"}"#, 401),
        (r#"{"error":"invalid_request"}"#, 401),
        (r#"{"error":"server_error"}"#, 503),
    ] {
        let (bench, fake) = bench(&["everyone"]);
        fake.fail("/token", Fault::Says(400, error));
        assert_eq!(
            sign_in(&mut bench.browser(), &fake).await.status.as_u16(),
            status,
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_costs_no_more_than_fifteen_seconds() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    let back = trip(&mut browser, &fake, ID).await;
    fake.fail("/token", Fault::Late);
    fake.fail("/keys", Fault::Late);
    fake.fail("/userinfo", Fault::Hangs);
    fake.change(|state| state.claims["name"] = Value::Null);

    let began = tokio::time::Instant::now();
    let page = browser.get(&back).await;
    assert_eq!(
        (page.status, page.title()),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "The sign-in service does not answer"
        )
    );
    assert!(
        began.elapsed() <= Duration::from_secs(16),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_provider_says_is_not_from_the_future() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    let back = trip(&mut browser, &fake, ID).await;

    // Nobody sees the hour pass but what is kept of the provider.
    fake.change(|state| {
        state.claims["iat"] = (time::OffsetDateTime::now_utc().unix_timestamp() + 8).into();
    });
    tokio::time::advance(Duration::from_hours(1)).await;
    for path in [DISCOVERY, "/token"] {
        fake.fail(path, Fault::Late);
    }

    assert_eq!(browser.get(&back).await.status, StatusCode::SEE_OTHER);
}

async fn log_out(bench: &Bench, token: &str) -> Seen {
    bench
        .browser()
        .post("/api/auth/oidc/logout", &[("logout_token", token)])
        .await
}

#[tokio::test]
async fn a_logout_ends_what_it_names_and_only_once() {
    let (bench, fake) = bench(&["everyone"]);
    for (claims, subject, session) in [
        (
            json!({"jti": "1", "sid": "s-1", "sub": "ada"}),
            "ada",
            "s-1",
        ),
        (json!({"jti": "2", "sid": "s-1"}), "", "s-1"),
        (json!({"jti": "3", "sub": "ada"}), "ada", ""),
    ] {
        let token = fake.logout_token(claims);
        for _ in 0..2 {
            let answer = log_out(&bench, &token).await;
            assert_eq!(
                (answer.status, &answer.headers[CACHE_CONTROL]),
                (StatusCode::OK, &"no-store".parse().unwrap())
            );
        }

        let ended = bench
            .script
            .sign_outs
            .lock()
            .unwrap()
            .drain(..)
            .collect::<Vec<_>>();
        assert_eq!(ended.len(), 1, "a token was good twice");

        let whose = match ended[0].whose.clone().unwrap() {
            Whose::UserId(id) => panic!("a provider does not know {id}"),
            Whose::ProviderUser(user) => (user.provider, user.subject, String::new()),
            Whose::ProviderSession(one) => (one.provider, one.subject, one.session),
        };
        assert_eq!(
            whose,
            (ISSUER.to_owned(), subject.to_owned(), session.to_owned())
        );
        assert_eq!(ended[0].reason(), RevocationReason::SignedOutAtProvider);
    }
}

#[tokio::test]
async fn a_logout_that_is_not_to_be_believed_changes_nothing() {
    let (bench, fake) = bench(&["everyone"]);
    let good = json!({"sub": "ada"});
    let forged = Fake::new().logout_token(good.clone());
    let mut tokens = vec![forged, "x".to_owned(), String::new()];
    for change in [
        json!({"sub": null, "sid": null}),
        json!({"sub": "ada", "nonce": "n"}),
        json!({"sub": "ada", "aud": "another"}),
        json!({"sub": "ada", "iss": "https://id.test/realms/b"}),
        json!({"sub": "ada", "events": null}),
        json!({"sub": "ada", "jti": null}),
        json!({"sub": "ada", "iat": 1, "exp": 2}),
    ] {
        tokens.push(fake.logout_token(change));
    }

    for token in tokens {
        let answer = log_out(&bench, &token).await;
        assert_eq!(
            (answer.status, &*answer.text),
            (StatusCode::BAD_REQUEST, r#"{"error":"invalid_request"}"#)
        );
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
    }

    let missing = bench
        .browser()
        .post("/api/auth/oidc/logout", &[("token", "x")])
        .await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    assert!(bench.script.sign_outs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_logout_that_could_not_be_carried_out_may_be_sent_again() {
    let (bench, fake) = bench(&["everyone"]);
    let token = fake.logout_token(json!({"sid": "s-1"}));
    fake.fail("/keys", Fault::Down);
    assert_eq!(
        log_out(&bench, &token).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );

    let (bench, fake) = self::bench(&["everyone"]);
    let token = fake.logout_token(json!({"sid": "s-1"}));
    *bench.script.sessions.lock().unwrap() = Err((Code::Unavailable, ""));
    assert_eq!(
        log_out(&bench, &token).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );

    *bench.script.sessions.lock().unwrap() = Ok(());
    assert_eq!(log_out(&bench, &token).await.status, StatusCode::OK);
    assert_eq!(bench.script.sign_outs.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_is_approved_with_a_sign_in_that_the_provider_has_ended() {
    for claims in [json!({"sid": "s-1"}), json!({"sub": "ada"})] {
        let (bench, fake) = bench(&["everyone"]);
        let mut browser = bench.browser();
        let page = sign_in(&mut browser, &fake).await;
        log_out(&bench, &fake.logout_token(json!({"sid": "s-2"}))).await;
        log_out(
            &bench,
            &fake.logout_token(json!({"jti": "j-2", "sub": "bob"})),
        )
        .await;
        let mut claims = claims;
        claims["jti"] = "j-3".into();
        assert_eq!(
            log_out(&bench, &fake.logout_token(claims)).await.status,
            StatusCode::OK
        );

        let refused = browser.approve(&page.csrf()).await;
        assert_eq!(
            (refused.status, refused.title()),
            (StatusCode::FORBIDDEN, "You are no longer signed in")
        );
        assert_eq!(bench.deliveries(), 0);
        assert_eq!(
            browser.get("/account/sessions").await.location(),
            "/account/sign-in"
        );
    }

    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    let page = sign_in(&mut browser, &fake).await;
    log_out(&bench, &fake.logout_token(json!({"sid": "s-2"}))).await;
    assert_eq!(
        browser.approve(&page.csrf()).await.status,
        StatusCode::SEE_OTHER
    );
}

#[tokio::test]
async fn a_logout_that_one_process_hears_is_known_to_another() {
    for claims in [
        json!({"sid": "s-1"}),
        json!({"sub": "ada"}),
        json!({"sub": "ada", "sid": "s-1"}),
    ] {
        let (bench, fake) = bench(&["everyone"]);
        let mut browser = bench.browser();
        sign_in(&mut browser, &fake).await;
        let router = bench.twin(|web| web.identity = fake.provider(common(web), &["everyone"]));
        let mut elsewhere = Browser { router, ..browser };
        log_out(&bench, &fake.logout_token(claims)).await;
        assert_eq!(
            elsewhere.get("/account/sessions").await.location(),
            "/account/sign-in"
        );
    }
}

#[tokio::test]
async fn a_trip_that_was_under_way_when_the_provider_ended_the_sign_in_signs_nobody_in() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    let back = trip(&mut browser, &fake, ID).await;
    log_out(&bench, &fake.logout_token(json!({"sub": "ada"}))).await;
    let refused = browser.get(&back).await;
    assert_eq!(
        (refused.status, refused.title()),
        (StatusCode::FORBIDDEN, "You are no longer signed in")
    );
    assert!(!browser.cookies.keys().any(|name| name.ends_with("sign-in")));
    assert!(
        is_approval(&sign_in(&mut browser, &fake).await),
        "the next one is locked out"
    );
}

#[tokio::test]
async fn another_user_of_the_same_session_at_the_provider_takes_the_place_of_the_first() {
    let (bench, fake) = bench(&["everyone"]);
    let mut browser = bench.browser();
    sign_in(&mut browser, &fake).await;
    let hers = browser.clone();
    fake.change(|state| {
        (state.claims["sub"], state.claims["email"]) = ("bob".into(), "bob@example.com".into());
    });
    assert!(is_approval(&sign_in(&mut browser, &fake).await));

    let router = bench.twin(|web| web.identity = fake.provider(common(web), &["everyone"]));
    let mut copy = Browser { router, ..hers };
    assert_eq!(
        copy.get("/account/sessions").await.location(),
        "/account/sign-in"
    );
    assert!(
        browser
            .get("/account/sessions")
            .await
            .text
            .contains("bob@example.com")
    );
}
