//! What is away, or is not what it was: sessions, its database, its feed. Nobody is signed out by
//! that, and everything goes on when it is back. Each scenario runs on SQLite and on PostgreSQL.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use vvs_client::DeviceKey;
use vvs_tests::database::{Database, Lock};
use vvs_tests::postgres::Postgres;
use vvs_tests::split::Split;
use vvs_tests::stack::PATIENCE;
use vvs_tests::{Editor, Install, Stack, crowd, on_both};

use crate::survive::Held;

on_both!(
    sessions_that_are_killed_while_editors_reconnect_sign_nobody_out,
    a_database_that_is_away_signs_nobody_out,
    a_database_that_is_away_for_thirty_seconds_signs_nobody_out,
    an_empty_database_in_the_place_of_the_right_one_signs_nobody_out,
    a_feed_that_falls_silent_keeps_bearers_waiting_and_signs_nobody_out,
);

/// Editors here ask without a pause until they are answered, and each refresh needs a database that
/// can be written to.
const OFTEN: [&str; 4] = [
    "--sessions-refreshes-per-minute",
    "1000000",
    "--sessions-refresh-interval",
    "0s",
];
/// How long the database is away.
const AWAY: Duration = Duration::from_secs(30);

/// A stack on a database that can be taken away without taking everybody's. The stack ends first.
struct Own {
    stack: Stack,
    cluster: Option<Postgres>,
}

/// How a database is away.
#[derive(Debug, Clone, Copy)]
enum Away {
    /// Somebody else holds it.
    Locked,
    /// It takes connections and questions, and answers nothing.
    Frozen,
    /// Nobody listens.
    Stopped,
}

impl Own {
    async fn start(database: Database, flags: &[&str]) -> Self {
        let cluster = if database == Database::Postgres {
            Some(Postgres::start().await)
        } else {
            None
        };

        let stack = match &cluster {
            Some(cluster) => {
                let url = cluster.database().await;
                Stack::start_with(&[&["--sessions-database-url", &*url], flags].concat()).await
            }
            None => Stack::start_on(database, flags).await,
        };

        Self { stack, cluster }
    }

    fn ways(&self) -> &'static [Away] {
        if self.cluster.is_some() {
            &[Away::Frozen, Away::Stopped]
        } else {
            &[Away::Locked]
        }
    }

    async fn take(&self, away: Away) -> Option<Lock> {
        match (away, &self.cluster) {
            (Away::Frozen, Some(cluster)) => cluster.freeze(),
            (Away::Stopped, Some(cluster)) => cluster.stop(),
            (_, None) | (Away::Locked, _) => return Some(self.stack.lock_database().await),
        }
        None
    }

    async fn give_back(&self, away: Away, lock: Option<Lock>) {
        drop(lock);
        match (away, &self.cluster) {
            (Away::Frozen, Some(cluster)) => cluster.thaw(),
            (Away::Stopped, Some(cluster)) => cluster.resume().await,
            (_, None) | (Away::Locked, _) => {}
        }
    }

    /// Nothing has ended a session.
    async fn assert_nobody_is_signed_out(&self) {
        assert_eq!(
            self.stack
                .database()
                .count("SELECT count(*) FROM revocations")
                .await,
            0
        );
    }
}

#[track_caller]
fn assert_outage(answer: &Value) {
    let (kind, code) = (&answer["type"], &answer["code"]);
    assert_eq!(
        (kind, code),
        (&json!("auth:failure"), &json!("unavailable")),
        "{answer}"
    );
    assert_eq!(answer["terminal"], json!(false));
    retry_after(answer);
}

#[track_caller]
fn retry_after(answer: &Value) -> Duration {
    Duration::from_millis(
        answer["retryAfterMs"]
            .as_u64()
            .unwrap_or_else(|| panic!("{answer}")),
    )
}

/// Asks until that is answered by something else than an outage.
async fn until_answered(mut ask: impl AsyncFnMut() -> Value) -> Value {
    let asking = async {
        loop {
            let answer = ask().await;
            if answer["code"] != "unavailable" {
                return answer;
            }
            assert_outage(&answer);
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}

/// Shows a token that is no good any more on this socket, until there is a fresh one for it.
async fn until_signed_on(editor: &mut Editor, install: &Install) -> Install {
    let answer = until_answered(async || {
        editor
            .authenticate(&install.token, Some(&install.key))
            .await
    })
    .await;
    assert_eq!(answer["type"], "auth:ok", "{answer}");

    let token = answer["token"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
        .to_owned();

    Install {
        token,
        ..install.clone()
    }
}

async fn until_refreshed(editor: &mut Editor, install: &Install) {
    let answer = until_answered(async || editor.refresh(&install.key).await).await;
    assert_eq!(answer["type"], "auth:token", "{answer}");
}

async fn sessions_that_are_killed_while_editors_reconnect_sign_nobody_out(database: Database) {
    let mut split = Split::both(database, &OFTEN).await;
    let mut installs = Vec::new();
    for _ in 0..5 {
        installs.push(Install::make(&split.stack, split.sessions_rpc.address(), "ada").await);
    }

    split.kill_sessions().await;
    let mut waiting = Vec::new();
    for install in &installs {
        // Nothing has to be asked about a good token; one that has to be asked about waits.
        install.sign_on(&split.stack).await;
        let (editor, answer) = install.with_bent_token().connect(&split.stack).await;
        assert_outage(&answer);
        waiting.push(editor);
    }

    split.start_sessions().await;
    for (editor, install) in waiting.iter_mut().zip(&installs) {
        let fresh = until_signed_on(editor, &install.with_bent_token()).await;
        fresh.sign_on(&split.stack).await;
    }

    assert_eq!(
        split
            .database
            .count("SELECT count(*) FROM revocations")
            .await,
        0
    );
}

async fn a_database_that_is_away_signs_nobody_out(database: Database) {
    let own = Own::start(database, &OFTEN).await;
    let stack = &own.stack;
    let install = Install::make(stack, stack.addresses().sessions_rpc, "ada").await;
    let (mut editor, key) = (stack.editor().await, DeviceKey::generate().unwrap());
    editor.hello(&key, None).await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "bob").await;

    let away = *own.ways().last().unwrap();
    let lock = own.take(away).await;

    // Each of these waits for the database for as long as anybody does.
    install.sign_on(stack).await;
    let (mut waiting, answer) = install.with_bent_token().connect(stack).await;
    assert_outage(&answer);
    let mut signed_in = install.sign_on(stack).await;
    assert_outage(&signed_in.refresh(&install.key).await);
    assert_outage(&signed_in.log_out(Some(&install.key)).await);
    let page = browser.approve(&approval).await;
    assert_eq!(
        page.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        page.body
    );

    own.give_back(away, lock).await;
    until_signed_on(&mut waiting, &install.with_bent_token()).await;
    until_refreshed(&mut signed_in, &install).await;
    let mut held = Held {
        editor,
        key,
        ticket: String::new(),
        browser,
        page: approval,
    };
    let page = held.deliver(StatusCode::OK).await;
    assert_eq!(held.editor.next().await["type"], "auth:pending");

    let success = held.editor.complete(&page.code().unwrap(), "typed").await;
    held.editor.ack(&success).await;
    own.assert_nobody_is_signed_out().await;
}

async fn a_database_that_is_away_for_thirty_seconds_signs_nobody_out(database: Database) {
    let own = Own::start(
        database,
        &[&OFTEN[..], &["--sessions-token-ttl", "2s"]].concat(),
    )
    .await;
    let stack = &own.stack;
    let installs = crowd::make(stack, 8).await;
    let (waiting, signed_in) = installs.split_at(4);
    crowd::until_expired(waiting).await;

    // These go on for a minute behind the end of their tokens.
    let mut signed_in: Vec<_> = join_all(
        signed_in
            .iter()
            .map(async |install| (install.sign_on(stack).await, install)),
    )
    .await;
    for away in own.ways() {
        let lock = own.take(*away).await;
        let begun = Instant::now();
        loop {
            let refreshing = signed_in
                .iter_mut()
                .map(|(editor, install)| editor.refresh(&install.key));
            let connecting = waiting
                .iter()
                .map(async |install| install.connect(stack).await.1);
            let (refused, not_taken) = tokio::join!(join_all(refreshing), join_all(connecting));
            refused.iter().chain(&not_taken).for_each(assert_outage);

            // They do as they are told, all of them; each round is over before the database is
            // back.
            let pause = refused
                .iter()
                .chain(&not_taken)
                .map(retry_after)
                .max()
                .unwrap();
            let length = AWAY / u32::try_from(own.ways().len()).unwrap();
            if begun.elapsed() >= length {
                break;
            }

            tokio::time::sleep(pause.min(length)).await;
        }

        own.give_back(*away, lock).await;
    }

    for (editor, install) in &mut signed_in {
        until_refreshed(editor, install).await;
    }

    for install in waiting {
        until_signed_on(&mut Editor::for_session(stack).await, install).await;
    }

    own.assert_nobody_is_signed_out().await;
}

async fn an_empty_database_in_the_place_of_the_right_one_signs_nobody_out(database: Database) {
    let mut split = Split::both(database, &OFTEN).await;
    let install = Install::make(&split.stack, split.sessions_rpc.address(), "ada").await;
    let bearer = bearer_token(&split.stack).await;
    let mut signed_in = install.sign_on(&split.stack).await;

    let (elsewhere, right) = (tempfile::tempdir().unwrap(), split.database.clone());
    split.kill_sessions().await;
    split.database = database.create(elsewhere.path()).await;
    split.start_sessions().await;

    // The relay that they were on, and one that has no other keys than those of the empty database.
    assert_outage(&signed_in.refresh(&install.key).await);
    assert_outage(&install.with_bent_token().connect(&split.stack).await.1);
    let next = split.another_relay().await;
    let before = split.lead_to(next).unwrap();
    for shown in [install.clone(), install.with_bent_token()] {
        assert_outage(&shown.connect(&split.stack).await.1);
    }

    let (code, terminal) = show_bearer(&split.stack, &bearer).await;
    assert_eq!((code, terminal), (json!("bad_token"), json!(false)));

    assert_outage(&signed_in.refresh(&install.key).await);

    // It was asked, and does not know.
    split
        .sessions
        .as_mut()
        .unwrap()
        .error_line("KEY_UNKNOWN")
        .await;

    split.kill_sessions().await;
    split.database = right;
    split.start_sessions().await;
    until_refreshed(&mut signed_in, &install).await;
    let fresh = until_signed_on(&mut Editor::for_session(&split.stack).await, &install).await;
    fresh.sign_on(&split.stack).await;
    drop(before);
    assert_eq!(
        split
            .database
            .count("SELECT count(*) FROM revocations")
            .await,
        0
    );
}

/// The token of a bare editor that was signed in.
async fn bearer_token(stack: &Stack) -> String {
    let mut editor = stack.editor().await;
    let mut browser = stack.browser();
    let approval = browser.sign_in(&editor, "bob").await;
    let (_, success) = tokio::join!(browser.approve(&approval), async {
        let success = editor.next().await;
        editor.read_on().await;
        success
    });
    success["token"].as_str().unwrap().to_owned()
}

/// Why a bearer token is not taken, and whether that is for good.
async fn show_bearer(stack: &Stack, token: &str) -> (Value, Value) {
    let answer = Editor::for_session(stack)
        .await
        .authenticate(token, None)
        .await;
    assert_eq!(answer["type"], "auth:failure", "{answer}");
    retry_after(&answer);
    (answer["code"].clone(), answer["terminal"].clone())
}

async fn a_feed_that_falls_silent_keeps_bearers_waiting_and_signs_nobody_out(database: Database) {
    const SILENCE: f64 = 7.0;
    const LAG: &str = "vvs_revocation_lag_seconds";
    let split = Split::both(
        database,
        &["--relay-feed-silence", "7s", "--relay-sign-in-time", "5m"],
    )
    .await;
    let install = Install::make(&split.stack, split.sessions_rpc.address(), "ada").await;
    let bearer = bearer_token(&split.stack).await;
    let header = format!("Bearer {bearer}");
    let mut stays = Editor::for_session(&split.stack).await;
    assert_eq!(stays.authenticate(&bearer, None).await["type"], "auth:ok");

    let sessions = split.sessions.as_ref().unwrap();
    sessions.signal("STOP");
    split.until_relay_metric(LAG, |lag| lag >= SILENCE).await;
    let mut waiting = Editor::for_session(&split.stack).await;
    let answer = waiting.authenticate(&bearer, None).await;
    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&json!("auth:failure"), &json!("stale_feed")),
        "{answer}"
    );
    assert_eq!(answer["terminal"], json!(false));

    retry_after(&answer);
    let refused = Editor::try_connect(&split.stack, &[("authorization", &header)])
        .await
        .unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = *refused else {
        panic!("{refused:?}")
    };

    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(http::header::RETRY_AFTER));

    // A key speaks for its owner, and who is signed in stays so.
    install.sign_on(&split.stack).await;
    stays.read_on().await;

    sessions.signal("CONT");
    split.until_relay_metric(LAG, |lag| lag < SILENCE).await;
    assert_eq!(waiting.authenticate(&bearer, None).await["type"], "auth:ok");

    let mut editor = Editor::try_connect(&split.stack, &[("authorization", &header)])
        .await
        .unwrap();
    assert_eq!(editor.next().await["type"], "auth:ok");
    assert_eq!(
        split
            .database
            .count("SELECT count(*) FROM revocations")
            .await,
        0
    );
}

#[tokio::test]
async fn sessions_that_start_while_others_hold_the_database_wait_for_it() {
    let mut split = Split::both(Database::Postgres, &OFTEN).await;
    split.kill_sessions().await;
    let mut other = PgConnection::connect(split.database.as_str())
        .await
        .unwrap();
    let lock = "BEGIN; LOCK TABLE signing_keys IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let mut starting = split.launch_sessions();
    starting.error_line("the database cannot be used yet").await;
    other.close().await.unwrap();
    starting.ready().await;
}
