//! All four roles in one process. Choices that are not set are made here; apart from that,
//! everything works as with four processes, including mutual TLS on every hop.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vvs_auth::key::{Keyring, base64url, random};
use vvs_auth::peer::Role;
use vvs_identity::IdentityKind;
use vvs_relay::BackplaneKind;
use vvs_runtime::admin::Readiness;
use vvs_runtime::origin::Origin;

use crate::Error;
use crate::clock;
use crate::launch::{Launch, bind, read_keys, warn};
use crate::pki;
use crate::settings::Up;

/// `up` has no other process to hand over to, so it does not wait long.
const GRACE: Duration = Duration::from_secs(5);

/// Where a running `up` serves.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub public: SocketAddr,
    pub public_url: Origin,
    pub relay_rpc: SocketAddr,
    pub sessions_rpc: SocketAddr,
    pub admin: SocketAddr,
}

/// All four running roles.
#[derive(Debug)]
pub struct Running {
    pub addresses: Addresses,
    pub launch: Launch,
    /// The key that each browser is asked for once, if that is set.
    pub dev_key: Option<SecretString>,
    /// Ends one role alone.
    pub stops: Vec<(Role, CancellationToken)>,
    parts: Vec<(&'static str, Readiness)>,
}

impl Running {
    /// Returns once every role is ready, or the process is stopping.
    pub async fn ready(&self) {
        for (_, part) in &self.parts {
            self.launch.stop.run_until_cancelled(part.wait()).await;
        }
    }
}

struct Ports {
    public: TcpListener,
    web_http: TcpListener,
    relay_ws: TcpListener,
    relay_rpc: TcpListener,
    sessions_rpc: TcpListener,
    admin: TcpListener,
}

impl Ports {
    async fn bind(up: &Up) -> Result<Self, Error> {
        let inner = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self {
            public: bind("the public address", up.gateway.listen).await?,
            web_http: bind("web", up.web.http_addr.unwrap_or(inner)).await?,
            relay_ws: bind("the relay's sockets", up.relay.ws_addr.unwrap_or(inner)).await?,
            relay_rpc: bind("the relay's calls", up.relay.rpc_addr).await?,
            sessions_rpc: bind("the sessions role's calls", up.sessions.rpc_addr).await?,
            admin: bind("administration", up.common.admin_addr).await?,
        })
    }

    fn addresses(&self, public_url: Option<Origin>, secure: bool) -> Result<Addresses, Error> {
        let public = self.public.local_addr()?;
        let scheme = if secure { "https" } else { "http" };
        let own: Result<Origin, _> = format!("{scheme}://{public}").parse();
        let own = own.map_err(|cause| Error::Settings(vec![cause.to_string()]))?;
        Ok(Addresses {
            public,
            public_url: public_url.unwrap_or(own),
            relay_rpc: self.relay_rpc.local_addr()?,
            sessions_rpc: self.sessions_rpc.local_addr()?,
            admin: self.admin.local_addr()?,
        })
    }

    /// Tells every role where the others are, unless that is set.
    fn introduce(&self, up: &mut Up) -> Result<(), Error> {
        let at = |listener: &TcpListener| Ok::<_, Error>(listener.local_addr()?.to_string());
        up.gateway.web_addr.get_or_insert(at(&self.web_http)?);
        up.gateway.relay_addr.get_or_insert(at(&self.relay_ws)?);
        up.web.relay_addr.get_or_insert(at(&self.relay_rpc)?);
        up.web.sessions_addr.get_or_insert(at(&self.sessions_rpc)?);
        up.relay
            .sessions_addr
            .get_or_insert(at(&self.sessions_rpc)?);
        Ok(())
    }
}

/// Starts all roles. Returns once every port is bound.
pub async fn start(mut up: Up) -> Result<Running, Error> {
    warn(&up.check()?);
    let keys = embed(&mut up)?;
    let ports = Ports::bind(&up).await?;
    let addresses = ports.addresses(up.common.public_url.clone(), up.gateway.tls_cert.is_some())?;
    ports.introduce(&mut up)?;
    tracing::info!(
        relay_ws = up.gateway.relay_addr.as_deref(),
        web_http = up.gateway.web_addr.as_deref(),
        "the gateway reaches the roles here"
    );
    let (grace, file_modes) = (
        up.common.grace.unwrap_or(GRACE),
        up.common.strictness.file_modes,
    );
    let launch = Launch::new(
        up.common.peers()?,
        addresses.public_url.clone(),
        grace,
        file_modes,
    );
    let dev_key = up.web.identity.dev_key.clone();
    let mut running = Running {
        addresses,
        launch,
        dev_key,
        stops: Vec::new(),
        parts: Vec::new(),
    };
    run_roles(&mut running, up, ports, keys)?;

    Ok(running)
}

struct Keyrings {
    web: Keyring,
    relay: Keyring,
    sessions: Keyring,
}

/// Makes the choices that are not set: certificates, keys, the database, the backplane, the
/// identity provider.
fn embed(up: &mut Up) -> Result<Keyrings, Error> {
    let data = up.data_dir.clone();
    for path in pki::ensure(&data, &up.common.trust_domain, clock::now())? {
        tracing::info!(path = %path.display(), "made");
    }

    up.web.identity.kind.get_or_insert(IdentityKind::Dev);
    if up.dev_key {
        up.web.identity.dev_key = Some(base64url(&random::<16>().map_err(Error::Random)?).into());
    }

    up.relay.backplane.get_or_insert(BackplaneKind::Memory);
    up.sessions
        .database_url
        .get_or_insert_with(|| pki::own_database(&data).into());
    let web = key_file(up.web.key_file.as_deref(), &data, "web")?;
    let relay = key_file(up.relay.key_file.as_deref(), &data, "relay")?;
    let sessions = key_file(up.sessions.key_file.as_deref(), &data, "sessions")?;

    Ok(Keyrings {
        web,
        relay,
        sessions,
    })
}

/// Reads the configured key file, or the default one, which is created if it is missing.
fn key_file(chosen: Option<&Path>, data_dir: &Path, name: &str) -> Result<Keyring, Error> {
    if let Some(path) = chosen {
        return read_keys(path);
    }

    let path = pki::own_key_file(data_dir, name);
    if !path.exists() {
        pki::make_dir(&data_dir.join("keys"))?;
        let key = Keyring::generate().map_err(|source| Error::Key {
            path: path.clone(),
            source,
        })?;
        pki::write_secret(&path, key.as_bytes())?;
        tracing::info!(path = %path.display(), "made");
    }

    read_keys(&path)
}

fn run_roles(running: &mut Running, up: Up, ports: Ports, keys: Keyrings) -> Result<(), Error> {
    let launch = running.launch.clone();
    let mut process = |role: Role| {
        let process = launch.process(role, pki::files(&up.data_dir, role))?;
        running.stops.push((role, process.stop.clone()));
        running
            .parts
            .push((role.as_str(), process.readiness.clone()));
        Ok::<_, Error>(process)
    };

    let sessions = process(Role::Sessions)?;
    launch.sessions(up.sessions, ports.sessions_rpc, keys.sessions, sessions);

    let relay = process(Role::Relay)?;
    let relay_ports = (ports.relay_ws, ports.relay_rpc);
    launch.relay(up.relay, relay_ports, keys.relay, relay);

    let web = process(Role::Web)?;
    launch.web(up.web, ports.web_http, keys.web, web);

    let gateway = process(Role::Gateway)?;
    launch.gateway(up.gateway, ports.public, gateway)?;

    launch.admin(ports.admin, up.common.admin_hosts, running.parts.clone());

    Ok(())
}
