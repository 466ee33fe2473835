//! A private NATS server on a free port. It ends, and its files go, when the test process ends,
//! however that ends.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::port::free_addresses;
use crate::tool;

/// Runs the server until its input ends, which is when whoever started it ends.
const KEEPER: &str = r#"
"$1" -c "$2" >>"$2.log" 2>&1 </dev/null &
server=$!
read -r _ || :
kill -KILL "$server" 2>/dev/null || :
wait "$server" 2>/dev/null || :
"#;

/// A server, running or stopped.
#[derive(Debug)]
pub struct NatsServer {
    port: u16,
    folder: tempfile::TempDir,
    keeper: Option<Child>,
}

impl NatsServer {
    /// One that lets in everybody.
    pub async fn start() -> Self {
        Self::start_with(|_port, _folder| String::new()).await
    }

    /// Several that know each other.
    pub async fn start_cluster(members: usize) -> Vec<Self> {
        // All at once, so that no two get the same.
        let routes = free_addresses(members).into_iter().map(|it| it.port());
        let routes: Vec<_> = routes.collect();
        let known: Vec<_> = routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let mut servers = Vec::new();
        for port in routes {
            let known = known.join(", ");
            // Clients know all of them, by the ways that a test has chosen.
            let cluster = format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{port}\", no_advertise: true, routes: \
                 [{known}] }}\n"
            );
            servers.push(Self::start_with(|_port, _folder| cluster.clone()).await);
        }

        servers
    }

    /// One with more in its configuration, which may name files in its folder.
    pub async fn start_with(more: impl FnOnce(u16, &Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_addresses(1)[0].port();
        let more = more(port, folder.path());
        let mut config = std::fs::File::create(folder.path().join("nats.conf")).unwrap();
        write!(config, "listen: \"127.0.0.1:{port}\"\n{more}").unwrap();
        let mut server = Self {
            port,
            folder,
            keeper: None,
        };
        server.restart().await;

        server
    }

    /// As clients name it, but for the scheme.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("nats.conf.log")).unwrap_or_default()
    }

    /// Kills it.
    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            keeper.wait().unwrap();
        }
    }

    /// It goes on existing, and does nothing any more.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Ends [`NatsServer::freeze`].
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let keeper = self.keeper.as_ref().unwrap().id();
        let server =
            std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        assert!(
            Command::new("kill")
                .args([signal, server.trim()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Starts it again where it was.
    pub async fn restart(&mut self) {
        let config = self.folder.path().join("nats.conf");
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", KEEPER, "keeper"])
            .args([tool::path("nats/nats-server"), config.clone()])
            .stdin(Stdio::piped());
        self.keeper = Some(keeper.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);

        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(
                Instant::now() < until,
                "nats-server does not start: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.stop();
    }
}
