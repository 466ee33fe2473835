//! A login against a server made of a pipe and a script.

use std::cell::RefCell;
use std::fs;

use futures_util::{SinkExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::*;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../../../proto/golden/relay/", $name, ".json"))
    };
}

const CONNECTION: &str = golden!("connection");
const SUCCESS: &str = golden!("auth-success");

type Pipe = WebSocketStream<DuplexStream>;

/// An editor, with as many connections as the test made for it.
struct Editor {
    home: TempDir,
    options: Options,
    connections: RefCell<Vec<Connection<DuplexStream>>>,
    events: RefCell<Vec<Event>>,
}

impl Editor {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let server = "https://vvs.example.org".parse().unwrap();
        let options = Options { server, ca_file: None, state_dir: home.path().join("vvs") };
        Self { home, options, connections: RefCell::default(), events: RefCell::default() }
    }

    /// The server's end of the next connection, on which it has said `frames`.
    async fn server(&self, frames: &[&str]) -> Pipe {
        let (ours, mut theirs) = Connection::pair().await;
        self.connections.borrow_mut().insert(0, ours);
        say(&mut theirs, frames).await;
        theirs
    }

    async fn login_until(&self, cancel: impl Future<Output = ()>) -> Result<Outcome, Error> {
        let connect = || async {
            let refused = || io(&self.options.server);
            self.connections.borrow_mut().pop().ok_or_else(refused)
        };
        let show = |event| self.events.borrow_mut().push(event);
        let ended = connect_until_done(&self.options, connect, cancel, show).await;
        // A server that still waits for an editor hears that there is none.
        self.connections.borrow_mut().clear();
        ended
    }

    async fn login(&self) -> Result<Outcome, Error> {
        self.login_until(std::future::pending()).await
    }

    fn stored(&self) -> Option<String> {
        fs::read_to_string(self.options.state_dir.join("credential.json")).ok()
    }

    /// Whether each link shown replaced an earlier one.
    fn links(&self) -> Vec<bool> {
        let events = self.events.borrow();
        events.iter().filter_map(|e| if let Event::Link { changed, .. } = e { Some(*changed) } else { None }).collect()
    }

    fn delays(&self) -> Vec<Duration> {
        let events = self.events.borrow();
        let delay = |e: &Event| if let Event::Lost { retry_after } = e { Some(*retry_after) } else { None };
        events.iter().filter_map(delay).collect()
    }
}

fn io(server: &Server) -> Error {
    Error::Unreachable { server: server.clone(), source: std::io::ErrorKind::ConnectionRefused.into() }
}

async fn say(pipe: &mut Pipe, frames: &[&str]) {
    for frame in frames {
        pipe.send(Message::text(*frame)).await.unwrap();
    }
}

async fn close(pipe: &mut Pipe, code: u16) {
    pipe.close(Some(CloseFrame { code: code.into(), reason: "".into() })).await.unwrap();
}

/// What the editor says until it goes away.
async fn hear(pipe: &mut Pipe) -> Vec<Message> {
    let mut heard = Vec::new();
    while let Some(Ok(message)) = pipe.next().await {
        heard.push(message);
    }
    heard
}

fn frames(messages: &[Message]) -> Vec<EditorFrame> {
    messages.iter().filter_map(|m| EditorFrame::parse(m.to_text().ok()?).ok()).collect()
}

fn ack(ok: bool, reason: Option<RefusalReason>) -> EditorFrame {
    EditorFrame::AuthAck { message_id: "b7c9d1a2-5e3f-4c60-9a8b-0d1e2f3a4b5c".to_owned(), ok, reason }
}

#[tokio::test(start_paused = true)]
async fn an_approved_login_stores_the_credential_before_anything_acks_it() {
    let editor = Editor::new();
    let mut server = editor.server(&[CONNECTION, SUCCESS]).await;
    server.send(Message::Ping("ack me".into())).await.unwrap();
    let script = async {
        let first = server.next().await.unwrap().unwrap();
        assert!(editor.stored().is_some(), "{first:?} came before the file");
        assert_eq!(frames(&[first]), [ack(true, None)]);
        hear(&mut server).await
    };
    let (outcome, _rest) = tokio::join!(editor.login(), script);
    let Outcome::SignedIn { credential, file } = outcome.unwrap() else { panic!("not signed in") };
    assert_eq!(credential.token.expose(), "fake.token.not-a-secret");
    assert_eq!(credential.server, "https://vvs.example.org");
    assert_eq!(credential.session_id, "ses_51c0");
    assert_eq!(credential.who(), "Ada Lovelace <ada@example.org>");
    assert_eq!(serde_json::from_slice::<Credential>(&fs::read(file).unwrap()).unwrap(), *credential);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_cannot_be_stored_is_refused() {
    let editor = Editor::new();
    fs::write(editor.home.path().join("vvs"), "a file where the folder should be").unwrap();
    let mut server = editor.server(&[CONNECTION, SUCCESS]).await;
    server.send(Message::Ping("ack me".into())).await.unwrap();
    let (outcome, heard) = tokio::join!(editor.login(), hear(&mut server));
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Store { .. }) && error.exit_code() == 1, "{error}");
    assert_eq!(frames(&heard), [ack(false, Some(RefusalReason::StoreFailed))]);
    assert!(!heard.iter().any(Message::is_pong), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_ack_was_not_sent_is_not_a_sign_in() {
    let editor = Editor::new();
    drop(editor.server(&[CONNECTION, SUCCESS]).await);
    let mut second = editor.server(&[CONNECTION, golden!("auth-denied")]).await;
    let (outcome, _heard) = tokio::join!(editor.login(), hear(&mut second));
    assert_eq!(outcome.unwrap(), Outcome::Denied);
}

#[tokio::test(start_paused = true)]
async fn denial_and_expiry_are_told_apart() {
    for (frame, outcome, exit_code) in
        [(golden!("auth-denied"), Outcome::Denied, 3), (golden!("auth-expired"), Outcome::Expired, 4)]
    {
        let editor = Editor::new();
        let mut server = editor.server(&[CONNECTION, frame]).await;
        let (ended, _heard) = tokio::join!(editor.login(), hear(&mut server));
        assert_eq!(ended.as_ref().unwrap(), &outcome);
        assert_eq!(ended.unwrap().exit_code(), exit_code);
        assert_eq!(editor.stored(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_the_server_forgets_to_end_expires_by_itself() {
    let editor = Editor::new();
    let frame = CONNECTION.replace(": 600", ": 40");
    let mut server = editor.server(&[&frame]).await;
    let begun = Instant::now();
    let (outcome, _heard) = tokio::join!(editor.login(), hear(&mut server));
    assert_eq!(outcome.unwrap(), Outcome::Expired);
    assert_eq!(begun.elapsed().as_secs(), 45);
    let events = editor.events.borrow();
    let mut lefts = events.iter().filter_map(|e| if let Event::Left(left) = e { Some(left.as_secs()) } else { None });
    assert!(lefts.by_ref().take(41).eq((0..=40).rev()));
    assert!(lefts.all(|left| left == 0));
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_the_login_on_the_server_and_acks_nothing() {
    let editor = Editor::new();
    let mut server = editor.server(&[CONNECTION]).await;
    let cancel = sleep(Duration::from_secs(30));
    let script = async {
        let first = server.next().await.unwrap().unwrap();
        // An approval that crosses the cancel.
        say(&mut server, &[SUCCESS]).await;
        server.send(Message::Ping("ack me".into())).await.unwrap();
        let mut heard = vec![first];
        heard.extend(hear(&mut server).await);
        heard
    };
    let (outcome, heard) = tokio::join!(editor.login_until(cancel), script);
    assert_eq!(outcome.unwrap(), Outcome::Cancelled);
    assert_eq!(frames(&heard), [EditorFrame::AuthCancel]);
    assert!(!heard.iter().any(Message::is_pong), "{heard:?}");
    assert_eq!(editor.stored(), None);
}

#[tokio::test(start_paused = true)]
async fn cancelling_does_not_wait_for_a_server_that_says_nothing() {
    let editor = Editor::new();
    let _silent = editor.server(&[]).await;
    let begun = Instant::now();
    assert_eq!(editor.login_until(sleep(Duration::from_secs(1))).await.unwrap(), Outcome::Cancelled);
    let _deaf = editor.server(&[CONNECTION]).await;
    assert_eq!(editor.login_until(sleep(Duration::from_secs(1))).await.unwrap(), Outcome::Cancelled);
    assert_eq!(begun.elapsed().as_secs(), 1 + 1 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_is_left_for_a_new_login_after_the_time_it_gave() {
    let editor = Editor::new();
    let mut first = editor.server(&[CONNECTION, golden!("reconnect")]).await;
    close(&mut first, 4000).await;
    let mut second = editor.server(&[CONNECTION, golden!("auth-denied")]).await;
    let (outcome, _one, _two) = tokio::join!(editor.login(), hear(&mut first), hear(&mut second));
    assert_eq!(outcome.unwrap(), Outcome::Denied);
    assert_eq!(editor.links(), [false, true]);
    assert_eq!(editor.delays(), [Duration::from_millis(1500)]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_dead_and_one_with_pings_is_not() {
    let editor = Editor::new();
    let mut first = editor.server(&[CONNECTION]).await;
    let mut second = editor.server(&[CONNECTION, golden!("auth-denied")]).await;
    let begun = Instant::now();
    let script = async {
        for _ in 0..4 {
            sleep(Duration::from_secs(25)).await;
            first.send(Message::Ping("alive?".into())).await.unwrap();
            assert_eq!(first.next().await.unwrap().unwrap(), Message::Pong("alive?".into()));
        }
        let alive = begun.elapsed();
        drop(hear(&mut first).await);
        (alive, begun.elapsed())
    };
    let (outcome, (alive, gone), _two) = tokio::join!(editor.login(), script, hear(&mut second));
    assert_eq!(outcome.unwrap(), Outcome::Denied);
    assert_eq!((alive.as_secs(), gone.as_secs()), (100, 100 + 25 + 25 + 8));
}

#[tokio::test(start_paused = true)]
async fn a_ping_frame_gets_a_pong_frame() {
    let editor = Editor::new();
    let mut server = editor.server(&[CONNECTION, golden!("ping"), golden!("auth-denied")]).await;
    let (_outcome, heard) = tokio::join!(editor.login(), hear(&mut server));
    assert_eq!(frames(&heard), [EditorFrame::Pong]);
}

#[tokio::test(start_paused = true)]
async fn tries_are_bounded_and_further_and_further_apart() {
    let editor = Editor::new();
    drop(editor.server(&[CONNECTION]).await);
    let error = editor.login().await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. }) && error.exit_code() == 5, "{error}");
    assert_eq!(editor.delays().len(), 8);
    for (tries, delay) in (1..).zip(editor.delays()) {
        assert!(delay >= back_off(tries, 255) && delay <= back_off(tries, 0), "{tries}: {delay:?}");
    }
    assert_eq!([1, 2, 3, 99].map(|tries| back_off(tries, 0).as_millis()), [500, 1000, 2000, 10_000]);
    assert!(back_off(1, 255) > Duration::from_millis(250));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_never_there_is_not_tried_again() {
    let editor = Editor::new();
    let error = editor.login().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.exit_code() == 5, "{error}");
    assert_eq!(editor.delays(), []);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_a_login_in_its_first_frame_is_no_server() {
    for frame in [golden!("connection.session"), golden!("auth-success"), golden!("error")] {
        let editor = Editor::new();
        let _server = editor.server(&[frame]).await;
        let error = editor.login().await.unwrap_err();
        assert!(matches!(error, Error::NotVvs { .. }) && error.exit_code() == 5, "{error}");
    }
    let editor = Editor::new();
    let _silent = editor.server(&["not a frame"]).await;
    let begun = Instant::now();
    let error = editor.login().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.exit_code() == 5, "{error}");
    assert_eq!(begun.elapsed(), CONNECT_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_hostile_link_is_shown_harmless_and_never_opened() {
    for url in [
        "https://evil.example/login",
        "javascript:alert(1)",
        "file:///bin/sh",
        r"https://vvs.example.org/\u001b[2J\u202e",
    ] {
        let editor = Editor::new();
        let id = "https://vvs.example.org/login?connection_id=3f2b8c1e-9d47-4a6b-8e15-7c0d2f9a4b63";
        let mut server = editor.server(&[&CONNECTION.replace(id, url), golden!("auth-denied")]).await;
        let (_outcome, _heard) = tokio::join!(editor.login(), hear(&mut server));
        let Event::Link { login_url, link, .. } = editor.events.borrow()[0].clone() else { panic!("no link") };
        assert_eq!(link, None, "{url}");
        assert!(!login_url.contains(['\u{1b}', '\u{202e}']), "{login_url:?}");
        assert_ne!(login_url, id);
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_of_a_broken_server_do_no_harm() {
    let editor = Editor::new();
    let most = u64::MAX.to_string();
    let frame = CONNECTION.replace("600", &most).replace("25000", &most).replace("8000", &most);
    let reconnect = format!(r#"{{"type": "reconnect", "afterMs": {most}, "reason": "x"}}"#);
    let mut first = editor.server(&[&frame, &reconnect]).await;
    let frame = CONNECTION.replace("600", "0").replace("25000", "0").replace("8000", "0");
    let mut second = editor.server(&[&frame]).await;
    let (outcome, _one, _two) = tokio::join!(editor.login(), hear(&mut first), hear(&mut second));
    assert_eq!(outcome.unwrap(), Outcome::Expired);
    assert_eq!(editor.delays(), [MAX_DELAY]);
}

#[test]
fn close_codes_say_whether_to_come_back() {
    let server: Server = "https://vvs.example.org".parse().unwrap();
    for how in [None, Some(1001), Some(1006), Some(1011), Some(1012), Some(4000), Some(4003), Some(4499)] {
        let end = closed(how.map(|code| (code, String::new())), &server);
        assert!(matches!(end, Ok(End::Lost(None))), "{how:?}");
    }
    for code in [1000, 4503] {
        let end = closed(Some((code, String::new())), &server);
        assert!(matches!(end, Ok(End::Done(Outcome::Ended))), "{code}");
    }
    for code in [1002, 1008, 1009, 4500, 4501, 4502, 4504, 4999] {
        let end = closed(Some((code, String::new())), &server);
        assert!(matches!(end, Err(Error::Closed { .. })), "{code}");
    }
}

#[test]
fn a_login_can_run_on_any_thread() {
    fn is_send(_future: impl Send) {}
    let editor = Editor::new();
    is_send(login(&editor.options, std::future::pending(), |_event| {}));
}
