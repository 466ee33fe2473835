//! While relays are replaced: one of before and one of now find each other's logins over NATS.

use std::net::SocketAddr;

use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use vvs_auth::key::Keyring;
use vvs_auth::peer::Role;
use vvs_client::DeviceKey;
use vvs_mesh::pki;
use vvs_tests::command::Running;
use vvs_tests::nats::NatsServer;
use vvs_tests::stack::start_role_of;
use vvs_tests::terminal::{approve, follow};
use vvs_tests::{Browser, Editor, Page, Secrets, Wire};

use crate::Version;

const ANY: &str = "127.0.0.1:0";
const BEFORE: usize = 0;
const NOW: usize = 1;

/// A relay of each version, and one process of each other role, all on this machine. Sessions are
/// of now: they are upgraded first.
struct Mixed {
    relays: [Relay; 2],
    // They end before the files go that they use.
    _others: [Running; 3],
    _ways: [Wire; 2],
    _nats: NatsServer,
    /// From the gateway to the relay that editors come to.
    ws: Wire,
    site: Site,
}

struct Relay {
    ws: SocketAddr,
    rpc: SocketAddr,
    _process: Running,
}

/// What all processes have in common.
struct Site {
    url: String,
    secrets: Secrets,
    data: TempDir,
}

impl Site {
    fn start(&self, version: &Version, role: Role, flags: &[&str]) -> Running {
        start_role_of(
            &version.mesh,
            self.data.path(),
            &self.url,
            role,
            flags,
            &self.secrets,
        )
    }

    fn sessions(&self) -> Running {
        let database = self.data.path().join("sessions.db");
        let database = format!("sqlite:{}", database.display());
        let key = key_file(&self.data, Role::Sessions);
        let flags = [
            ["--sessions-rpc-addr", ANY],
            ["--sessions-key-file", &*key],
            ["--sessions-database-url", &*database],
        ];
        self.start(&Version::now(), Role::Sessions, flags.as_flattened())
    }

    async fn relay(&self, version: &Version, sessions: &str, nats: &NatsServer) -> Relay {
        let servers = format!("nats://{}", nats.address());
        let key = key_file(&self.data, Role::Relay);
        let flags = [
            ["--relay-ws-addr", ANY],
            ["--relay-rpc-addr", ANY],
            ["--relay-key-file", &*key],
            ["--relay-sessions-addr", sessions],
            ["--relay-backplane", &*servers],
        ];
        let mut process = self.start(version, Role::Relay, flags.as_flattened());
        let at = process.ready().await;

        Relay {
            ws: at["relay-ws"],
            rpc: at["relay-rpc"],
            _process: process,
        }
    }

    fn web(&self, version: &Version, relay: &str, sessions: &str) -> Running {
        let key = key_file(&self.data, Role::Web);
        let flags = [
            ["--web-http-addr", ANY],
            ["--web-identity", "dev"],
            ["--web-key-file", &*key],
            ["--web-relay-addr", relay],
            ["--web-sessions-addr", sessions],
        ];
        self.start(version, Role::Web, flags.as_flattened())
    }

    fn gateway(&self, version: &Version, relay: &str, web: &str) -> Running {
        let flags = [
            ["--listen", ANY],
            ["--gateway-relay-addr", relay],
            ["--gateway-web-addr", web],
        ];
        self.start(version, Role::Gateway, flags.as_flattened())
    }
}

impl Mixed {
    /// Web and the gateway are of this version. Editors come to one relay, and web to another.
    async fn start(edge: &Version, editors: usize, pages: usize) -> Self {
        let (public, ws, rpc) = (Wire::new(), Wire::new(), Wire::new());
        let site = Site {
            url: format!("http://{}", public.address()),
            secrets: Secrets::default(),
            data: data_directory(),
        };
        site.secrets.add_key_files(site.data.path());

        let mut sessions = site.sessions();
        let to_sessions = sessions.ready().await["sessions-rpc"].to_string();
        let nats = NatsServer::start().await;
        let relays = [
            site.relay(&Version::before_in_contract(), &to_sessions, &nats)
                .await,
            site.relay(&Version::now(), &to_sessions, &nats).await,
        ];
        ws.lead_to(relays[editors].ws);
        rpc.lead_to(relays[pages].rpc);

        let mut web = site.web(edge, &rpc.address().to_string(), &to_sessions);
        let to_web = web.ready().await["web-http"].to_string();
        let mut gateway = site.gateway(edge, &ws.address().to_string(), &to_web);
        public.lead_to(gateway.ready().await["listen"]);

        Self {
            relays,
            _others: [sessions, web, gateway],
            _ways: [public, rpc],
            _nats: nats,
            ws,
            site,
        }
    }

    /// An editor that comes to sign in.
    async fn editor(&self) -> Editor {
        Editor::at(&self.site.url, &self.site.secrets).await
    }

    /// An editor that has said hello and whose login a person has approved.
    async fn approved(&self) -> Approved {
        let (mut editor, key) = (self.editor().await, DeviceKey::generate().unwrap());
        let hello = editor.hello(&key, None).await;
        let ticket = hello["ticket"].as_str().unwrap().to_owned();
        let (mut browser, approval) = follow(&link_of(&editor), &self.site.secrets).await;
        let page = browser.approve(&approval).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert_eq!(editor.next().await["type"], "auth:pending");

        Approved {
            editor,
            key,
            ticket,
            browser,
            page,
        }
    }
}

/// An editor that waits for its code, and the browser that has it.
struct Approved {
    editor: Editor,
    key: DeviceKey,
    ticket: String,
    browser: Browser,
    page: Page,
}

impl Approved {
    /// Shows the code on this socket; the page says then that the editor is signed in.
    async fn complete(&mut self, editor: &mut Editor) {
        let code = self.page.code().unwrap();
        let success = editor.complete(&code, "typed").await;
        assert_eq!(success["user"]["email"], "ada@example.com", "{success}");
        editor.ack(&success).await;

        let done = self.browser.approve(&self.page).await;
        assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
    }
}

/// Certificates and keys of all roles.
fn data_directory() -> TempDir {
    let data = tempfile::tempdir().unwrap();
    let at = time::OffsetDateTime::now_utc();
    pki::ensure(data.path(), "vvs.internal", at).unwrap();
    for role in [Role::Web, Role::Relay, Role::Sessions] {
        let key = Keyring::generate().unwrap();
        pki::write_secret(key_file(&data, role).as_ref(), key.as_bytes()).unwrap();
    }
    data
}

fn key_file(data: &TempDir, role: Role) -> String {
    let path = data.path().join(format!("{role}.key"));
    path.to_str().unwrap().to_owned()
}

fn link_of(editor: &Editor) -> String {
    editor.connection["loginUrl"].as_str().unwrap().to_owned()
}

/// Each way round, and with the web and the gateway of each version.
fn mixtures() -> impl Iterator<Item = (Version, usize, usize)> {
    [(BEFORE, NOW), (NOW, BEFORE)]
        .into_iter()
        .flat_map(|(editors, pages)| {
            [Version::before_in_contract(), Version::now()].map(|edge| (edge, editors, pages))
        })
}

#[tokio::test]
async fn a_login_at_a_relay_of_either_version_is_found_through_the_other() {
    for (edge, editors, pages) in mixtures() {
        let mixed = Mixed::start(&edge, editors, pages).await;

        let mut approved = mixed.approved().await;
        let mut editor = std::mem::replace(&mut approved.editor, mixed.editor().await);
        approved.complete(&mut editor).await;

        // One that never said hello.
        let mut bare = mixed.editor().await;
        let link = link_of(&bare);
        let (page, success) = tokio::join!(approve(&link, &mixed.site.secrets), async {
            let success: Value = bare.next().await;
            bare.ack(&success).await;
            success
        });
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.body);
        assert_eq!(success["type"], "auth:success", "{success}");

        // What neither of them holds is over, and not away.
        let path = "/login?connection_id=6f1f2f4e-3c62-4d1a-8f5b-0d9c5a1b2c3d";
        let unknown = Browser::at(&mixed.site.url, &mixed.site.secrets)
            .get(path)
            .await;
        assert_eq!(unknown.status, StatusCode::GONE, "{}", unknown.body);
    }
}

#[tokio::test]
async fn an_editor_that_moves_between_relays_of_two_versions_takes_its_login_along() {
    for (edge, editors, pages) in mixtures() {
        let mixed = Mixed::start(&edge, editors, pages).await;
        let mut approved = mixed.approved().await;

        mixed.ws.lead_to(mixed.relays[pages].ws);
        let mut moved = Editor::at_session(&mixed.site.url, &mixed.site.secrets).await;
        moved.resume(&approved.ticket, &approved.key).await;
        assert_eq!(moved.next().await["type"], "auth:pending");

        approved.complete(&mut moved).await;
    }
}
