//! The state that all sockets and calls of one relay share.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vvs_auth::peer::Peers;
use vvs_runtime::origin::Origin;

use crate::authority::Authority;
use crate::backplane::Backplane;
use crate::drain::Drain;
use crate::hello::ReturnPlaces;
use crate::keys::RelayKeys;
use crate::limit::Limits;
use crate::metric::Counts;
use crate::settings::Settings;

/// Passed to each of them.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) public_url: Origin,
    pub(crate) backplane: Box<dyn Backplane>,
    pub(crate) keys: RelayKeys,
    pub(crate) authority: Arc<Authority>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Counts,
    /// The peers that may say where a client is; `None` on a plain port.
    pub(crate) gateways: Option<Arc<Peers>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// The tasks that hold a socket or a login.
    pub(crate) held: TaskTracker,
    pub(crate) drain: Drain,
}

impl Shared {
    /// Returns where an editor may ask a browser to take its code.
    pub(crate) fn return_places(&self) -> ReturnPlaces<'_> {
        let Settings {
            return_uris,
            loopback_listeners,
            ..
        } = &self.settings;
        ReturnPlaces {
            known: return_uris,
            listeners: *loopback_listeners,
            public_url: &self.public_url,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
