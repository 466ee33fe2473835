//! What a person sees and does in a real browser, with pictures of every page below
//! target/screenshots.

use fantoccini::key::Key;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use url::form_urlencoded;
use vvs_tests::{Chromium, Editor, Stack};

use crate::pages::{complete, hello};

mod development;
mod redirect;

const SIGN_IN: &str = "Sign in to VVS";
const APPROVAL: &str = "Let this editor sign in as you?";
const SUCCESS: &str = "Your editor is signed in";
const OVER: &str = "This sign-in is over";

const APPROVE: &str = "form[action='/login/approve'] button:not(.deny)";
const DENY: &str = "button.deny";
const TICK: &str = "[name=confirmed]";

/// An editor whose user code stands in no address either.
async fn editor(stack: &Stack) -> Editor {
    let editor = stack.editor().await;
    stack.secrets().add(editor.user_code());
    editor
}

fn link(editor: &Editor) -> &str {
    editor.connection["loginUrl"].as_str().unwrap()
}

/// From the link to the question whether the editor may sign in.
async fn sign_in(chromium: &Chromium, editor: &Editor) {
    chromium.open(link(editor)).await;
    chromium.arrive(200, SIGN_IN).await;
    say_who(chromium, "ada").await;
}

async fn say_who(chromium: &Chromium, name: &str) {
    chromium
        .fill("#email", &format!("{name}@example.com"))
        .await;
    chromium.fill("#name", name).await;
    chromium.click("form[action='/dev/sign-in'] button").await;
    chromium.arrive(200, APPROVAL).await;
}

/// Takes the token as an editor does that reads on.
async fn receive(editor: &mut Editor) -> Value {
    let success = editor.next().await;
    assert_eq!(success["type"], "auth:success");
    editor.read_on().await;
    success
}

#[tokio::test]
async fn a_person_who_ticks_and_approves_sees_success_and_the_editor_has_its_token() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    let chromium = Chromium::start(&stack, "approve").await;
    chromium.open(link(&editor)).await;
    chromium.show("sign-in", 200, SIGN_IN).await;
    say_who(&chromium, "ada").await;
    chromium.show("approval", 200, APPROVAL).await;
    assert!(chromium.text(".code").await.contains(editor.user_code()));

    chromium.click(TICK).await;
    let ((), success) = tokio::join!(chromium.click(APPROVE), receive(&mut editor));
    chromium.show("success", 200, SUCCESS).await;
    assert!(chromium.text("main").await.contains("ada@example.com"));
    assert_eq!(success["user"]["email"], "ada@example.com");

    // A second look at the link shows the same, and delivers nothing.
    chromium.open(link(&editor)).await;
    chromium.arrive(200, SUCCESS).await;
    editor.read_on().await;
}

#[tokio::test]
async fn a_keyboard_is_enough_to_approve() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    let chromium = Chromium::start(&stack, "keyboard").await;
    chromium.open(link(&editor)).await;
    chromium.arrive(200, SIGN_IN).await;
    tab_to(&chromium, "#email").await;
    chromium.write("ada@example.com").await;
    tab_to(&chromium, "form[action='/dev/sign-in'] button").await;
    chromium.press(Key::Enter).await;
    chromium.arrive(200, APPROVAL).await;
    tab_to(&chromium, TICK).await;
    chromium.press(Key::Space).await;
    tab_to(&chromium, APPROVE).await;
    let ((), _) = tokio::join!(chromium.press(Key::Enter), receive(&mut editor));
    chromium.show("success", 200, SUCCESS).await;
}

/// Moves the focus on until it is there, and sees to it that one sees where it is.
async fn tab_to(chromium: &Chromium, css: &str) {
    for _ in 0..10 {
        chromium.press(Key::Tab).await;
        let outline = chromium
            .run("return getComputedStyle(document.activeElement).outlineStyle")
            .await;
        assert_eq!(
            outline, "solid",
            "the focus is not to be seen on the way to {css}"
        );

        if chromium
            .run(&format!("return document.activeElement.matches(\"{css}\")"))
            .await
            == json!(true)
        {
            return;
        }
    }

    panic!("the keyboard does not reach {css}");
}

#[tokio::test]
async fn without_the_tick_nothing_is_approved_and_the_form_still_works() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    let chromium = Chromium::start(&stack, "unticked").await;
    sign_in(&chromium, &editor).await;

    // The browser itself holds the form back …
    chromium.click(APPROVE).await;
    let problem = chromium
        .run("return document.querySelector('[name=confirmed]:invalid').validationMessage")
        .await;
    assert_ne!(problem, "");
    assert!(chromium.url().await.contains("/api/auth/callback"));

    // … and the server does where a browser does not.
    chromium
        .run("document.querySelector('[action=\"/login/approve\"]').noValidate = true")
        .await;
    chromium.click(APPROVE).await;
    chromium.wait_for("//*[@id='unconfirmed']").await;
    chromium.show("refused", 400, APPROVAL).await;
    editor.read_on().await;
    assert_eq!(stack.sessions().await, 0);

    chromium.click(TICK).await;
    let ((), _) = tokio::join!(chromium.click(APPROVE), receive(&mut editor));
    chromium.show("success", 200, SUCCESS).await;
}

#[tokio::test]
async fn a_person_who_denies_is_told_so_and_so_is_the_editor() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    let chromium = Chromium::start(&stack, "deny").await;
    sign_in(&chromium, &editor).await;
    let ((), heard) = tokio::join!(chromium.click(DENY), editor.next());
    assert_eq!(heard["type"], "auth:denied");
    assert_eq!(editor.close_code().await, 4503);
    chromium.show("denied", 200, "Denied").await;
    assert_eq!(stack.sessions().await, 0);
    chromium.open(link(&editor)).await;
    chromium.arrive(410, OVER).await;
}

#[tokio::test]
async fn an_expired_link_and_a_broken_one_say_to_start_again() {
    let stack = Stack::start_with(&["--relay-login-ttl", "1s"]).await;
    let mut editor = editor(&stack).await;
    assert_eq!(editor.next().await["type"], "auth:expired");

    let chromium = Chromium::start(&stack, "link").await;
    chromium.open(link(&editor)).await;
    chromium.show("expired", 410, OVER).await;
    chromium
        .open(&stack.addresses().public_url.join("/login?connection_id=x"))
        .await;
    chromium
        .show("malformed", 400, "This link is incomplete")
        .await;
}

#[tokio::test]
async fn an_editor_that_was_closed_before_approval_is_not_said_to_be_signed_in() {
    let stack = Stack::start().await;
    let editor = editor(&stack).await;
    let chromium = Chromium::start(&stack, "closed").await;

    sign_in(&chromium, &editor).await;
    drop(editor);
    stack
        .until_metric("vvs_logins_total{state=\"CANCELLED\"}", |value| {
            value >= 1.0
        })
        .await;
    chromium.click(TICK).await;
    chromium.click(APPROVE).await;
    chromium.show("approved", 410, OVER).await;
    chromium
        .open(&stack.addresses().public_url.join("/auth-success"))
        .await;
    chromium
        .show("success", 403, "This page belongs to another browser")
        .await;
}

#[tokio::test]
async fn a_page_that_waits_for_a_slow_editor_goes_on_by_itself() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    let chromium = Chromium::start(&stack, "slow").await;
    sign_in(&chromium, &editor).await;
    chromium.click(TICK).await;
    chromium.click(APPROVE).await;
    chromium
        .show(
            "not-there",
            503,
            "Approved, but your editor does not have it yet",
        )
        .await;
    assert_ne!(chromium.text("[role=status]").await, "");

    receive(&mut editor).await;
    chromium.show("success", 200, SUCCESS).await;

    // However often the page has delivered, the editor has heard of it once.
    editor.read_on().await;
    assert_eq!(stack.sessions().await, 1);
}

#[tokio::test]
async fn the_editors_state_leaves_the_address_and_another_account_can_be_used() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    let chromium = Chromium::start(&stack, "account").await;
    let state = "a-state-that-only-the-editor-knows";
    stack.secrets().add(state);
    chromium
        .open(&format!("{}#state={state}", link(&editor)))
        .await;
    chromium.arrive(200, SIGN_IN).await;
    assert_eq!(chromium.url().await, link(&editor));

    say_who(&chromium, "ada").await;

    chromium.click("form[action='/login/another'] button").await;
    chromium.show("signed-out", 200, SIGN_IN).await;
    assert_eq!(
        chromium
            .run("return document.querySelector('#email').value")
            .await,
        ""
    );

    say_who(&chromium, "grace").await;
    let kept = chromium
        .run(&format!(
            "return sessionStorage.getItem('vvs-state {}')",
            editor.id()
        ))
        .await;
    assert_eq!(kept, state);

    chromium.click(TICK).await;
    let ((), success) = tokio::join!(chromium.click(APPROVE), receive(&mut editor));
    chromium.show("success", 200, SUCCESS).await;
    assert_eq!(success["user"]["email"], "grace@example.com");
}

const LINK: &str = "Approved. Now back to your editor";
const TYPED: &str = "Approved. Now type this code into your editor";
const STATE: &str = "a-state-that-only-the-editor-knows";

/// What an editor's own page does: it takes what is behind the hash and sends it to the editor.
const EDITOR_PAGE: &str = "<!doctype html><html lang=\"en\"><title>Editor</title><h1>Back in the \
    editor</h1><script>fetch('/', { method: 'POST', body: location.hash })</script>";

/// The listener of an editor on this machine, and where the browser takes the code.
async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/done", listener.local_addr().unwrap());
    (listener, uri)
}

/// Serves the editor's page until it has sent on what was behind the hash.
async fn handed_back(listener: &TcpListener, stack: &Stack) -> Vec<(String, String)> {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        if let Some(hash) = serve(BufReader::new(stream), stack).await {
            let pairs = form_urlencoded::parse(hash.strip_prefix('#').unwrap().as_bytes());
            return pairs.into_owned().collect();
        }
    }
}

/// Answers one request; the body, when it has one.
async fn serve(mut stream: BufReader<TcpStream>, stack: &Stack) -> Option<String> {
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).await.unwrap();
    stack.secrets().assert_not_in_url(&line);

    while !line.trim().is_empty() {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        let lower = line.to_ascii_lowercase();
        assert!(
            !lower.starts_with("referer:") || !lower.contains("connection_id"),
            "{line}"
        );
        length = lower
            .strip_prefix("content-length:")
            .map_or(length, |value| value.trim().parse().unwrap());
    }

    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}",
        EDITOR_PAGE.len()
    );
    stream
        .write_all(format!("{head}\r\nConnection: close\r\n\r\n{EDITOR_PAGE}").as_bytes())
        .await
        .unwrap();

    (length > 0).then(|| String::from_utf8(body).unwrap())
}

/// From the approval page to the hand-back.
async fn approve(chromium: &Chromium) {
    chromium.click(TICK).await;
    chromium.click(APPROVE).await;
}

#[tokio::test]
async fn a_link_takes_the_code_to_the_editor_that_asked() {
    let stack = Stack::start().await;
    let (listener, uri) = listener().await;
    let mut editor = editor(&stack).await;
    hello(&stack, &mut editor, "laptop", Some(&uri)).await;
    let chromium = Chromium::start(&stack, "hand-back").await;
    chromium
        .open(&format!("{}#state={STATE}", link(&editor)))
        .await;
    chromium.arrive(200, SIGN_IN).await;
    say_who(&chromium, "ada").await;
    let port = listener.local_addr().unwrap().port();
    let place = format!("to a program on this computer, port {port}");
    assert!(chromium.text("main dl").await.contains(&place));
    chromium.show("approval", 200, APPROVAL).await;

    let ((), pairs) = tokio::join!(approve(&chromium), handed_back(&listener, &stack));
    let of = |name: &str| {
        pairs
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(
        (of("connection_id"), of("state"), pairs.len()),
        (editor.id().to_owned(), STATE.to_owned(), 3)
    );

    stack.secrets().add(&of("code"));
    assert_eq!(editor.next().await["type"], "auth:pending");

    // Whoever comes back sees the page again, with a button and without being led away.
    chromium.open(link(&editor)).await;
    chromium.show("link", 200, LINK).await;
    chromium.run("location.reload()").await;
    chromium.arrive(200, LINK).await;
    let ((), again) = tokio::join!(chromium.click("#back a"), handed_back(&listener, &stack));
    assert_eq!(again, pairs);

    complete(&mut editor, &of("code"), "link").await;
    chromium.open(link(&editor)).await;
    chromium.show("success", 200, SUCCESS).await;
}

#[tokio::test]
async fn a_window_that_the_editor_did_not_open_leads_nowhere_and_hides_the_code_where_a_link_is_asked_for()
 {
    let stack = Stack::start_with(&["--relay-min-binding", "link"]).await;
    let (_listener, uri) = listener().await;
    let mut editor = editor(&stack).await;
    hello(&stack, &mut editor, "laptop", Some(&uri)).await;
    let chromium = Chromium::start(&stack, "sent-link").await;
    sign_in(&chromium, &editor).await;
    approve(&chromium).await;
    chromium.show("lost", 200, LINK).await;
    assert_eq!(
        chromium
            .run("return document.querySelectorAll('a[href]').length")
            .await,
        0
    );

    let shown = chromium.text("main").await;
    assert!(
        shown.contains("Did someone send you the link?") && !shown.contains("one-time code"),
        "{shown}"
    );
    assert_eq!(editor.next().await["type"], "auth:pending");

    editor.read_on().await;
}

#[tokio::test]
async fn a_person_reads_that_the_code_goes_to_the_app_before_approving() {
    let uri = "vvs://auth/complete";
    let stack = Stack::start_with(&["--relay-return-uris", uri]).await;
    let mut editor = editor(&stack).await;
    hello(&stack, &mut editor, "laptop", Some(uri)).await;
    let chromium = Chromium::start(&stack, "app-link").await;
    sign_in(&chromium, &editor).await;
    chromium.show("approval", 200, APPROVAL).await;
    assert!(chromium.text("main dl").await.contains("to VVS"));

    editor.read_on().await;
}

#[tokio::test]
async fn a_page_with_a_code_goes_on_by_itself_when_the_editor_has_it() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    hello(&stack, &mut editor, "laptop", None).await;
    let chromium = Chromium::start(&stack, "typed").await;
    sign_in(&chromium, &editor).await;
    approve(&chromium).await;
    chromium.arrive(200, TYPED).await;
    let code = chromium.text(".code [aria-hidden]").await;
    stack.secrets().add(&code);
    chromium.show("code", 200, TYPED).await;
    assert!(
        !chromium
            .run("return document.title")
            .await
            .as_str()
            .unwrap()
            .contains(&code)
    );
    assert_eq!(editor.next().await["type"], "auth:pending");

    complete(&mut editor, &code.to_lowercase(), "typed").await;
    chromium.show("success", 200, SUCCESS).await;
}

#[tokio::test]
async fn a_page_with_a_code_says_when_the_login_was_burned() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    hello(&stack, &mut editor, "laptop", None).await;
    let chromium = Chromium::start(&stack, "guessed").await;
    sign_in(&chromium, &editor).await;
    approve(&chromium).await;
    chromium.arrive(200, TYPED).await;
    assert_eq!(editor.next().await["type"], "auth:pending");

    let is_b = chromium.text(".code [aria-hidden]").await.starts_with('B');
    let wrong = if is_b { "CCCCCCCC" } else { "BBBBBBBB" };
    for left in (0..5).rev() {
        editor
            .send(json!({"type": "auth:complete", "code": wrong, "method": "typed"}))
            .await;
        assert_eq!(editor.next().await["attemptsLeft"], left);
    }

    chromium.show("burned", 410, "Too many wrong codes").await;
}

#[tokio::test]
async fn a_person_looks_after_their_editors() {
    let stack = Stack::start().await;
    let mut editor = editor(&stack).await;
    hello(&stack, &mut editor, "laptop", None).await;
    let chromium = Chromium::start(&stack, "editors").await;
    sign_in(&chromium, &editor).await;
    approve(&chromium).await;
    chromium.arrive(200, TYPED).await;
    let code = chromium.text(".code [aria-hidden]").await;
    stack.secrets().add(&code);
    assert_eq!(editor.next().await["type"], "auth:pending");

    complete(&mut editor, &code, "typed").await;
    chromium.arrive(200, SUCCESS).await;

    chromium.click("a[href='/account/sessions']").await;
    chromium.show("list", 200, "Your editors").await;
    assert!(chromium.text(".installs").await.contains("laptop"));

    chromium.click(".installs button").await;
    chromium.wait_for("//*[@class='notice']").await;
    chromium.show("none", 200, "Your editors").await;
    assert_eq!(editor.next().await["type"], "session:revoked");
    assert_eq!(editor.close_code().await, 4500);

    chromium
        .click("form[action='/account/sign-out'] button")
        .await;
    chromium
        .show("signed-out", 200, "Sign in to see your editors")
        .await;
}
