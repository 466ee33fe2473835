//! A person before a program that signs in: follows the link that it prints, and types the code
//! back.

use http::StatusCode;

use crate::command::Running;
use crate::{Browser, Page, Secrets};

/// Follows a link as a person would, and goes as far as the decision.
pub async fn follow(url: &str, secrets: &Secrets) -> (Browser, Page) {
    let (server, id) = url.split_once("/login?connection_id=").unwrap();
    // What is behind the hash stays in a browser.
    let id = id.split('#').next().unwrap();
    let mut browser = Browser::at(server, secrets);
    let approval = browser
        .sign_in_at(&format!("/login?connection_id={id}"), "ada")
        .await;
    (browser, approval)
}

/// Follows a link and approves; the page that comes then.
pub async fn approve(url: &str, secrets: &Secrets) -> Page {
    let (mut browser, approval) = follow(url, secrets).await;
    browser.approve(&approval).await
}

/// Types into a program the code that the page shows.
pub async fn type_code(program: &mut Running, page: &Page) {
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    program.error_line("Approved.").await;
    program
        .type_line(&page.code().unwrap().to_lowercase().replace('-', " "))
        .await;
}

/// The link that a program prints.
pub async fn link_of(program: &mut Running) -> String {
    program
        .error_line("/login?connection_id=")
        .await
        .trim()
        .to_owned()
}
