//! The relay under measurement, in a process of its own, so that its memory is nobody else's.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use vvs_auth::key::Keyring;
use vvs_auth::peer::{Peers, Role};
use vvs_mesh::launch::Launch;
use vvs_mesh::pki;
use vvs_runtime::http::Listener;

use crate::Failure;

const TRUST_DOMAIN: &str = "vvs.internal";

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    data_dir: PathBuf,
    /// The mutual TLS that the gateway speaks; otherwise plain
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    settings: vvs_relay::Settings,
}

/// Serves until its parent closes standard input.
pub(crate) async fn serve(options: Options) -> Result<(), Failure> {
    let peers = Peers::new(Vec::new(), TRUST_DOMAIN)?;
    let launch = Launch::new(peers, "http://127.0.0.1:8080".parse()?, Duration::from_secs(1));
    let process = launch.process(Role::Relay, pki::files(&options.data_dir, Role::Relay))?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (ws, rpc) = (TcpListener::bind(loopback).await?, TcpListener::bind(loopback).await?);
    writeln!(std::io::stdout(), "{}", ws.local_addr()?)?;
    let identity = || Some(process.identity.clone());
    let ws = Listener { tcp: ws, tls: if options.tls { identity() } else { None } };
    let rpc = Listener { tcp: rpc, tls: identity() };
    let keys = Keyring::parse(&Keyring::generate()?)?;
    let (peers, url, stop) = (launch.peers.clone(), launch.public_url.clone(), process.stop.clone());
    launch.run(Role::Relay, stop, vvs_relay::serve(options.settings, ws, rpc, peers, url, keys, process));
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while input.next_line().await?.is_some() {}
    Ok(())
}

/// A relay in a child process.
#[derive(Debug)]
pub(crate) struct Target {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Target {
    pub(crate) async fn start(data_dir: &Path, tls: bool, flags: &[&str]) -> Result<Self, Failure> {
        pki::ensure(data_dir, TRUST_DOMAIN, time::OffsetDateTime::now_utc())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("relay").arg("--data-dir").arg(data_dir);
        if tls {
            command.arg("--tls");
        }
        command.args(["--relay-sessions-addr", "127.0.0.1:9"]).args(flags);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let output = child.stdout.take().ok_or("the relay has no output")?;
        let line = BufReader::new(output).lines().next_line().await?.ok_or("the relay did not start")?;
        Ok(Self { child, address: line.parse()? })
    }

    /// Proportional set size in bytes.
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        let id = self.child.id().ok_or("the relay has ended")?;
        let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss line")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        self.child.wait().await?;
        Ok(())
    }
}

/// The gateway's side of the mutual TLS.
pub(crate) fn gateway_connector(data_dir: &Path) -> Result<vvs_runtime::http::Connector, Failure> {
    let identity = vvs_runtime::tls::Identity::load(pki::files(data_dir, Role::Gateway))?;
    let peers = Arc::new(Peers::new(Vec::new(), TRUST_DOMAIN)?);
    let check = vvs_auth::peer::check(&peers, Role::Relay);
    Ok(vvs_runtime::http::Connector { identity, check, alpn: b"http/1.1", timeout: Duration::from_secs(30) })
}
