//! The web role: pages and the approval. Holds no socket, no signing key and no database.
//!
//! `route` lists all paths, and `visit` has the checks in front of each. A handler asks relay
//! and sessions through `call`, decides with `login` and `account`, and answers with a `page`. What
//! a browser keeps is sealed in `cookie`; `csrf` and `check` decide whether a form and a sign-in
//! are still good; `failure` has what people read when something is not. An identity provider is
//! behind [`vvs_identity::Provider`]; `route::provider` has its paths.

use std::sync::Arc;
use std::time::Duration;

use vvs_auth::key::Keyring;
use vvs_auth::peer::{self, Peers, Role};
use vvs_identity::{People, ProviderContext};
use vvs_runtime::Process;
use vvs_runtime::http::{Connector, Limits, Listener};
use vvs_runtime::origin::Origin;
use vvs_runtime::rpc::channel;
use vvs_runtime::trace::TracedChannel;

use crate::call::Sessions;
use crate::web::{Channels, Ttls, Web};

mod account;
mod asset;
mod call;
mod check;
mod clock;
mod cookie;
mod csrf;
mod editor;
mod error;
mod failure;
mod handback;
mod header;
mod jwks;
mod kept;
mod login;
mod page;
mod route;
mod settings;
mod visit;
mod web;

pub use error::Error;
pub use settings::Settings;

/// How long connecting to another role may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Serves until stopped. A port without TLS believes any caller's statement of the client's
/// address, so it must be on loopback.
pub async fn serve(
    settings: Settings,
    http: Listener,
    peers: Arc<Peers>,
    public_url: Origin,
    keyring: Keyring,
    process: Process,
) -> Result<(), Error> {
    let address = http.tcp.local_addr()?;
    if http.tls.is_none() && !address.ip().is_loopback() {
        return Err(Error::PlainOffLoopback(address));
    }

    let calls = channels(&settings, &peers, &process)?;
    let people = People::new(
        settings.requests_per_person,
        process.metrics.reached.clone(),
    );
    let identity = settings.identity.provider(ProviderContext {
        people: people.clone(),
        public_url: public_url.clone(),
        sessions: Arc::new(Sessions::new(
            calls.sessions.clone(),
            settings.sign_in_max_ttl,
        )),
        metrics: process.metrics.clone(),
        tasks: process.tasks.clone(),
    })?;
    if identity.is_development() && !address.ip().is_loopback() {
        let at = address.to_string();
        return Err(vvs_identity::Error::DevelopmentOffLoopback(at).into());
    }

    let mut web = Web::new(
        identity,
        Ttls::of(&settings),
        public_url,
        &keyring,
        calls,
        people.clone(),
        &process.metrics,
    )?;
    web.gateways = http.tls.is_some().then_some(peers);
    web.stop = process.stop.clone();
    web.tasks = process.tasks.clone();
    let web = Arc::new(web);

    let (watching, stop) = (web.identity.clone().watch(), process.stop.clone());
    process
        .tasks
        .spawn(async move { stop.run_until_cancelled(watching).await });
    process.tasks.spawn(
        process
            .stop
            .clone()
            .run_until_cancelled_owned(people.tidy()),
    );
    process.tasks.spawn(
        process
            .server(Limits::default())
            .serve(http, route::router(web)),
    );

    process.readiness.set(true);
    process.stop.cancelled().await;
    process.readiness.set(false);

    Ok(())
}

/// Returns the channels to the other roles.
fn channels(settings: &Settings, peers: &Arc<Peers>, process: &Process) -> Result<Channels, Error> {
    let (relay, sessions) = (
        settings.relay_addr.as_deref(),
        settings.sessions_addr.as_deref(),
    );
    Ok(Channels {
        relay: dial(relay, Role::Relay, peers, process).map_err(Error::RelayAddr)?,
        sessions: dial(sessions, Role::Sessions, peers, process).map_err(Error::SessionsAddr)?,
    })
}

fn dial(
    address: Option<&str>,
    role: Role,
    peers: &Arc<Peers>,
    process: &Process,
) -> Result<TracedChannel, tonic::transport::Error> {
    let connector = Connector {
        identity: process.identity.clone(),
        check: peer::check(peers, role),
        alpn: b"h2",
        timeout: CONNECT_TIME,
    };
    channel(address.unwrap_or_default(), connector)
}
