//! A stored sign-in against scripted servers.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use vvs_proto::frame::{Secret, User};

use super::*;
use crate::key::DeviceKey;
use crate::profile::{DEFAULT, Keep};
use crate::script::{ORIGIN, Pipe, Servers, frames, golden, payload, seconds};

const SESSION: &str = golden!("connection.session");
const OK: &str = golden!("auth-ok");
const REVOKED: &str = golden!("auth-failure");
const UNAVAILABLE: &str = golden!("auth-failure.unavailable");

struct Editor {
    _home: TempDir,
    profile: Profile,
    server: Server,
    servers: Servers,
    changes: Mutex<Vec<Change>>,
}

fn credential() -> Credential {
    Credential {
        server: ORIGIN.to_owned(),
        user: User {
            id: "usr_7d1e".to_owned(),
            email: None,
            name: Some("Ada".to_owned()),
            avatar_url: None,
        },
        session_id: "ses_51c0".to_owned(),
        session_expires_at: "2026-03-31T12:00:00Z".to_owned(),
        token: Secret::new("fake.token.not-a-secret"),
        token_expires_at: "2026-03-01T13:00:00Z".to_owned(),
        device_key: DeviceKey::generate().unwrap(),
    }
}

impl Editor {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let profile = Profile::new(home.path(), DEFAULT, Keep::File).unwrap();
        profile.store(&credential(), None).unwrap();
        let (servers, changes) = (Servers::default(), Mutex::default());
        Self {
            _home: home,
            profile,
            server: ORIGIN.parse().unwrap(),
            servers,
            changes,
        }
    }

    async fn connect_until(&self, stop: impl Future<Output = ()>) -> Result<End, Error> {
        let dial = |purpose| self.servers.dial(purpose);
        let mut line = Line::new(&self.server, &dial, Purpose::Session);
        let show = |change| self.changes.lock().unwrap().push(change);
        let ended = Hold {
            profile: &self.profile,
            server: &self.server,
            line: &mut line,
            show,
        }
        .until(stop)
        .await;
        self.servers.end();

        ended
    }

    async fn connect(&self) -> Result<End, Error> {
        self.connect_until(std::future::pending()).await
    }

    fn stored(&self) -> Option<Credential> {
        self.profile.load().unwrap()
    }

    fn token(&self) -> String {
        self.stored().unwrap().token.expose().to_owned()
    }

    fn pauses(&self) -> Vec<u64> {
        let pause = |c: &Change| {
            if let Change::Lost { retry_after_ms, .. } = c {
                Some(*retry_after_ms)
            } else {
                None
            }
        };
        self.changes
            .lock()
            .unwrap()
            .iter()
            .filter_map(pause)
            .collect()
    }

    async fn until(&self, wanted: impl Fn(&Change) -> bool) {
        while !self.changes.lock().unwrap().iter().any(&wanted) {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn over(end: &Result<End, Error>) -> bool {
    matches!(end, Ok(End::Over { .. }))
}

async fn refresh(server: &mut Pipe) -> String {
    let EditorFrame::TokenRefresh { proof } = server.hear().await else {
        panic!("no refresh")
    };
    let payload = payload(&proof);
    assert_eq!(
        (&payload["use"], &payload["aud"]),
        (&"refresh".into(), &ORIGIN.into())
    );
    payload["jti"].to_string()
}

#[tokio::test(start_paused = true)]
async fn it_signs_on_with_the_token_and_a_proof_that_names_it() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[SESSION]).await;
    let script = async {
        let EditorFrame::Authenticate { token, proof } = server.hear().await else {
            panic!()
        };

        assert_eq!(token.expose(), "fake.token.not-a-secret");

        let payload = payload(&proof.unwrap());
        assert_eq!(
            (&payload["use"], &payload["nonce"]),
            (&"authenticate".into(), &"ZmFrZS1ub25jZS0wMDAwMQ".into())
        );
        assert_eq!(payload["ath"].as_str().unwrap().len(), 43);

        server
            .say(&[OK, golden!("session-expiring"), golden!("session-revoked")])
            .await;
        server.rest().await;
    };

    let (ended, ()) = tokio::join!(editor.connect(), script);
    assert_eq!(
        ended.unwrap(),
        End::Over {
            why: "revoked by the user".to_owned()
        }
    );

    let changes = editor.changes.lock().unwrap();
    assert_eq!(
        serde_json::to_string(&*changes).unwrap(),
        r#"[{"event":"signed-in","user":"Ada","session":"ses_51c0","expiresIn":2592000},{"event":"expiring","expiresIn":86400}]"#
    );
    assert_eq!(*editor.servers.purposes.lock().unwrap(), [Purpose::Session]);
    assert_eq!(editor.stored(), None);
}

#[tokio::test(start_paused = true)]
async fn only_the_servers_own_verdict_makes_it_forget_the_credential() {
    for (frames, code) in [
        (vec![SESSION, REVOKED], None),
        (vec![SESSION, OK, REVOKED], None),
        (vec![SESSION, OK], Some(4500)),
        (vec![SESSION, golden!("session-revoked")], None),
    ] {
        let editor = Editor::new();
        let mut server = editor.servers.next(&frames).await;
        if let Some(code) = code {
            server.close(code).await;
        }

        let (ended, _heard) = tokio::join!(editor.connect(), server.rest());
        assert!(over(&ended), "{frames:?}: {ended:?}");
        assert_eq!(editor.stored(), None, "{frames:?}");
        assert_eq!(
            editor.profile.record().unwrap().server.as_deref(),
            Some(ORIGIN)
        );
    }

    for code in [4501, 4502, 4503, 1008] {
        let editor = Editor::new();
        let mut server = editor.servers.next(&[SESSION, OK]).await;
        server.close(code).await;
        let (ended, _heard) = tokio::join!(editor.connect(), server.rest());
        assert!(
            matches!(ended, Err(Error::Closed { .. })),
            "{code}: {ended:?}"
        );
        assert!(editor.stored().is_some(), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_terminal_is_tried_again_after_the_time_that_the_server_gave() {
    let editor = Editor::new();
    let token_expired = UNAVAILABLE.replace("\"unavailable\"", "\"token_expired\"");
    let mut first = editor.servers.next(&[SESSION, UNAVAILABLE]).await;
    let mut second = editor.servers.next(&[SESSION, OK, &token_expired]).await;
    second.close(4000).await;
    let mut third = editor.servers.next(&[SESSION, REVOKED]).await;
    let (ended, ..) = tokio::join!(editor.connect(), first.rest(), second.rest(), third.rest());
    assert!(over(&ended), "{ended:?}");
    assert_eq!(editor.pauses().len(), 2);
    assert_eq!(editor.pauses()[0], 2000);

    let refused = |code| {
        editor
            .changes
            .lock()
            .unwrap()
            .iter()
            .any(|c| matches!(c, Change::Refused { code: c, .. } if *c == code))
    };
    assert!(refused(FailureCode::Unavailable) && refused(FailureCode::TokenExpired));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_with_growing_pauses_and_no_sign_out() {
    let editor = Editor::new();
    let stop = sleep(seconds(3600));
    assert_eq!(editor.connect_until(stop).await.unwrap(), End::Stopped);
    let pauses = editor.pauses();
    assert!(
        pauses.len() > 60 && pauses.iter().all(|pause| *pause <= 60_000),
        "{}",
        pauses.len()
    );
    assert!(pauses[10] >= 30_000, "{pauses:?}");
    assert!(editor.stored().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_draining_server_is_left_for_another_after_the_time_that_it_gave() {
    let editor = Editor::new();
    let mut first = editor
        .servers
        .next(&[SESSION, OK, golden!("reconnect")])
        .await;
    let mut second = editor.servers.next(&[SESSION, OK, REVOKED]).await;
    let (ended, ..) = tokio::join!(editor.connect(), first.rest(), second.rest());
    assert!(over(&ended), "{ended:?}");
    assert_eq!(editor.pauses(), [1500]);
}

#[tokio::test(start_paused = true)]
async fn the_token_is_refreshed_in_the_second_half_of_its_life_by_the_servers_clock() {
    // An hour by the server's word; this machine's clock is not asked, and by its own the token may
    // be years old.
    for ok in [OK.to_owned(), golden!("auth-ok.refreshed").to_owned()] {
        let editor = Editor::new();
        let mut server = editor
            .servers
            .next(&[&SESSION.replace("25000", "36000000"), &ok])
            .await;
        let begun = Instant::now();
        let script = async {
            server.hear().await;
            let mut moments = vec![];
            for _ in 0..6 {
                refresh(&mut server).await;
                moments.push(begun.elapsed().as_secs());
                server.say(&[golden!("auth-token")]).await;
            }
            moments
        };

        let moments = tokio::select! {
            ended = editor.connect() => panic!("{ended:?}"),
            moments = script => moments,
        };
        let gaps: Vec<_> = [0]
            .iter()
            .chain(&moments)
            .zip(&moments)
            .map(|(from, to)| to - from)
            .collect();
        assert!(
            gaps.iter().all(|gap| (1_800..=3_240).contains(gap)),
            "{gaps:?}"
        );
        assert!(
            gaps.iter().any(|gap| *gap != gaps[0]),
            "{gaps:?}: not random"
        );
        assert_eq!(editor.token(), "fake.fresh-token.not-a-secret");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_when_the_one_before_does_is_no_reason_to_ask_at_once() {
    let editor = Editor::new();
    let mut server = editor
        .servers
        .next(&[&SESSION.replace("25000", "36000000"), OK])
        .await;
    let script = async {
        server.hear().await;
        refresh(&mut server).await;
        let mut gaps = vec![];
        for left in ["1700", "20", "3", "0"] {
            let answered = Instant::now();
            server
                .say(&[&golden!("auth-token").replace("3600", left)])
                .await;
            refresh(&mut server).await;
            gaps.push(answered.elapsed().as_secs());
        }

        gaps
    };

    let gaps = tokio::select! {
        ended = editor.connect() => panic!("{ended:?}"),
        gaps = script => gaps,
    };
    assert!(
        (850..=1530).contains(&gaps[0]) && gaps.iter().all(|gap| *gap >= 5),
        "{gaps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_not_answered_is_sent_again_with_another_proof() {
    let editor = Editor::new();
    let mut server = editor
        .servers
        .next(&[&SESSION.replace("25000", "3600000"), OK])
        .await;
    let script = async {
        server.hear().await;
        let first = refresh(&mut server).await;
        let sent = Instant::now();
        let second = refresh(&mut server).await;
        assert_ne!(first, second);
        assert!((30..=60).contains(&sent.elapsed().as_secs()));

        server.say(&[UNAVAILABLE]).await;
        refresh(&mut server).await;
        server.say(&[golden!("auth-token")]).await;
        editor
            .until(|change| matches!(change, Change::Refreshed { expires_in: 3600 }))
            .await;
        server.say(&[golden!("session-revoked")]).await;
        server.rest().await;
    };

    let (ended, ()) = tokio::join!(editor.connect(), script);
    assert!(over(&ended), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_refreshed_on_signing_on_is_kept() {
    let editor = Editor::new();
    let mut server = editor
        .servers
        .next(&[SESSION, golden!("auth-ok.refreshed")])
        .await;
    let script = async {
        server.hear().await;
        editor
            .until(|change| matches!(change, Change::SignedIn { .. }))
            .await;
        assert_eq!(editor.token(), "fake.fresh-token.not-a-secret");
    };

    tokio::select! { ended = editor.connect() => panic!("{ended:?}"), () = script => {} }
}

#[tokio::test(start_paused = true)]
async fn another_windows_sign_out_or_sign_in_is_noticed_and_not_overwritten() {
    let editor = Editor::new();
    let mut first = editor.servers.next(&[SESSION, OK]).await;
    let script = async {
        first.hear().await;
        editor
            .until(|change| matches!(change, Change::SignedIn { .. }))
            .await;
        editor.profile.forget("ses_51c0").unwrap();
        first.close(4000).await;
        first.rest().await;
    };

    let (ended, ()) = tokio::join!(editor.connect(), script);
    assert_eq!(ended.unwrap(), End::NotSignedIn);

    let editor = Editor::new();
    let script = async {
        editor
            .until(|change| matches!(change, Change::Lost { .. }))
            .await;
        editor.profile.forget("ses_51c0").unwrap();
        let mut back = editor.servers.next(&[SESSION]).await;
        assert!(
            frames(&back.rest().await).is_empty(),
            "it was shown a credential that is gone"
        );
    };

    let (ended, ()) = tokio::join!(editor.connect(), script);
    assert_eq!(ended.unwrap(), End::NotSignedIn);

    let editor = Editor::new();
    let mut server = editor.servers.next(&[SESSION]).await;
    let script = async {
        server.hear().await;
        let other = Credential {
            session_id: "ses_other".to_owned(),
            ..credential()
        };
        editor.profile.store(&other, None).unwrap();
        server
            .say(&[golden!("auth-ok.refreshed"), golden!("session-revoked")])
            .await;
        server.rest().await;
    };

    let (ended, ()) = tokio::join!(editor.connect(), script);
    assert!(over(&ended), "{ended:?}");
    assert_eq!(editor.stored().unwrap().session_id, "ses_other");
    assert_eq!(editor.token(), "fake.token.not-a-secret");
}

#[tokio::test(start_paused = true)]
async fn a_session_socket_that_falls_silent_is_dead() {
    let editor = Editor::new();
    let mut first = editor.servers.next(&[SESSION, OK]).await;
    let mut second = editor.servers.next(&[SESSION, REVOKED]).await;
    let begun = Instant::now();
    let (ended, ..) = tokio::join!(editor.connect(), first.rest(), second.rest());
    assert!(over(&ended), "{ended:?}");
    assert_eq!(begun.elapsed().as_secs(), 58);
}

async fn left(editor: &Editor) -> SignedOut {
    let dial = |purpose| editor.servers.dial(purpose);
    let stored = editor.stored().unwrap();
    leave(&editor.profile, &stored, &editor.server, &dial)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn signing_out_ends_the_session_on_the_server_with_a_proof() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[SESSION, OK]).await;
    let script = async {
        server.hear().await;
        let EditorFrame::SessionLogout { proof } = server.hear().await else {
            panic!()
        };
        assert_eq!(payload(&proof.unwrap())["use"], "logout");
        assert_eq!(editor.stored(), None, "this machine comes first");
        server.say(&[golden!("session-ended")]).await;
        server.rest().await;
    };

    let (left, ()) = tokio::join!(left(&editor), script);
    assert!(matches!(left, SignedOut::Everywhere), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn signing_out_is_done_here_and_said_so_whatever_the_server_does() {
    for frames in [
        vec![],
        vec![SESSION],
        vec![SESSION, UNAVAILABLE],
        vec![SESSION, OK, UNAVAILABLE],
    ] {
        let editor = Editor::new();
        let mut server = editor.servers.next(&frames).await;
        let (left, _heard) = tokio::join!(left(&editor), server.rest());
        assert!(
            matches!(left, SignedOut::HereOnly { .. }),
            "{frames:?}: {left:?}"
        );
        assert_eq!(editor.stored(), None);
    }

    let editor = Editor::new();
    let mut server = editor.servers.next(&[SESSION, OK]).await;
    let (told, tries) = tokio::join!(left(&editor), says_unavailable(&mut server));
    assert!(
        matches!(&told, SignedOut::HereOnly { why, .. } if why.contains("cannot be asked")),
        "{told:?}"
    );
    assert!((2..6).contains(&tries), "{tries}");

    let editor = Editor::new();
    assert!(matches!(left(&editor).await, SignedOut::HereOnly { .. }));

    let editor = Editor::new();
    let mut server = editor.servers.next(&[SESSION, REVOKED]).await;
    let (left, _heard) = tokio::join!(left(&editor), server.rest());
    assert!(matches!(left, SignedOut::Everywhere), "{left:?}");
}

/// Answers every request with an outage, until the editor goes away. Returns the number of
/// requests.
async fn says_unavailable(server: &mut Pipe) -> usize {
    let mut asked = 0;
    while let Some(Ok(message)) = server.0.next().await {
        if message.is_text() {
            asked += 1;
            server.say(&[UNAVAILABLE]).await;
        }
    }
    asked
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_answer_now_is_asked_again_when_it_says() {
    let editor = Editor::new();
    let mut server = editor.servers.next(&[SESSION]).await;
    let script = async {
        for answer in [UNAVAILABLE, OK] {
            let EditorFrame::Authenticate { .. } = server.hear().await else {
                panic!()
            };
            server.say(&[answer]).await;
        }
        server.rest().await;
    };

    let dial = |purpose| editor.servers.dial(purpose);
    let begun = Instant::now();
    let asking = ask(
        &editor.profile,
        editor.stored().unwrap(),
        &editor.server,
        &dial,
    );
    let (status, ()) = tokio::join!(asking, script);
    assert!(matches!(status, Ok(Status::SignedIn { .. })), "{status:?}");
    assert!(
        begun.elapsed() >= seconds(2),
        "it did not wait for as long as it was told"
    );

    let mut server = editor.servers.next(&[SESSION]).await;
    let script = async {
        for answers in [
            [UNAVAILABLE],
            [OK],
            [UNAVAILABLE],
            [golden!("session-ended")],
        ] {
            server.hear().await;
            server.say(&answers).await;
        }
        server.rest().await;
    };

    let (left, ()) = tokio::join!(left(&editor), script);
    assert!(matches!(left, SignedOut::Everywhere), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn the_status_is_the_servers_word_and_an_outage_is_none() {
    let asked = async |frames: &[&str]| {
        let editor = Editor::new();
        let mut server = editor.servers.next(frames).await;
        let dial = |purpose| editor.servers.dial(purpose);
        let asking = ask(
            &editor.profile,
            editor.stored().unwrap(),
            &editor.server,
            &dial,
        );
        let (status, _heard) = tokio::join!(asking, server.rest());

        (
            status,
            editor
                .stored()
                .map(|stored| stored.token.expose().to_owned()),
        )
    };
    let (status, token) = asked(&[SESSION, golden!("auth-ok.refreshed")]).await;
    assert!(
        matches!(
            status,
            Ok(Status::SignedIn {
                expires_in: 2_592_000,
                ..
            })
        ),
        "{status:?}"
    );
    assert_eq!(token.as_deref(), Some("fake.fresh-token.not-a-secret"));

    let editor = Editor::new();
    let mut server = editor.servers.next(&[SESSION]).await;
    let dial = |purpose| editor.servers.dial(purpose);
    let asking = ask(
        &editor.profile,
        editor.stored().unwrap(),
        &editor.server,
        &dial,
    );
    let (status, tries) = tokio::join!(asking, says_unavailable(&mut server));
    let error = status.unwrap_err();
    assert!(
        matches!(error, Error::NotNow { .. }) && error.exit_code() == 5,
        "{error}"
    );
    assert!(
        (2..6).contains(&tries) && editor.stored().is_some(),
        "{tries}"
    );

    let (status, token) = asked(&[SESSION, REVOKED]).await;
    assert!(
        matches!(status, Ok(Status::Over { .. })) && token.is_none(),
        "{status:?}"
    );
}

#[test]
fn a_session_can_be_held_on_any_thread() {
    fn is_send(_future: impl Send) {}
    let editor = Editor::new();
    is_send(connect(
        &editor.profile,
        None,
        std::future::pending(),
        |_change| {},
    ));
    is_send(logout(&editor.profile, None));
    is_send(status(&editor.profile, None));
}
