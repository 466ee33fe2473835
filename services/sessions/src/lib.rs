//! The sessions role: users, sessions and the keys that sign their tokens, behind `vvs.session.v1`.
//! It has the database and knows neither sockets nor pages.
//!
//! `rpc` says what a request means and what the answer looks like. `session` says how long a
//! session lives and what its token says, `key` signs it. `store` is all SQL, one set of queries
//! for SQLite and PostgreSQL; whatever ends a session there gets the next number of the feed in the
//! same transaction. `rpc::feed` tells those who follow it, and `upkeep` sweeps.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use governor::clock::DefaultClock;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use vvs_auth::key::Keyring;
use vvs_auth::method;
use vvs_auth::peer::Peers;
use vvs_auth::quota::Quota;
use vvs_proto::internal::browsers_server::BrowsersServer;
use vvs_proto::internal::editors_server::EditorsServer;
use vvs_proto::session::sessions_server::SessionsServer;
use vvs_proto::token::tokens_server::TokensServer;
use vvs_runtime::Process;
use vvs_runtime::http::{Guard, Limits, Listener, PeerAdmission, Unadmitted};
use vvs_runtime::origin::Origin;
use vvs_runtime::rpc::{Calls, Services};

use crate::clock::clock;
use crate::key::SigningKeys;
use crate::limit::Refreshes;
use crate::metric::Counts;
use crate::rpc::Service;
use crate::rpc::feed::{self, Feed};
use crate::settings::seconds;
use crate::store::database::{RETRY, START_PATIENCE};
use crate::store::{Ration, Room, Store};
use crate::upkeep::Upkeep;

mod audit;
mod browser;
mod clock;
mod error;
mod id;
mod key;
mod limit;
mod metric;
mod rpc;
mod session;
mod settings;
mod store;
mod upkeep;

pub use error::Error;
pub use settings::Settings;

/// Far more than any request of the contract.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The next signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextKey {
    pub kid: String,
    /// When it begins to sign.
    pub signs_at: SystemTime,
}

/// Makes the next signing key, beside running processes: they publish it, and sign with it when its
/// time has come. Does not replace a key that is already waiting.
pub async fn rotate_keys(settings: &Settings, keyring: &Keyring) -> Result<NextKey, Error> {
    let now = clock();
    let store = settings.open().await?;
    let next = SigningKeys::load(&store, keyring, settings.rotation(), now)
        .await?
        .rotate(now)
        .await?;
    let signs_at = UNIX_EPOCH + Duration::from_secs(next.signs_at.unsigned_abs());
    Ok(NextKey {
        kid: next.kid,
        signs_at,
    })
}

/// Opens the store and its keys. Waits for a server that goes away meanwhile as for one that is not
/// there yet.
async fn begin(settings: &Settings, keyring: &Keyring) -> Result<(Store, SigningKeys), Error> {
    let end = Instant::now() + START_PATIENCE;
    loop {
        let beginning = async {
            let store = settings.open().await?;
            let keys = SigningKeys::load(&store, keyring, settings.rotation(), clock()).await?;
            Ok::<_, Error>((store, keys))
        };

        match beginning.await {
            Err(cause) if settings.is_on_a_server() && cause.may_pass() && Instant::now() < end => {
                tracing::warn!(%cause, "the database cannot be used yet");
                sleep(RETRY).await;
            }
            begun => return begun,
        }
    }
}

/// Serves until the process stops. Returns early, with the reason, when the database or the keys
/// cannot be used.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    peers: Arc<Peers>,
    public_url: Origin,
    keyring: Keyring,
    process: Process,
) -> Result<(), Error> {
    // Nobody waits for a server that does not come up once it is no longer needed.
    let Some(begun) = process
        .stop
        .run_until_cancelled(begin(&settings, &keyring))
        .await
    else {
        return Ok(());
    };

    let (store, keys) = begun?;
    let reached = process.metrics.reached.clone();
    let store = store.with_ration(Ration {
        rows: settings.audits_per_day,
        reached: reached.clone(),
    });
    let store = store.with_room(Room {
        ends: settings.max_ended_sign_ins,
        reached: reached.clone(),
    });
    let refreshes = Arc::new(Refreshes::new(
        settings.refreshes_per_minute,
        reached.clone(),
        DefaultClock::default(),
    ));
    let keys = Arc::new(keys);
    let terms = settings.terms(&public_url);
    let counts = Counts::register(&process.metrics);
    let upkeep = Upkeep {
        store: store.clone(),
        terms: terms.clone(),
        counts: counts.clone(),
        keys: keys.clone(),
        refreshes: refreshes.clone(),
        audit_ttl: seconds(settings.audit_ttl),
    };
    let background = process.stop.run_until_cancelled(async {
        tokio::join!(
            upkeep.clone().clean(),
            upkeep.turn_keys(settings.key_lead),
            store.clone().follow()
        );
    });
    let tasks = process.tasks.clone();
    let bounds = feed::Bounds {
        backlog: settings.feed_backlog,
        turn_time: settings.feed_turn_time,
    };
    let feed = Feed::start(
        &store,
        counts.clone(),
        reached.clone(),
        bounds,
        &process.stop,
        &tasks,
    );
    let service = Arc::new(Service {
        store: store.clone(),
        keys,
        terms,
        refreshes,
        counts,
        feed,
        peers: peers.clone(),
        tasks,
    });
    let services = Services::default()
        .with(
            SessionsServer::from_arc(service.clone()).max_decoding_message_size(MAX_REQUEST_BYTES),
        )
        .with(TokensServer::from_arc(service.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .with(EditorsServer::from_arc(service.clone()).max_decoding_message_size(MAX_REQUEST_BYTES))
        .with(BrowsersServer::from_arc(service).max_decoding_message_size(MAX_REQUEST_BYTES));

    let listener = Listener {
        tcp: listener,
        tls: Some(process.identity.clone()),
    };
    let quota = settings.quota();
    let limits = Limits {
        peer_admission: Some(admission(peers.clone(), quota.clone())),
        ..Limits::default()
    };
    let calls = Calls::serving(
        services,
        settings.reflection.then_some(vvs_proto::DESCRIPTORS),
        rpc::check(peers, quota, reached),
        &process,
    );
    let serving = process.server(limits).serve(listener, calls.await?);
    let stopped = async {
        process.stop.cancelled().await;
        process.readiness.set(false);
    };
    process.readiness.set(true);
    tokio::join!(serving, background, stopped);

    Ok(())
}

/// Counts the connections of each peer.
fn admission(peers: Arc<Peers>, quota: Quota) -> PeerAdmission {
    Arc::new(
        move |certificate| match method::admit_connection(&peers, &quota, certificate) {
            Ok(place) => Ok(Arc::new(place) as Guard),
            Err(setting) => Err(Unadmitted {
                reason: "connections_per_peer",
                setting,
            }),
        },
    )
}
