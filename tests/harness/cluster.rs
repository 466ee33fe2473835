//! An installation as it runs in production, all of it on this machine: several processes of each
//! role, a cluster of NATS, PostgreSQL, and between any two of them a way that a test can close and
//! slow down. A process that is started again gets a port of its own; whoever calls it goes on
//! calling the way that leads there.

use std::net::SocketAddr;
use std::sync::Mutex as StdMutex;
use std::time::Duration;

use tokio::sync::Mutex;
use vvs_auth::key::Keyring;
use vvs_auth::peer::Role;
use vvs_mesh::pki;

use crate::command::Running;
use crate::database::{Database, Url};
use crate::nats::NatsServer;
use crate::postgres::{self, Postgres};
use crate::stack::{PATIENCE, start_role};
use crate::{Browser, Secrets, Wire};

const ANY: &str = "127.0.0.1:0";
/// How long a process may take to end; sockets are spread over it.
const GRACE: &str = "3s";

/// One process of a role: as it is started, and the ways to it.
#[derive(Debug)]
pub struct Member {
    pub role: Role,
    pub name: String,
    flags: Vec<String>,
    /// By the name that the process gives the port.
    ways: Vec<(&'static str, Wire)>,
    admin: StdMutex<Option<SocketAddr>>,
    running: Mutex<Option<Running>>,
}

/// All of it.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Member>,
    pub nats: Vec<(NatsServerCell, Wire)>,
    /// From sessions to PostgreSQL.
    pub to_database: Wire,
    pub database: Url,
    pub secrets: Secrets,
    url: String,
    data: tempfile::TempDir,
}

/// A server of NATS that is stopped and started behind a shared reference.
pub type NatsServerCell = Mutex<NatsServer>;

/// What is asked of the process table.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub descriptors: usize,
    pub resident_kib: u64,
}

impl Cluster {
    /// Three relays, two sessions, two webs, three servers of NATS and a gateway, ready. `flags`
    /// are settings of roles, by their prefix, and of logs.
    pub async fn start(flags: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        pki::ensure(data.path(), "vvs.internal", time::OffsetDateTime::now_utc()).unwrap();
        for role in [Role::Web, Role::Relay, Role::Sessions] {
            let key = Keyring::generate().unwrap();
            pki::write_secret(&data.path().join(format!("{role}.key")), key.as_bytes()).unwrap();
        }

        let secrets = Secrets::default();
        secrets.add_key_files(data.path());
        secrets.add(postgres::PASSWORD);
        let lead_to = |server: NatsServer| {
            let way = Wire::new();
            way.lead_to(server.address().parse().unwrap());
            (Mutex::new(server), way)
        };
        let nats = NatsServer::start_cluster(3)
            .await
            .into_iter()
            .map(lead_to)
            .collect();
        let database = Database::Postgres.create(data.path()).await;
        let to_database = Wire::new();
        to_database.lead_to(([127, 0, 0, 1], Postgres::shared().await.port()).into());
        let counts = [
            (Role::Sessions, 2),
            (Role::Relay, 3),
            (Role::Web, 2),
            (Role::Gateway, 1),
        ];
        let members = counts
            .into_iter()
            .flat_map(|(role, count)| (0..count).map(move |number| (role, number)));
        let members: Vec<_> = members
            .map(|(role, number)| Member::new(role, number))
            .collect();
        let url = format!("http://{}", members.last().unwrap().way("listen").address());
        let mut cluster = Self {
            members,
            nats,
            to_database,
            database,
            secrets,
            url,
            data,
        };
        let all: Vec<_> = cluster
            .members
            .iter()
            .map(|member| cluster.flags(member.role, flags))
            .collect();
        for (member, flags) in cluster.members.iter_mut().zip(all) {
            member.flags = flags;
        }

        for member in &cluster.members {
            cluster.launch(member).await;
        }

        for member in &cluster.members {
            cluster.until_ready(member, PATIENCE).await;
        }

        cluster
    }

    /// How a role is started: where it listens, where the others are, and what was chosen for it.
    fn flags(&self, role: Role, chosen: &[&str]) -> Vec<String> {
        let key = || {
            self.data
                .path()
                .join(format!("{role}.key"))
                .display()
                .to_string()
        };
        let (any, grace) = (|| ANY.to_owned(), || GRACE.to_owned());
        let servers = || {
            list(
                self.nats
                    .iter()
                    .map(|(_, way)| format!("nats://{}", way.address())),
            )
        };
        let own = match role {
            Role::Gateway => vec![
                ("--listen", any()),
                ("--gateway-relay-addr", self.at(Role::Relay, "relay-ws")),
                ("--gateway-web-addr", self.at(Role::Web, "web-http")),
            ],
            Role::Web => vec![
                ("--web-http-addr", any()),
                ("--web-identity", "dev".to_owned()),
                ("--web-key-file", key()),
                ("--web-relay-addr", self.at(Role::Relay, "relay-rpc")),
                (
                    "--web-sessions-addr",
                    self.at(Role::Sessions, "sessions-rpc"),
                ),
                ("--grace", grace()),
            ],
            Role::Relay => vec![
                ("--relay-ws-addr", any()),
                ("--relay-rpc-addr", any()),
                ("--relay-key-file", key()),
                (
                    "--relay-sessions-addr",
                    self.at(Role::Sessions, "sessions-rpc"),
                ),
                ("--relay-backplane", servers()),
                ("--grace", grace()),
            ],
            Role::Sessions | Role::Backend => vec![
                ("--sessions-rpc-addr", any()),
                ("--sessions-key-file", key()),
                (
                    "--sessions-database-url",
                    self.database.at(self.to_database.address()),
                ),
                ("--grace", grace()),
            ],
        };

        let prefix = format!("--{role}-");
        let chosen = chosen
            .chunks(2)
            .filter(|pair| pair[0].starts_with(&prefix) || pair[0] == "--log");
        let own = own
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]);

        own.chain(chosen.flatten().map(|&text| text.to_owned()))
            .collect()
    }

    /// Where the members of a role are, as the others are told it.
    fn at(&self, role: Role, port: &str) -> String {
        let members = self.members.iter().filter(|member| member.role == role);
        list(members.map(|member| member.way(port).address().to_string()))
    }

    /// The public address: an origin without a slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts a process that is not there, and leads everybody to it. It may not be ready yet.
    pub async fn launch(&self, member: &Member) {
        let flags: Vec<_> = member.flags.iter().map(String::as_str).collect();
        let mut process = start_role(
            self.data.path(),
            &self.url,
            member.role,
            &flags,
            &self.secrets,
        );
        let addresses = process.addresses(1 + member.ways.len()).await;
        *member.admin.lock().unwrap() = Some(addresses["admin"]);
        for (name, way) in &member.ways {
            way.lead_to(addresses[*name]);
        }

        *member.running.lock().await = Some(process);
    }

    pub async fn until_ready(&self, member: &Member, patience: Duration) {
        let mut asking = self.browser();
        let ready = async {
            while asking.get_at(member.admin(), "/readyz").await.status != http::StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };

        let is_ready = tokio::time::timeout(patience, ready).await.is_ok();
        assert!(
            is_ready,
            "{} does not become ready: {}",
            member.name,
            member.log().await
        );
    }

    /// A browser that has never been here.
    pub fn browser(&self) -> Browser {
        Browser::at(&self.url, &self.secrets)
    }

    /// The sum of the values of all metric lines of a process that begin with this text.
    pub async fn metric(&self, member: &Member, line: &str) -> f64 {
        let page = self.browser().get_at(member.admin(), "/metrics").await;
        let values = page
            .body
            .lines()
            .filter_map(|text| text.strip_prefix(line)?.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
    }
}

impl Member {
    fn new(role: Role, number: usize) -> Self {
        let ports: &[&str] = match role {
            Role::Gateway => &["listen"],
            Role::Web => &["web-http"],
            Role::Relay => &["relay-ws", "relay-rpc"],
            Role::Sessions | Role::Backend => &["sessions-rpc"],
        };

        let ways = ports.iter().map(|port| (*port, Wire::new())).collect();
        let name = format!("{role} {number}");

        Self {
            role,
            name,
            flags: Vec::new(),
            ways,
            admin: StdMutex::default(),
            running: Mutex::default(),
        }
    }

    /// The way to one of its ports.
    pub fn way(&self, port: &str) -> &Wire {
        &self.ways.iter().find(|(name, _)| *name == port).unwrap().1
    }

    pub fn ways(&self) -> impl Iterator<Item = &Wire> {
        self.ways.iter().map(|(_, way)| way)
    }

    fn admin(&self) -> SocketAddr {
        self.admin.lock().unwrap().unwrap()
    }

    /// `kill -9`. Whoever called it is cut off, as when its machine is switched off and on.
    pub async fn kill(&self) {
        let mut process = self.running.lock().await.take().unwrap();
        process.kill().await;
        self.ways().for_each(Wire::cut);
    }

    /// Tells it to end, and returns its exit code when it has.
    pub async fn terminate(&self) -> i32 {
        let mut process = self.running.lock().await.take().unwrap();
        process.signal("TERM");
        let code = process.exit_code().await;
        self.ways().for_each(Wire::cut);
        code
    }

    pub async fn signal(&self, name: &str) {
        self.running.lock().await.as_ref().unwrap().signal(name);
    }

    /// Whether it has ended, and nobody told it to.
    pub async fn has_ended(&self) -> bool {
        !self.running.lock().await.as_mut().unwrap().is_there()
    }

    /// What it has logged since it was started.
    pub async fn log(&self) -> String {
        self.running.lock().await.as_ref().unwrap().log()
    }

    pub async fn usage(&self) -> Usage {
        let id = self.running.lock().await.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        Usage {
            descriptors: std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count(),
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }
}

fn list(addresses: impl Iterator<Item = String>) -> String {
    addresses.collect::<Vec<_>>().join(",")
}
