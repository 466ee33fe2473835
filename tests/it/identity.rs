//! People sign in with whichever identity provider the settings name, and what the provider says of
//! them later is heard.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;
use vvs_tests::clerk::{Clerk, User};
use vvs_tests::oidc::Oidc;
use vvs_tests::{Browser, Editor, Fault, Page, Stack};

mod chromium;
mod ended;
mod outage;

/// Where people say who they are.
enum Provider {
    Dev,
    Clerk(Box<Clerk>),
    Oidc(Box<Oidc>),
}

impl Provider {
    fn clerk() -> Self {
        let clerk = Clerk::start();
        clerk.add(User::named("ada"));
        clerk.add(User::named("bob"));
        Self::Clerk(Box::new(clerk))
    }

    async fn oidc() -> Self {
        Self::Oidc(Box::new(Oidc::start().await))
    }

    /// A stack that lets everyone in who can sign in here.
    async fn stack(&self) -> Stack {
        self.stack_with(&[]).await
    }

    async fn stack_with(&self, more: &[&str]) -> Stack {
        let flags = self.flags(more);
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let stack = Stack::start_with(&flags).await;
        match self {
            Self::Dev => {}
            Self::Clerk(clerk) => clerk.guard(&stack),
            Self::Oidc(oidc) => {
                oidc.register(&stack.addresses().public_url.to_string(), json!({}))
                    .await;
            }
        }

        stack
    }

    /// The settings of web with which everyone is let in who can sign in here.
    fn flags(&self, more: &[&str]) -> Vec<String> {
        let (flags, allow): (_, &[&str]) = match self {
            Self::Dev => (Vec::new(), &[]),
            Self::Clerk(clerk) => (clerk.flags(), &[]),
            Self::Oidc(oidc) if more.contains(&"--web-allow") => (oidc.flags(), &[]),
            Self::Oidc(oidc) => (oidc.flags(), &["--web-allow", "everyone"]),
        };
        flags
            .into_iter()
            .chain(allow.iter().chain(more).map(|&flag| flag.to_owned()))
            .collect()
    }

    /// Signs a person in without a real browser; the page that comes of it.
    async fn sign_in(
        &self,
        stack: &Stack,
        browser: &mut Browser,
        editor: &Editor,
        name: &str,
    ) -> Page {
        match self {
            Self::Dev => browser.sign_in(editor, name).await,
            Self::Clerk(clerk) => {
                browser.get(&editor.login_path()).await;
                arrive(
                    clerk,
                    stack,
                    browser,
                    editor,
                    &clerk.sign_in(&format!("user_{name}")),
                )
                .await
            }
            Self::Oidc(oidc) => {
                browser.get(&editor.login_path()).await;
                let start = browser
                    .get(&format!("/login/oidc?connection_id={}", editor.id()))
                    .await;
                if start.status != StatusCode::SEE_OTHER {
                    return start;
                }
                let back = oidc.person().sign_in(&start.location(), name).await;
                follow(browser, &back).await
            }
        }
    }
}

/// Goes to an address of ours, and on to where that leads.
async fn follow(browser: &mut Browser, url: &str) -> Page {
    let path = &url[url.find("/api/").unwrap()..];
    let page = browser.get(path).await;
    if page.status == StatusCode::SEE_OTHER {
        browser.get(&page.location()).await
    } else {
        page
    }
}

/// Approves, and takes the token as an editor does that reads on.
async fn approve(browser: &mut Browser, approval: &Page, editor: &mut Editor) -> Value {
    assert_eq!(approval.status, StatusCode::OK, "{}", approval.body);
    let receiving = async {
        let success = editor.next().await;
        assert_eq!(success["type"], "auth:success", "{success}");
        editor.read_on().await;
        success
    };
    let (page, success) = tokio::join!(browser.approve(approval), receiving);
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
    success
}

/// An editor that is signed in as this person, and the browser that approved it.
async fn signed_in(provider: &Provider, stack: &Stack, name: &str) -> (Editor, Browser, Value) {
    let (mut editor, mut browser) = (stack.editor().await, stack.browser());
    let approval = provider.sign_in(stack, &mut browser, &editor, name).await;
    let success = approve(&mut browser, &approval, &mut editor).await;
    (editor, browser, success)
}

async fn is_signed_out(editor: &mut Editor) {
    assert_eq!(editor.next().await["type"], "session:revoked");
    assert_eq!(editor.close_code().await, 4500);
}

#[tokio::test]
async fn a_user_is_issuer_and_subject_and_an_unverified_address_goes_nowhere() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    clerk.change("user_ada", |ada| {
        ada.addresses
            .iter_mut()
            .for_each(|address| address.verified = false);
    });
    let stack = provider.stack().await;
    let (editor, mut browser) = (stack.editor().await, stack.browser());
    let approval = provider.sign_in(&stack, &mut browser, &editor, "ada").await;
    assert!(
        approval.body.contains("ada@example.com") && approval.body.contains("not verified"),
        "{}",
        approval.body
    );

    let mut editor = editor;
    let first = approve(&mut browser, &approval, &mut editor).await;
    assert_eq!(first["user"]["email"], Value::Null);

    // Bob takes the address over, and is nobody else for that.
    clerk.change("user_bob", |bob| {
        bob.addresses[1].address = "ada@example.com".to_owned();
    });
    let (_, _, bob) = signed_in(&provider, &stack, "bob").await;
    assert_eq!(bob["user"]["email"], "ada@example.com");
    assert_ne!(bob["user"]["id"], first["user"]["id"]);
}

#[tokio::test]
async fn only_those_are_let_in_whom_the_setting_names() {
    let provider = Provider::oidc().await;
    let Provider::Oidc(oidc) = &provider else {
        unreachable!()
    };

    oidc.account("bob", json!({"groups": ["staff"]})).await;
    oidc.account(
        "eve",
        json!({"email": "eve@example.com", "email_verified": false}),
    )
    .await;
    oidc.account("mallory", json!({"email": "mallory@evil.example"}))
        .await;
    let stack = provider
        .stack_with(&["--web-allow", "domain:example.com,group:staff"])
        .await;
    for name in ["ada", "bob"] {
        signed_in(&provider, &stack, name).await;
    }

    for stranger in ["eve", "mallory"] {
        let (editor, mut browser) = (stack.editor().await, stack.browser());
        let page = provider
            .sign_in(&stack, &mut browser, &editor, stranger)
            .await;
        assert_eq!(
            page.status,
            StatusCode::FORBIDDEN,
            "{stranger}: {}",
            page.body
        );
        assert!(page.body.contains("This account may not sign in here"));

        // And nothing is left of the attempt with which to approve.
        let page = browser.get(&callback(&editor)).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
    }
}

#[tokio::test]
async fn a_banned_users_editors_are_signed_out_by_the_webhook_and_by_no_forged_or_late_one() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let (mut ada, mut browser, _) = signed_in(&provider, &stack, "ada").await;
    let (mut bob, ..) = signed_in(&provider, &stack, "bob").await;
    clerk.change("user_ada", |ada| ada.banned = true);
    let banned = clerk.user_updated("user_ada");
    // The one from the future is still too early when this machine is slow.
    for bad in [banned.forged(), banned.moved_by(-301), banned.moved_by(400)] {
        assert!(bad.send(&stack).await.status.is_client_error());
    }

    ada.read_on().await;
    assert!(banned.send(&stack).await.status.is_success());

    is_signed_out(&mut ada).await;
    bob.read_on().await;

    // Sent again, as Svix does: nothing more happens.
    assert!(banned.send(&stack).await.status.is_success());

    bob.read_on().await;

    // The browser's own sign-in is young enough, and still does not approve.
    let editor = stack.editor().await;
    let page = browser.get(&callback(&editor)).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.body);
}

/// An editor that is signed in with this session of Clerk's.
async fn signed_in_with(clerk: &Clerk, stack: &Stack, session: &str) -> Editor {
    let (mut editor, mut browser) = (stack.editor().await, stack.browser());
    let approval = arrive(clerk, stack, &mut browser, &editor, session).await;
    approve(&mut browser, &approval, &mut editor).await;
    editor
}

/// Comes to the callback with a fresh token of this session of Clerk's.
async fn arrive(
    clerk: &Clerk,
    stack: &Stack,
    browser: &mut Browser,
    editor: &Editor,
    session: &str,
) -> Page {
    clerk.give(
        browser,
        &clerk.token(session, &stack.addresses().public_url.to_string()),
    );
    browser.get(&callback(editor)).await
}

fn callback(editor: &Editor) -> String {
    format!("/api/auth/callback?connection_id={}", editor.id())
}

#[tokio::test]
async fn what_ends_a_sign_in_at_clerk_ends_what_was_approved_with_it() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    for (settings, is_heard) in [
        (&["--web-clerk-end-with-session", "true"][..], true),
        (&[][..], false),
    ] {
        let stack = provider.stack_with(settings).await;
        let sessions = [(); 3].map(|()| clerk.sign_in("user_ada"));
        let [revoked, ended, other] = &sessions;
        let mut first = signed_in_with(clerk, &stack, revoked).await;
        let mut second = signed_in_with(clerk, &stack, ended).await;
        let mut third = signed_in_with(clerk, &stack, other).await;
        assert!(
            clerk
                .session_event("session.revoked", revoked)
                .send(&stack)
                .await
                .status
                .is_success()
        );

        is_signed_out(&mut first).await;
        assert!(
            clerk
                .session_event("session.ended", ended)
                .send(&stack)
                .await
                .status
                .is_success()
        );

        if is_heard {
            is_signed_out(&mut second).await;
        } else {
            second.read_on().await;
        }

        third.read_on().await;
        assert!(
            clerk
                .user_deleted("user_ada")
                .send(&stack)
                .await
                .status
                .is_success()
        );

        is_signed_out(&mut third).await;
    }
}

#[tokio::test]
async fn a_user_who_is_gone_is_asked_about_without_a_webhook_and_an_outage_is_no_logout() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let (mut ada, ..) = signed_in(&provider, &stack, "ada").await;
    let (mut bob, ..) = signed_in(&provider, &stack, "bob").await;
    clerk.delete("user_ada");
    clerk.front().fail("/v1/users/", Fault::Status(500));

    // As if a day had passed.
    stack
        .database()
        .run("UPDATE users SET checked_at = checked_at - 90000")
        .await;
    stack
        .until_metric("vvs_clerk_rechecks_total{outcome=\"failed\"}", |failed| {
            failed >= 1.0
        })
        .await;
    ada.read_on().await;
    bob.read_on().await;
    clerk.front().heal();
    is_signed_out(&mut ada).await;
    bob.read_on().await;
}

#[tokio::test]
async fn a_sign_in_that_has_ended_at_clerk_approves_nothing() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let (mut editor, mut browser) = (stack.editor().await, stack.browser());
    let session = clerk.sign_in("user_ada");
    let approval = arrive(clerk, &stack, &mut browser, &editor, &session).await;
    clerk.end(&session, "ended");
    let page = browser.approve(&approval).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.body);
    assert!(page.body.contains("You are no longer signed in"));

    editor.read_on().await;
}

#[tokio::test]
async fn a_token_that_is_stale_goes_round_once_and_one_that_is_wrong_not_at_all() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let (editor, mut browser) = (stack.editor().await, stack.browser());
    let origin = stack.addresses().public_url.to_string();
    let (session, callback) = (clerk.sign_in("user_ada"), callback(&editor));
    let stale = clerk.token_with(&session, &origin, |_, claims| claims["exp"] = json!(1000));
    clerk.give(&mut browser, &stale);
    let page = browser.get(&callback).await;
    assert_eq!(
        (page.status, page.location()),
        (
            StatusCode::SEE_OTHER,
            format!("{}&retry=1", editor.login_path())
        )
    );
    assert_eq!(
        browser.get(&format!("{callback}&retry=1")).await.status,
        StatusCode::FORBIDDEN
    );

    for wrong in [
        clerk.token_by_stranger(&session, &origin),
        clerk.token(&session, "https://elsewhere.example"),
        clerk.token_with(&session, &origin, |_, claims| {
            claims["sts"] = json!("pending");
        }),
        clerk.token_with(&session, &origin, |_, claims| {
            claims["act"] = json!({"sub": "user_staff"});
        }),
    ] {
        clerk.give(&mut browser, &wrong);
        assert_eq!(
            browser.get(&callback).await.status,
            StatusCode::UNAUTHORIZED
        );
    }

    clerk.give(&mut browser, &clerk.token(&session, &origin));
    assert_eq!(browser.get(&callback).await.status, StatusCode::OK);

    // Loaded again a minute later: one round, behind which what we have sealed ourselves is good.
    clerk.give(&mut browser, &stale);
    assert_eq!(browser.get(&callback).await.status, StatusCode::SEE_OTHER);
    assert_eq!(
        browser.get(&format!("{callback}&retry=1")).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_flood_of_made_up_keys_asks_clerk_once_in_ten_seconds() {
    let provider = Provider::clerk();
    let Provider::Clerk(clerk) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let (editor, mut browser, began) = (stack.editor().await, stack.browser(), Instant::now());
    let (session, origin) = (
        clerk.sign_in("user_ada"),
        stack.addresses().public_url.to_string(),
    );
    for number in 0..50 {
        let made_up = clerk.token_with(&session, &origin, |header, _| {
            header["kid"] = json!(format!("ins_{number}"));
        });
        clerk.give(&mut browser, &made_up);
        let page = browser.get(&callback(&editor)).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{}", page.body);
    }

    let allowed = 1 + began.elapsed().as_secs() / 10;
    let asked = u64::try_from(clerk.front().requests("/v1/jwks")).unwrap();
    assert!(
        (1..=allowed).contains(&asked),
        "{asked} requests in {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_logout_at_the_openid_provider_ends_what_was_approved_with_it() {
    let provider = Provider::oidc().await;
    let Provider::Oidc(oidc) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let (mut bob, ..) = signed_in(&provider, &stack, "bob").await;
    let (mut editor, mut browser) = (stack.editor().await, stack.browser());
    let start = browser
        .get(&format!("/login/oidc?connection_id={}", editor.id()))
        .await;
    let mut ada = oidc.person();
    let back = ada.sign_in(&start.location(), "ada").await;
    let approval = follow(&mut browser, &back).await;
    approve(&mut browser, &approval, &mut editor).await;
    ada.sign_out().await;
    is_signed_out(&mut editor).await;
    bob.read_on().await;

    // What the browser keeps of that sign-in approves nothing either, as soon as that was not asked
    // a second ago.
    let another = stack.editor().await;
    let approval = browser.get(&callback(&another)).await;

    if approval.status == StatusCode::OK {
        assert_eq!(
            browser.approve(&approval).await.status,
            StatusCode::FORBIDDEN
        );
    } else {
        assert_eq!(
            approval.location(),
            format!("{}&retry=1", another.login_path())
        );
    }
}

#[tokio::test]
async fn an_answer_of_the_provider_is_good_once_and_in_the_browser_that_asked() {
    let provider = Provider::oidc().await;
    let Provider::Oidc(oidc) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let (editor, mut browser, mut victim) =
        (stack.editor().await, stack.browser(), stack.browser());
    let path = format!("/login/oidc?connection_id={}", editor.id());
    let start = browser.get(&path).await;
    victim.get(&path).await;
    let back = oidc.person().sign_in(&start.location(), "mallory").await;

    // The attacker's answer in the victim's browser would sign the victim in as the attacker.
    assert_eq!(
        follow(&mut victim, &back).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(follow(&mut browser, &back).await.status, StatusCode::OK);

    let cookies = browser.cookies.clone();
    assert_eq!(
        follow(&mut browser, &back).await.status,
        StatusCode::FORBIDDEN
    );

    browser.cookies = cookies;
    assert_eq!(
        follow(&mut browser, &back).await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn two_sign_ins_in_two_tabs_do_not_disturb_each_other() {
    let provider = Provider::oidc().await;
    let Provider::Oidc(oidc) = &provider else {
        unreachable!()
    };

    let stack = provider.stack().await;
    let (mut one, mut two, mut browser) =
        (stack.editor().await, stack.editor().await, stack.browser());
    let first = browser
        .get(&format!("/login/oidc?connection_id={}", one.id()))
        .await;
    let second = browser
        .get(&format!("/login/oidc?connection_id={}", two.id()))
        .await;
    let mut ada = oidc.person();
    let back = (
        ada.sign_in(&first.location(), "ada").await,
        ada.pass(&second.location()).await,
    );
    let (other, this) = (
        follow(&mut browser, &back.1).await,
        follow(&mut browser, &back.0).await,
    );
    approve(&mut browser, &this, &mut one).await;
    approve(&mut browser, &other, &mut two).await;
}

#[tokio::test]
async fn people_look_after_their_editors_with_every_provider() {
    for provider in [Provider::Dev, Provider::clerk(), Provider::oidc().await] {
        let stack = provider.stack().await;
        let (mut editor, mut browser, _) = signed_in(&provider, &stack, "ada").await;
        let list = browser.get("/account/sessions").await;
        assert_eq!(list.status, StatusCode::OK, "{}", list.body);

        let ended = browser
            .post(
                "/account/sessions/revoke-all",
                &[("csrf", &list.field("csrf"))],
            )
            .await;
        assert_eq!(ended.status, StatusCode::SEE_OTHER, "{}", ended.body);
        assert!(
            ended.location().starts_with("/account/sign-in?done=all-"),
            "{}",
            ended.location()
        );

        is_signed_out(&mut editor).await;
        assert_eq!(
            browser.get("/account/sessions").await.status,
            StatusCode::SEE_OTHER
        );
    }
}

/// Longer than any deadline of a call to a provider.
const SLOW: Duration = Duration::from_secs(10);
