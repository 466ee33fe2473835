//! A real OpenID Provider: the certified `oidc-provider` from npm, in a process of its own, behind
//! a [`Front`]. Whoever types a login name there is that person.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::stack::PATIENCE;
use crate::{Chromium, Front, tool};

mod person;

pub use person::Person;

/// How long the provider may take to start: it reads hundreds of files, beside whatever else fills
/// the disk.
const STARTS: Duration = Duration::from_mins(3);
const CLIENT_ID: &str = "vvs-web";
const CLIENT_SECRET: &str = "the-secret-of-the-relying-party";

/// A running provider. It ends when this is dropped.
#[derive(Debug)]
pub struct Oidc {
    front: Front,
    process: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    folder: tempfile::TempDir,
    _child: Child,
}

impl Oidc {
    /// One that knows no client yet.
    pub async fn start() -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = tool::path("node_modules");

        // Next to its packages.
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("oidc-provider.mjs");
        std::fs::copy(tests.join("npm/oidc-provider.mjs"), &script).unwrap();
        std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
        std::fs::write(folder.path().join("client.key"), CLIENT_SECRET).unwrap();

        let front = Front::new();
        let mut child = Command::new(tool::node())
            .arg("--no-warnings")
            .arg(&script)
            .arg(front.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut lines = BufReader::new(output).lines();
        let port = timeout(STARTS, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        front.lead_to(format!("127.0.0.1:{port}").parse().unwrap());

        Self {
            front,
            process: Mutex::new((input, lines)),
            folder,
            _child: child,
        }
    }

    /// What listens: faults, and counts of requests.
    pub fn front(&self) -> &Front {
        &self.front
    }

    pub fn issuer(&self) -> &str {
        self.front.url()
    }

    pub fn client_secret_file(&self) -> PathBuf {
        self.folder.path().join("client.key")
    }

    /// Settings with which a stack signs people in here.
    pub fn flags(&self) -> Vec<String> {
        [
            ["--web-identity", "oidc"],
            ["--web-oidc-issuer", self.issuer()],
            ["--web-oidc-client-id", CLIENT_ID],
            [
                "--web-oidc-client-secret-file",
                self.client_secret_file().to_str().unwrap(),
            ],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// Registers the client, which is at this origin; with more metadata, or with other.
    pub async fn register(&self, origin: &str, more: Value) {
        let mut client = json!({
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "redirect_uris": [format!("{origin}/api/auth/oidc")],
            "post_logout_redirect_uris": [format!("{origin}/account/sign-in")],
            "backchannel_logout_uri": format!("{origin}/api/auth/oidc/logout"),
            "backchannel_logout_session_required": true,
        });
        if let Value::Object(more) = more {
            client.as_object_mut().unwrap().extend(more);
        }

        self.tell(&json!({"client": client})).await;
    }

    /// Claims of a person that are not what everyone has: `sub` and `name`, which are the login, a
    /// verified `email` at example.com, a `picture`, and `groups`, which are `everyone`.
    pub async fn account(&self, login: &str, claims: Value) {
        self.tell(&json!({"account": {"login": login, "claims": claims}}))
            .await;
    }

    /// From now on the claims of a person stand in the ID token already, and not only in the user
    /// info.
    pub async fn put_claims_in_id_tokens(&self) {
        self.tell(&json!({"claimsInIdToken": true})).await;
    }

    /// New keys, and only those.
    pub async fn rotate(&self) {
        self.tell(&json!({"rotate": true})).await;
    }

    /// Signs anything at all with the provider's key, such as a logout token that it would not
    /// make. The header has `alg` and `kid`, unless they are given.
    pub async fn sign(&self, header: Value, claims: Value) -> String {
        self.tell(&json!({"sign": {"header": header, "claims": claims}}))
            .await
    }

    /// A browser that has never been here.
    pub fn person(&self) -> Person {
        Person::new(&self.front)
    }

    /// Says who it is, on the page that Chromium shows, and consents.
    pub async fn sign_in_with(&self, chromium: &Chromium, login: &str) {
        self.log_in_with(chromium, login).await;
        chromium.wait_for("//button[@name='consent']").await;
        chromium.click("button[name=consent][value=yes]").await;
    }

    /// The same for someone who has consented before.
    pub async fn log_in_with(&self, chromium: &Chromium, login: &str) {
        chromium.wait_for("//input[@name='login']").await;
        chromium.fill("[name=login]", login).await;
        chromium.click("form button").await;
    }

    async fn tell(&self, command: &Value) -> String {
        let (input, lines) = &mut *self.process.lock().await;
        input
            .write_all(format!("{command}\n").as_bytes())
            .await
            .unwrap();
        input.flush().await.unwrap();
        timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }
}
