//! A login against scripted servers.

use std::fs;
use std::sync::Mutex;

use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use vvs_proto::frame::{EditorFrame, Method};

use super::*;
use crate::profile::{DEFAULT, Keep, Profile};
use crate::script::{ORIGIN, Pipe, Servers, frames, golden, payload, seconds};

const CONNECTION: &str = golden!("connection");
const SESSION: &str = golden!("connection.session");
const RESUMED: &str = golden!("connection.resumed");
const HELLO_OK: &str = golden!("hello-ok");
const PENDING: &str = golden!("auth-pending");
const SUCCESS: &str = golden!("auth-success");
const ID: &str = "3f2b8c1e-9d47-4a6b-8e15-7c0d2f9a4b63";

struct Editor {
    home: TempDir,
    options: Options,
    servers: Servers,
    events: Mutex<Vec<Event>>,
    person: mpsc::Sender<Input>,
    inputs: Mutex<Option<mpsc::Receiver<Input>>>,
}

impl Editor {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let profile = Profile::new(home.path().join("vvs"), DEFAULT, Keep::File).unwrap();
        let options = Options {
            typed: true,
            ..Options::new(ORIGIN.parse().unwrap(), profile)
        };
        let (person, inputs) = mpsc::channel(4);
        let inputs = Mutex::new(Some(inputs));

        Self {
            home,
            options,
            servers: Servers::default(),
            events: Mutex::default(),
            person,
            inputs,
        }
    }

    async fn login(&self) -> Result<Outcome, Error> {
        let dial = |purpose| self.servers.dial(purpose);
        let inputs = self.inputs.lock().unwrap().take().unwrap();
        let show = |event| self.events.lock().unwrap().push(event);
        let ended = run(&self.options, &dial, inputs, show).await;
        self.servers.end();
        ended
    }

    fn stored(&self) -> Option<Credential> {
        self.options.profile.load().unwrap()
    }

    fn saw(&self, wanted: &Event) -> bool {
        self.events.lock().unwrap().contains(wanted)
    }

    /// Returns each link that was shown, and whether it replaces another.
    fn links(&self) -> Vec<(String, bool)> {
        let link = |event: &Event| {
            if let Event::Link {
                login_url, changed, ..
            } = event
            {
                Some((login_url.clone(), *changed))
            } else {
                None
            }
        };
        self.events
            .lock()
            .unwrap()
            .iter()
            .filter_map(link)
            .collect()
    }

    fn delays(&self) -> Vec<Duration> {
        let delay = |event: &Event| {
            if let Event::Lost { retry_after } = event {
                Some(*retry_after)
            } else {
                None
            }
        };
        self.events
            .lock()
            .unwrap()
            .iter()
            .filter_map(delay)
            .collect()
    }

    async fn code(&self, code: &str) {
        self.person
            .send(Input::Code(Secret::new(code)))
            .await
            .unwrap();
    }

    async fn until(&self, wanted: impl Fn(&Event) -> bool) {
        while !self.events.lock().unwrap().iter().any(&wanted) {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn ack(ok: bool, reason: Option<RefusalReason>) -> EditorFrame {
    EditorFrame::AuthAck {
        message_id: "b7c9d1a2-5e3f-4c60-9a8b-0d1e2f3a4b5c".to_owned(),
        ok,
        reason,
    }
}

async fn hello(server: &mut Pipe) -> EditorFrame {
    let frame = server.hear().await;
    assert!(matches!(frame, EditorFrame::Hello { .. }), "{frame:?}");
    frame
}

#[tokio::test(start_paused = true)]
async fn hello_comes_first_and_proves_the_device_key_over_this_socket() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[CONNECTION]).await;
    let script = async {
        let EditorFrame::Hello {
            app,
            device_key,
            return_uri,
            proof,
            ..
        } = hello(&mut server).await
        else {
            panic!()
        };

        assert_eq!(app.name, "vvs");
        assert_eq!(return_uri, None, "--typed offers no link");

        let payload = payload(&proof);
        assert_eq!(payload["aud"], ORIGIN);
        assert_eq!(
            (&payload["nonce"], &payload["use"]),
            (&"ZmFrZS1ub25jZS0wMDAwMQ".into(), &"hello".into())
        );
        assert!(
            editor.links().is_empty(),
            "the link was shown before the server took the hello"
        );

        server.say(&[HELLO_OK, golden!("auth-denied")]).await;
        server.rest().await;

        device_key
    };

    let (outcome, key) = tokio::join!(editor.login(), script);
    assert_eq!(outcome.unwrap(), Outcome::Denied);
    assert_eq!(key.as_object().unwrap().len(), 4);
    assert_eq!(
        editor.links(),
        [(format!("{ORIGIN}/login?connection_id={ID}"), false)]
    );
}

#[tokio::test(start_paused = true)]
async fn an_approved_login_stores_the_credential_before_anything_acks_it() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[CONNECTION, HELLO_OK, SUCCESS]).await;
    server.ping().await;
    let script = async {
        let EditorFrame::Hello { device_key, .. } = hello(&mut server).await else {
            panic!()
        };
        let first = server.0.next().await.unwrap().unwrap();
        assert_eq!(
            editor.stored().unwrap().device_key.jwk(),
            device_key,
            "{first:?} came before the file"
        );
        assert_eq!(frames(&[first]), [ack(true, None)]);
        server.rest().await
    };

    let (outcome, _rest) = tokio::join!(editor.login(), script);
    let Outcome::SignedIn { credential, .. } = outcome.unwrap() else {
        panic!("not signed in")
    };

    assert_eq!(credential.token.expose(), "fake.token.not-a-secret");
    assert_eq!(
        (&*credential.server, &*credential.session_id),
        (ORIGIN, "ses_51c0")
    );
    assert_eq!(editor.stored(), Some(*credential));
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_cannot_be_stored_is_refused() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[CONNECTION, HELLO_OK]).await;
    let script = async {
        hello(&mut server).await;
        let dir = editor.home.path().join("vvs");
        fs::remove_dir_all(&dir).unwrap();
        fs::write(dir, "a file where the folder should be").unwrap();
        server.say(&[SUCCESS]).await;
        server.ping().await;
        server.rest().await
    };

    let (outcome, heard) = tokio::join!(editor.login(), script);
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, Error::Store { .. }) && error.exit_code() == 1,
        "{error}"
    );
    assert_eq!(
        frames(&heard),
        [ack(false, Some(RefusalReason::StoreFailed))]
    );
    assert!(!heard.iter().any(Message::is_pong), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_to_sign_in_when_the_credential_could_not_be_kept() {
    let editor = Editor::new();
    fs::write(
        editor.home.path().join("vvs"),
        "a file where the folder should be",
    )
    .unwrap();
    assert!(matches!(editor.login().await, Err(Error::Store { .. })));
    assert!(editor.servers.purposes.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_login_is_taken_up_with_the_ticket_and_a_proof_over_the_new_nonce() {
    let editor = Editor::new();
    let mut first = editor
        .servers
        .next(&[CONNECTION, HELLO_OK, golden!("reconnect")])
        .await;
    let fresh = SESSION.replace("ZmFrZS1ub25jZS0wMDAwMQ", "c2Vjb25kLW5vbmNl");
    let mut second = editor.servers.next(&[&fresh]).await;
    let script = async {
        first.rest().await;
        let EditorFrame::Resume { ticket, proof } = second.hear().await else {
            panic!("no resume")
        };

        assert_eq!(ticket.expose(), "fake-ticket-not-a-secret");

        let payload = payload(&proof);
        assert_eq!(
            (&payload["nonce"], &payload["use"]),
            (&"c2Vjb25kLW5vbmNl".into(), &"resume".into())
        );

        second.say(&[RESUMED, HELLO_OK, SUCCESS]).await;

        second.rest().await
    };

    let (outcome, heard) = tokio::join!(editor.login(), script);
    assert!(matches!(outcome.unwrap(), Outcome::SignedIn { .. }));
    assert_eq!(frames(&heard), [ack(true, None)]);
    assert_eq!(
        *editor.servers.purposes.lock().unwrap(),
        [Purpose::Login, Purpose::Session]
    );
    assert_eq!(editor.links().len(), 1, "the link has not changed");
    assert!(editor.saw(&Event::Resumed));
    assert_eq!(editor.delays(), [Duration::from_millis(1500)]);
}

#[tokio::test(start_paused = true)]
async fn a_success_that_may_not_have_been_acked_is_taken_again_and_acked_again() {
    let editor = Editor::new();
    let first = editor.servers.next(&[CONNECTION, HELLO_OK, SUCCESS]).await;
    drop(first);
    let mut second = editor
        .servers
        .next(&[SESSION, RESUMED, HELLO_OK, SUCCESS])
        .await;
    let (outcome, heard) = tokio::join!(editor.login(), second.rest());
    assert!(matches!(outcome.unwrap(), Outcome::SignedIn { .. }));
    assert_eq!(frames(&heard)[1..], [ack(true, None)]);
}

#[tokio::test(start_paused = true)]
async fn a_stored_sign_in_stays_one_whatever_the_server_says_later() {
    for answer in [
        golden!("auth-error").replace("too_late", "bad_ticket"),
        golden!("auth-expired").to_owned(),
    ] {
        let editor = Editor::new();
        drop(editor.servers.next(&[CONNECTION, HELLO_OK, SUCCESS]).await);
        let mut second = editor.servers.next(&[SESSION, &answer]).await;
        let (outcome, _heard) = tokio::join!(editor.login(), second.rest());
        assert!(
            matches!(outcome.unwrap(), Outcome::SignedIn { .. }),
            "{answer}"
        );
    }

    let editor = Editor::new();
    drop(editor.servers.next(&[CONNECTION, HELLO_OK, SUCCESS]).await);
    let begun = Instant::now();
    assert!(matches!(
        editor.login().await.unwrap(),
        Outcome::SignedIn { .. }
    ));
    assert!(
        begun.elapsed() <= MAX_CONFIRMING + seconds(3),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn resuming_goes_on_until_the_login_is_over_and_no_longer() {
    let editor = Editor::new();
    drop(editor.servers.next(&[CONNECTION, HELLO_OK]).await);
    let begun = Instant::now();
    assert_eq!(editor.login().await.unwrap(), Outcome::Expired);
    assert_eq!(begun.elapsed().as_secs(), 605);
    assert!(editor.delays().len() > 40);
    assert!(editor.delays().iter().all(|delay| *delay <= MAX_PAUSE));
}

#[tokio::test(start_paused = true)]
async fn a_login_without_a_ticket_starts_anew_with_a_new_link_a_few_times() {
    let editor = Editor::new();
    drop(editor.servers.next(&[CONNECTION]).await);
    let mut second = editor
        .servers
        .next(&[CONNECTION, HELLO_OK, golden!("auth-denied")])
        .await;
    let (outcome, _heard) = tokio::join!(editor.login(), second.rest());
    assert_eq!(outcome.unwrap(), Outcome::Denied);
    assert_eq!(
        *editor.servers.purposes.lock().unwrap(),
        [Purpose::Login, Purpose::Login]
    );
    assert!(editor.links()[0].1);

    let editor = Editor::new();
    drop(editor.servers.next(&[CONNECTION]).await);
    let error = editor.login().await.unwrap_err();
    assert!(
        matches!(error, Error::Lost { .. }) && error.exit_code() == 5,
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_typed_code_is_sent_only_when_one_is_asked_for_and_looks_like_one() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[CONNECTION, HELLO_OK]).await;
    let script = async {
        hello(&mut server).await;
        editor
            .until(|event| matches!(event, Event::Link { .. }))
            .await;
        editor.code("WXYZ-BCDF").await;
        editor
            .until(|event| matches!(event, Event::Notice(_)))
            .await;
        server.say(&[PENDING]).await;
        editor
            .until(|event| {
                matches!(
                    event,
                    Event::Pending {
                        link: false,
                        attempts_left: 5
                    }
                )
            })
            .await;
        editor.code("WXYZ").await;
        editor.code(" wxyz-bc df ").await;
        let expected = EditorFrame::AuthComplete {
            code: Secret::new("wxyzbcdf"),
            method: Method::Typed,
        };
        assert_eq!(server.hear().await, expected);

        server.say(&[golden!("auth-error.bad-code")]).await;
        editor
            .until(|event| *event == Event::WrongCode { attempts_left: 4 })
            .await;
        server
            .say(&[&golden!("auth-error.bad-code").replace(": 4", ": 0")])
            .await;
        server.rest().await;
    };

    let (outcome, ()) = tokio::join!(editor.login(), script);
    let outcome = outcome.unwrap();
    assert_eq!((&outcome, outcome.exit_code()), (&Outcome::Burned, 6));
}

#[tokio::test]
async fn a_code_that_the_browser_brings_completes_the_login_once_and_only_with_our_state() {
    let mut editor = Editor::new();
    editor.options.typed = false;
    let mut server = editor.servers.next(&[CONNECTION]).await;
    let script = async {
        let EditorFrame::Hello { return_uri, .. } = hello(&mut server).await else {
            panic!()
        };

        let uri = return_uri.unwrap();
        server.say(&[HELLO_OK]).await;
        editor
            .until(|event| matches!(event, Event::Link { .. }))
            .await;
        let url = editor.links()[0].0.clone();
        let state = url.split_once("#state=").unwrap().1;
        let bring = async |id: &str, state: &str, code: &str| {
            crate::hand_back::tests::bring(
                &uri,
                &format!("connection_id={id}&code={code}&state={state}"),
            )
            .await
        };
        assert_eq!(
            bring("6b1f0000-0000-4000-8000-000000000000", state, "fake-1").await,
            400
        );
        assert_eq!(bring(ID, "b3RoZXItc3RhdGUtMDAwMDAwMA", "fake-2").await, 400);
        assert!(editor.saw(&Event::Stranger));
        assert_eq!(bring(ID, state, "fake-code").await, 200);
        assert_eq!(bring(ID, state, "fake-again").await, 400);

        server.say(&[PENDING]).await;
        let expected = EditorFrame::AuthComplete {
            code: Secret::new("fake-code"),
            method: Method::Link,
        };
        assert_eq!(server.hear().await, expected);

        server.say(&[SUCCESS]).await;

        server.rest().await
    };

    let (outcome, heard) = tokio::join!(editor.login(), script);
    assert!(matches!(outcome.unwrap(), Outcome::SignedIn { .. }));
    assert_eq!(frames(&heard), [ack(true, None)]);
}

#[tokio::test]
async fn a_return_uri_that_the_server_refuses_is_given_up_and_the_code_typed() {
    let mut editor = Editor::new();
    editor.options.typed = false;
    let mut server = editor.servers.next(&[CONNECTION]).await;
    let script = async {
        hello(&mut server).await;
        server
            .say(&[&golden!("auth-error").replace("too_late", "bad_return_uri")])
            .await;
        let EditorFrame::Hello { return_uri, .. } = hello(&mut server).await else {
            panic!()
        };

        assert_eq!(return_uri, None);

        server
            .say(&[
                &HELLO_OK.replace("link", "typed"),
                PENDING,
                golden!("auth-denied"),
            ])
            .await;
        server.rest().await;
    };

    let (outcome, ()) = tokio::join!(editor.login(), script);
    assert_eq!(outcome.unwrap(), Outcome::Denied);
    assert!(!editor.links()[0].0.contains('#'));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_take_hello_is_not_signed_in_to() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[CONNECTION, golden!("error")]).await;
    let (outcome, _heard) = tokio::join!(editor.login(), server.rest());
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, Error::TooOld { .. }) && error.exit_code() == 5,
        "{error}"
    );
    assert!(editor.links().is_empty());

    let editor = Editor::new();
    let mut server = editor
        .servers
        .next(&[
            CONNECTION,
            &golden!("auth-error").replace("too_late", "bad_proof"),
        ])
        .await;
    let (outcome, _heard) = tokio::join!(editor.login(), server.rest());
    assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn denial_expiry_and_an_end_without_a_word_are_told_apart() {
    for (frame, outcome, exit_code) in [
        (golden!("auth-denied"), Outcome::Denied, 3),
        (golden!("auth-expired"), Outcome::Expired, 4),
        ("", Outcome::Ended, 3),
    ] {
        let editor = Editor::new();
        let mut server = editor.servers.next(&[CONNECTION, HELLO_OK, frame]).await;
        server.close(4503).await;
        let (ended, _heard) = tokio::join!(editor.login(), server.rest());
        assert_eq!(ended.as_ref().unwrap(), &outcome);
        assert_eq!(ended.unwrap().exit_code(), exit_code);
        assert_eq!(editor.stored(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_the_server_forgets_to_end_expires_by_itself() {
    let editor = Editor::new();
    let mut server = editor
        .servers
        .next(&[&CONNECTION.replace(": 600", ": 40"), HELLO_OK])
        .await;
    let begun = Instant::now();
    let (outcome, _heard) = tokio::join!(editor.login(), server.rest());
    assert_eq!(outcome.unwrap(), Outcome::Expired);
    assert_eq!(begun.elapsed().as_secs(), 45);
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_the_login_on_the_server_and_acks_nothing() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[CONNECTION, HELLO_OK]).await;
    let script = async {
        hello(&mut server).await;
        editor
            .until(|event| matches!(event, Event::Link { .. }))
            .await;
        editor.person.send(Input::Cancel).await.unwrap();
        let first = server.0.next().await.unwrap().unwrap();

        // An approval that crosses the cancel.
        server.say(&[SUCCESS]).await;
        server.ping().await;
        let mut heard = vec![first];
        heard.extend(server.rest().await);

        heard
    };

    let (outcome, heard) = tokio::join!(editor.login(), script);
    assert_eq!(outcome.unwrap(), Outcome::Cancelled);
    assert_eq!(frames(&heard), [EditorFrame::AuthCancel]);
    assert!(!heard.iter().any(Message::is_pong), "{heard:?}");
    assert_eq!(editor.stored(), None);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_dead_and_one_with_pings_is_not() {
    let editor = Editor::new();
    let mut first = editor.servers.next(&[CONNECTION, HELLO_OK]).await;
    let mut second = editor
        .servers
        .next(&[SESSION, RESUMED, HELLO_OK, golden!("auth-denied")])
        .await;
    let begun = Instant::now();
    let script = async {
        hello(&mut first).await;

        for _ in 0..4 {
            sleep(seconds(25)).await;
            first.ping().await;
            assert_eq!(
                first.0.next().await.unwrap().unwrap(),
                Message::Pong("ack me".into())
            );
        }

        let alive = begun.elapsed();
        first.rest().await;

        (alive, begun.elapsed())
    };

    let (outcome, (alive, gone), _two) = tokio::join!(editor.login(), script, second.rest());
    assert_eq!(outcome.unwrap(), Outcome::Denied);
    assert_eq!((alive.as_secs(), gone.as_secs()), (100, 100 + 25 + 25 + 8));
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_is_never_answered_is_no_login() {
    let editor = Editor::new();
    let _deaf = editor.servers.next(&[CONNECTION]).await;
    let mut second = editor
        .servers
        .next(&[CONNECTION, HELLO_OK, golden!("auth-denied")])
        .await;
    let begun = Instant::now();
    let (outcome, _heard) = tokio::join!(editor.login(), second.rest());
    assert_eq!(outcome.unwrap(), Outcome::Denied);
    assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < PATIENCE * 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_never_there_is_not_tried_again() {
    let editor = Editor::new();
    let error = editor.login().await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.exit_code() == 5,
        "{error}"
    );
    assert!(editor.delays().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_without_a_login_in_its_first_frame_is_no_server() {
    for frame in [SESSION, SUCCESS, golden!("error")] {
        let editor = Editor::new();
        let _server = editor.servers.next(&[frame]).await;
        let error = editor.login().await.unwrap_err();
        assert!(
            matches!(error, Error::NotVvs { .. }) && error.exit_code() == 5,
            "{error}"
        );
    }
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
        let own = format!("{ORIGIN}/login?connection_id={ID}");
        let frames = [
            &*CONNECTION.replace(&own, url),
            HELLO_OK,
            golden!("auth-denied"),
        ];
        let mut server = editor.servers.next(&frames).await;
        let (_outcome, _heard) = tokio::join!(editor.login(), server.rest());
        let events = editor.events.lock().unwrap().clone();
        let shown = events.iter().find_map(|event| {
            if let Event::Link {
                login_url, link, ..
            } = event
            {
                Some((login_url, link))
            } else {
                None
            }
        });
        let (login_url, link) = shown.unwrap();

        assert_eq!(*link, None, "{url}");
        assert!(!login_url.contains(['\u{1b}', '\u{202e}']), "{login_url:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_of_a_broken_server_do_no_harm() {
    let editor = Editor::new();
    let most = u64::MAX.to_string();
    let frame = CONNECTION
        .replace("600", &most)
        .replace("25000", &most)
        .replace("8000", &most);
    let reconnect = format!(r#"{{"type": "reconnect", "afterMs": {most}, "reason": "x"}}"#);
    let mut first = editor.servers.next(&[&frame, HELLO_OK, &reconnect]).await;
    let mut second = editor
        .servers
        .next(&[SESSION, &RESUMED.replace("431", "0"), HELLO_OK])
        .await;
    let (outcome, _one, _two) = tokio::join!(editor.login(), first.rest(), second.rest());
    assert_eq!(outcome.unwrap(), Outcome::Expired);
    assert_eq!(editor.delays(), [seconds(60)]);
}

#[test]
fn a_login_can_run_on_any_thread() {
    fn is_send(_future: impl Send) {}
    let editor = Editor::new();
    let (_person, inputs) = mpsc::channel(1);
    is_send(crate::login(&editor.options, inputs, |_event| {}));
}
