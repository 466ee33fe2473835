//! From the version before to this one: what it has written is taken up, and its editors go on.
//! `VVS_BEFORE` names the folder with its programs; `tests/run --all` builds them from the commit
//! in `before.txt`. `VVS_BEFORE_IN_CONTRACT` names the folder of a version whose roles understand
//! those of this one.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, at whatever it did not expect"
)]

use std::path::PathBuf;
use std::process::Stdio;

use http::StatusCode;
use serde_json::Value;
use vvs_tests::command::{Running, binary, program};
use vvs_tests::terminal::{approve, link_of, type_code};
use vvs_tests::{Browser, Editor, Secrets};

mod relays;

/// The programs of one version.
struct Version {
    mesh: PathBuf,
    vvs: PathBuf,
}

impl Version {
    /// One whose data this version takes over.
    fn before() -> Self {
        Self::within("VVS_BEFORE")
    }

    /// One that speaks the same contract between roles.
    fn before_in_contract() -> Self {
        Self::within("VVS_BEFORE_IN_CONTRACT")
    }

    fn within(variable: &str) -> Self {
        let folder = std::env::var_os(variable);
        let folder = PathBuf::from(folder.expect("tests/run --all builds the programs of before"));
        Self {
            mesh: folder.join("vvs-mesh"),
            vvs: folder.join("vvs"),
        }
    }

    fn now() -> Self {
        Self {
            mesh: binary("vvs-mesh"),
            vvs: binary("vvs"),
        }
    }

    /// Starts a whole installation on a folder's data; its URL too.
    async fn up(&self, site: &Site, listen: &str) -> (Running, String) {
        let data = site.data.path().to_str().unwrap();
        let free = "127.0.0.1:0";
        let flags = [
            "--relay-rpc-addr",
            free,
            "--sessions-rpc-addr",
            free,
            "--admin-addr",
            free,
        ];

        // So short that an editor cannot go on without a fresh token.
        let life = ["--sessions-token-ttl", "2s"];
        let arguments = [
            &["up", "--data-dir", data, "--listen", listen][..],
            &flags,
            &life,
        ]
        .concat();

        let mut up = Running::start(program(&self.mesh, &arguments), &site.secrets);
        let ready = up.lines_until("ready http://").await.pop().unwrap();
        site.secrets.add_key_files(site.data.path());

        (up, ready.strip_prefix("ready ").unwrap().to_owned())
    }

    fn editor(&self, site: &Site, arguments: &[&str]) -> Running {
        let state = ["--state-dir", site.state.path().to_str().unwrap()];
        let mut command = program(&self.vvs, &[arguments, &state].concat());
        command.stdin(Stdio::piped());
        Running::start(command, &site.secrets)
    }

    /// Signs in a profile, as a person does who types the code.
    async fn sign_in(&self, site: &Site, url: &str, profile: &str) {
        let flags = [
            "--server",
            url,
            "--profile",
            profile,
            "--no-browser",
            "--typed",
            "--store",
            "file",
        ];
        let mut login = self.editor(site, &[&["login"][..], &flags].concat());

        let page = approve(&link_of(&mut login).await, &site.secrets).await;
        type_code(&mut login, &page).await;

        assert!(login.line().await.unwrap().contains("ada"));
        assert_eq!(login.exit_code().await, 0);
    }

    /// Exit code 0 is that the server knows the editor, 7 that it does not.
    async fn status(&self, site: &Site, profile: &str) -> i32 {
        self.editor(site, &["status", "--profile", profile])
            .exit_code()
            .await
    }

    /// Holds a connection until it has had two more tokens.
    async fn hold(&self, site: &Site, profile: &str) {
        let mut held = self.editor(site, &["connect", "--json", "--profile", profile]);
        assert_eq!(event(&mut held).await, "signed-in");
        for _ in 0..2 {
            assert_eq!(event(&mut held).await, "refreshed");
        }
        held.signal("INT");
        assert_eq!(held.exit_code().await, 0);
    }
}

async fn event(running: &mut Running) -> String {
    let line: Value = serde_json::from_str(&running.line().await.unwrap()).unwrap();
    line["event"].as_str().unwrap().to_owned()
}

/// What stays when the version changes.
struct Site {
    data: tempfile::TempDir,
    state: tempfile::TempDir,
    secrets: Secrets,
}

impl Site {
    fn new() -> Self {
        let folder = || tempfile::tempdir().unwrap();
        Self {
            data: folder(),
            state: folder(),
            secrets: Secrets::default(),
        }
    }
}

async fn stop(mut up: Running) {
    up.signal("TERM");
    assert_eq!(up.exit_code().await, 0);
}

/// Signs in an editor that has no key, as scripts do; its token.
async fn sign_in_bare(site: &Site, url: &str) -> String {
    let mut editor = Editor::at(url, &site.secrets).await;
    let link = editor.connection["loginUrl"].as_str().unwrap().to_owned();
    let (page, success) = tokio::join!(approve(&link, &site.secrets), async {
        let success = editor.next().await;
        editor.ack(&success).await;
        success
    });
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
    success["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn database_keys_certificates_and_editors_of_before_go_on_and_its_browsers_are_signed_out() {
    let (before, now, site) = (Version::before(), Version::now(), Site::new());

    let (up, url) = before.up(&site, "127.0.0.1:0").await;
    before.sign_in(&site, &url, "old").await;
    before.sign_in(&site, &url, "moved").await;
    let bearer = sign_in_bare(&site, &url).await;
    let mut browser = Browser::at(&url, &site.secrets);
    browser.account("ada").await;
    assert_eq!(
        browser.get("/account/sessions").await.status,
        StatusCode::OK
    );

    stop(up).await;

    let (up, same) = now.up(&site, url.strip_prefix("http://").unwrap()).await;
    assert_eq!(same, url);

    // Its cookies name no sign-in that could be ended.
    let page = browser.get("/account/sessions").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);

    // Its editors, with its programs and with ours on what it has stored.
    assert_eq!(before.status(&site, "old").await, 0);

    before.hold(&site, "old").await;
    assert_eq!(now.status(&site, "moved").await, 0);

    now.hold(&site, "moved").await;
    let mut bare = Editor::at_session(&url, &site.secrets).await;
    assert_eq!(bare.authenticate(&bearer, None).await["type"], "auth:ok");

    // What it could do before, it still can.
    before.sign_in(&site, &url, "new").await;
    assert_eq!(
        before
            .editor(&site, &["logout", "--profile", "new"])
            .exit_code()
            .await,
        0
    );
    assert_eq!(before.status(&site, "new").await, 7);

    let list = browser.account("ada").await;
    assert_eq!(list.body.matches("/revoke\"").count(), 3, "{}", list.body);

    stop(up).await;
}
