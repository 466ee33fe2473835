//! The sessions role, a process of its own, and the server of its database: whether that is there,
//! and whether it is the right one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vvs_auth::peer::Role;
use vvs_tests::command::Running;
use vvs_tests::postgres::{PASSWORD, Postgres};
use vvs_tests::{Authority, Install, Stack};

const SETTING: &str = "VVS_SESSIONS_DATABASE_URL";
const WAITS: &str = "the database cannot be reached yet";

/// Sessions with this database, not ready yet.
fn sessions(stack: &Stack, url: &str) -> Running {
    let key = stack
        .data()
        .path()
        .join("keys/sessions.key")
        .display()
        .to_string();
    let flags = [
        "--sessions-rpc-addr",
        "127.0.0.1:0",
        "--sessions-key-file",
        &key,
        "--sessions-database-url",
        url,
    ];
    stack.process(Role::Sessions, &flags)
}

/// It does not start, and says which setting is to blame and what is the matter; all that it said.
async fn refused(stack: &Stack, url: &str, why: &str) -> String {
    let mut refused = sessions(stack, url);
    // Longer than it waits for a server that is not there.
    assert_eq!(refused.exit_code_within(Duration::from_secs(90)).await, 1);
    let said = refused.error_line(SETTING).await;
    assert!(said.contains(why), "{said}");
    let all = refused.log();
    assert!(!all.contains(PASSWORD), "{all}");
    all
}

/// The same, at once.
async fn assert_refused_at_once(stack: &Stack, url: &str, why: &str) {
    let said = refused(stack, url, why).await;
    assert!(!said.contains(WAITS), "{said}");
}

#[tokio::test]
async fn sessions_wait_for_a_server_that_is_not_up_yet() {
    let (stack, cluster) = (Stack::start().await, Postgres::start().await);
    let url = cluster.database().await;
    cluster.stop();
    let mut early = sessions(&stack, &url);
    early.error_line(WAITS).await;
    cluster.resume().await;
    let address = early.ready().await["sessions-rpc"];
    Install::make(&stack, address, "ada").await;
}

#[tokio::test]
async fn sessions_that_wait_for_their_server_end_when_they_are_told_to() {
    let (stack, cluster) = (Stack::start().await, Postgres::start().await);
    let url = cluster.database().await;
    cluster.stop();
    let mut early = sessions(&stack, &url);
    // The second time it has been up for long enough to listen to signals.
    early.error_line(WAITS).await;
    early.error_line(WAITS).await;
    early.signal("TERM");
    assert_eq!(early.exit_code().await, 0);
}

#[tokio::test]
async fn sessions_whose_server_never_comes_say_which_setting_leads_there_and_hide_its_password() {
    let (stack, cluster) = (Stack::start().await, Postgres::start().await);
    let url = cluster.database().await;
    cluster.stop();
    let said = refused(&stack, &url, "is it running").await;
    assert!(said.contains(WAITS), "{said}");
}

#[tokio::test]
async fn sessions_do_not_wait_for_what_will_not_change() {
    let (stack, cluster) = (Stack::start().await, Postgres::shared().await);
    let right = cluster.database().await;
    assert_refused_at_once(
        &stack,
        &right.replace(PASSWORD, "somebody-elses"),
        "password",
    )
    .await;
    assert_refused_at_once(&stack, &cluster.url("no_such_database"), "no_such_database").await;
}

/// Writes the certificate of a CA, to be trusted.
fn trust(folder: &Path, authority: &Authority) -> PathBuf {
    let file = folder.join("database-ca.crt");
    std::fs::write(&file, authority.pem()).unwrap();
    file
}

fn verified(cluster: &Postgres, name: &str, ca: &Path) -> String {
    let (port, ca) = (cluster.port(), ca.display());
    format!(
        "postgres://vvs:{PASSWORD}@localhost:{port}/{name}?sslmode=verify-full&sslrootcert={ca}"
    )
}

#[tokio::test]
async fn sessions_reach_a_server_whose_certificate_is_in_order_over_tls_alone() {
    let (stack, authority) = (Stack::start().await, Authority::foreign());
    let (certificate, key) = authority.certify_server("localhost");
    let cluster = Postgres::start_certified(&certificate, &key).await;
    let (folder, plain) = (tempfile::tempdir().unwrap(), cluster.database().await);
    let name = plain.rsplit_once('/').unwrap().1;
    let mut running = sessions(
        &stack,
        &verified(&cluster, name, &trust(folder.path(), &authority)),
    );
    let address = running.ready().await["sessions-rpc"];
    Install::make(&stack, address, "ada").await;
    let [in_clear, over_tls] = cluster.connections(name).await;
    assert_eq!(in_clear, 0);

    // One at least for questions, and the one that listens to other processes.
    assert!(over_tls >= 2, "{over_tls}");
}

#[tokio::test]
async fn sessions_refuse_a_server_with_a_certificate_of_another_ca_or_name() {
    let (stack, authority) = (Stack::start().await, Authority::foreign());
    let folder = tempfile::tempdir().unwrap();
    for (signer, name) in [
        (&Authority::foreign(), "localhost"),
        (&authority, "db.example.org"),
    ] {
        let (certificate, key) = signer.certify_server(name);
        let cluster = Postgres::start_certified(&certificate, &key).await;
        let url = verified(&cluster, "postgres", &trust(folder.path(), &authority));
        assert_refused_at_once(&stack, &url, "certificate").await;
    }
}
