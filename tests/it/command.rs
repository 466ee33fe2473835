//! The programs as a person starts them: what they print, how they end, and four roles in four
//! processes.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;

use http::StatusCode;
use vvs_tests::command::{Running, command, run};
use vvs_tests::terminal::{approve, follow, link_of, type_code};
use vvs_tests::{Browser, Editor, Secrets, Stack};

const MESH: &str = "vvs-mesh";
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
    run(MESH, arguments).await
}

#[tokio::test]
async fn up_says_where_it_serves_and_then_that_it_is_ready_and_drains_on_a_signal() {
    let data = tempfile::tempdir().unwrap();
    let arguments = [
        &["up", "--data-dir", data.path().to_str().unwrap()],
        &FREE_PORTS[..],
    ]
    .concat();
    let secrets = Secrets::default();
    let mut up = Running::start(command(MESH, &arguments), &secrets);
    let lines = up.lines_until("ready http://127.0.0.1:").await;
    for name in ["listen", "relay-rpc", "sessions-rpc", "admin"] {
        let line = lines
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{name} 127.0.0.1:")))
            .unwrap();
        assert_ne!(line.parse::<u16>().unwrap(), 0, "{name}");
    }

    let admin = lines
        .iter()
        .find_map(|line| line.strip_prefix("admin "))
        .unwrap()
        .parse()
        .unwrap();
    let url = lines.last().unwrap().strip_prefix("ready ").unwrap();
    secrets.add_key_files(data.path());
    let mut browser = Browser::at(url, &secrets);
    assert_eq!(browser.get_at(admin, "/livez").await.status, StatusCode::OK);
    assert_eq!(
        browser.get_at(admin, "/readyz").await.status,
        StatusCode::OK
    );

    up.signal("TERM");
    assert_eq!(up.exit_code().await, 0);
}

#[tokio::test]
async fn a_single_role_wants_every_choice_made() {
    for (role, settings) in [
        (
            "gateway",
            vec!["VVS_GATEWAY_WEB_ADDR", "VVS_GATEWAY_RELAY_ADDR"],
        ),
        (
            "web",
            vec![
                "VVS_WEB_IDENTITY",
                "VVS_WEB_KEY_FILE",
                "VVS_WEB_RELAY_ADDR",
                "VVS_WEB_SESSIONS_ADDR",
            ],
        ),
        (
            "relay",
            vec![
                "VVS_RELAY_BACKPLANE",
                "VVS_RELAY_KEY_FILE",
                "VVS_RELAY_SESSIONS_ADDR",
            ],
        ),
        (
            "sessions",
            vec!["VVS_SESSIONS_DATABASE_URL", "VVS_SESSIONS_KEY_FILE"],
        ),
    ] {
        for arguments in [vec![role], vec!["check", role]] {
            let (code, out, errors) = mesh(&arguments).await;
            assert_eq!((code, &*out), (78, ""), "{arguments:?}: {errors}");

            let common = [
                "VVS_PUBLIC_URL",
                "VVS_TLS_CERT_FILE",
                "VVS_TLS_KEY_FILE",
                "VVS_TLS_CA_FILE",
            ];

            for setting in settings.iter().chain(&common) {
                assert!(
                    errors.contains(setting),
                    "{arguments:?} does not name {setting}: {errors}"
                );
            }
        }
    }
}

#[tokio::test]
async fn check_names_what_is_insecure_or_unreadable() {
    for (arguments, setting) in [
        (vec!["--listen", "0.0.0.0:0"], "VVS_GATEWAY_LISTEN"),
        (
            vec!["--listen", "0.0.0.0:0", "--web-identity", "dev"],
            "VVS_WEB_IDENTITY",
        ),
        (
            vec!["--public-url", "http://auth.example.com"],
            "VVS_PUBLIC_URL",
        ),
        (
            vec![
                "--public-url",
                "https://auth.example.com",
                "--web-identity",
                "dev",
            ],
            "VVS_WEB_IDENTITY",
        ),
        (
            vec!["--public-url", "https://auth.example.com"],
            "VVS_WEB_IDENTITY",
        ),
        (
            vec!["--web-key-file", "/nowhere/web.key"],
            "VVS_WEB_KEY_FILE",
        ),
        (
            vec!["--relay-key-file", "/nowhere/relay.key"],
            "VVS_RELAY_KEY_FILE",
        ),
        (vec!["--sessions-audience", "mine"], "VVS_RELAY_AUDIENCE"),
    ] {
        let (code, _, errors) = mesh(&[vec!["check", "up"], arguments.clone()].concat()).await;
        assert_eq!(code, 78, "{arguments:?}");
        assert!(errors.contains(setting), "{arguments:?}: {errors}");
    }

    assert_eq!(mesh(&["check"]).await.0, 0);
}

/// Where a process finds a file.
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A data directory, as `up` has it after its first start.
async fn data_directory() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    assert_eq!(
        mesh(&["pki", "--data-dir", data.path().to_str().unwrap()])
            .await
            .0,
        0
    );

    let write = |name: &str, text: &str| {
        std::fs::write(data.path().join(name), text).unwrap();
        set_mode(&data.path().join(name), 0o600);
    };
    std::fs::create_dir(data.path().join("keys")).unwrap();

    for role in ["web", "relay", "sessions"] {
        write(
            &format!("keys/{role}.key"),
            &vvs_auth::key::Keyring::generate().unwrap(),
        );
    }

    for suffix in ["", "-wal", "-shm"] {
        write(&format!("sessions.db{suffix}"), "");
    }

    for name in [
        "nkey",
        "clerk",
        "webhook",
        "jwt",
        "secret",
        "public.key",
        "public.crt",
    ] {
        write(name, "some secret");
    }

    data
}

#[tokio::test]
async fn a_file_that_every_user_may_change_is_refused_and_one_that_they_may_read_is_a_warning() {
    let data = data_directory().await;
    let at = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
    let folder = at("");
    let check =
        async |more: &[&str]| mesh(&[&["check", "up", "--data-dir", &folder], more].concat()).await;
    let (code, _, errors) = check(&[]).await;
    assert_eq!((code, &*errors), (0, ""));

    // Each file, and how `up` comes to it.
    let files: &[(&str, &[&str])] = &[
        ("pki/ca.key", &[]),
        ("pki/ca.crt", &[]),
        ("pki/relay/tls.key", &[]),
        ("pki/web/tls.crt", &[]),
        ("keys/web.key", &[]),
        ("keys/relay.key", &[]),
        ("keys/sessions.key", &[]),
        ("sessions.db", &[]),
        ("sessions.db-wal", &[]),
        ("sessions.db-shm", &[]),
        ("keys/web.key", &["--web-key-file"]),
        ("keys/relay.key", &["--relay-key-file"]),
        ("keys/sessions.key", &["--sessions-key-file"]),
        ("public.key", &["--gateway-tls-key"]),
        ("public.crt", &["--gateway-tls-cert"]),
        ("nkey", &["--relay-nats-nkey-file"]),
        (
            "public.key",
            &[
                "--relay-nats-cert-file",
                "/dev/null",
                "--relay-nats-key-file",
            ],
        ),
        ("public.crt", &["--relay-nats-ca-file"]),
        ("clerk", &["--web-clerk-secret-key-file"]),
        ("webhook", &["--web-clerk-webhook-secret-file"]),
        ("jwt", &["--web-clerk-jwt-key-file"]),
        ("secret", &["--web-oidc-client-secret-file"]),
    ];
    for (name, flag) in files {
        let path = at(name);
        let mut flags = flag.to_vec();
        if !flags.is_empty() {
            flags.push(&path);
        }

        let right = std::fs::metadata(&path).unwrap().permissions();

        set_mode(Path::new(&path), 0o646);
        let (code, _, errors) = check(&flags).await;
        assert_eq!(code, 78, "{name}: {errors}");

        let remedy = format!("o-w {path}`");
        assert!(
            errors.contains(&remedy) && errors.contains("chmod"),
            "{name} {flag:?}: {errors}"
        );

        let (_, _, errors) = check(&[&flags[..], &["--file-modes", "warn"]].concat()).await;
        assert!(
            !errors.contains("VVS_FILE_MODES=warn"),
            "{name} {flag:?}: {errors}"
        );

        set_mode(Path::new(&path), 0o660);
        let (_, _, errors) = check(&flags).await;
        assert!(!errors.contains("VVS_FILE_MODES"), "{name}: {errors}");

        std::fs::set_permissions(&path, right).unwrap();
    }

    // What is readable is worth a word, and so is what its group may change.
    set_mode(Path::new(&at("keys/web.key")), 0o664);
    let (code, _, errors) = check(&[]).await;
    assert_eq!(code, 0, "{errors}");
    assert!(
        errors.contains("warning: ") && errors.contains("chmod g-w,o-r"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_process_starts_with_no_file_that_every_user_may_change_behind_whatever_link() {
    let data = data_directory().await;
    let folder = data.path().to_str().unwrap();

    // As Kubernetes mounts a secret; what a directory's mode is does not matter.
    let (volume, key) = (
        data.path().join("volume"),
        data.path().join("volume/web.key"),
    );
    for (version, mode) in [("..1", 0o640), ("..2", 0o666)] {
        let version = volume.join(version);
        std::fs::create_dir_all(&version).unwrap();
        std::fs::copy(data.path().join("keys/web.key"), version.join("web.key")).unwrap();
        set_mode(&version.join("web.key"), mode);
        set_mode(&version, 0o777);
    }

    std::os::unix::fs::symlink("..data/web.key", &key).unwrap();
    let lead_to = |version: &str| {
        std::os::unix::fs::symlink(version, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    std::fs::remove_file(data.path().join("sessions.db")).unwrap();
    let arguments = [
        &[
            "up",
            "--data-dir",
            folder,
            "--web-key-file",
            key.to_str().unwrap(),
        ],
        &FREE_PORTS[..],
    ]
    .concat();

    lead_to("..2");
    let (code, out, errors) = mesh(&arguments).await;
    assert_eq!((code, &*out), (78, ""), "{errors}");
    assert!(errors.contains("VVS_WEB_KEY_FILE"), "{errors}");

    lead_to("..1");
    let secrets = Secrets::default();
    let mut up = Running::start(command(MESH, &arguments), &secrets);
    up.lines_until("ready http://127.0.0.1:").await;
    secrets.add_key_files(data.path());
    up.signal("TERM");
    assert_eq!(up.exit_code().await, 0);

    // `keys rotate` and `pki` trust files too.
    set_mode(&data.path().join("pki/ca.key"), 0o602);
    assert_eq!(mesh(&["pki", "--data-dir", folder]).await.0, 78);
    assert_eq!(
        mesh(&["pki", "--data-dir", folder, "--file-modes", "warn"])
            .await
            .0,
        0
    );

    let database = format!("sqlite:{folder}/sessions.db");
    set_mode(&data.path().join("sessions.db"), 0o606);
    let key = data.path().join("keys/sessions.key");
    let rotate = [
        "keys",
        "rotate",
        "--sessions-database-url",
        &database,
        "--sessions-key-file",
        key.to_str().unwrap(),
    ];
    let (code, _, errors) = mesh(&rotate).await;
    assert_eq!(code, 78, "{errors}");
    assert!(errors.contains("VVS_SESSIONS_DATABASE_URL"), "{errors}");
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
    let arguments = [
        "up",
        "--data-dir",
        data.path().to_str().unwrap(),
        "--listen",
        &address,
    ];
    let (code, _, errors) = mesh(&[&arguments, &FREE_PORTS[2..]].concat()).await;
    assert_eq!(code, 1);
    assert!(errors.contains(&address), "{errors}");
}

#[tokio::test]
async fn the_demo_ends_with_an_editor_signed_in() {
    let data = tempfile::tempdir().unwrap();
    let arguments = [
        &["demo", "--data-dir", data.path().to_str().unwrap()],
        &FREE_PORTS[..],
    ]
    .concat();
    let mut demo = command(MESH, &arguments);

    // No browser is to be found, so the link is all there is.
    demo.env("PATH", data.path()).stdin(Stdio::piped());
    let secrets = Secrets::default();
    let mut demo = Running::start(demo, &secrets);
    let link = link_of(&mut demo).await;
    secrets.add_key_files(data.path());
    let page = approve(&link, &secrets).await;
    type_code(&mut demo, &page).await;
    assert_eq!(demo.exit_code().await, 0);

    let credential = std::fs::read_to_string(data.path().join("editor/credential.json")).unwrap();
    assert!(credential.contains("ada@example.com"));
}

fn vvs(server: &str, state_dir: &Path, secrets: &Secrets) -> Running {
    let arguments = [
        "login",
        "--server",
        server,
        "--no-browser",
        "--typed",
        "--store",
        "file",
        "--state-dir",
        state_dir.to_str().unwrap(),
    ];
    let mut command = command("vvs", &arguments);
    command.stdin(Stdio::piped());

    Running::start(command, secrets)
}

#[tokio::test]
async fn vvs_login_stores_a_credential_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (stack, state) = (Stack::start().await, tempfile::tempdir().unwrap());
    let mut editor = vvs(
        &stack.addresses().public_url.to_string(),
        state.path(),
        stack.secrets(),
    );
    let link = link_of(&mut editor).await;
    let page = approve(&link, stack.secrets()).await;
    type_code(&mut editor, &page).await;
    assert!(editor.line().await.unwrap().contains("ada"));
    assert_eq!(editor.exit_code().await, 0);

    let file = state.path().join("credential.json");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let stored: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    stack
        .secrets()
        .add(stored["credential"]["token"].as_str().unwrap());
    stack
        .secrets()
        .add(stored["credential"]["deviceKey"].as_str().unwrap());
}

#[tokio::test]
async fn vvs_login_says_how_it_ended() {
    let (stack, state) = (Stack::start().await, tempfile::tempdir().unwrap());
    let server = stack.addresses().public_url.to_string();
    let secrets = stack.secrets();
    let mut denied = vvs(&server, state.path(), secrets);
    let (mut browser, approval) = follow(&link_of(&mut denied).await, secrets).await;
    assert_eq!(browser.deny(&approval).await.status, StatusCode::OK);
    assert_eq!(denied.exit_code().await, 3);

    let mut cancelled = vvs(&server, state.path(), secrets);
    link_of(&mut cancelled).await;
    cancelled.signal("INT");
    assert_eq!(cancelled.exit_code().await, 3);

    stack
        .until_metric("vvs_logins_total{state=\"CANCELLED\"}", |value| {
            value >= 1.0
        })
        .await;

    let mut guessed = vvs(&server, state.path(), secrets);
    let page = approve(&link_of(&mut guessed).await, secrets).await;
    guessed.error_line("Approved.").await;
    let wrong = if page.code().unwrap().starts_with('B') {
        "CCCC-CCCC"
    } else {
        "BBBB-BBBB"
    };

    for _ in 0..5 {
        guessed.type_line(wrong).await;
    }

    assert_eq!(guessed.exit_code().await, 6);

    let brief = Stack::start_with(&["--relay-login-ttl", "1s"]).await;
    let mut expired = vvs(
        &brief.addresses().public_url.to_string(),
        state.path(),
        brief.secrets(),
    );
    link_of(&mut expired).await;
    assert_eq!(expired.exit_code().await, 4);

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        vvs(&format!("http://{nobody}"), state.path(), secrets)
            .exit_code()
            .await,
        5
    );

    let stored = std::fs::read_to_string(state.path().join("credential.json")).unwrap_or_default();
    assert!(!stored.contains("token"), "{stored}");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, in order")]
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
        flags.extend([
            "--tls-cert-file".to_owned(),
            file("tls.crt"),
            "--tls-key-file".to_owned(),
            file("tls.key"),
        ]);
        flags.extend(["--tls-ca-file".to_owned(), format!("{data}/pki/ca.crt")]);
        flags
    };
    let with = |role: &str, more: &[&str]| {
        let more = more.iter().map(|flag| (*flag).to_owned());
        common(role).into_iter().chain(more).collect::<Vec<_>>()
    };
    let secrets = Secrets::default();
    secrets.add_key_files(folder.path());
    let start = async |role: &str, more: &[&str]| {
        let arguments = with(role, more);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut running = Running::start(command(MESH, &arguments), &secrets);
        let at = running.ready().await;
        (
            running,
            at.into_iter()
                .map(|(name, address)| (name, address.to_string()))
                .collect::<HashMap<_, _>>(),
        )
    };
    let database = format!("sqlite:{data}/sessions.db");
    let any = "127.0.0.1:0";
    let flags = [
        "--sessions-rpc-addr",
        any,
        "--sessions-database-url",
        &database,
        "--sessions-key-file",
        key,
    ];
    let (_sessions, sessions) = start("sessions", &flags).await;
    let sessions = &sessions["sessions-rpc"];
    let flags = [
        "--relay-ws-addr",
        any,
        "--relay-rpc-addr",
        any,
        "--relay-backplane",
        "memory",
    ];
    let flags = [
        &flags[..],
        &["--relay-key-file", key, "--relay-sessions-addr", sessions],
    ]
    .concat();
    let (_relay, relay) = start("relay", &flags).await;
    let flags = [
        "--web-http-addr",
        any,
        "--web-identity",
        "dev",
        "--web-key-file",
        key,
    ];
    let flags = [
        &flags[..],
        &[
            "--web-relay-addr",
            &relay["relay-rpc"],
            "--web-sessions-addr",
            sessions,
        ],
    ]
    .concat();
    let (_web, web) = start("web", &flags).await;
    let flags = [
        "--listen",
        &listen,
        "--gateway-relay-addr",
        &relay["relay-ws"],
        "--gateway-web-addr",
        &web["web-http"],
    ];
    let (_gateway, _) = start("gateway", &flags).await;

    let mut editor = Editor::at(&url, &secrets).await;
    let link = editor.connection["loginUrl"].as_str().unwrap().to_owned();
    let (page, ()) = tokio::join!(approve(&link, &secrets), async {
        let success = editor.next().await;
        assert_eq!(success["type"], "auth:success");
        editor.read_on().await;
    });
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
}
