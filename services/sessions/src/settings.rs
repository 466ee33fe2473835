//! The settings of sessions, with names, defaults and help in one place.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use vvs_auth::quota::{Bound, Bounds, Quota};
use vvs_runtime::origin::Origin;

use crate::error::Error;
use crate::key::Rotation;
use crate::limit;
use crate::session::{Seconds, Terms};
use crate::store::Store;
use crate::store::database::Location;

/// The longest time between two refreshes that are recorded.
const MAX_INTERVAL: Duration = Duration::from_mins(10);
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
    /// Where users, sessions and signing keys are stored: `sqlite:PATH` or
    /// `postgres://USER:PASSWORD@HOST/DATABASE`; to another machine with TLS that checks the
    /// server's certificate, unless `sslmode` says otherwise
    #[arg(
        id = "sessions-database-url",
        long,
        env = "VVS_SESSIONS_DATABASE_URL",
        hide_env_values = true
    )]
    pub database_url: Option<SecretString>,
    /// File whose first line encrypts the signing keys in the database: base64 of 32 random bytes;
    /// a second line only decrypts
    #[arg(id = "sessions-key-file", long, env = "VVS_SESSIONS_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// The maximum number of connections to PostgreSQL; SQLite has one
    #[arg(
        id = "sessions-database-connections",
        long,
        env = "VVS_SESSIONS_DATABASE_CONNECTIONS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub database_connections: u32,
    /// How long a token that is bound to a device key lives
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
    /// How many ends of browser sign-ins are stored one by one for a user; each further one ends
    /// all browser sign-ins of that user
    #[arg(
        id = "sessions-max-ended-sign-ins",
        long,
        env = "VVS_SESSIONS_MAX_ENDED_SIGN_INS",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub max_ended_sign_ins: u32,
    /// How long a session without a device key and its token live
    #[arg(
        id = "sessions-bearer-ttl",
        long,
        env = "VVS_SESSIONS_BEARER_TTL",
        default_value = "30d",
        value_parser = year
    )]
    pub bearer_ttl: Duration,
    /// How long a session waits for its editor before it is deleted; at most 90m
    #[arg(
        id = "sessions-pending-ttl",
        long,
        env = "VVS_SESSIONS_PENDING_TTL",
        default_value = "90m",
        value_parser = pending_ttl
    )]
    pub pending_ttl: Duration,
    /// The audience of the tokens: their `aud`
    #[arg(
        id = "sessions-audience",
        long,
        env = "VVS_SESSIONS_AUDIENCE",
        default_value = "vvs"
    )]
    pub audience: String,
    /// Connections of one SPIFFE id at the same time, which all processes with that id share;
    /// further ones are closed immediately
    #[arg(
        id = "sessions-max-connections-per-peer",
        long,
        env = "VVS_SESSIONS_MAX_CONNECTIONS_PER_PEER",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_connections_per_peer: u32,
    /// Calls of one SPIFFE id under way at the same time; further ones get `PEER_BUSY`
    #[arg(
        id = "sessions-max-calls-per-peer",
        long,
        env = "VVS_SESSIONS_MAX_CALLS_PER_PEER",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_calls_per_peer: u32,
    /// Streams of one SPIFFE id at the same time, such as those that follow the revocations;
    /// further ones get `PEER_BUSY`
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
    /// How long a new follower of the revocations waits until it may read the ones that it has
    /// missed; further ones get `FOLLOWERS_BUSY`
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
    /// How long after a refresh the next refreshes of the session change and record nothing: their
    /// tokens have the same end as the first one's; half the life of a token at most; 0s switches
    /// it off
    #[arg(
        id = "sessions-refresh-interval",
        long,
        env = "VVS_SESSIONS_REFRESH_INTERVAL",
        default_value = "30s",
        value_parser = interval
    )]
    pub refresh_interval: Duration,
    /// Refreshes of one session each minute, for each process of this role; further ones get
    /// `REFRESHED_TOO_OFTEN`
    #[arg(
        id = "sessions-refreshes-per-minute",
        long,
        env = "VVS_SESSIONS_REFRESHES_PER_MINUTE",
        default_value = "20",
        value_parser = rate
    )]
    pub refreshes_per_minute: NonZeroU32,
    /// Rows that one person adds to the audit log within a day; further ones are only in this
    /// role's own log. Events without a person count together as one person's
    #[arg(
        id = "sessions-audits-per-day",
        long,
        env = "VVS_SESSIONS_AUDITS_PER_DAY",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub audits_per_day: u32,
    /// Sessions of one user that are live or wait for their editor. Beyond it a session that was
    /// not refreshed for 7 days gives way to a new one; if all were, the new one gets
    /// `SESSIONS_FULL`. 0 switches it off
    #[arg(
        id = "sessions-max-per-user",
        long,
        env = "VVS_SESSIONS_MAX_PER_USER",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(0..=1000)
    )]
    pub max_per_user: u32,
    /// Sessions of one user that wait for their editor; the next one gets `PENDING_FULL`
    #[arg(
        id = "sessions-max-pending-per-user",
        long,
        env = "VVS_SESSIONS_MAX_PENDING_PER_USER",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub max_pending_per_user: u32,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|cause| cause.to_string())?;
    if interval <= MAX_INTERVAL {
        Ok(interval)
    } else {
        Err("must be from 0s to 10m".to_owned())
    }
}

/// Beyond a million the limiter's arithmetic overflows.
fn rate(text: &str) -> Result<NonZeroU32, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=1_000_000).contains(count));
    count
        .and_then(NonZeroU32::new)
        .ok_or_else(|| "must be from 1 to 1000000".to_owned())
}

/// Less than a call may take, so that waiting does not look like a fault of the database.
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
    /// Returns all problems that can be seen without opening anything, one on each line.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(Err(cause)) = self
            .database_url
            .as_ref()
            .map(|url| Location::parse(url.expose_secret()))
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

    /// Returns the files that the database consists of, or that lead to its server, and whether
    /// others may not read them.
    pub fn database_files(&self) -> Vec<(PathBuf, bool)> {
        let place = self
            .database_url
            .as_ref()
            .and_then(|url| Location::parse(url.expose_secret()).ok());
        place.map(|place| place.files()).unwrap_or_default()
    }

    pub(crate) async fn open(&self) -> Result<Store, Error> {
        let url = self.database_url.as_ref().ok_or(Error::NoDatabase)?;
        Store::open(url.expose_secret(), self.database_connections).await
    }

    pub(crate) fn is_on_a_server(&self) -> bool {
        let place = self
            .database_url
            .as_ref()
            .map(|url| Location::parse(url.expose_secret()));
        matches!(place, Some(Ok(Location::Server(_))))
    }

    pub(crate) fn quota(&self) -> Quota {
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

    pub(crate) fn rotation(&self) -> Rotation {
        Rotation {
            interval: seconds(self.key_rotation),
            lead: seconds(self.key_lead),
        }
    }

    pub(crate) fn terms(&self, public_url: &Origin) -> Terms {
        Terms {
            issuer: public_url.to_string(),
            audience: self.audience.clone(),
            token_ttl: seconds(self.token_ttl),
            bearer_ttl: seconds(self.bearer_ttl),
            idle_ttl: seconds(self.idle_ttl),
            max_ttl: seconds(self.max_ttl),
            pending_ttl: seconds(self.pending_ttl),
            refresh_interval: seconds(self.refresh_interval),
            max_pending: self.max_pending_per_user,
            max_live: self.max_per_user,
            silence: limit::SILENCE,
        }
    }
}

pub(crate) fn seconds(time: Duration) -> Seconds {
    time.as_secs().cast_signed()
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
        let limits = parse(&[]).unwrap();
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
