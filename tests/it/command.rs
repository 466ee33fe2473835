//! The programs as a person starts them: what they print, how they end, and four roles in four processes.

use std::path::Path;

use http::StatusCode;
use vvs_tests::command::{Running, command, run};
use vvs_tests::{Browser, Editor, Stack};

const MESH: (&str, &str) = ("vvs-mesh", "vvs-mesh");
const FREE_PORTS: [&str; 8] = [
    "--listen",
    "127.0.0.1:0",
    "--relay-rpc-addr",
    "127.0.0.1:0",
    "--sessions-rpc-addr",
    "127.0.0.1:0",
    "--admin-addr",
    "127.0.0.1:0",
];

async fn mesh(arguments: &[&str]) -> (i32, String, String) {
    run(MESH.0, MESH.1, arguments).await
}

#[tokio::test]
async fn up_says_where_it_serves_and_then_that_it_is_ready_and_drains_on_a_signal() {
    let data = tempfile::tempdir().unwrap();
    let arguments = [&["up", "--data-dir", data.path().to_str().unwrap()], &FREE_PORTS[..]].concat();
    let mut up = Running::start(command(MESH.0, MESH.1, &arguments));
    let lines = up.lines_until("ready http://127.0.0.1:").await;
    for name in ["listen", "relay-rpc", "sessions-rpc", "admin"] {
        let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{name} 127.0.0.1:"))).unwrap();
        assert_ne!(line.parse::<u16>().unwrap(), 0, "{name}");
    }
    let admin = lines.iter().find_map(|line| line.strip_prefix("admin ")).unwrap().parse().unwrap();
    let url = lines.last().unwrap().strip_prefix("ready ").unwrap();
    let mut browser = Browser::at(url);
    assert_eq!(browser.get_at(admin, "/livez").await.status, StatusCode::OK);
    assert_eq!(browser.get_at(admin, "/readyz").await.status, StatusCode::OK);
    up.signal("TERM");
    assert_eq!(up.exit_code().await, 0);
}

#[tokio::test]
async fn a_single_role_wants_every_choice_made() {
    for (role, settings) in [
        ("gateway", vec!["VVS_GATEWAY_WEB_ADDR", "VVS_GATEWAY_RELAY_ADDR"]),
        ("web", vec!["VVS_WEB_IDENTITY", "VVS_WEB_KEY_FILE", "VVS_WEB_RELAY_ADDR", "VVS_WEB_SESSIONS_ADDR"]),
        ("relay", vec!["VVS_RELAY_BACKPLANE", "VVS_RELAY_SESSIONS_ADDR"]),
        ("sessions", vec!["VVS_SESSIONS_DATABASE_URL", "VVS_SESSIONS_KEY_FILE"]),
    ] {
        for arguments in [vec![role], vec!["check", role]] {
            let (code, out, errors) = mesh(&arguments).await;
            assert_eq!((code, &*out), (78, ""), "{arguments:?}: {errors}");
            let common = ["VVS_PUBLIC_URL", "VVS_TLS_CERT_FILE", "VVS_TLS_KEY_FILE", "VVS_TLS_CA_FILE"];
            for setting in settings.iter().chain(&common) {
                assert!(errors.contains(setting), "{arguments:?} does not name {setting}: {errors}");
            }
        }
    }
}

#[tokio::test]
async fn check_names_what_is_insecure_or_unreadable() {
    for (arguments, setting) in [
        (vec!["--listen", "0.0.0.0:0"], "VVS_GATEWAY_LISTEN"),
        (vec!["--listen", "0.0.0.0:0", "--web-identity", "dev"], "VVS_WEB_IDENTITY"),
        (vec!["--public-url", "http://auth.example.com"], "VVS_PUBLIC_URL"),
        (vec!["--public-url", "https://auth.example.com", "--web-identity", "dev"], "VVS_WEB_IDENTITY"),
        (vec!["--public-url", "https://auth.example.com"], "VVS_WEB_IDENTITY"),
        (vec!["--web-key-file", "/nowhere/web.key"], "VVS_WEB_KEY_FILE"),
    ] {
        let (code, _, errors) = mesh(&[vec!["check", "up"], arguments.clone()].concat()).await;
        assert_eq!(code, 78, "{arguments:?}");
        assert!(errors.contains(setting), "{arguments:?}: {errors}");
    }
    assert_eq!(mesh(&["check"]).await.0, 0);
}

#[tokio::test]
async fn bad_values_and_wrong_usage_are_told_apart() {
    let (code, _, errors) = mesh(&["up", "--relay-login-ttl", "soon"]).await;
    assert_eq!(code, 78);
    assert!(errors.contains("--relay-login-ttl"), "{errors}");
    assert_eq!(mesh(&["up", "--no-such-flag"]).await.0, 2);
    assert_eq!(mesh(&["--help"]).await.0, 0);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let arguments = ["up", "--data-dir", data.path().to_str().unwrap(), "--listen", &address];
    let (code, _, errors) = mesh(&[&arguments, &FREE_PORTS[2..]].concat()).await;
    assert_eq!(code, 1);
    assert!(errors.contains(&address), "{errors}");
}

/// Follows a link as a person would, and approves what the page shows.
async fn follow(url: &str, decide: &str) -> Browser {
    let (server, id) = url.split_once("/login?connection_id=").unwrap();
    let mut browser = Browser::at(server);
    let login = browser.get(&format!("/login?connection_id={id}")).await;
    assert_eq!(login.status, StatusCode::OK, "{}", login.body);
    let fields = [("email", "ada@example.com"), ("name", "Ada"), ("connection_id", id), ("csrf", &login.field("csrf"))];
    let signed_in = browser.post("/dev/sign-in", &fields).await;
    let approval = browser.get(&signed_in.location()).await;
    let page = if decide == "approve" { browser.approve(&approval).await } else { browser.deny(&approval).await };
    let expected = if decide == "approve" { StatusCode::SEE_OTHER } else { StatusCode::OK };
    assert_eq!(page.status, expected, "{}", page.body);
    browser
}

async fn link_of(program: &mut Running) -> String {
    program.error_line("/login?connection_id=").await.trim().to_owned()
}

#[tokio::test]
async fn the_demo_ends_with_an_editor_signed_in() {
    let data = tempfile::tempdir().unwrap();
    let arguments = [&["demo", "--data-dir", data.path().to_str().unwrap()], &FREE_PORTS[..]].concat();
    let mut demo = command(MESH.0, MESH.1, &arguments);
    // No browser is to be found, so the link is all there is.
    demo.env("PATH", data.path());
    let mut demo = Running::start(demo);
    let link = link_of(&mut demo).await;
    follow(&link, "approve").await;
    assert_eq!(demo.exit_code().await, 0);
    let credential = std::fs::read_to_string(data.path().join("editor/credential.json")).unwrap();
    assert!(credential.contains("ada@example.com"));
}

fn vvs(server: &str, state_dir: &Path) -> Running {
    let arguments = ["login", "--server", server, "--no-browser", "--state-dir", state_dir.to_str().unwrap()];
    Running::start(command("vvs-client", "vvs", &arguments))
}

#[tokio::test]
async fn vvs_login_stores_a_credential_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (stack, state) = (Stack::start().await, tempfile::tempdir().unwrap());
    let mut editor = vvs(&stack.addresses().public_url.to_string(), state.path());
    let link = link_of(&mut editor).await;
    follow(&link, "approve").await;
    assert!(editor.line().await.unwrap().contains("Ada"));
    assert_eq!(editor.exit_code().await, 0);
    let mode = std::fs::metadata(state.path().join("credential.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn vvs_login_says_how_it_ended() {
    let (stack, state) = (Stack::start().await, tempfile::tempdir().unwrap());
    let server = stack.addresses().public_url.to_string();
    let mut denied = vvs(&server, state.path());
    let link = link_of(&mut denied).await;
    follow(&link, "deny").await;
    assert_eq!(denied.exit_code().await, 3);

    let mut cancelled = vvs(&server, state.path());
    link_of(&mut cancelled).await;
    cancelled.signal("INT");
    assert_eq!(cancelled.exit_code().await, 3);
    stack.until_metric("vvs_logins_total{state=\"CANCELLED\"}", |value| value >= 1.0).await;

    let brief = Stack::start_with(&["--relay-login-ttl", "1s"]).await;
    let mut expired = vvs(&brief.addresses().public_url.to_string(), state.path());
    link_of(&mut expired).await;
    assert_eq!(expired.exit_code().await, 4);

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(vvs(&format!("http://{nobody}"), state.path()).exit_code().await, 5);
    assert!(!state.path().join("credential.json").exists());
}

/// Starts one role and returns the address that it prints by this name.
async fn role(arguments: &[&str], name: &str) -> (Running, String) {
    let mut running = Running::start(command(MESH.0, MESH.1, arguments));
    let lines = running.lines_until("ready").await;
    let address = lines.iter().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap().to_owned();
    (running, address)
}

#[tokio::test]
async fn four_roles_in_four_processes_sign_an_editor_in() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    assert_eq!(mesh(&["pki", "--data-dir", data]).await.0, 0);
    let key = folder.path().join("some.key");
    std::fs::write(&key, vvs_auth::key::Keyring::generate().unwrap()).unwrap();
    let key = key.to_str().unwrap();
    // The public port must be known before the gateway runs, because it is part of every link.
    let public = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = public.local_addr().unwrap().to_string();
    drop(public);
    let url = format!("http://{listen}");
    let common = |role: &str| {
        let file = |name: &str| format!("{data}/pki/{role}/{name}");
        let mut flags = vec![role.to_owned(), "--public-url".to_owned(), url.clone()];
        flags.extend(["--admin-addr".to_owned(), "127.0.0.1:0".to_owned()]);
        flags.extend(["--tls-cert-file".to_owned(), file("tls.crt"), "--tls-key-file".to_owned(), file("tls.key")]);
        flags.extend(["--tls-ca-file".to_owned(), format!("{data}/pki/ca.crt")]);
        flags
    };
    let with = |role: &str, more: &[&str]| {
        let more = more.iter().map(|flag| (*flag).to_owned());
        common(role).into_iter().chain(more).collect::<Vec<_>>()
    };
    let start = async |role_name: &str, more: &[&str], name: &str| {
        let arguments = with(role_name, more);
        role(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), name).await
    };
    let database = format!("sqlite:{data}/sessions.db");
    let any = "127.0.0.1:0";
    let flags = ["--sessions-rpc-addr", any, "--sessions-database-url", &database, "--sessions-key-file", key];
    let (_sessions, sessions) = start("sessions", &flags, "sessions-rpc").await;
    let flags = ["--relay-ws-addr", any, "--relay-rpc-addr", any, "--relay-backplane", "memory"];
    let flags = [&flags[..], &["--relay-sessions-addr", &sessions]].concat();
    let mut relay =
        Running::start(command(MESH.0, MESH.1, &with("relay", &flags).iter().map(String::as_str).collect::<Vec<_>>()));
    let lines = relay.lines_until("ready").await;
    let at = |name: &str| lines.iter().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap().to_owned();
    let (relay_ws, relay_rpc) = (at("relay-ws"), at("relay-rpc"));
    let flags = ["--web-http-addr", any, "--web-identity", "dev", "--web-key-file", key];
    let flags = [&flags[..], &["--web-relay-addr", &relay_rpc, "--web-sessions-addr", &sessions]].concat();
    let (_web, web) = start("web", &flags, "web-http").await;
    let flags = ["--listen", &listen, "--gateway-relay-addr", &relay_ws, "--gateway-web-addr", &web];
    let (_gateway, _) = start("gateway", &flags, "listen").await;

    let mut editor = Editor::at(&url).await;
    let link = editor.connection["loginUrl"].as_str().unwrap().to_owned();
    let (_, ()) = tokio::join!(follow(&link, "approve"), async {
        assert_eq!(editor.next().await["type"], "auth:success");
        editor.read_on().await;
    });
}
