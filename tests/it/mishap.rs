//! What goes wrong between approval and an editor that is signed in, and what everyone is told.

use http::StatusCode;
use serde_json::json;
use vvs_auth::peer::Role;
use vvs_tests::Stack;

#[tokio::test]
async fn an_editor_that_went_away_before_approval_is_not_said_to_be_signed_in() {
    let stack = Stack::start().await;
    let editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    drop(editor);
    stack
        .until_metric("vvs_logins_total{state=\"CANCELLED\"}", |value| {
            value >= 1.0
        })
        .await;
    let page = browser.approve(&approval).await;
    assert_eq!(page.status, StatusCode::GONE, "{}", page.body);

    let page = browser.get("/auth-success").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_editor_that_goes_away_during_delivery_is_not_said_to_be_signed_in() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (page, ()) = tokio::join!(browser.approve(&approval), async {
        // It has the token, and is gone before it has answered the ping behind it.
        assert_eq!(editor.next().await["type"], "auth:success");
        drop(editor);
    });
    assert_eq!(page.status, StatusCode::GONE, "{}", page.body);
    assert!(
        stack
            .metric("vvs_deliveries_total{code=\"FAILED_PRECONDITION\"}")
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn an_editor_that_goes_away_right_behind_its_acknowledgement_is_signed_in() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (page, ()) = tokio::join!(browser.approve(&approval), async {
        let success = editor.next().await;
        editor
            .send(json!({"type": "auth:ack", "messageId": success["messageId"], "ok": true}))
            .await;
        editor.socket.close(None).await.unwrap();
    });
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
    assert_eq!(browser.get(&page.location()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_editor_that_cannot_store_its_token_is_not_said_to_be_signed_in() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (page, ()) = tokio::join!(browser.approve(&approval), async {
        let success = editor.next().await;
        let refusal = json!({"type": "auth:ack", "messageId": success["messageId"], "ok": false, "reason": "store_failed"});
        editor.send(refusal).await;
        assert_eq!(editor.close_code().await, 4503);
    });
    assert_eq!(page.status, StatusCode::GONE, "{}", page.body);
}

#[tokio::test]
async fn a_slow_editor_is_waited_for_and_the_same_token_is_not_sent_twice() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;

    // The editor does not read on: the page says that it has not answered, and offers to try again.
    let first = browser.approve(&approval).await;
    assert_eq!(
        first.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        first.body
    );

    let success = editor.next().await;
    assert_eq!(success["type"], "auth:success");

    let (second, ()) = tokio::join!(browser.approve(&approval), editor.read_on());
    assert_eq!(second.status, StatusCode::SEE_OTHER, "{}", second.body);

    // A third time changes nothing, and the editor has heard nothing twice.
    assert_eq!(
        browser.approve(&approval).await.status,
        StatusCode::SEE_OTHER
    );

    editor.read_on().await;
}

#[tokio::test]
async fn without_the_sessions_role_an_approval_says_so_and_can_be_made_again_when_it_is_back() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    stack.stop(Role::Sessions).await;
    let page = browser.approve(&approval).await;
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        page.body
    );

    stack.restart_sessions().await;
    let (page, ()) = tokio::join!(browser.approve(&approval), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        editor.read_on().await;
    });
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
}

#[tokio::test]
async fn without_the_sessions_role_an_acknowledged_editor_is_activated_when_it_is_back() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let (page, ()) = tokio::join!(browser.approve(&approval), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        // The token is there and not acknowledged; now sessions goes.
        stack.stop(Role::Sessions).await;
        editor.read_on().await;
    });
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        page.body
    );

    stack.restart_sessions().await;

    // The page delivers again by itself; the relay would, too.
    let again = async {
        loop {
            let page = browser.approve(&approval).await;
            if page.status != StatusCode::SERVICE_UNAVAILABLE {
                return page;
            }
        }
    };

    let page = tokio::time::timeout(std::time::Duration::from_secs(30), again)
        .await
        .unwrap();
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
    assert_eq!(stack.sessions().await, 1, "one session, not two");
}

#[tokio::test]
async fn a_locked_database_is_an_outage_and_loses_nothing() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "ada").await;
    let lock = stack.lock_database().await;
    let page = browser.approve(&approval).await;
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        page.body
    );

    drop(lock);
    let (page, ()) = tokio::join!(browser.approve(&approval), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        editor.read_on().await;
    });
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
}

#[tokio::test]
async fn without_the_relay_a_link_says_try_again_and_not_start_again() {
    let stack = Stack::start().await;
    let editor = stack.editor().await;
    let path = editor.login_path();
    stack.stop(Role::Relay).await;
    let page = stack.browser().get(&path).await;
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        page.body
    );
}

#[tokio::test]
async fn a_restart_keeps_keys_and_certificates() {
    let first = Stack::start().await;
    let keys = first.browser().get("/.well-known/jwks.json").await.body;
    let data = first.data();
    first.shut_down().await;
    drop(first);
    let second = Stack::start_in(data, &[]).await;
    assert_eq!(
        second.browser().get("/.well-known/jwks.json").await.body,
        keys
    );
}
