//! What is measured: servers started for the run, or a system that runs already. Where its editors
//! connect, where it is called, and whose memory and processor time count.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use vvs_auth::peer::{self, Role};
use vvs_mesh::pki;
use vvs_runtime::http::Connector;
use vvs_runtime::origin::Origin;
use vvs_runtime::rpc;
use vvs_runtime::tls::{Files, Identity};
use vvs_runtime::trace::TracedChannel;

use crate::Failure;
use crate::child::{Child, NOWHERE, peers};
use crate::editor::{Entrance, trusting};

/// The public address that all servers are told they have: a gateway serves no other.
pub(crate) const URL: &str = "http://127.0.0.1:8080";
/// How long a process may take to do nothing any more.
const PATIENCE: Duration = Duration::from_mins(1);
/// Over this time, a process that uses less than the other is quiet.
const QUIET: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(2));
/// What a system is left to become quiet whose processes are out of sight.
const REST: Duration = Duration::from_secs(2);
const THROUGH_GATEWAY: u32 = 9000;
const CALL_TIME: Duration = Duration::from_secs(30);

/// A system that runs already.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "A system that runs already")]
pub(crate) struct Existing {
    /// Measure the system with this public URL, beside the floor, instead of servers started for
    /// the run. Each editor is signed in with a session of its own, made at sessions as web makes
    /// one, all of one user; they are revoked at the end. Editors come from 127.1.0.0 and so on, 20
    /// from each, when the system is on this machine; else all come from one address, and the
    /// limits by address there must allow that: `VVS_RELAY_MAX_LOGINS_PER_ADDRESS`,
    /// `VVS_RELAY_HANDSHAKE_BURST`, `VVS_GATEWAY_MAX_CONNECTIONS_PER_ADDRESS`,
    /// `VVS_GATEWAY_CONNECTIONS_PER_MINUTE` and `VVS_GATEWAY_REQUESTS_PER_MINUTE`
    #[arg(long, requires_all = ["sessions", "cert", "key", "ca"])]
    url: Option<Origin>,
    /// Who signs the certificate of an https URL: a PEM file, such as the one with all that this
    /// machine trusts
    #[arg(long, value_name = "FILE", requires = "url")]
    url_ca: Option<PathBuf>,
    /// Where its sessions role is called: HOST:PORT
    #[arg(long, value_name = "ADDRESS", requires = "url")]
    sessions: Option<String>,
    /// Where the administration port of its one sessions role is, for the calls that it gets,
    /// HOST:PORT as an address; other editors' calls count too. Without it they are not counted,
    /// nor waited for
    #[arg(long, value_name = "ADDRESS", requires = "url")]
    pub(crate) sessions_admin: Option<SocketAddr>,
    /// The certificate of its web role
    #[arg(long, value_name = "FILE", requires = "url")]
    cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "url")]
    key: Option<PathBuf>,
    /// Who signs the certificates of its roles
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// A process of it on this machine, whose memory and processor time count; several with commas
    /// between. Those of another machine cannot be measured
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "url")]
    pid: Vec<u32>,
}

impl Existing {
    pub(crate) fn is_chosen(&self) -> bool {
        self.url.is_some()
    }

    pub(crate) async fn system(&self) -> Result<System, Failure> {
        let url = self.url.as_ref().ok_or("no URL")?;
        let authority = url.authority();
        let has_port = authority
            .rsplit(':')
            .next()
            .is_some_and(|end| end.parse::<u16>().is_ok());
        let port = if url.is_secure() { 443 } else { 80 };
        let address = if has_port {
            authority.to_owned()
        } else {
            format!("{authority}:{port}")
        };

        let address = lookup_host(&address)
            .await?
            .next()
            .ok_or("the URL's host has no address")?;
        let tls = match (&self.url_ca, url.is_secure()) {
            (_, false) => None,
            (Some(ca), true) => Some(trusting(ca, authority)?),
            (None, true) => return Err("an https URL needs --url-ca".into()),
        };

        let entrance = Entrance {
            address,
            origin: url.to_string(),
            tls,
            from: None,
        };

        Ok(System {
            name: "the system",
            entrance,
            calls: None,
            children: Vec::new(),
            pids: self.pid.clone(),
        })
    }

    /// Calls one of its roles as its web does. Whoever has a certificate of that authority is
    /// believed to be the role.
    pub(crate) fn channel(&self, address: &str) -> Result<TracedChannel, Failure> {
        let (Some(cert), Some(key), Some(ca)) = (&self.cert, &self.key, &self.ca) else {
            return Err("calls need --cert, --key and --ca".into());
        };

        let files = Files {
            cert: cert.clone(),
            key: key.clone(),
            ca: Some(ca.clone()),
        };
        let check = std::sync::Arc::new(|_certificate: &[u8]| Ok(()));
        let connector = Connector {
            identity: Identity::load(files)?,
            check,
            alpn: b"h2",
            timeout: CALL_TIME,
        };

        Ok(rpc::channel(address, connector)?)
    }

    pub(crate) fn sessions(&self) -> Result<TracedChannel, Failure> {
        self.channel(self.sessions.as_ref().ok_or("no address of sessions")?)
    }
}

/// What stands between the editors and the server that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    Floor,
    Plain,
    Tls,
    Gateway,
}

impl Hop {
    /// As many of these connections as it can have: a gateway has two descriptors for each.
    pub(crate) fn bounded(self, connections: u32) -> u32 {
        if self == Self::Gateway {
            connections.min(THROUGH_GATEWAY)
        } else {
            connections
        }
    }
}

/// Everything that serves the editors of one line of a table.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) entrance: Entrance,
    /// Where its relay is called; where all roles are in one process, its sessions.
    pub(crate) calls: Option<String>,
    children: Vec<Child>,
    /// Where editors connect first: its memory is what counts. The processor time is that of all.
    pids: Vec<u32>,
}

impl System {
    /// `flags` are the relay's.
    pub(crate) async fn start(data: &Path, hop: Hop, flags: &[&str]) -> Result<Self, Failure> {
        let (name, server) = match hop {
            Hop::Floor => ("floor", Child::start(data, "floor", &[]).await?),
            Hop::Plain => ("relay", Child::start(data, "relay", flags).await?),
            Hop::Tls => (
                "relay, mutual TLS",
                Child::start(data, "relay", &[flags, &["--tls"]].concat()).await?,
            ),
            Hop::Gateway => (
                "gateway and relay",
                Child::start(data, "relay", &[flags, &["--tls"]].concat()).await?,
            ),
        };

        let (mut front, calls) = (server.address(0)?, server.address(1)?.to_string());
        let mut children = vec![server];
        if hop == Hop::Gateway {
            let relay = front.to_string();
            let flags = [
                "--gateway-relay-addr",
                &*relay,
                "--gateway-web-addr",
                NOWHERE,
            ];
            let gateway = Child::start(data, "gateway", &flags).await?;
            front = gateway.address(0)?;
            children.insert(0, gateway);
        }

        let tls = if hop == Hop::Tls {
            let identity = Identity::load(pki::files(data, Role::Gateway))?;
            let config = identity.client(peer::check(&peers()?, Role::Relay), b"http/1.1")?;
            Some((TlsConnector::from(config), front.ip().into()))
        } else {
            None
        };

        let entrance = Entrance {
            address: front,
            origin: URL.to_owned(),
            tls,
            from: None,
        };

        Ok(Self {
            calls: Some(calls),
            ..Self::of(name, entrance, children)?
        })
    }

    /// One that runs already, on plain HTTP at an address.
    pub(crate) fn existing(url: &str, pids: Vec<u32>) -> Result<Self, Failure> {
        let address = url
            .strip_prefix("http://")
            .and_then(|address| address.parse().ok());
        let address =
            address.ok_or("logins through the pages want a --url such as http://127.0.0.1:8080")?;
        let entrance = Entrance {
            address,
            origin: url.to_owned(),
            tls: None,
            from: None,
        };

        Ok(Self {
            name: "the system",
            entrance,
            calls: None,
            children: Vec::new(),
            pids,
        })
    }

    /// All roles in one process.
    pub(crate) async fn all(data: &Path, flags: &[&str]) -> Result<Self, Failure> {
        let child = Child::start(data, "all", &[&["--"], flags].concat()).await?;
        let (address, calls) = (child.address(0)?, child.address(1)?.to_string());
        let entrance = Entrance {
            address,
            origin: format!("http://{address}"),
            tls: None,
            from: None,
        };

        Ok(Self {
            calls: Some(calls),
            ..Self::of("four roles", entrance, vec![child])?
        })
    }

    fn of(name: &'static str, entrance: Entrance, children: Vec<Child>) -> Result<Self, Failure> {
        let pids = children.iter().map(Child::id).collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            entrance,
            calls: None,
            children,
            pids,
        })
    }

    /// Proportional set size in bytes of the process that editors connect to.
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        let pid = self
            .pids
            .first()
            .ok_or("memory is that of a process on this machine: name it with --pid")?;
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .ok_or("no Pss line")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// Processor time of all threads of all its processes so far, in user space and in the kernel,
    /// to the nanosecond: `stat` counts in hundredths of a second. `None` where none is on this
    /// machine.
    pub(crate) fn processor_time(&self) -> Result<Option<Duration>, Failure> {
        let mut total = Duration::ZERO;
        for pid in &self.pids {
            for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let statistics = std::fs::read_to_string(thread?.path().join("schedstat"))?;
                let running = statistics.split(' ').next().ok_or("an empty schedstat")?;
                total += Duration::from_nanos(running.parse()?);
            }
        }
        Ok((!self.pids.is_empty()).then_some(total))
    }

    /// What it has used since then.
    pub(crate) fn used_since(&self, before: Option<Duration>) -> Result<Option<Duration>, Failure> {
        Ok(self
            .processor_time()?
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before)))
    }

    /// Returns once it has nothing to do any more, such as sockets to forget whose editors are
    /// gone.
    pub(crate) async fn until_quiet(&self) -> Result<(), Failure> {
        if self.children.is_empty() {
            // It may have other users, and never be quiet.
            sleep(REST).await;
            return Ok(());
        }

        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let before = self.processor_time()?;
            sleep(QUIET.0).await;
            if self.used_since(before)?.unwrap_or_default()
                < QUIET.1 * u32::try_from(self.pids.len())?
            {
                return Ok(());
            }
        }

        Err("a process that should have nothing to do is busy".into())
    }

    pub(crate) async fn stop(self) -> Result<(), Failure> {
        for child in self.children {
            child.stop().await?;
        }
        Ok(())
    }
}

/// Calls a role of servers started for the run, as web does.
pub(crate) fn channel(data: &Path, other: Role, address: &str) -> Result<TracedChannel, Failure> {
    channel_as(data, Role::Web, other, address)
}

/// The same, as another role.
pub(crate) fn channel_as(
    data: &Path,
    role: Role,
    other: Role,
    address: &str,
) -> Result<TracedChannel, Failure> {
    let identity = Identity::load(pki::files(data, role))?;
    let check = peer::check(&peers()?, other);
    Ok(rpc::channel(
        address,
        Connector {
            identity,
            check,
            alpn: b"h2",
            timeout: CALL_TIME,
        },
    )?)
}
