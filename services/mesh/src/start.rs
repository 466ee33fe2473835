//! How each role starts to serve on ports that are bound, in whatever process it runs.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use vvs_auth::key::Keyring;
use vvs_auth::peer::Role;
use vvs_runtime::Process;
use vvs_runtime::http::Listener;
use vvs_runtime::tls::{Files, Identity};

use crate::Error;
use crate::launch::Launch;

/// A port on which this role's peers call.
fn inner(tcp: TcpListener, process: &Process) -> Listener {
    Listener {
        tcp,
        tls: Some(process.identity.clone()),
    }
}

impl Launch {
    pub(crate) fn gateway(
        &self,
        settings: vvs_gateway::Settings,
        tcp: TcpListener,
        process: Process,
    ) -> Result<(), Error> {
        let stop = process.stop.clone();
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(cert), Some(key)) => Some(self.public_identity(cert, key)?),
            _ => None,
        };
        let (peers, url) = (self.peers.clone(), self.public_url.clone());
        let serving = vvs_gateway::serve(settings, Listener { tcp, tls }, peers, url, process);
        self.run(Role::Gateway, stop, serving);

        Ok(())
    }

    /// The certificate that browsers see.
    fn public_identity(&self, cert: &Path, key: &Path) -> Result<Arc<Identity>, Error> {
        let identity = Identity::load(Files {
            cert: cert.to_owned(),
            key: key.to_owned(),
            ca: None,
        })?;
        self.watch("public", &identity, &self.stop, &self.tasks);
        Ok(identity)
    }

    pub(crate) fn web(
        &self,
        settings: vvs_web::Settings,
        tcp: TcpListener,
        keys: Keyring,
        process: Process,
    ) {
        let (stop, http) = (process.stop.clone(), inner(tcp, &process));
        let (peers, url) = (self.peers.clone(), self.public_url.clone());
        let serving = vvs_web::serve(settings, http, peers, url, keys, process);
        self.run(Role::Web, stop, serving);
    }

    pub(crate) fn relay(
        &self,
        settings: vvs_relay::Settings,
        (ws, rpc): (TcpListener, TcpListener),
        keys: Keyring,
        process: Process,
    ) {
        let (stop, ws, rpc) = (
            process.stop.clone(),
            inner(ws, &process),
            inner(rpc, &process),
        );
        let (peers, url) = (self.peers.clone(), self.public_url.clone());
        let serving = vvs_relay::serve(settings, ws, rpc, peers, url, keys, process);
        self.run(Role::Relay, stop, serving);
    }

    pub fn sessions(
        &self,
        settings: vvs_sessions::Settings,
        tcp: TcpListener,
        keys: Keyring,
        process: Process,
    ) {
        let stop = process.stop.clone();
        let (peers, url) = (self.peers.clone(), self.public_url.clone());
        let serving = vvs_sessions::serve(settings, tcp, peers, url, keys, process);
        self.run(Role::Sessions, stop, serving);
    }
}
