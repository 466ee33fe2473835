//! The reference editor with a real keyring of the system: a Secret Service on a bus of its own.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use vvs_tests::Stack;
use vvs_tests::command::{Running, command};

use vvs_tests::terminal::{approve, link_of, type_code};

/// Says where the bus is, and ends with the next line that it is given.
const SESSION: &str =
    "printf password | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
echo \"bus $DBUS_SESSION_BUS_ADDRESS\"
read -r end";

/// A bus and a keyring that nobody else uses.
fn session(home: &Path) -> Command {
    let mut session = Command::new("dbus-run-session");
    session
        .args(["--", "sh", "-c", SESSION])
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    session
        .env("XDG_DATA_HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .env("HOME", home);
    session
}

#[tokio::test]
async fn a_credential_in_the_systems_keyring_is_in_no_file_and_is_gone_after_a_sign_out() {
    let (stack, home) = (Stack::start().await, tempfile::tempdir().unwrap());
    let secrets = stack.secrets();
    let mut session = Running::start(session(home.path()), secrets);
    let bus = session
        .lines_until("bus ")
        .await
        .pop()
        .unwrap()
        .split_off("bus ".len());
    let (server, state) = (
        stack.addresses().public_url.to_string(),
        home.path().join("state"),
    );
    let vvs = |arguments: &[&str]| {
        let mut command = command(
            "vvs",
            &[arguments, &["--state-dir", state.to_str().unwrap()]].concat(),
        );
        command
            .env("DBUS_SESSION_BUS_ADDRESS", &bus)
            .stdin(Stdio::piped());
        Running::start(command, secrets)
    };
    let mut login = vvs(&[
        "login",
        "--server",
        &server,
        "--no-browser",
        "--typed",
        "--store",
        "keyring",
    ]);
    let link = link_of(&mut login).await;
    let page = approve(&link, secrets).await;
    type_code(&mut login, &page).await;
    assert_eq!(login.exit_code().await, 0);

    let file = std::fs::read_to_string(state.join("credential.json")).unwrap();
    assert!(
        !file.contains("deviceKey") && !file.contains("token"),
        "{file}"
    );

    let mut status = vvs(&["status"]);
    assert!(status.line().await.unwrap().contains("ada"));
    assert_eq!(status.exit_code().await, 0);
    assert_eq!(vvs(&["logout"]).exit_code().await, 0);
    assert_eq!(vvs(&["status"]).exit_code().await, 7);

    session.type_line("end").await;
    assert_eq!(session.exit_code().await, 0);
}
