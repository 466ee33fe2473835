//! What the development sign-in shows to others than the person at the machine.

use vvs_tests::nginx::Nginx;
use vvs_tests::{Chromium, Stack};

use super::{SIGN_IN, editor, link, say_who};

const ASKS: &str = "Enter the key of this server";

#[tokio::test]
async fn a_person_behind_a_proxy_reads_why_there_is_no_sign_in() {
    let stack = Stack::start().await;
    let editor = editor(&stack).await;
    let nginx = Nginx::start(stack.addresses().public, "proxy_http_version 1.0;").await;
    let chromium = Chromium::start(&stack, "proxied").await;

    chromium
        .open(&format!(
            "http://{}{}",
            nginx.address(),
            editor.login_path()
        ))
        .await;
    chromium
        .show("refused", 403, "Not through a proxy or a tunnel")
        .await;
}

#[tokio::test]
async fn a_person_enters_the_key_of_the_server_once() {
    let stack = Stack::start_with(&["--dev-key"]).await;
    let editor = editor(&stack).await;
    let chromium = Chromium::start(&stack, "dev-key").await;

    chromium.open(link(&editor)).await;
    chromium.show("asked", 403, ASKS).await;
    enter(&chromium, "not-the-key").await;
    chromium.wait_for("//*[@id='problem']").await;
    chromium.show("wrong", 403, ASKS).await;
    enter(&chromium, &stack.dev_key()).await;
    chromium.arrive(200, SIGN_IN).await;
    say_who(&chromium, "ada").await;
}

async fn enter(chromium: &Chromium, key: &str) {
    chromium.fill("#key", key).await;
    chromium.click("form[action='/dev/key'] button").await;
}
