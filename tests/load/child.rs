//! A server in a process of its own, so that its memory and its time are nobody else's: this
//! program, started once more.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use vvs_auth::peer::Peers;
use vvs_mesh::pki;

use crate::Failure;

pub(crate) const TRUST_DOMAIN: &str = "vvs.internal";
/// Takes no calls: what needs it is not what is measured.
pub(crate) const NOWHERE: &str = "127.0.0.1:9";

/// Who the roles are.
pub(crate) fn peers() -> Result<Arc<Peers>, Failure> {
    Ok(Arc::new(Peers::new(Vec::new(), TRUST_DOMAIN)?))
}

#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    addresses: Vec<SocketAddr>,
}

impl Child {
    pub(crate) async fn start(
        data_dir: &Path,
        server: &str,
        flags: &[&str],
    ) -> Result<Self, Failure> {
        pki::ensure(data_dir, TRUST_DOMAIN, time::OffsetDateTime::now_utc())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", server, "--data-dir"])
            .arg(data_dir)
            .args(flags);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("it has no output")?;
        let line = BufReader::new(output).lines().next_line().await?;
        let line = line.ok_or_else(|| format!("the {server} did not start"))?;
        let addresses = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;

        Ok(Self { process, addresses })
    }

    /// Where it serves, in the order in which it says so.
    pub(crate) fn address(&self, place: usize) -> Result<SocketAddr, Failure> {
        self.addresses
            .get(place)
            .copied()
            .ok_or_else(|| "it named too few addresses".into())
    }

    pub(crate) fn id(&self) -> Result<u32, Failure> {
        self.process.id().ok_or_else(|| "it has ended".into())
    }

    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        drop(self.process.stdin.take());
        self.process.wait().await?;
        Ok(())
    }
}
