//! The checks on every request at the edge, wherever it goes: which clients are admitted, and how
//! much they may send.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use http::Method;
use tokio_util::task::TaskTracker;
use vvs_runtime::http::{Admission, Guard, Unadmitted};
use vvs_runtime::origin::Origin;
use vvs_runtime::share::Place;

use crate::address;
use crate::class::Class;
use crate::error::Refusal;
use crate::limit::Limits;
use crate::settings::Settings;

/// The state of the edge, except the roles that it passes requests on to.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) limits: Limits,
    pub(crate) settings: Settings,
    pub(crate) public_url: Origin,
    pub(crate) tasks: TaskTracker,
}

impl Edge {
    /// Admits a connection. Connections of trusted proxies count only towards the total.
    pub(crate) fn admission(self: Arc<Self>) -> Admission {
        Arc::new(move |remote: SocketAddr| {
            let is_proxy = self.is_proxy(remote.ip());
            let place = if is_proxy {
                self.limits.proxy()
            } else {
                self.limits.connection(remote.ip())
            };
            let place = place.map_err(|refusal| Unadmitted {
                reason: refusal.reason(),
                setting: refusal.setting().unwrap_or_default(),
            })?;
            Ok(Arc::new(place) as Guard)
        })
    }

    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        address::is_trusted(address, &self.settings.trusted_proxies)
    }

    /// Decides whether a request passes. The place is held while the request of a trusted proxy's
    /// client is under way.
    pub(crate) fn check(
        &self,
        request: &Request,
        remote: IpAddr,
        client: IpAddr,
    ) -> Result<Option<Place>, Refusal> {
        self.limits
            .request(Class::of(request.method(), request.uri().path()), client)?;
        address::check_host(request.uri(), request.headers(), &self.public_url)?;
        if ![Method::GET, Method::HEAD, Method::POST].contains(request.method()) {
            return Err(Refusal::Method);
        }

        if !request.uri().path().starts_with('/') {
            return Err(Refusal::Malformed);
        }

        // The proxy's connections are not the client's, so what the client has under way stands for
        // them.
        let behind_proxy = self.is_proxy(remote) && !self.is_proxy(client);

        behind_proxy
            .then(|| self.limits.behind_proxy(client))
            .transpose()
    }
}
