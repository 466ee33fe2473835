//! The state that all requests share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vvs_auth::key::Keyring;
use vvs_auth::peer::Peers;
use vvs_identity::{People, Provider};
use vvs_runtime::metrics::{Counters, Metrics};
use vvs_runtime::origin::Origin;
use vvs_runtime::trace::TracedChannel;

use crate::call::{Relay, Sessions};
use crate::check::Checks;
use crate::cookie::Cookies;
use crate::csrf::Csrf;
use crate::error::Error;
use crate::jwks::KnownKeys;
use crate::settings::Settings;

/// The state that all requests share.
pub(crate) struct Web {
    pub(crate) public_url: Origin,
    pub(crate) identity: Arc<dyn Provider>,
    /// How old a sign-in may be to approve with.
    pub(crate) sign_in_ttl: Duration,
    /// How long it may be unused to manage one's editors with.
    pub(crate) account_ttl: Duration,
    /// How long it lasts at most.
    pub(crate) sign_in_max_ttl: Duration,
    pub(crate) checks: Checks,
    pub(crate) cookies: Cookies,
    pub(crate) csrf: Csrf,
    /// Derives the names of deliveries.
    pub(crate) requests: Keyring,
    pub(crate) relay: Relay,
    pub(crate) sessions: Sessions,
    pub(crate) jwks: KnownKeys,
    pub(crate) people: People,
    /// Decisions of people in browsers, by result.
    pub(crate) approvals: Counters,
    /// The peers that may say where a client is; `None` on a plain port.
    pub(crate) gateways: Option<Arc<Peers>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// How long a sign-in is valid, for each purpose.
#[derive(Clone, Copy)]
pub(crate) struct Ttls {
    pub(crate) sign_in: Duration,
    pub(crate) account: Duration,
    pub(crate) max: Duration,
}

impl Ttls {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            sign_in: settings.sign_in_ttl,
            account: settings.account_ttl,
            max: settings.sign_in_max_ttl,
        }
    }
}

/// The other roles, as this one calls them.
pub(crate) struct Channels {
    pub(crate) relay: TracedChannel,
    pub(crate) sessions: TracedChannel,
}

impl Web {
    pub(crate) fn new(
        identity: Arc<dyn Provider>,
        ttls: Ttls,
        public_url: Origin,
        keyring: &Keyring,
        calls: Channels,
        people: People,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let (approvals, sessions) = (Counters::default(), Sessions::new(calls.sessions, ttls.max));
        metrics.register(
            "vvs_approvals",
            "Decisions in browsers, by outcome",
            approvals.clone(),
        );

        Ok(Self {
            identity,
            sign_in_ttl: ttls.sign_in,
            account_ttl: ttls.account,
            sign_in_max_ttl: ttls.max,
            checks: Checks::new(sessions.clone()),
            cookies: Cookies::new(keyring, &public_url)?,
            csrf: Csrf::new(keyring)?,
            requests: keyring.derive("vvs.web.request")?,
            relay: Relay::new(calls.relay, public_url.clone()),
            sessions,
            jwks: KnownKeys::default(),
            people,
            approvals,
            gateways: None,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            public_url,
        })
    }
}
