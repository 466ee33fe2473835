//! The servers that are measured, each in a process that this program starts.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use vvs_auth::key::Keyring;
use vvs_auth::peer::{Peers, Role};
use vvs_mesh::launch::Launch;
use vvs_mesh::{pki, up};
use vvs_runtime::Process;
use vvs_runtime::http::Listener;
use vvs_runtime::secret_file::Policy;
use vvs_runtime::telemetry;
use vvs_runtime::tls::Identity;
use vvs_tests::stack;

use crate::child::TRUST_DOMAIN;
use crate::system::URL;
use crate::{Failure, floor};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Which log lines are written
    #[arg(long, env = "VVS_LOG", default_value = "off")]
    log: String,
    #[command(subcommand)]
    server: Server,
}

#[derive(clap::Subcommand, Debug)]
enum Server {
    /// A sessions role on SQLite
    Sessions {
        #[arg(long)]
        data_dir: PathBuf,
        #[command(flatten)]
        settings: Box<vvs_sessions::Settings>,
    },
    /// A relay
    Relay {
        #[arg(long)]
        data_dir: PathBuf,
        /// Sockets behind the mutual TLS that the gateway speaks; otherwise plain
        #[arg(long)]
        tls: bool,
        #[command(flatten)]
        settings: Box<vvs_relay::Settings>,
    },
    /// A gateway
    Gateway {
        #[arg(long)]
        data_dir: PathBuf,
        #[command(flatten)]
        settings: Box<vvs_gateway::Settings>,
    },
    /// All four roles
    All {
        #[arg(long)]
        data_dir: PathBuf,
        #[arg(last = true)]
        flags: Vec<String>,
    },
    /// The floor
    Floor {
        #[arg(long)]
        data_dir: PathBuf,
    },
}

/// Serves until its parent closes standard input.
pub(crate) async fn serve(options: Options) -> Result<(), Failure> {
    // Quiet, and not without: where there is no log at all, each span of a library looks for
    // another one.
    let log = telemetry::Settings {
        log_format: telemetry::Format::Text,
        log: Some(options.log),
        otlp_endpoint: None,
    };
    tracing::dispatcher::set_global_default(telemetry::subscriber(&log, std::io::stderr, None)?)?;

    match options.server {
        Server::Sessions {
            data_dir,
            mut settings,
        } => {
            let (launch, process) = process(&data_dir, Role::Sessions)?;
            let (rpc, admin) = (port().await?, port().await?);
            let addresses = [rpc.local_addr()?, admin.local_addr()?];
            launch.admin(admin, Vec::new(), Vec::new());
            settings.database_url =
                Some(format!("sqlite:{}", data_dir.join("load.db").display()).into());
            let keys = Keyring::parse(&Keyring::generate()?)?;
            let (peers, url, stop) = (
                launch.peers.clone(),
                launch.public_url.clone(),
                process.stop.clone(),
            );
            let ready = process.readiness.clone();
            launch.run(
                Role::Sessions,
                stop,
                vvs_sessions::serve(*settings, rpc, peers, url, keys, process),
            );
            ready.wait().await;
            say(&addresses)?;

            until_told().await
        }
        Server::Relay {
            data_dir,
            tls,
            settings,
        } => {
            let (launch, process) = process(&data_dir, Role::Relay)?;
            let identity = process.identity.clone();
            let ws = Listener {
                tcp: port().await?,
                tls: tls.then(|| identity.clone()),
            };
            let rpc = Listener {
                tcp: port().await?,
                tls: Some(identity),
            };
            say(&[ws.tcp.local_addr()?, rpc.tcp.local_addr()?])?;
            let keys = Keyring::parse(&Keyring::generate()?)?;
            let (peers, url, stop) = (
                launch.peers.clone(),
                launch.public_url.clone(),
                process.stop.clone(),
            );
            launch.run(
                Role::Relay,
                stop,
                vvs_relay::serve(*settings, ws, rpc, peers, url, keys, process),
            );

            until_told().await
        }
        Server::Gateway { data_dir, settings } => {
            let (launch, process) = process(&data_dir, Role::Gateway)?;
            let public = Listener {
                tcp: port().await?,
                tls: None,
            };
            say(&[public.tcp.local_addr()?])?;
            let (peers, url, stop) = (
                launch.peers.clone(),
                launch.public_url.clone(),
                process.stop.clone(),
            );
            launch.run(
                Role::Gateway,
                stop,
                vvs_gateway::serve(*settings, public, peers, url, process),
            );

            until_told().await
        }
        Server::All { data_dir, flags } => {
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            let running = up::start(stack::settings(&data_dir, &flags)).await?;
            running.ready().await;
            say(&[running.addresses.public, running.addresses.sessions_rpc])?;
            until_told().await
        }
        Server::Floor { data_dir } => {
            let (ws, rpc) = (port().await?, port().await?);
            say(&[ws.local_addr()?, rpc.local_addr()?])?;
            let identity = Identity::load(pki::files(&data_dir, Role::Relay))?;
            tokio::select! {
                ended = floor::serve(ws, rpc, &identity) => ended,
                told = until_told() => told,
            }
        }
    }
}

fn process(data_dir: &std::path::Path, role: Role) -> Result<(Launch, Process), Failure> {
    let peers = Peers::new(Vec::new(), TRUST_DOMAIN)?;
    let launch = Launch::new(
        peers,
        URL.parse()?,
        Duration::from_secs(1),
        Policy::default(),
    );
    let process = launch.process(role, pki::files(data_dir, role))?;
    Ok((launch, process))
}

async fn port() -> Result<TcpListener, Failure> {
    Ok(TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?)
}

fn say(addresses: &[SocketAddr]) -> Result<(), Failure> {
    let words: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    writeln!(std::io::stdout(), "{}", words.join(" "))?;
    Ok(())
}

async fn until_told() -> Result<(), Failure> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while input.next_line().await?.is_some() {}
    Ok(())
}
