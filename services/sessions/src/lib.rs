//! The sessions role: users, sessions and the keys that sign their tokens, behind `vvs.session.v1`.
//! It has the database and knows neither sockets nor pages.
//!
//! `rpc` says what a request means and what the answer looks like. `session` says how long a
//! session lives and what its token says, `key` signs it. `store` is all SQL, one set of queries
//! for SQLite and PostgreSQL; whatever ends a session there gets the next number of the feed in the
//! same transaction. `rpc::feed` tells those who follow it, and `upkeep` sweeps.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use governor::clock::DefaultClock;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use vvs_auth::key::Keyring;
use vvs_auth::method;
use vvs_auth::peer::Peers;
use vvs_auth::quota::{Bound, Bounds, Quota};
use vvs_proto::session::sessions_server::SessionsServer;
use vvs_runtime::Process;
use vvs_runtime::http::{Guard, Limits, Listener, PeerAdmission, Unadmitted};
use vvs_runtime::origin::Origin;
use vvs_runtime::rpc::Calls;

use crate::browser::Millis;
use crate::key::{Keys, Rotation};
use crate::limit::Refreshes;
use crate::metric::Counts;
use crate::rpc::Service;
use crate::rpc::feed::{self, Feed};
use crate::session::{Seconds, Terms};
use crate::store::database::{Place, RETRY, START_PATIENCE};
use crate::store::{Ration, Room, Store};
use crate::upkeep::Upkeep;

mod audit;
mod browser;
mod error;
mod id;
mod key;
mod limit;
mod metric;
mod rpc;
mod session;
mod store;
mod upkeep;

pub use error::Error;

/// No request of the contract comes near it.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
const DAY: Duration = Duration::from_hours(24);
/// Promised in the contract.
const MAX_PENDING_TTL: Duration = Duration::from_mins(90);

/// The sessions role.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Sessions")]
#[group(skip)]
pub struct Settings {
    /// Where other roles call sessions: gRPC over mutual TLS
    #[arg(
        id = "sessions-rpc-addr",
        long,
        env = "VVS_SESSIONS_RPC_ADDR",
        default_value = "127.0.0.1:50052"
    )]
    pub rpc_addr: SocketAddr,
    /// Where users, sessions and signing keys are kept: `sqlite:PATH` or
    /// `postgres://USER:PASSWORD@HOST/DATABASE`; off this machine with TLS that checks the server's
    /// certificate, unless `sslmode` says otherwise
    #[arg(
        id = "sessions-database-url",
        long,
        env = "VVS_SESSIONS_DATABASE_URL",
        hide_env_values = true
    )]
    pub database_url: Option<SecretString>,
    /// File whose first line encrypts the signing keys in the database: base64 of 32 random bytes;
    /// a second line still decrypts
    #[arg(id = "sessions-key-file", long, env = "VVS_SESSIONS_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// How many connections to PostgreSQL are held at most; SQLite has one
    #[arg(
        id = "sessions-database-connections",
        long,
        env = "VVS_SESSIONS_DATABASE_CONNECTIONS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub database_connections: u32,
    /// How long a token lives that is bound to a device key
    #[arg(
        id = "sessions-token-ttl",
        long,
        env = "VVS_SESSIONS_TOKEN_TTL",
        default_value = "1h",
        value_parser = year,
    )]
    pub token_ttl: Duration,
    /// How long a session with a device key lives without a refresh
    #[arg(
        id = "sessions-idle-ttl",
        long,
        env = "VVS_SESSIONS_IDLE_TTL",
        default_value = "30d",
        value_parser = year,
    )]
    pub idle_ttl: Duration,
    /// How long a session with a device key lives at most, however often it is refreshed
    #[arg(
        id = "sessions-max-ttl",
        long,
        env = "VVS_SESSIONS_MAX_TTL",
        default_value = "365d",
        value_parser = year,
    )]
    pub max_ttl: Duration,
    /// How long a signing key signs before the next one does
    #[arg(
        id = "sessions-key-rotation",
        long,
        env = "VVS_SESSIONS_KEY_ROTATION",
        default_value = "30d",
        value_parser = year
    )]
    pub key_rotation: Duration,
    /// How long a signing key is published before it signs; shorter than the rotation
    #[arg(
        id = "sessions-key-lead",
        long,
        env = "VVS_SESSIONS_KEY_LEAD",
        default_value = "1d",
        value_parser = year,
    )]
    pub key_lead: Duration,
    /// How long the audit log is kept
    #[arg(
        id = "sessions-audit-ttl",
        long,
        env = "VVS_SESSIONS_AUDIT_TTL",
        default_value = "90d",
        value_parser = decade,
    )]
    pub audit_ttl: Duration,
    /// How many ends of sign-ins to browsers are remembered one by one for a user; each further one
    /// ends all sign-ins of that user to browsers
    #[arg(
        id = "sessions-max-ended-sign-ins",
        long,
        env = "VVS_SESSIONS_MAX_ENDED_SIGN_INS",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub max_ended_sign_ins: u32,
    /// How long a session without a device key lives, and its token
    #[arg(
        id = "sessions-bearer-ttl",
        long,
        env = "VVS_SESSIONS_BEARER_TTL",
        default_value = "30d",
        value_parser = year
    )]
    pub bearer_ttl: Duration,
    /// How long a session waits for its editor before it is swept; at most 90m
    #[arg(
        id = "sessions-pending-ttl",
        long,
        env = "VVS_SESSIONS_PENDING_TTL",
        default_value = "90m",
        value_parser = pending_ttl
    )]
    pub pending_ttl: Duration,
    /// Who the tokens are for: their `aud`
    #[arg(
        id = "sessions-audience",
        long,
        env = "VVS_SESSIONS_AUDIENCE",
        default_value = "vvs"
    )]
    pub audience: String,
    /// Connections of one SPIFFE id at once, which all processes with that id share; further ones
    /// are closed at once
    #[arg(
        id = "sessions-max-connections-per-peer",
        long,
        env = "VVS_SESSIONS_MAX_CONNECTIONS_PER_PEER",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_connections_per_peer: u32,
    /// Calls of one SPIFFE id under way at once; further ones get `PEER_BUSY`
    #[arg(
        id = "sessions-max-calls-per-peer",
        long,
        env = "VVS_SESSIONS_MAX_CALLS_PER_PEER",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_calls_per_peer: u32,
    /// Streams of one SPIFFE id at once, such as those that follow the revocations; further ones
    /// get `PEER_BUSY`
    #[arg(
        id = "sessions-max-streams-per-peer",
        long,
        env = "VVS_SESSIONS_MAX_STREAMS_PER_PEER",
        default_value_t = 1500,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_streams_per_peer: u32,
    /// Messages that a follower of the revocations may be behind, of up to 100 revocations each; a
    /// slower one gets `FOLLOWER_SLOW`
    #[arg(
        id = "sessions-feed-backlog",
        long,
        env = "VVS_SESSIONS_FEED_BACKLOG",
        default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub feed_backlog: u32,
    /// How long a new follower of the revocations waits until it may read what it has missed;
    /// further ones get `FOLLOWERS_BUSY`
    #[arg(
        id = "sessions-feed-turn-time",
        long,
        env = "VVS_SESSIONS_FEED_TURN_TIME",
        default_value = "2s",
        value_parser = turn_time
    )]
    pub feed_turn_time: Duration,
    /// Whether gRPC server reflection is served
    #[arg(
        id = "sessions-reflection",
        long,
        env = "VVS_SESSIONS_REFLECTION",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub reflection: bool,
    #[command(flatten)]
    pub limits: limit::Settings,
}

/// Less than a call may take, so that waiting does not seem to be the database's fault.
fn turn_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|cause| cause.to_string())?;
    let range = Duration::from_millis(1)..=Duration::from_secs(3);
    if range.contains(&time) {
        Ok(time)
    } else {
        Err("must be from 1ms to 3s".to_owned())
    }
}

fn year(text: &str) -> Result<Duration, String> {
    ttl(text, DAY * 365)
}

fn decade(text: &str) -> Result<Duration, String> {
    ttl(text, DAY * 3653)
}

fn pending_ttl(text: &str) -> Result<Duration, String> {
    ttl(text, MAX_PENDING_TTL)
}

fn ttl(text: &str, max: Duration) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|cause| cause.to_string())?;
    if (Duration::from_secs(1)..=max).contains(&ttl) {
        return Ok(ttl);
    }
    Err(format!(
        "must be from 1s to {}",
        humantime::format_duration(max)
    ))
}

impl Settings {
    /// What is wrong with them, as far as that can be seen without opening anything; a line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(Err(cause)) = self
            .database_url
            .as_ref()
            .map(|url| Place::parse(url.expose_secret()))
        {
            problems.push(cause.to_string());
        }

        if self.key_lead >= self.key_rotation {
            problems.push(
                "VVS_SESSIONS_KEY_LEAD (--sessions-key-lead) must be shorter than \
                 VVS_SESSIONS_KEY_ROTATION (--sessions-key-rotation)"
                    .to_owned(),
            );
        }

        problems
    }

    /// The files that the database is made of, or that lead to its server, and whether each is
    /// nobody else's to read.
    pub fn database_files(&self) -> Vec<(PathBuf, bool)> {
        let place = self
            .database_url
            .as_ref()
            .and_then(|url| Place::parse(url.expose_secret()).ok());
        place.map(|place| place.files()).unwrap_or_default()
    }

    async fn open(&self) -> Result<Store, Error> {
        let url = self.database_url.as_ref().ok_or(Error::NoDatabase)?;
        Store::open(url.expose_secret(), self.database_connections).await
    }

    /// The store and its keys. A server that goes away in the midst of that is waited for like one
    /// that is not there yet.
    async fn begin(&self, keyring: &Keyring) -> Result<(Store, Keys), Error> {
        let end = Instant::now() + START_PATIENCE;
        loop {
            let beginning = async {
                let store = self.open().await?;
                let keys = Keys::load(&store, keyring, self.rotation(), clock()).await?;
                Ok::<_, Error>((store, keys))
            };

            match beginning.await {
                Err(cause) if self.is_on_a_server() && cause.may_pass() && Instant::now() < end => {
                    tracing::warn!(%cause, "the database cannot be used yet");
                    sleep(RETRY).await;
                }
                begun => return begun,
            }
        }
    }

    fn is_on_a_server(&self) -> bool {
        let place = self
            .database_url
            .as_ref()
            .map(|url| Place::parse(url.expose_secret()));
        matches!(place, Some(Ok(Place::Server(_))))
    }

    fn quota(&self) -> Quota {
        let bound = |most, setting| Bound { most, setting };
        Quota::new(Bounds {
            connections: bound(
                self.max_connections_per_peer,
                "VVS_SESSIONS_MAX_CONNECTIONS_PER_PEER",
            ),
            calls: bound(self.max_calls_per_peer, "VVS_SESSIONS_MAX_CALLS_PER_PEER"),
            streams: bound(
                self.max_streams_per_peer,
                "VVS_SESSIONS_MAX_STREAMS_PER_PEER",
            ),
        })
    }

    fn rotation(&self) -> Rotation {
        Rotation {
            interval: seconds(self.key_rotation),
            lead: seconds(self.key_lead),
        }
    }

    fn terms(&self, public_url: &Origin) -> Terms {
        Terms {
            issuer: public_url.to_string(),
            audience: self.audience.clone(),
            token_ttl: seconds(self.token_ttl),
            bearer_ttl: seconds(self.bearer_ttl),
            idle_ttl: seconds(self.idle_ttl),
            max_ttl: seconds(self.max_ttl),
            pending_ttl: seconds(self.pending_ttl),
            refresh_interval: seconds(self.limits.refresh_interval),
            max_pending: self.limits.max_pending_per_user,
            max_live: self.limits.max_per_user,
            silence: limit::SILENCE,
        }
    }
}

fn seconds(time: Duration) -> Seconds {
    time.as_secs().cast_signed()
}

/// The next signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextKey {
    pub kid: String,
    /// From when on it signs.
    pub signs_at: SystemTime,
}

/// Makes the next signing key, beside processes that serve: they publish it, and sign with it when
/// its time has come. One that is waiting already is not replaced.
pub async fn rotate_keys(settings: &Settings, keyring: &Keyring) -> Result<NextKey, Error> {
    let now = clock();
    let store = settings.open().await?;
    let next = Keys::load(&store, keyring, settings.rotation(), now)
        .await?
        .rotate(now)
        .await?;
    let signs_at = UNIX_EPOCH + Duration::from_secs(next.signs_at.unsigned_abs());
    Ok(NextKey {
        kid: next.kid,
        signs_at,
    })
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
    // A server that does not come up is not waited for when nobody needs it any more.
    let Some(begun) = process
        .stop
        .run_until_cancelled(settings.begin(&keyring))
        .await
    else {
        return Ok(());
    };

    let (store, keys) = begun?;
    let (limits, reached) = (&settings.limits, process.metrics.reached.clone());
    let store = store.with_ration(Ration {
        rows: limits.audits_per_day,
        reached: reached.clone(),
    });
    let store = store.with_room(Room {
        ends: settings.max_ended_sign_ins,
        reached: reached.clone(),
    });
    let refreshes = Arc::new(Refreshes::new(
        limits.refreshes_per_minute,
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
    let (health, health_server) = health_reporter();
    health.set_serving::<SessionsServer<Service>>().await;
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
    let service = Service {
        store: store.clone(),
        keys,
        terms,
        refreshes,
        counts,
        feed,
        peers: peers.clone(),
        tasks,
    };
    let service = SessionsServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
    let mut services = Routes::new(service).add_service(health_server);
    if settings.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(vvs_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(SessionsServer::<Service>::NAME)
            .with_service_name(tonic_health::pb::health_server::SERVICE_NAME)
            .build_v1()?;
        services = services.add_service(reflection);
    }

    let listener = Listener {
        tcp: listener,
        tls: Some(process.identity.clone()),
    };
    let quota = settings.quota();
    let limits = Limits {
        peer_admission: Some(admission(peers.clone(), quota.clone())),
        ..Limits::default()
    };
    let calls = Calls::new(services, rpc::check(peers, quota, reached));
    let serving = process.server(limits).serve(listener, calls);
    process.readiness.set(true);
    tokio::join!(serving, background, stopped(&process, health));

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

/// Tells everybody who asks that this process takes no more calls.
async fn stopped(process: &Process, mut health: HealthReporter) {
    process.stop.cancelled().await;
    process.readiness.set(false);
    for name in ["", SessionsServer::<Service>::NAME] {
        health
            .set_service_status(name, ServingStatus::NotServing)
            .await;
        // Ends the streams of those who watch, which would hold up the drain.
        health.clear_service_status(name).await;
    }
}

fn clock() -> Seconds {
    clock_millis() / 1000
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where this role reads the clock"
)]
fn clock_millis() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Flags {
        #[command(flatten)]
        sessions: Settings,
        #[command(flatten)]
        telemetry: vvs_runtime::telemetry::Settings,
    }

    fn parse(flags: &[&str]) -> Result<Settings, clap::Error> {
        Flags::try_parse_from([&["x"], flags].concat()).map(|flags| flags.sessions)
    }

    #[test]
    fn every_flag_has_the_name_of_the_role() {
        let settings = parse(&[
            "--sessions-rpc-addr",
            "127.0.0.1:0",
            "--sessions-reflection",
            "false",
        ])
        .unwrap();
        assert_eq!(settings.rpc_addr.port(), 0);
        assert!(!settings.reflection);
        assert!(parse(&["--rpc-addr", "127.0.0.1:0"]).is_err());
    }

    #[test]
    fn a_session_cannot_be_pending_for_longer_than_promised() {
        assert_eq!(parse(&[]).unwrap().pending_ttl, MAX_PENDING_TTL);

        for bad in ["91m", "0s", "500ms", "soon"] {
            assert!(
                parse(&["--sessions-pending-ttl", bad]).is_err(),
                "{bad} was taken"
            );
            assert!(
                bad == "91m" || parse(&["--sessions-bearer-ttl", bad]).is_err(),
                "{bad} was taken"
            );
        }

        assert!(parse(&["--sessions-bearer-ttl", "366d"]).is_err());
    }

    #[test]
    fn a_limit_has_a_range() {
        let limits = parse(&[]).unwrap().limits;
        assert_eq!(
            (limits.refresh_interval, limits.refreshes_per_minute.get()),
            (Duration::from_secs(30), 20)
        );
        assert_eq!(
            (
                limits.audits_per_day,
                limits.max_per_user,
                limits.max_pending_per_user
            ),
            (1000, 100, 10)
        );

        for (flag, good, bad) in [
            (
                "--sessions-refresh-interval",
                ["0s", "10m"],
                ["601s", "soon"],
            ),
            (
                "--sessions-refreshes-per-minute",
                ["1", "1000000"],
                ["0", "1000001"],
            ),
            (
                "--sessions-audits-per-day",
                ["1", "1000000"],
                ["0", "1000001"],
            ),
            ("--sessions-max-per-user", ["0", "1000"], ["-1", "1001"]),
            (
                "--sessions-max-pending-per-user",
                ["1", "1000"],
                ["0", "1001"],
            ),
        ] {
            assert!(
                good.iter().all(|good| parse(&[flag, good]).is_ok()),
                "{flag}"
            );
            assert!(bad.iter().all(|bad| parse(&[flag, bad]).is_err()), "{flag}");
        }
    }

    #[test]
    fn the_settings_do_not_print_a_password_of_the_database() {
        let settings =
            parse(&["--sessions-database-url", "postgres://vvs:hunter2@db/vvs"]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
