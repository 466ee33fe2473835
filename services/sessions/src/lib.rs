//! The sessions role: users, sessions and the keys that sign their tokens, behind `vvs.session.v1`. It has the database
//! and knows neither sockets nor pages.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use vvs_auth::key::Keyring;
use vvs_auth::peer::Peers;
use vvs_proto::session::sessions_server::SessionsServer;
use vvs_runtime::Process;
use vvs_runtime::http::{Limits, Listener};
use vvs_runtime::origin::Origin;

use crate::key::Keys;
use crate::metric::Counts;
use crate::rpc::Service;
use crate::session::{Seconds, Terms};
use crate::store::{SWEEP_BATCH, Store};

mod error;
mod key;
mod metric;
mod rpc;
mod session;
mod store;

pub use error::Error;

/// No request of the contract comes near it.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// Promised in the contract.
const MAX_PENDING_TTL: Duration = Duration::from_mins(90);

/// The sessions role.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Sessions")]
#[group(skip)]
pub struct Settings {
    /// Where other roles call sessions: gRPC over mutual TLS
    #[arg(id = "sessions-rpc-addr", long, env = "VVS_SESSIONS_RPC_ADDR", default_value = "127.0.0.1:50052")]
    pub rpc_addr: SocketAddr,
    /// Where users, sessions and signing keys are kept: `sqlite:PATH`
    #[arg(id = "sessions-database-url", long, env = "VVS_SESSIONS_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,
    /// File whose first line encrypts the signing keys in the database: base64 of 32 random bytes; a second line still
    /// decrypts
    #[arg(id = "sessions-key-file", long, env = "VVS_SESSIONS_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// How long a session without a device key lives, and its token
    #[arg(
        id = "sessions-bearer-ttl",
        long,
        env = "VVS_SESSIONS_BEARER_TTL",
        default_value = "30d",
        value_parser = bearer_ttl
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
    #[arg(id = "sessions-audience", long, env = "VVS_SESSIONS_AUDIENCE", default_value = "vvs")]
    pub audience: String,
    /// Whether gRPC server reflection is served
    #[arg(
        id = "sessions-reflection",
        long,
        env = "VVS_SESSIONS_REFLECTION",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub reflection: bool,
}

fn bearer_ttl(text: &str) -> Result<Duration, String> {
    ttl(text, Duration::from_hours(365 * 24))
}

fn pending_ttl(text: &str) -> Result<Duration, String> {
    ttl(text, MAX_PENDING_TTL)
}

fn ttl(text: &str, max: Duration) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|cause| cause.to_string())?;
    if (Duration::from_secs(1)..=max).contains(&ttl) {
        return Ok(ttl);
    }
    Err(format!("must be from 1s to {}", humantime::format_duration(max)))
}

/// Serves until the process stops. Returns early, with the reason, when the database or the keys cannot be used.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    peers: Arc<Peers>,
    public_url: Origin,
    keyring: Keyring,
    process: Process,
) -> Result<(), Error> {
    let url = settings.database_url.ok_or(Error::NoDatabase)?;
    let store = Store::open(url.expose_secret()).await?;
    let keys = Keys::load(&store, &keyring, clock()).await?;
    let terms = Terms {
        issuer: public_url.to_string(),
        audience: settings.audience,
        bearer_ttl: settings.bearer_ttl.as_secs().cast_signed(),
        pending_ttl: settings.pending_ttl.as_secs().cast_signed(),
    };
    let counts = Counts::register(&process.metrics);

    let sweeping = process.stop.run_until_cancelled(sweep(store.clone(), terms.clone(), counts.clone()));
    let (health, health_server) = health_reporter();
    health.set_serving::<SessionsServer<Service>>().await;
    let service = SessionsServer::new(Service { store, keys, terms, counts });
    let mut services = Routes::new(service.max_decoding_message_size(MAX_REQUEST_BYTES)).add_service(health_server);
    if settings.reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(vvs_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(SessionsServer::<Service>::NAME)
            .with_service_name(tonic_health::pb::health_server::SERVICE_NAME)
            .build_v1()?;
        services = services.add_service(reflection);
    }
    let listener = Listener { tcp: listener, tls: Some(process.identity.clone()) };
    let router = vvs_runtime::rpc::router(services, rpc::check(peers));
    let serving = process.server(Limits::default()).serve(listener, router);
    process.readiness.set(true);
    tokio::join!(serving, sweeping, stopped(&process, health));
    Ok(())
}

/// Tells everybody who asks that this process takes no more calls.
async fn stopped(process: &Process, mut health: HealthReporter) {
    process.stop.cancelled().await;
    process.readiness.set(false);
    for name in ["", SessionsServer::<Service>::NAME] {
        health.set_service_status(name, ServingStatus::NotServing).await;
        // Ends the streams of those who watch, which would hold up the drain.
        health.clear_service_status(name).await;
    }
}

/// Removes, now and every minute, the sessions that nobody activated.
async fn sweep(store: Store, terms: Terms, counts: Counts) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep_once(&store, &terms, &counts).await {
            counts.failed(&error);
            tracing::warn!(detail = %error, "pending sessions were not swept");
        }
    }
}

async fn sweep_once(store: &Store, terms: &Terms, counts: &Counts) -> Result<(), Error> {
    loop {
        let swept = store.sweep(terms, clock()).await?;
        counts.swept.inc_by(swept);
        if swept < SWEEP_BATCH.into() {
            return Ok(());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where this role reads the clock")]
fn clock() -> Seconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
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
        let settings = parse(&["--sessions-rpc-addr", "127.0.0.1:0", "--sessions-reflection", "false"]).unwrap();
        assert_eq!(settings.rpc_addr.port(), 0);
        assert!(!settings.reflection);
        assert!(parse(&["--rpc-addr", "127.0.0.1:0"]).is_err());
    }

    #[test]
    fn a_session_cannot_be_pending_for_longer_than_promised() {
        assert_eq!(parse(&[]).unwrap().pending_ttl, MAX_PENDING_TTL);
        for bad in ["91m", "0s", "500ms", "soon"] {
            assert!(parse(&["--sessions-pending-ttl", bad]).is_err(), "{bad} was taken");
            assert!(bad == "91m" || parse(&["--sessions-bearer-ttl", bad]).is_err(), "{bad} was taken");
        }
        assert!(parse(&["--sessions-bearer-ttl", "366d"]).is_err());
    }

    #[test]
    fn the_settings_do_not_print_a_password_of_the_database() {
        let settings = parse(&["--sessions-database-url", "postgres://vvs:hunter2@db/vvs"]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
