//! An installation of several processes of each role, at fixed addresses, so that one can take the
//! place of another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use vvs_auth::key::Keyring;
use vvs_auth::peer::Role;
use vvs_mesh::pki;
use vvs_tests::command::Running;
use vvs_tests::database::Database;
use vvs_tests::nats::NatsServer;
use vvs_tests::port::free_addresses;
use vvs_tests::{Secrets, crowd, stack};

use crate::Failure;
use crate::child::TRUST_DOMAIN;

const ROLES: [(Role, usize); 4] = [
    (Role::Sessions, 2),
    (Role::Relay, 3),
    (Role::Web, 2),
    (Role::Gateway, 1),
];

/// One process, and how to start it again.
#[derive(Debug)]
struct Member {
    role: Role,
    flags: Vec<String>,
    process: Running,
}

#[derive(Debug)]
pub(crate) struct Fleet {
    // First, so that the processes end before that goes which they use.
    members: Vec<Member>,
    url: String,
    grace: Duration,
    data: tempfile::TempDir,
    _nats: NatsServer,
}

/// The addresses of one role's processes, by the port's name.
type Ports = Vec<String>;

impl Fleet {
    pub(crate) async fn start(grace: u64) -> Result<Self, Failure> {
        let data = tempfile::tempdir()?;
        pki::ensure(data.path(), TRUST_DOMAIN, time::OffsetDateTime::now_utc())?;
        let nats = NatsServer::start().await;
        let database = Database::Postgres.create(data.path()).await;
        let counts = [2, 3, 3, 2, 1];
        let mut free = free_addresses(counts.iter().sum()).into_iter();
        let [sessions, ws, rpc, web, public] = counts
            .map(|count| -> Ports { free.by_ref().take(count).map(|it| it.to_string()).collect() });
        let url = format!("http://{}", public[0]);
        let key = |name: &str| key_file(data.path(), name);
        let keys = [key("sessions")?, key("relay")?, key("web")?];
        let [sessions_key, relay_key, web_key] = keys.each_ref().map(String::as_str);
        let (to_sessions, to_ws, to_rpc, to_web) = (
            sessions.join(","),
            ws.join(","),
            rpc.join(","),
            web.join(","),
        );
        let backplane = format!("nats://{}", nats.address());
        let own = |role: Role, number: usize| match role {
            Role::Sessions => vec![
                [
                    "--sessions-rpc-addr",
                    &sessions[number],
                    "--sessions-key-file",
                    sessions_key,
                ],
                [
                    "--sessions-database-url",
                    database.as_str(),
                    "--log",
                    "warn",
                ],
            ],
            Role::Relay => vec![
                [
                    "--relay-ws-addr",
                    &ws[number],
                    "--relay-rpc-addr",
                    &rpc[number],
                ],
                [
                    "--relay-key-file",
                    relay_key,
                    "--relay-sessions-addr",
                    &to_sessions,
                ],
                ["--relay-backplane", &backplane, "--log", "warn"],
            ],
            Role::Web => vec![
                ["--web-http-addr", &web[number], "--web-identity", "dev"],
                ["--web-key-file", web_key, "--web-relay-addr", &to_rpc],
                ["--web-sessions-addr", &to_sessions, "--log", "warn"],
            ],
            Role::Gateway | Role::Backend => vec![
                ["--listen", &public[0], "--gateway-relay-addr", &to_ws],
                ["--gateway-web-addr", &to_web, "--log", "warn"],
            ],
        };
        let mut members: Vec<Member> = Vec::new();
        for (role, count) in ROLES {
            let prefix = format!("--{role}-");
            let limits: Vec<_> = crowd::FLAGS
                .chunks(2)
                .filter(|pair| pair[0].starts_with(&prefix))
                .collect();
            let first = members.len();
            for number in 0..count {
                let grace = format!("{grace}s");
                let flags = [
                    own(role, number).concat(),
                    limits.concat(),
                    vec!["--grace", &grace],
                ]
                .concat();
                let flags: Vec<_> = flags.into_iter().map(str::to_owned).collect();
                members.push(Member {
                    role,
                    process: process(data.path(), &url, role, &flags),
                    flags,
                });
            }

            // Before those who call it, so that they find it.
            for member in &mut members[first..] {
                member.process.ready().await;
            }
        }

        Ok(Self {
            members,
            url,
            grace: Duration::from_secs(grace),
            data,
            _nats: nats,
        })
    }

    /// Where editors and browsers come to.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where editors keep their credentials.
    pub(crate) fn profiles(&self) -> PathBuf {
        self.data.path().join("editors")
    }

    pub(crate) fn count(&self, role: Role) -> usize {
        self.members
            .iter()
            .filter(|member| member.role == role)
            .count()
    }

    /// Tells one process to end and, when it has, starts another in its place; how long it took to
    /// end.
    pub(crate) async fn replace(&mut self, role: Role, number: usize) -> Result<Duration, Failure> {
        let member = self
            .members
            .iter_mut()
            .filter(|member| member.role == role)
            .nth(number);
        let member = member.ok_or("there is no such process")?;
        let start = Instant::now();
        member.process.signal("TERM");
        let code = member
            .process
            .exit_code_within(self.grace + Duration::from_secs(10))
            .await;
        if code != 0 {
            return Err(format!("the {role} ended with {code}: {}", member.process.log()).into());
        }

        let ended = start.elapsed();
        member.process = process(self.data.path(), &self.url, role, &member.flags);
        member.process.ready().await;

        Ok(ended)
    }
}

fn process(data_dir: &Path, url: &str, role: Role, flags: &[String]) -> Running {
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    stack::start_role(data_dir, url, role, &flags, &Secrets::default())
}

fn key_file(data_dir: &Path, name: &str) -> Result<String, Failure> {
    let path = data_dir.join(format!("{name}.key"));
    pki::write_secret(&path, Keyring::generate()?.as_bytes())?;
    Ok(path.display().to_string())
}
