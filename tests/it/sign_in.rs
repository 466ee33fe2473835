//! The main job: an editor signs in through the browser.

use http::StatusCode;
use vvs_tests::Stack;

#[tokio::test]
async fn an_editor_is_signed_in_when_the_person_approves() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();

    let approval = browser.sign_in(&editor, "ada").await;
    assert!(approval.body.contains(editor.user_code()));

    let (approved, success) = tokio::join!(browser.approve(&approval), async {
        let success = editor.next().await;
        editor.read_on().await;
        success
    });
    assert_eq!(success["type"], "auth:success");
    assert_eq!(success["user"]["email"], "ada@example.com");
    assert_eq!(approved.status, StatusCode::SEE_OTHER, "{}", approved.body);

    let page = browser.get(&approved.location()).await;
    assert_eq!(page.status, StatusCode::OK);
}

#[tokio::test]
async fn the_callback_alone_delivers_nothing() {
    let stack = Stack::start().await;
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();

    browser.sign_in(&editor, "ada").await;
    let again = browser
        .get(&format!("/api/auth/callback?connection_id={}", editor.id()))
        .await;
    assert_eq!(again.status, StatusCode::OK);
    editor.read_on().await;
}
