//! A real nginx on a free port of this machine, in front of a server. It ends, and its files go,
//! when it is dropped.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use vvs_test_servers::port::free_addresses;

use crate::stack::PATIENCE;

/// One process, which passes everything on.
#[derive(Debug)]
pub struct Nginx {
    address: SocketAddr,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// One that does with this server what stands beside `proxy_pass`.
    pub async fn start(upstream: SocketAddr, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_addresses(1)[0];
        let path = folder.path().join("nginx.conf");
        std::fs::write(&path, config(folder.path(), address, upstream, settings)).unwrap();

        let mut process = Command::new(program())
            .args(["-e", "stderr", "-c"])
            .arg(path)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("nginx: {error}; run tests/run once: it installs it, or says how")
            });
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                assert_eq!(process.try_wait().unwrap(), None, "nginx does not start");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, listening).await.unwrap();

        Self {
            address,
            _process: process,
            _folder: folder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// All that a whole configuration needs beside `proxy_pass`, in a single process without a daemon.
fn config(folder: &Path, address: SocketAddr, upstream: SocketAddr, settings: &str) -> String {
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(temporary, "{kind}_temp_path {}/{kind};", folder.display()).unwrap();
    }

    format!(
        "daemon off; master_process off; pid {}/pid; events {{}} http {{ access_log off; \
         {temporary} server {{ listen {address}; location / {{ proxy_pass http://{upstream}; \
         {settings} }} }} }}",
        folder.display()
    )
}

/// Debian keeps it where only root looks.
fn program() -> &'static str {
    let debian = "/usr/sbin/nginx";
    if Path::new(debian).exists() {
        debian
    } else {
        "nginx"
    }
}
