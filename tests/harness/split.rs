//! A stack whose relay, and sessions where a test asks for it, are processes of their own: they can
//! be killed, stopped and replaced while everybody else goes on.

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use vvs_auth::peer::Role;

use crate::command::Running;
use crate::database::{Database, Url};
use crate::stack::PATIENCE;
use crate::{Stack, Wire};

/// A relay in a process of its own.
#[derive(Debug)]
pub struct Relay {
    pub process: Running,
    pub ws: SocketAddr,
    pub rpc: SocketAddr,
    pub admin: SocketAddr,
}

/// A stack, and the ways from its gateway and its web to whichever processes there are.
#[derive(Debug)]
pub struct Split {
    // First, so that the processes end before the files go that they use.
    pub relay: Option<Relay>,
    pub sessions: Option<Running>,
    pub stack: Stack,
    /// Where sessions are, in whichever process.
    pub database: Url,
    flags: Vec<String>,
    ws: Wire,
    rpc: Wire,
    /// From the relay and web to sessions.
    pub sessions_rpc: Wire,
}

impl Split {
    /// With a relay apart; sessions are in this process, so that their spans are seen.
    pub async fn relay(database: Database, flags: &[&str]) -> Self {
        let data = Arc::new(tempfile::tempdir().unwrap());
        let database = database.create(data.path()).await;
        let mut split = Self::new(data, database, true, flags).await;
        split
            .sessions_rpc
            .lead_to(split.stack.addresses().sessions_rpc);
        split.start_relay().await;
        split
    }

    /// With both apart; the sessions role in this process has nothing to do, and a database of its
    /// own.
    pub async fn both(database: Database, flags: &[&str]) -> Self {
        let data = Arc::new(tempfile::tempdir().unwrap());
        let database = database.create(data.path()).await;
        let mut split = Self::new(data, database, false, flags).await;
        split.start_sessions().await;
        split.start_relay().await;
        split
    }

    /// `is_shared`: whether the stack itself has the database.
    async fn new(data: Arc<TempDir>, database: Url, is_shared: bool, flags: &[&str]) -> Self {
        let (ws, rpc, sessions_rpc) = (Wire::new(), Wire::new(), Wire::new());
        let at = |wire: &Wire| wire.address().to_string();
        let (to_ws, to_rpc, to_sessions) = (at(&ws), at(&rpc), at(&sessions_rpc));
        let idle = format!("sqlite:{}", data.path().join("idle.db").display());
        let own = if is_shared { database.as_str() } else { &*idle };
        let ways = [
            "--gateway-relay-addr",
            &*to_ws,
            "--web-relay-addr",
            &to_rpc,
            "--web-sessions-addr",
            &to_sessions,
        ];
        let all = [&ways[..], &["--sessions-database-url", own], flags].concat();
        let stack = Stack::start_in(data, &all).await;
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();

        Self {
            relay: None,
            sessions: None,
            stack,
            database,
            flags,
            ws,
            rpc,
            sessions_rpc,
        }
    }

    /// The flags of a role, of those that all were started with.
    fn flags(&self, prefix: &str) -> Vec<&str> {
        let pairs = self
            .flags
            .chunks(2)
            .filter(|pair| pair[0].starts_with(prefix));
        pairs.flatten().map(String::as_str).collect()
    }

    /// Starts a relay that nobody is led to yet.
    pub async fn another_relay(&self) -> Relay {
        let key = self
            .stack
            .data()
            .path()
            .join("keys/relay.key")
            .display()
            .to_string();
        let sessions = self.sessions_rpc.address().to_string();
        let any = "127.0.0.1:0";
        let own = ["--relay-ws-addr", any, "--relay-rpc-addr", any];
        let ours = ["--relay-key-file", &key, "--relay-sessions-addr", &sessions];
        let mut chosen = [
            self.flags("--relay-"),
            self.flags("--otlp-"),
            self.flags("--grace"),
        ]
        .concat();
        if !chosen.contains(&"--relay-backplane") {
            chosen.extend(["--relay-backplane", "memory"]);
        }

        let flags = [&own[..], &ours, &chosen].concat();
        let mut process = self.stack.process(Role::Relay, &flags);
        let at = process.ready().await;

        Relay {
            process,
            ws: at["relay-ws"],
            rpc: at["relay-rpc"],
            admin: at["admin"],
        }
    }

    /// Leads new editors, and web, to this relay; the one before is returned, with the sockets that
    /// it has.
    pub fn lead_to(&mut self, relay: Relay) -> Option<Relay> {
        self.ws.lead_to(relay.ws);
        self.rpc.cut();
        self.rpc.lead_to(relay.rpc);
        self.relay.replace(relay)
    }

    /// Leads web to this relay, and leaves new editors where they are led.
    pub fn lead_web_to(&self, relay: &Relay) {
        self.rpc.cut();
        self.rpc.lead_to(relay.rpc);
    }

    /// Leads new editors to this relay, and leaves web where it is led.
    pub fn lead_editors_to(&self, relay: &Relay) {
        self.ws.lead_to(relay.ws);
    }

    /// Starts a relay, and leads everyone there.
    pub async fn start_relay(&mut self) {
        let relay = self.another_relay().await;
        self.lead_to(relay);
    }

    /// `kill -9`.
    pub async fn kill_relay(&mut self) {
        self.relay.take().unwrap().process.kill().await;
        self.ws.cut();
        self.rpc.cut();
    }

    /// Starts sessions on the stack's database, and leads everyone there.
    pub async fn start_sessions(&mut self) {
        let mut process = self.launch_sessions();
        self.sessions_rpc
            .lead_to(process.ready().await["sessions-rpc"]);
        self.sessions = Some(process);
    }

    /// Starts sessions that nobody is led to, and that may not be ready yet.
    pub fn launch_sessions(&self) -> Running {
        let key = self
            .stack
            .data()
            .path()
            .join("keys/sessions.key")
            .display()
            .to_string();
        let database = self.database.as_str().to_owned();
        let own = [
            "--sessions-rpc-addr",
            "127.0.0.1:0",
            "--sessions-key-file",
            &key,
        ];
        let flags = [
            &own[..],
            &["--sessions-database-url", &database],
            &self.flags("--sessions-"),
        ]
        .concat();

        self.stack.process(Role::Sessions, &flags)
    }

    /// `kill -9`.
    pub async fn kill_sessions(&mut self) {
        self.sessions.take().unwrap().kill().await;
        self.sessions_rpc.cut();
    }

    /// The value of a metric line of the relay; 0 when absent.
    pub async fn relay_metric(&self, line: &str) -> f64 {
        self.stack
            .metric_at(self.relay.as_ref().unwrap().admin, line)
            .await
    }

    /// Waits until a metric of the relay is as it should be.
    pub async fn until_relay_metric(&self, line: &str, is: impl Fn(f64) -> bool) {
        let reached = async { while !is(self.relay_metric(line).await) {} };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| panic!("{line} did not come to that"));
    }
}
