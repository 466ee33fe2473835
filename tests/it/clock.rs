//! Editors on machines whose clock is wrong by days. Nothing that they do hangs on it: the server
//! judges by its own clock, and tells every deadline in seconds.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use vvs_tests::command::{Running, command_at, shift_of};
use vvs_tests::database::Database;
use vvs_tests::{Secrets, Stack, on_both};

use vvs_tests::terminal::{approve, link_of, type_code};

on_both!(an_editor_whose_clock_is_two_days_off_signs_in_and_stays_so_until_it_signs_out);

const DAY: i64 = 86_400;

/// The `vvs` command of a machine.
struct Machine<'a> {
    offset: &'static str,
    state_dir: &'a Path,
    secrets: &'a Secrets,
}

impl Machine<'_> {
    fn run(&self, arguments: &[&str]) -> Running {
        let state_dir = ["--state-dir", self.state_dir.to_str().unwrap()];
        let mut command = command_at(self.offset, "vvs", &[arguments, &state_dir].concat());
        command.stdin(Stdio::piped());
        Running::start(command, self.secrets)
    }

    /// Runs it to its end; the last line that it said.
    async fn tell(&self, arguments: &[&str]) -> String {
        let mut running = self.run(arguments);
        let mut last = String::new();
        while let Some(line) = running.line().await {
            last = line;
        }
        assert_eq!(running.exit_code().await, 0, "{last}: {}", running.log());
        last
    }
}

async fn event(running: &mut Running) -> Value {
    serde_json::from_str(
        &running
            .line()
            .await
            .unwrap_or_else(|| panic!("{}", running.log())),
    )
    .unwrap()
}

async fn an_editor_whose_clock_is_two_days_off_signs_in_and_stays_so_until_it_signs_out(
    database: Database,
) {
    // So short that a connection sees several of them, and a little later none is good any more.
    let stack = Stack::start_on(database, &["--sessions-token-ttl", "10s"]).await;
    tokio::join!(
        lives_with(&stack, "-2d", -2 * DAY),
        lives_with(&stack, "+2d", 2 * DAY)
    );
    assert_eq!(
        stack
            .database()
            .count("SELECT count(*) FROM revocations WHERE reason <> 'logout'")
            .await,
        0
    );
    assert_eq!(
        stack
            .database()
            .count("SELECT count(*) FROM revocations WHERE reason = 'logout'")
            .await,
        2
    );
}

async fn lives_with(stack: &Stack, offset: &'static str, seconds: i64) {
    assert!(
        (shift_of(offset).await - seconds).abs() < DAY,
        "the clock is not wrong"
    );

    let (state_dir, server) = (
        tempfile::tempdir().unwrap(),
        stack.addresses().public_url.to_string(),
    );
    let machine = Machine {
        offset,
        state_dir: state_dir.path(),
        secrets: stack.secrets(),
    };
    let mut login = machine.run(&[
        "login",
        "--server",
        &server,
        "--no-browser",
        "--typed",
        "--store",
        "file",
    ]);
    let page = approve(&link_of(&mut login).await, stack.secrets()).await;
    type_code(&mut login, &page).await;
    assert!(login.line().await.unwrap().contains("ada"));
    assert_eq!(login.exit_code().await, 0);

    let mut held = machine.run(&["connect", "--json"]);
    assert_eq!(event(&mut held).await["event"], "signed-in");

    for _ in 0..2 {
        // In the second half of the token's life, by a clock that runs as it should and nobody
        // reads.
        assert_eq!(event(&mut held).await["event"], json!("refreshed"));
    }

    held.signal("INT");
    assert_eq!(held.exit_code().await, 0);
    assert!(
        machine
            .tell(&["status"])
            .await
            .starts_with("the server agrees, until ")
    );
    assert_eq!(
        machine.tell(&["logout"]).await,
        "Signed out, here and on the server."
    );
}
