//! Others speak the protocol too: the examples, which are bare editors in two languages and a
//! service that verifies tokens, and `buf curl` as a gRPC client.

use std::process::Stdio;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use vvs_auth::peer::Role;
use vvs_tests::{Stack, root, tool};

/// A folder of the examples, next to its packages, as someone would keep it who tries it.
fn example(folder: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();

    for entry in std::fs::read_dir(root().join("examples").join(folder)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    std::os::unix::fs::symlink(tool::path("node_modules"), copy.path().join("node_modules"))
        .unwrap();

    copy
}

/// Runs an editor that prints where to go, goes there, and returns the credential that it stores.
async fn sign_in_with(stack: &Stack, folder: &TempDir, editor: &mut Command) -> Value {
    let mut script = editor
        .arg(stack.addresses().public_url.to_string())
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
    let mut next = async || lines.next_line().await.unwrap().unwrap();

    let open = next().await;
    let (_, path) = open.split_once("/login").unwrap();
    assert!(open.starts_with("Open http"), "{open}");
    let compare = next().await;
    let code = compare.strip_prefix("and compare this code: ").unwrap();

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
    assert!(approval.body.contains(code));

    let approved = browser.approve(&approval).await;
    assert_eq!(approved.status, StatusCode::SEE_OTHER, "{}", approved.body);
    assert_eq!(next().await, "Signed in as Ada");
    assert!(script.wait().await.unwrap().success());

    let credential = std::fs::read(folder.path().join("credential.json")).unwrap();
    serde_json::from_slice(&credential).unwrap()
}

/// What the example of a service makes of a token.
async fn verify(stack: &Stack, folder: &TempDir, token: &str) -> Result<Value, String> {
    const CALL: &str = "import { verify } from './verify.mjs';
        console.log(JSON.stringify(await verify(process.env.TOKEN)));";
    let output = Command::new(tool::node())
        .args(["--input-type=module", "--eval", CALL])
        .env("VVS_PUBLIC_URL", stack.addresses().public_url.to_string())
        .env("TOKEN", token)
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();

    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test]
async fn a_thirty_line_editor_in_javascript_signs_in_and_a_service_verifies_its_token() {
    let stack = Stack::start().await;
    let folder = example("node");
    let mut editor = Command::new(tool::node());
    let credential = sign_in_with(&stack, &folder, editor.arg("editor.mjs")).await;

    let token = credential["token"].as_str().unwrap();
    let caller = json!({
        "user": credential["user"]["id"],
        "session": credential["session"]["id"],
    });
    assert_eq!(verify(&stack, &folder, token).await, Ok(caller));

    let forged = token.rsplit_once('.').unwrap().0.to_owned() + "." + &"A".repeat(86);
    let refused = verify(&stack, &folder, &forged).await.unwrap_err();
    assert!(
        refused.contains("ERR_JWS_SIGNATURE_VERIFICATION_FAILED"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_thirty_line_editor_in_python_signs_in() {
    let stack = Stack::start().await;
    let folder = example("python");
    let mut editor = Command::new("python3");
    let editor = editor
        .arg("editor.py")
        .env("PYTHONPATH", tool::path("python"));

    let credential = sign_in_with(&stack, &folder, editor).await;
    assert_eq!(credential["user"]["email"], "ada@example.com");
}

/// `buf curl` with a role's certificate; its output, and whether it went well.
async fn buf_curl(stack: &Stack, role: Role, arguments: &[&str]) -> (bool, String) {
    let data = stack.data();
    let files = vvs_mesh::pki::files(data.path(), role);
    let output = Command::new(tool::node())
        .arg(tool::path("node_modules/@bufbuild/buf/bin/buf"))
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

    let (fine, refused) = buf_curl(&stack, Role::Web, &["-d", "{}", &method]).await;
    assert!(
        !fine
            && refused.contains("\"message\": \"MALFORMED\"")
            && refused.contains("google.rpc.ErrorInfo")
            && refused.contains("google.rpc.BadRequest"),
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
