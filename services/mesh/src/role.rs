//! Runs one role in one process. Every choice must be set; nothing is embedded.

use std::net::SocketAddr;
use std::time::Duration;

use vvs_auth::peer::Role;

use crate::Error;
use crate::launch::{Launch, bind, read_keys, warn};
use crate::settings::{Choices, Single};

/// Long enough for a rolling restart to spread out reconnects.
const GRACE: Duration = Duration::from_secs(30);

/// A running role, and the addresses to print.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) launch: Launch,
    pub(crate) addresses: Vec<(&'static str, SocketAddr)>,
    pub(crate) readiness: vvs_runtime::admin::Readiness,
}

async fn prepare<R: clap::Args + Choices>(
    single: &Single<R>,
    role: Role,
) -> Result<(Running, vvs_runtime::Process), Error> {
    warn(&single.check()?);
    let missing = |what: &str| Error::Settings(vec![format!("{what} is not set")]);
    let public_url = single
        .common
        .public_url
        .clone()
        .ok_or_else(|| missing("VVS_PUBLIC_URL"))?;
    let files = single
        .certificates
        .files()
        .ok_or_else(|| missing("VVS_TLS_CERT_FILE"))?;
    let (grace, file_modes) = (
        single.common.grace.unwrap_or(GRACE),
        single.common.strictness.file_modes,
    );
    let launch = Launch::new(single.common.peers()?, public_url, grace, file_modes);
    let process = launch.process(role, files)?;
    let admin = bind("administration", single.common.admin_addr).await?;
    let addresses = vec![("admin", admin.local_addr()?)];
    launch.admin(
        admin,
        single.common.admin_hosts.clone(),
        vec![(role.as_str(), process.readiness.clone())],
    );

    Ok((
        Running {
            launch,
            addresses,
            readiness: process.readiness.clone(),
        },
        process,
    ))
}

pub(crate) async fn gateway(single: Single<vvs_gateway::Settings>) -> Result<Running, Error> {
    let (mut running, process) = prepare(&single, Role::Gateway).await?;
    let tcp = bind("the public address", single.role.listen).await?;
    running.addresses.push(("listen", tcp.local_addr()?));
    running.launch.gateway(single.role, tcp, process)?;

    Ok(running)
}

pub(crate) async fn web(single: Single<vvs_web::Settings>) -> Result<Running, Error> {
    let (mut running, process) = prepare(&single, Role::Web).await?;
    let keys = read_keys(single.role.key_file.as_deref().unwrap_or("".as_ref()))?;
    let address = single.role.http_addr.unwrap_or(([127, 0, 0, 1], 0).into());
    let tcp = bind("web", address).await?;
    running.addresses.push(("web-http", tcp.local_addr()?));
    running.launch.web(single.role, tcp, keys, process);

    Ok(running)
}

pub(crate) async fn relay(single: Single<vvs_relay::Settings>) -> Result<Running, Error> {
    let (mut running, process) = prepare(&single, Role::Relay).await?;
    let keys = read_keys(single.role.key_file.as_deref().unwrap_or("".as_ref()))?;
    let address = single.role.ws_addr.unwrap_or(([127, 0, 0, 1], 0).into());
    let ws = bind("the relay's sockets", address).await?;
    let rpc = bind("the relay's calls", single.role.rpc_addr).await?;
    running.addresses.extend([
        ("relay-ws", ws.local_addr()?),
        ("relay-rpc", rpc.local_addr()?),
    ]);
    running.launch.relay(single.role, (ws, rpc), keys, process);

    Ok(running)
}

pub(crate) async fn sessions(single: Single<vvs_sessions::Settings>) -> Result<Running, Error> {
    let (mut running, process) = prepare(&single, Role::Sessions).await?;
    let keys = read_keys(single.role.key_file.as_deref().unwrap_or("".as_ref()))?;
    let tcp = bind("the sessions role's calls", single.role.rpc_addr).await?;
    running.addresses.push(("sessions-rpc", tcp.local_addr()?));
    running.launch.sessions(single.role, tcp, keys, process);

    Ok(running)
}
