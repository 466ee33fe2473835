//! The pages as browsers get them through the edge, and what each of them does to the editor at the
//! other end.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use vvs_client::{DeviceKey, Use};
use vvs_tests::{Browser, Editor, Page, Stack};

/// Says who the editor is and how it can be bound to a browser.
pub(crate) async fn hello(
    stack: &Stack,
    editor: &mut Editor,
    device: &str,
    return_uri: Option<&str>,
) {
    let key = DeviceKey::generate().unwrap();
    let nonce = editor.connection["nonce"].as_str().unwrap();
    let proof = key.proof(
        Use::Hello,
        &stack.addresses().public_url.to_string(),
        nonce,
        None,
    );
    let mut frame = json!({
        "type": "hello",
        "app": {"name": "VVS Editor", "version": "1.4.0"},
        "device": {"name": device, "os": "Debian 13"},
        "deviceKey": key.jwk(),
        "proof": proof.expose(),
    });
    if let Some(uri) = return_uri {
        frame["returnUri"] = json!(uri);
    }

    editor.send(frame).await;
    let answer = editor.next().await;
    assert_eq!(answer["type"], "hello:ok", "{answer}");
    assert_eq!(
        answer["binding"],
        if return_uri.is_some() {
            "link"
        } else {
            "typed"
        }
    );
}

/// Gives the editor its code, and the editor its token.
pub(crate) async fn complete(editor: &mut Editor, code: &str, method: &str) -> Value {
    editor
        .send(json!({"type": "auth:complete", "code": code, "method": method}))
        .await;
    let success = editor.next().await;
    assert_eq!(success["type"], "auth:success", "{success}");
    let ack = json!({"type": "auth:ack", "messageId": success["messageId"], "ok": true});
    editor.send(ack).await;
    editor.read_on().await;
    success
}

fn callback(editor: &Editor) -> String {
    format!("/api/auth/callback?connection_id={}", editor.id())
}

/// Approves while the editor reads on; what the editor got.
async fn approve(browser: &mut Browser, approval: &Page, editor: &mut Editor) -> (Page, Value) {
    tokio::join!(browser.approve(approval), async {
        let success = editor.next().await;
        assert_eq!(success["type"], "auth:success");
        editor.read_on().await;
        success
    })
}

#[tokio::test]
async fn a_link_is_complete_and_its_login_is_waiting_or_there_is_nothing_to_sign_in_to() {
    let stack = Stack::start_with(&["--relay-login-ttl", "2s"]).await;
    let mut editor = stack.editor().await;
    let id = editor.id().to_owned();
    let mut seen = stack.browser();
    for (id, status) in [
        (id.as_str(), StatusCode::OK),
        ("", StatusCode::BAD_REQUEST),
        ("nonsense", StatusCode::BAD_REQUEST),
        (&id.to_uppercase(), StatusCode::BAD_REQUEST),
        (
            "6f1f2f4e-3c62-1d1a-8f5b-0d9c5a1b2c3d",
            StatusCode::BAD_REQUEST,
        ),
        ("6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d", StatusCode::GONE),
    ] {
        let page = seen.get(&format!("/login?connection_id={id}")).await;
        assert_eq!(page.status, status, "{id}: {}", page.body);
    }

    for path in ["/login", "/api/auth/callback", "/login/status"] {
        assert_eq!(
            seen.get(path).await.status,
            StatusCode::BAD_REQUEST,
            "{path}"
        );
    }

    assert_eq!(editor.next().await["type"], "auth:expired");

    // One that has seen the login waits for its editor while it lives, and not longer.
    for mut browser in [seen, stack.browser()] {
        assert_eq!(
            browser.get(&editor.login_path()).await.status,
            StatusCode::GONE
        );
    }
}

#[tokio::test]
async fn a_login_that_was_used_is_over_for_everyone_but_the_browser_that_used_it() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let (mut ada, mut bob, mut same) = (stack.browser(), stack.browser(), stack.browser());
    let approval = ada.sign_in(&editor, "ada").await;
    let late = [
        bob.sign_in(&editor, "bob").await,
        same.sign_in(&editor, "ada").await,
    ];
    let (approved, _) = approve(&mut ada, &approval, &mut editor).await;
    assert_eq!(approved.status, StatusCode::SEE_OTHER);

    // Those who had the same page open come too late, be it as the same person.
    assert_eq!(bob.approve(&late[0]).await.status, StatusCode::CONFLICT);
    assert_eq!(same.approve(&late[1]).await.status, StatusCode::CONFLICT);
    assert_eq!(bob.deny(&late[0]).await.status, StatusCode::CONFLICT);

    for path in [editor.login_path(), callback(&editor)] {
        assert_eq!(bob.get(&path).await.status, StatusCode::GONE, "{path}");
    }

    assert_eq!(
        stack.browser().get(&editor.login_path()).await.status,
        StatusCode::GONE
    );

    let again = ada.approve(&approval).await;
    assert_eq!(
        (again.status, again.location()),
        (StatusCode::SEE_OTHER, approved.location())
    );

    editor.read_on().await;

    for path in [approved.location(), "/auth-success".to_owned()] {
        let page = ada.get(&path).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.body.contains("ada@example.com"));
        for other in [&mut bob, &mut same, &mut stack.browser()] {
            assert_eq!(
                other.get(&path).await.status,
                StatusCode::FORBIDDEN,
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn the_success_page_waits_for_success() {
    let stack = Stack::start().await;
    let editor = stack.editor().await;
    let mut browser = stack.browser();
    browser.sign_in(&editor, "ada").await;
    for path in [
        format!("/auth-success?connection_id={}", editor.id()),
        "/auth-success".to_owned(),
    ] {
        assert_eq!(browser.get(&path).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_form_works_in_the_browser_and_for_the_login_that_it_was_made_for() {
    let stack = Stack::start().await;
    let (mut editor, mut other) = (stack.editor().await, stack.editor().await);
    let (mut ada, mut mallory) = (stack.browser(), stack.browser());
    let approval = ada.sign_in(&editor, "ada").await;
    let foreign = mallory.sign_in(&editor, "mallory").await;
    let mut elsewhere = stack.browser();
    elsewhere.sign_in(&editor, "ada").await;
    let csrf = approval.field("csrf");
    for path in ["/login/approve", "/login/deny"] {
        for (mut browser, id, csrf) in [
            (mallory.clone(), editor.id(), &*csrf),
            (elsewhere.clone(), editor.id(), &csrf),
            (stack.browser(), editor.id(), &csrf),
            (ada.clone(), editor.id(), &foreign.field("csrf")),
            (ada.clone(), editor.id(), "AAAA"),
            (ada.clone(), editor.id(), ""),
            (ada.clone(), other.id(), &csrf),
        ] {
            let page = browser
                .post(
                    path,
                    &[("connection_id", id), ("csrf", csrf), ("confirmed", "yes")],
                )
                .await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{path}: {}", page.body);
        }
    }

    editor.read_on().await;
    other.read_on().await;
    assert_eq!(stack.sessions().await, 0);
}

#[tokio::test]
async fn a_form_is_taken_from_pages_of_this_site_only() {
    let stack = Stack::start().await;
    let ours = stack.addresses().public_url.to_string();
    let (site, origin) = ("sec-fetch-site", "origin");
    let mut browser = stack.browser();
    let mut editor = stack.editor().await;
    let approval = browser.sign_in(&editor, "ada").await;
    let csrf = approval.field("csrf");
    for headers in [
        &[(site, "cross-site")][..],
        &[(site, "cross-site"), (origin, &ours)],
        &[(site, "same-site"), (origin, &ours)],
        &[(site, "none")],
        &[(site, "same-origin"), (origin, "https://evil.example")],
        &[(origin, "https://evil.example")],
        &[(origin, "null")],
        &[],
    ] {
        for path in ["/login/approve", "/login/deny", "/login/another"] {
            let fields = [
                ("connection_id", editor.id()),
                ("csrf", &csrf),
                ("confirmed", "yes"),
            ];
            let page = browser.post_from(path, &fields, headers).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{path} {headers:?}");
        }
    }

    editor.read_on().await;

    // What an old browser says, and what a new one does.
    for headers in [[(site, "same-origin")], [(origin, &*ours)]] {
        let mut editor = stack.editor().await;
        let approval = browser.sign_in(&editor, "ada").await;
        let csrf = approval.field("csrf");
        let id = editor.id().to_owned();
        let fields = [
            ("connection_id", &*id),
            ("csrf", &csrf),
            ("confirmed", "yes"),
        ];
        let (page, ()) = tokio::join!(
            browser.post_from("/login/approve", &fields, &headers),
            async {
                assert_eq!(editor.next().await["type"], "auth:success");
                editor.read_on().await;
            }
        );
        assert_eq!(
            page.status,
            StatusCode::SEE_OTHER,
            "{headers:?}: {}",
            page.body
        );
    }
}

#[tokio::test]
async fn an_approval_without_the_tick_delivers_nothing_and_asks_again() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let fields = [
        ("connection_id", editor.id()),
        ("csrf", &approval.field("csrf")),
    ];
    let asked = browser.post("/login/approve", &fields).await;
    assert_eq!(asked.status, StatusCode::BAD_REQUEST, "{}", asked.body);

    editor.read_on().await;
    assert_eq!(stack.sessions().await, 0);

    let (approved, _) = approve(&mut browser, &asked, &mut editor).await;
    assert_eq!(approved.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_denial_reaches_the_editor_and_ends_the_login() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    assert_eq!(browser.deny(&approval).await.status, StatusCode::OK);
    assert_eq!(editor.next().await["type"], "auth:denied");
    assert_eq!(editor.close_code().await, 4503);
    assert_eq!(
        browser.deny(&approval).await.status,
        StatusCode::OK,
        "twice is fine"
    );
    assert_eq!(browser.approve(&approval).await.status, StatusCode::GONE);

    for mut anyone in [browser, stack.browser()] {
        assert_eq!(
            anyone.get(&editor.login_path()).await.status,
            StatusCode::GONE
        );
    }

    assert_eq!(stack.sessions().await, 0);
}

#[tokio::test]
async fn whoever_comes_back_without_a_sign_in_is_sent_back_once() {
    let stack = Stack::start().await;
    let editor = stack.editor().await;
    let mut browser = stack.browser();
    let sent = browser.get(&callback(&editor)).await;
    let back = format!("{}&retry=1", editor.login_path());
    assert_eq!(
        (sent.status, sent.location()),
        (StatusCode::SEE_OTHER, back.clone())
    );

    let form = browser.get(&back).await;
    assert_eq!(form.status, StatusCode::OK);

    // The first page and its cookie arrive, what signing in sets does not.
    let kept = browser.cookies.clone();
    let fields = [
        ("connection_id", editor.id()),
        ("csrf", &form.field("csrf")),
        ("retry", &form.field("retry")),
        ("email", "ada@example.com"),
    ];
    let next = browser.post("/dev/sign-in", &fields).await.location();
    browser.cookies = kept;
    let refused = browser.get(&next).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    assert!(!refused.headers.contains_key("location"));
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_approves_nothing() {
    let stack = Stack::start_with(&["--web-sign-in-ttl", "0s"]).await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let back = format!("{}&retry=1", editor.login_path());
    let form = browser.get(&editor.login_path()).await;
    let fields = [
        ("connection_id", editor.id()),
        ("csrf", &form.field("csrf")),
        ("email", "ada@example.com"),
        ("name", ""),
    ];
    let signed_in = browser.post("/dev/sign-in", &fields).await;
    assert_eq!(browser.get(&signed_in.location()).await.location(), back);

    // A form that was made for the sign-in while it was young is no better.
    let form = browser.get(&back).await;
    assert_eq!(browser.approve(&form).await.location(), back);

    editor.read_on().await;
}

#[tokio::test]
async fn two_logins_in_two_tabs_do_not_disturb_each_other() {
    let stack = Stack::start().await;
    let (mut one, mut two) = (stack.editor().await, stack.editor().await);
    let mut browser = stack.browser();

    // Both tabs are open before anyone signs in.
    let forms = [
        browser.get(&one.login_path()).await,
        browser.get(&two.login_path()).await,
    ];
    let mut approvals = Vec::new();
    for form in &forms {
        let (id, csrf) = (form.field("connection_id"), form.field("csrf"));
        let fields = [
            ("connection_id", &*id),
            ("csrf", &csrf),
            ("email", "ada@example.com"),
            ("name", "Ada"),
        ];
        let signed_in = browser.post("/dev/sign-in", &fields).await;
        assert_eq!(
            signed_in.status,
            StatusCode::SEE_OTHER,
            "{}",
            signed_in.body
        );

        approvals.push(browser.get(&signed_in.location()).await);
    }

    assert!(
        approvals[0].body.contains(one.user_code()) && approvals[1].body.contains(two.user_code())
    );

    // What was made for nobody decides nothing.
    assert_eq!(browser.deny(&forms[0]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.deny(&approvals[1]).await.status, StatusCode::OK);
    assert_eq!(two.next().await["type"], "auth:denied");

    let (approved, success) = approve(&mut browser, &approvals[0], &mut one).await;
    assert_eq!(approved.status, StatusCode::SEE_OTHER, "{}", approved.body);
    assert_eq!(success["user"]["email"], "ada@example.com");
}

#[tokio::test]
async fn a_waiting_page_hears_of_each_change_and_other_browsers_of_none() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let path = format!("/login/status?connection_id={}", editor.id());
    let mut browser = stack.browser();
    assert_eq!(browser.get(&path).await.status, StatusCode::FORBIDDEN);

    let approval = browser.sign_in(&editor, "ada").await;
    let mut waiting = browser.clone();
    let (states, (approved, _)) = tokio::join!(
        async {
            let mut states = vec!["WAITING".to_owned()];
            while states.last().unwrap() != "ACKED" {
                let page = waiting
                    .get(&format!("{path}&known={}", states.last().unwrap()))
                    .await;
                assert_eq!(page.status, StatusCode::OK);
                let state: Value = serde_json::from_str(&page.body).unwrap();
                states.push(state["state"].as_str().unwrap().to_owned());
            }
            states
        },
        approve(&mut browser, &approval, &mut editor)
    );
    assert_eq!(approved.status, StatusCode::SEE_OTHER);

    // It may miss a state, and sees none twice: each answer waited for the next one.
    assert!(
        states == ["WAITING", "ACKED"] || states == ["WAITING", "SENT", "ACKED"],
        "{states:?}"
    );
    assert_eq!(
        stack.browser().get(&path).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn the_published_keys_verify_the_token_that_the_editor_got() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (_, success) = approve(&mut browser, &approval, &mut editor).await;

    let keys = stack.browser().get("/.well-known/jwks.json").await;
    assert_eq!(
        (keys.status, &keys.headers["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    assert_eq!(keys.headers["cache-control"], "public, max-age=300");
    assert!(!keys.body.contains("\"d\""), "a private key");

    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&keys.body).unwrap();
    let token = success["token"].as_str().unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));

    let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["vvs"]);
    validation.set_issuer(&[stack.addresses().public_url.to_string()]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(
        (&claims["sid"], &claims["sub"]),
        (&success["session"]["id"], &success["user"]["id"])
    );

    for (claim, text) in [
        ("exp", &success["tokenExpiresAt"]),
        ("sxp", &success["session"]["expiresAt"]),
    ] {
        let rfc3339 = &time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::parse(text.as_str().unwrap(), rfc3339).unwrap();
        assert_eq!(claims[claim], json!(at.unix_timestamp()), "{claim}");
    }

    validation.set_audience(&["other"]);
    jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap_err();
}

/// What stands in a policy behind this directive.
fn directive<'a>(policy: &'a str, name: &str) -> &'a str {
    policy
        .split("; ")
        .find_map(|one| one.strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name} in {policy}"))
        .trim()
}

#[tokio::test]
async fn every_page_says_what_browsers_may_do_with_it() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let mut pages = vec![
        browser.get(&editor.login_path()).await,
        browser.sign_in(&editor, "ada").await,
    ];
    for path in [
        "/login",
        "/nowhere",
        "/auth-success",
        "/login?connection_id=6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d",
    ] {
        pages.push(browser.get(path).await);
    }

    pages.push(browser.request(Method::GET, "/login/approve", &[]).await);
    pages.push(browser.post_from("/login/approve", &[], &[]).await);
    let (redirect, _) = approve(&mut browser, &pages[1], &mut editor).await;
    pages.push(browser.get(&redirect.location()).await);
    let denied = stack.editor().await;
    let approval = browser.sign_in(&denied, "ada").await;
    pages.push(browser.deny(&approval).await);
    let status = browser
        .get(&format!("/login/status?connection_id={}", denied.id()))
        .await;

    let mut nonces = Vec::new();
    for page in &pages {
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        let nonce = directive(policy, "script-src")
            .strip_prefix("'nonce-")
            .unwrap()
            .strip_suffix('\'')
            .unwrap();
        assert!(!nonces.contains(&nonce), "a nonce was used twice");

        nonces.push(nonce);
        let tags = page.body.matches("<script").count();
        assert!(
            tags > 0 && tags == page.body.matches(&format!(" nonce=\"{nonce}\"")).count(),
            "{}",
            page.body
        );

        let referrer = if page.body.contains("<form") {
            "same-origin"
        } else {
            "no-referrer"
        };

        assert_eq!(page.headers["referrer-policy"], referrer, "{}", page.body);
        assert!(!page.body.contains(" onclick=") && !page.body.contains("javascript:"));
    }

    for answer in pages.iter().chain([&redirect, &status]) {
        assert_eq!(
            answer.headers["cache-control"], "no-store",
            "{}",
            answer.body
        );
        assert_eq!(
            answer.headers["x-content-type-options"], "nosniff",
            "{}",
            answer.body
        );

        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert_eq!(
            (
                directive(policy, "default-src"),
                directive(policy, "frame-ancestors")
            ),
            ("'none'", "'none'")
        );
    }

    let asset = browser.get("/assets/style.css").await;
    let of_the_edge = [
        browser
            .request(Method::GET, "/login", &[("host", "evil.example")])
            .await,
        browser.request(Method::PUT, "/login", &[]).await,
        browser.get("/ws").await,
    ];
    for answer in pages
        .iter()
        .chain([&redirect, &status, &asset])
        .chain(&of_the_edge)
    {
        for header in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
            assert_eq!(
                answer.headers[header], "same-origin",
                "{header} of {} {}",
                answer.status, answer.body
            );
        }
    }

    let keys = browser.get("/.well-known/jwks.json").await;
    assert_eq!(keys.headers["cross-origin-resource-policy"], "cross-origin");
    assert_eq!(
        (asset.status, &asset.headers["cache-control"]),
        (StatusCode::OK, &"public, max-age=300".parse().unwrap())
    );
}

#[tokio::test]
async fn cookies_go_to_this_site_only_and_to_no_script() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let form = browser.get(&editor.login_path()).await;
    let fields = [
        ("connection_id", editor.id()),
        ("csrf", &form.field("csrf")),
        ("email", "ada@example.com"),
    ];
    let signed_in = browser.post("/dev/sign-in", &fields).await;
    let approval = browser.get(&signed_in.location()).await;
    let (approved, _) = approve(&mut browser, &approval, &mut editor).await;
    let lines: Vec<_> = [&form, &signed_in, &approved]
        .into_iter()
        .flat_map(|page| page.headers.get_all("set-cookie"))
        .map(|line| line.to_str().unwrap())
        .collect();
    let prefix = format!("vvs-{}-", stack.addresses().public.port());
    for (name, times) in [("browser", 1), ("sign-in", 1), ("login-", 2)] {
        let found = lines
            .iter()
            .filter(|line| line.starts_with(&format!("{prefix}{name}")));
        assert_eq!(found.count(), times, "{name}: {lines:?}");
    }

    for line in lines {
        let attributes: Vec<_> = line
            .split("; ")
            .skip(1)
            .filter(|part| !part.starts_with("Max-Age="))
            .collect();
        assert_eq!(attributes, ["Path=/", "HttpOnly", "SameSite=Lax"]);
        assert!(!line.contains("ada@example.com"));
    }
}

#[tokio::test]
async fn what_a_person_says_of_themselves_is_text_and_no_markup() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let name = "<img src=x onerror=alert(1)>\"'&";
    let form = browser.get(&editor.login_path()).await;
    let mut sign_in = async |email: &str, form: &Page| {
        let fields = [
            ("connection_id", &*form.field("connection_id")),
            ("csrf", &form.field("csrf")),
            ("email", email),
            ("name", name),
        ];
        browser.post("/dev/sign-in", &fields).await
    };
    let wrong = sign_in("\"><script>alert(1)</script>", &form).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);

    let signed_in = sign_in("ada@example.com", &wrong).await;
    let approval = browser.get(&signed_in.location()).await;
    let (approved, success) = approve(&mut browser, &approval, &mut editor).await;
    let done = browser.get(&approved.location()).await;
    for page in [wrong, approval, done] {
        assert!(
            page.body
                .contains("&#60;img src=x onerror=alert(1)&#62;&#34;&#39;&#38;"),
            "{}",
            page.body
        );
        assert!(
            !page.body.contains("<img src=x") && !page.body.contains("<script>"),
            "{}",
            page.body
        );
    }

    assert_eq!(success["user"]["name"], name);
}

/// An editor that has its code typed in, and what it got; the browser is at the page with the code.
async fn typed(stack: &Stack, browser: &mut Browser, name: &str, device: &str) -> (Editor, Value) {
    let mut editor = stack.editor().await;
    hello(stack, &mut editor, device, None).await;
    let approval = browser.sign_in(&editor, name).await;
    assert!(
        approval.body.contains(device) && approval.body.contains("as reported by the app"),
        "{}",
        approval.body
    );

    let page = browser.approve(&approval).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert_eq!(editor.next().await["type"], "auth:pending");

    let success = complete(&mut editor, &page.code().unwrap(), "typed").await;

    (editor, success)
}

#[tokio::test]
async fn a_code_is_the_same_however_often_the_page_is_asked_for_and_completes_the_login() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    hello(&stack, &mut editor, "laptop", None).await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let page = browser.approve(&approval).await;
    let pending = editor.next().await;
    assert_eq!(
        (&pending["type"], &pending["codeLength"]),
        (&json!("auth:pending"), &json!(8))
    );

    let code = page.code().unwrap();
    assert_eq!(browser.approve(&approval).await.code().unwrap(), code);

    let back = browser.get(&editor.login_path()).await;
    assert_eq!((back.status, back.code()), (StatusCode::OK, None));
    assert_eq!(browser.approve(&back).await.code().unwrap(), code);

    // Nobody else gets to see it, nor hears that it is there.
    let mut other = stack.browser();
    for path in [editor.login_path(), callback(&editor)] {
        let seen = other.get(&path).await;
        assert!(
            !seen.body.contains(&code) && seen.status != StatusCode::OK,
            "{}",
            seen.body
        );
    }

    editor.read_on().await;
    complete(&mut editor, &code, "typed").await;
    let status = browser
        .get(&format!(
            "/login/status?connection_id={}&known=HELD",
            editor.id()
        ))
        .await;
    assert!(
        status.body.contains("ACKED") || status.body.contains("SENT"),
        "{}",
        status.body
    );

    let done = browser.approve(&approval).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
    assert_eq!(browser.get(&done.location()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn too_many_wrong_codes_end_the_login_and_the_page_says_so() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    hello(&stack, &mut editor, "laptop", None).await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let page = browser.approve(&approval).await;
    assert_eq!(editor.next().await["type"], "auth:pending");

    let wrong = if page.code().unwrap().starts_with('B') {
        "CCCCCCCC"
    } else {
        "BBBBBBBB"
    };

    for left in (0..5).rev() {
        editor
            .send(json!({"type": "auth:complete", "code": wrong, "method": "typed"}))
            .await;
        assert_eq!(editor.next().await["attemptsLeft"], left);
    }

    assert_eq!(editor.close_code().await, 4503);

    for over in [
        browser.approve(&approval).await,
        browser.get(&editor.login_path()).await,
    ] {
        assert_eq!(over.status, StatusCode::GONE);
        assert!(over.body.contains("Too many wrong codes"), "{}", over.body);
    }
}

#[tokio::test]
async fn a_person_sees_their_editors_and_signs_one_out_and_then_all() {
    let stack = Stack::start().await;
    let (mut ada, mut bob) = (stack.browser(), stack.browser());
    let (mut laptop, success) = typed(&stack, &mut ada, "ada", "laptop").await;
    let (mut desk, _) = typed(&stack, &mut ada, "ada", "desk").await;
    let (mut tablet, foreign) = typed(&stack, &mut bob, "bob", "tablet").await;

    // In a browser that has approved nothing.
    let mut elsewhere = stack.browser();
    assert_eq!(
        elsewhere.get("/account/sessions").await.location(),
        "/account/sign-in"
    );

    let list = elsewhere.account("ada").await;
    assert!(
        list.body.contains("laptop") && list.body.contains("desk") && !list.body.contains("tablet")
    );

    let revoke = |session: &Value| {
        format!(
            "/account/sessions/{}/revoke",
            session["session"]["id"].as_str().unwrap()
        )
    };
    let csrf = list.field("csrf");
    let gone = elsewhere.post(&revoke(&foreign), &[("csrf", &csrf)]).await;
    assert_eq!(gone.location(), "/account/sessions?done=gone");

    tablet.read_on().await;

    let one = elsewhere.post(&revoke(&success), &[("csrf", &csrf)]).await;
    let heard = laptop.next().await;
    assert_eq!(
        (&heard["type"], &heard["reason"]),
        (&json!("session:revoked"), &json!("signed_out_by_user"))
    );
    assert_eq!(laptop.close_code().await, 4500);

    let list = elsewhere.get(&one.location()).await;
    assert!(
        list.body.contains("That editor is signed out.") && !list.body.contains("laptop"),
        "{}",
        list.body
    );

    desk.read_on().await;

    let all = elsewhere
        .post("/account/sessions/revoke-all", &[("csrf", &csrf)])
        .await;
    assert_eq!(desk.next().await["type"], "session:revoked");
    assert_eq!(desk.close_code().await, 4500);

    let signed_out = elsewhere.get(&all.location()).await;
    assert!(
        signed_out
            .body
            .contains("All your editors are signed out. That was 1 sign-in."),
        "{}",
        signed_out.body
    );

    let list = elsewhere.account("ada").await;
    assert!(
        list.body
            .contains("No editor is signed in with this account."),
        "{}",
        list.body
    );

    tablet.read_on().await;
    assert!(bob.get("/account/sessions").await.body.contains("tablet"));
}

#[tokio::test]
async fn an_accounts_form_is_taken_from_its_own_page_and_person_only() {
    let stack = Stack::start().await;
    let (mut ada, mut bob) = (stack.browser(), stack.browser());
    let (mut editor, _) = typed(&stack, &mut ada, "ada", "laptop").await;
    let (hers, his) = (ada.account("ada").await, bob.account("bob").await);
    for path in ["/account/sessions/revoke-all", "/account/sign-out"] {
        for csrf in [his.field("csrf"), String::new()] {
            assert_eq!(
                ada.post(path, &[("csrf", &csrf)]).await.status,
                StatusCode::FORBIDDEN,
                "{path}"
            );
        }

        let foreign = [("sec-fetch-site", "cross-site")];
        let refused = ada
            .post_from(path, &[("csrf", &hers.field("csrf"))], &foreign)
            .await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
    }

    editor.read_on().await;
}

#[tokio::test]
async fn another_account_approves_and_the_page_of_the_one_before_does_not() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let hers = browser.sign_in(&editor, "ada").await;
    let fields = [
        ("connection_id", editor.id()),
        ("csrf", &hers.field("csrf")),
    ];
    let again = browser.post("/login/another", &fields).await.location();
    assert_eq!(again, format!("{}&another=1", editor.login_path()));
    assert_eq!(browser.approve(&hers).await.status, StatusCode::FORBIDDEN);

    let his = browser.sign_in(&editor, "bob").await;
    assert_eq!(browser.approve(&hers).await.status, StatusCode::FORBIDDEN);

    let (approved, success) = approve(&mut browser, &his, &mut editor).await;
    assert_eq!(approved.status, StatusCode::SEE_OTHER, "{}", approved.body);
    assert_eq!(success["user"]["email"], "bob@example.com");
}
