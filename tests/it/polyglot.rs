//! Others speak the protocol too: a bare editor in JavaScript, and `buf curl` as a gRPC client.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::StatusCode;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use vvs_auth::peer::Role;
use vvs_tests::Stack;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Where tests/run installs what comes from npm.
fn modules() -> PathBuf {
    let modules = root().join("target/tools/node_modules");
    assert!(
        modules.is_dir(),
        "run tests/run once: it installs the node tools below target/tools"
    );
    modules
}

#[tokio::test]
async fn a_thirty_line_editor_in_javascript_signs_in_and_verifies_its_token() {
    let stack = Stack::start().await;
    // Next to its packages, as someone would keep it who tries it.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        root().join("tests/polyglot/editor.mjs"),
        folder.path().join("editor.mjs"),
    )
    .unwrap();
    std::os::unix::fs::symlink(modules(), folder.path().join("node_modules")).unwrap();
    let mut script = Command::new("node")
        .arg(folder.path().join("editor.mjs"))
        .arg(stack.addresses().public_url.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
    let mut next = async || lines.next_line().await.unwrap().unwrap();

    let open = next().await;
    let (_, path) = open
        .strip_prefix("open ")
        .unwrap()
        .split_once("/login")
        .unwrap();
    let code = next().await;
    let mut browser = stack.browser();
    let login = browser.get(&format!("/login{path}")).await;
    let id = path.strip_prefix("?connection_id=").unwrap();
    let fields = [
        ("email", "ada@example.com"),
        ("name", "Ada"),
        ("connection_id", id),
        ("csrf", &login.field("csrf")),
    ];
    let signed_in = browser.post("/dev/sign-in", &fields).await;
    let approval = browser.get(&signed_in.location()).await;
    assert!(approval.body.contains(code.strip_prefix("code ").unwrap()));

    let approved = browser.approve(&approval).await;
    assert_eq!(approved.status, StatusCode::SEE_OTHER, "{}", approved.body);
    assert_eq!(next().await, "user Ada true");
    assert_eq!(next().await, "closed 1005");
}

/// `buf curl` with a role's certificate; its output, and whether it went well.
async fn buf_curl(stack: &Stack, role: Role, arguments: &[&str]) -> (bool, String) {
    let data = stack.data();
    let files = vvs_mesh::pki::files(data.path(), role);
    let output = Command::new(modules().join(".bin/buf"))
        .arg("curl")
        .args([
            "--http2-prior-knowledge",
            "--protocol",
            "grpc",
            "--servername",
            "localhost",
        ])
        .arg("--cacert")
        .arg(files.ca.unwrap())
        .arg("--cert")
        .arg(files.cert)
        .arg("--key")
        .arg(files.key)
        .args(arguments)
        .current_dir(data.path())
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();

    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn buf_curl_lists_the_services_and_calls_one() {
    let stack = Stack::start().await;
    let editor = stack.editor().await;
    let relay = format!("https://{}", stack.addresses().relay_rpc);
    let (fine, listed) = buf_curl(&stack, Role::Web, &["--list-services", &relay]).await;
    assert!(
        fine && listed.contains("vvs.relay.v1.Relay") && listed.contains("grpc.health.v1.Health"),
        "{listed}"
    );
    assert!(!listed.contains("vvs.session"), "{listed}");

    let look = format!("{{\"connection_id\": \"{}\"}}", editor.id());
    let method = format!("{relay}/vvs.relay.v1.Relay/GetLogin");
    let (fine, login) = buf_curl(&stack, Role::Web, &["-d", &look, &method]).await;
    assert!(
        fine && login.contains("LOGIN_STATE_WAITING") && login.contains(editor.user_code()),
        "{login}"
    );

    let method = format!("{relay}/vvs.relay.v1.Relay/DeliverAuth");
    let (fine, refused) = buf_curl(&stack, Role::Gateway, &["-d", &look, &method]).await;
    assert!(
        !fine && refused.contains("permission_denied") && refused.contains("PEER_NOT_ALLOWED"),
        "{refused}"
    );

    let health = format!("{relay}/grpc.health.v1.Health/Check");
    let (fine, healthy) = buf_curl(
        &stack,
        Role::Gateway,
        &["-d", "{\"service\": \"vvs.relay.v1.Relay\"}", &health],
    )
    .await;
    assert!(fine && healthy.contains("SERVING"), "{healthy}");
}
