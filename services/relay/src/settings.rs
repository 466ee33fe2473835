//! The settings of the relay, with names, defaults and help in one place.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, RangedU64ValueParser};
use vvs_auth::quota::{self, Bound, Quota};
use vvs_proto::ReturnUri;
use vvs_proto::frame::Binding;
use vvs_runtime::origin::Origin;
use vvs_runtime::share::{self, Networks, SharedNetwork};

use crate::authority::Terms;
use crate::backplane::Broker;
use crate::limit::Bounds;

/// The relay's settings.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Relay")]
#[group(skip)]
pub struct Settings {
    /// Where the gateway connects to this relay's WebSockets
    #[arg(id = "relay-ws-addr", long, env = "VVS_RELAY_WS_ADDR")]
    pub ws_addr: Option<SocketAddr>,
    /// Where web calls this relay (gRPC)
    #[arg(
        id = "relay-rpc-addr",
        long,
        env = "VVS_RELAY_RPC_ADDR",
        default_value = "127.0.0.1:50051"
    )]
    pub rpc_addr: SocketAddr,
    /// The address of the sessions role (gRPC), as HOST:PORT; several separated by commas
    #[arg(id = "relay-sessions-addr", long, env = "VVS_RELAY_SESSIONS_ADDR")]
    pub sessions_addr: Option<String>,
    /// How relays find each other's logins: `memory` for a single relay, or NATS servers as
    /// nats://HOST:PORT or tls://HOST:PORT, separated by commas
    #[arg(id = "relay-backplane", long, env = "VVS_RELAY_BACKPLANE", value_parser = backplane)]
    pub backplane: Option<BackplaneKind>,
    /// PEM file with the CAs that sign the certificates of tls:// servers; without it, the CAs that
    /// this machine trusts
    #[arg(id = "relay-nats-ca-file", long, env = "VVS_RELAY_NATS_CA_FILE")]
    pub nats_ca_file: Option<PathBuf>,
    /// The nkey with which this relay signs in to NATS: a file with its seed
    #[arg(id = "relay-nats-nkey-file", long, env = "VVS_RELAY_NATS_NKEY_FILE")]
    pub nats_nkey_file: Option<PathBuf>,
    /// This relay's certificate for tls:// servers that ask for one: a PEM file
    #[arg(
        id = "relay-nats-cert-file",
        long,
        env = "VVS_RELAY_NATS_CERT_FILE",
        requires = "relay-nats-key-file"
    )]
    pub nats_cert_file: Option<PathBuf>,
    /// The key of that certificate: a PEM file
    #[arg(
        id = "relay-nats-key-file",
        long,
        env = "VVS_RELAY_NATS_KEY_FILE",
        requires = "relay-nats-cert-file"
    )]
    pub nats_key_file: Option<PathBuf>,
    /// How long a login may take, from connecting to approval
    #[arg(
        id = "relay-login-ttl",
        long,
        env = "VVS_RELAY_LOGIN_TTL",
        default_value = "10m",
        value_parser = humantime::parse_duration,
    )]
    pub login_ttl: Duration,
    /// How strongly an approving browser must be tied to its editor at least; no client can lower
    /// it
    #[arg(
        id = "relay-min-binding",
        long,
        env = "VVS_RELAY_MIN_BINDING",
        value_enum,
        default_value = "confirm"
    )]
    pub min_binding: MinBinding,
    /// Where a browser may take a completion code besides an editor's loopback listener: whole
    /// addresses, compared byte for byte, separated by commas
    #[arg(
        id = "relay-return-uris",
        long,
        env = "VVS_RELAY_RETURN_URIS",
        value_delimiter = ',',
        default_value = "vvs://auth/complete",
        value_parser = return_uri,
    )]
    pub return_uris: Vec<String>,
    /// Whether a browser may take a completion code to a listener on the browser's own machine
    #[arg(
        id = "relay-loopback-listeners",
        long,
        env = "VVS_RELAY_LOOPBACK_LISTENERS",
        default_value_t = true,
        action = clap::ArgAction::Set,
    )]
    pub loopback_listeners: bool,
    /// The key that all relays share, for tickets and completion codes: a file with the base64 of
    /// 32 random bytes
    #[arg(id = "relay-key-file", long, env = "VVS_RELAY_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// How long a socket may stay open that starts no login, and authenticates and resumes nothing;
    /// then it is closed with 4000. At most twelve times as long when it is told to retry
    #[arg(
        id = "relay-sign-in-time",
        long,
        env = "VVS_RELAY_SIGN_IN_TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration,
    )]
    pub sign_in_time: Duration,
    /// Web origins that may open a WebSocket besides the editor's own, separated by commas
    #[arg(
        id = "relay-allowed-origins",
        long,
        env = "VVS_RELAY_ALLOWED_ORIGINS",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new(),
    )]
    pub allowed_origins: Vec<String>,
    /// How often an editor is pinged
    #[arg(
        id = "relay-heartbeat-interval",
        long,
        env = "VVS_RELAY_HEARTBEAT_INTERVAL",
        default_value = "25s",
        value_parser = humantime::parse_duration,
    )]
    pub heartbeat_interval: Duration,
    /// How long an editor may take to answer a ping
    #[arg(
        id = "relay-heartbeat-timeout",
        long,
        env = "VVS_RELAY_HEARTBEAT_TIMEOUT",
        default_value = "8s",
        value_parser = humantime::parse_duration,
    )]
    pub heartbeat_timeout: Duration,
    /// WebSockets held at the same time; further ones get 503. As many logins are kept whose
    /// WebSocket is gone, and a tenth as many that failed
    #[arg(
        id = "relay-max-connections",
        long,
        env = "VVS_RELAY_MAX_CONNECTIONS",
        default_value_t = 100_000,
        value_parser = count(),
    )]
    pub max_connections: usize,
    /// WebSockets held at the same time by one IPv4 address or IPv6 /64; further ones get 429. As
    /// many of its logins are kept whose WebSocket is gone, and a tenth as many that failed
    #[arg(
        id = "relay-max-connections-per-address",
        long,
        env = "VVS_RELAY_MAX_CONNECTIONS_PER_ADDRESS",
        default_value_t = 2000,
        value_parser = count(),
    )]
    pub max_connections_per_address: usize,
    /// How many times the places of an address an IPv4 /24 holds, of WebSockets and of logins,
    /// while more than half of all are taken: 0 for no limit, or from 8 to 10000
    #[arg(
        id = "relay-places-per-24",
        long,
        env = "VVS_RELAY_PLACES_PER_24",
        default_value_t = 8,
        value_parser = times::<8>,
    )]
    pub places_per_24: u32,
    /// How many times the places of an address an IPv6 /56 holds: 0, or from 8 to 10000
    #[arg(
        id = "relay-places-per-56",
        long,
        env = "VVS_RELAY_PLACES_PER_56",
        default_value_t = 8,
        value_parser = times::<8>,
    )]
    pub places_per_56: u32,
    /// How many times the places of an address an IPv6 /48 holds: 0, or from 16 to 10000
    #[arg(
        id = "relay-places-per-48",
        long,
        env = "VVS_RELAY_PLACES_PER_48",
        default_value_t = 16,
        value_parser = times::<16>,
    )]
    pub places_per_48: u32,
    /// Networks whose addresses are each shared by many people, such as offices and mobile
    /// carriers, and a factor for the bounds and handshakes of each address in them:
    /// `203.0.113.0/24=20`, separated by commas. The narrowest network of an address counts
    #[arg(
        id = "relay-shared-networks",
        long,
        env = "VVS_RELAY_SHARED_NETWORKS",
        value_delimiter = ','
    )]
    pub shared_networks: Vec<SharedNetwork>,
    /// Memory in bytes that WebSockets and logins may need before new WebSockets get 503. It counts
    /// 16 KiB for each WebSocket, 4 KiB for each login without one, data that waits to be sent, and
    /// incomplete messages
    #[arg(
        id = "relay-max-memory",
        long,
        env = "VVS_RELAY_MAX_MEMORY",
        default_value_t = 2 * 1024 * 1024 * 1024,
    )]
    pub max_memory: usize,
    /// Calls of web under way at the same time, of which many wait for an editor; further ones get
    /// `OVERLOADED`
    #[arg(
        id = "relay-max-calls",
        long,
        env = "VVS_RELAY_MAX_CALLS",
        default_value_t = 10_000
    )]
    pub max_calls: usize,
    /// Connections of one SPIFFE id at the same time to each of the two ports, which all processes
    /// with that id share; further ones are closed immediately. Gateways' WebSockets do not count:
    /// they have a separate bound
    #[arg(
        id = "relay-max-connections-per-peer",
        long,
        env = "VVS_RELAY_MAX_CONNECTIONS_PER_PEER",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_connections_per_peer: u32,
    /// Calls of one SPIFFE id under way at the same time; further ones get `PEER_BUSY`
    #[arg(
        id = "relay-max-calls-per-peer",
        long,
        env = "VVS_RELAY_MAX_CALLS_PER_PEER",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_calls_per_peer: u32,
    /// Streams of one SPIFFE id at the same time, such as those that watch the health; further ones
    /// get `PEER_BUSY`
    #[arg(
        id = "relay-max-streams-per-peer",
        long,
        env = "VVS_RELAY_MAX_STREAMS_PER_PEER",
        default_value_t = 1500,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_streams_per_peer: u32,
    /// Questions to other relays under way at the same time, for logins that are not held here;
    /// further ones get `OVERLOADED`
    #[arg(
        id = "relay-max-asks",
        long,
        env = "VVS_RELAY_MAX_ASKS",
        default_value_t = 10_000
    )]
    pub max_asks: usize,
    /// Answers to other relays under way at the same time; a question beyond them is dropped
    #[arg(
        id = "relay-max-answers",
        long,
        env = "VVS_RELAY_MAX_ANSWERS",
        default_value_t = 10_000
    )]
    pub max_answers: usize,
    /// How long a peer may take for the TLS handshake, for its first request, and for the headers
    /// of each request
    #[arg(
        id = "relay-header-timeout",
        long,
        env = "VVS_RELAY_HEADER_TIMEOUT",
        default_value = "10s",
        value_parser = humantime::parse_duration,
    )]
    pub header_timeout: Duration,
    /// Unfinished logins of one IPv4 address or IPv6 /64, with a WebSocket or without; further ones
    /// get 429, unless a silent one gives way
    #[arg(
        id = "relay-max-logins-per-address",
        long,
        env = "VVS_RELAY_MAX_LOGINS_PER_ADDRESS",
        default_value_t = 20,
        value_parser = count(),
    )]
    pub max_logins_per_address: usize,
    /// How old a login must be to give way to a new one of an address that has its maximum, if its
    /// editor has said nothing and no browser has opened its link: from 1s to 1h. It is told
    /// `auth:expired` and closed with 4503
    #[arg(
        id = "relay-silent-login-time",
        long,
        env = "VVS_RELAY_SILENT_LOGIN_TIME",
        default_value = "60s",
        value_parser = silent_time,
    )]
    pub silent_login_time: Duration,
    /// Handshakes that one IPv4 address or IPv6 /64 regains each minute
    #[arg(
        id = "relay-handshakes-per-minute",
        long,
        env = "VVS_RELAY_HANDSHAKES_PER_MINUTE",
        default_value = "60",
        value_parser = rate,
    )]
    pub handshakes_per_minute: NonZeroU32,
    /// Handshakes that one IPv4 address or IPv6 /64 may make in one burst, and its sockets that are
    /// not signed in; further ones get 429. An editor that signs in gives its own back
    #[arg(
        id = "relay-handshake-burst",
        long,
        env = "VVS_RELAY_HANDSHAKE_BURST",
        default_value = "300",
        value_parser = rate,
    )]
    pub handshake_burst: NonZeroU32,
    /// Messages, pings, and unsolicited pongs that one socket may send each minute; beyond that, it
    /// is closed with 4003
    #[arg(
        id = "relay-messages-per-minute",
        long,
        env = "VVS_RELAY_MESSAGES_PER_MINUTE",
        default_value = "60",
        value_parser = rate,
    )]
    pub messages_per_minute: NonZeroU32,
    /// Longest message before sign-in, in bytes; longer ones close the socket with 1009
    #[arg(
        id = "relay-max-message-bytes",
        long,
        env = "VVS_RELAY_MAX_MESSAGE_BYTES",
        default_value_t = 8 * 1024,
    )]
    pub max_message_bytes: usize,
    /// Longest message after sign-in, in bytes; longer ones close the socket with 1009
    #[arg(
        id = "relay-max-message-bytes-signed-in",
        long,
        env = "VVS_RELAY_MAX_MESSAGE_BYTES_SIGNED_IN",
        default_value_t = 64 * 1024,
    )]
    pub max_message_bytes_signed_in: usize,
    /// Bytes that wait for a slow editor; beyond that, its socket is closed with 4001
    #[arg(
        id = "relay-send-queue-bytes",
        long,
        env = "VVS_RELAY_SEND_QUEUE_BYTES",
        default_value_t = 64 * 1024,
    )]
    pub send_queue_bytes: usize,
    /// The audience that tokens must have: their `aud`
    #[arg(
        id = "relay-audience",
        long,
        env = "VVS_RELAY_AUDIENCE",
        default_value = "vvs",
        value_parser = NonEmptyStringValueParser::new(),
    )]
    pub audience: String,
    /// How often the keys of tokens are fetched
    #[arg(
        id = "relay-keys-interval",
        long,
        env = "VVS_RELAY_KEYS_INTERVAL",
        default_value = "1m",
        value_parser = humantime::parse_duration,
    )]
    pub keys_interval: Duration,
    /// The minimum time between two fetches of keys, however many editors present a token with an
    /// unknown one
    #[arg(
        id = "relay-keys-pause",
        long,
        env = "VVS_RELAY_KEYS_PAUSE",
        default_value = "10s",
        value_parser = humantime::parse_duration,
    )]
    pub keys_pause: Duration,
    /// How long the feed of revocations may be silent before bearer tokens get `stale_feed`
    #[arg(
        id = "relay-feed-silence",
        long,
        env = "VVS_RELAY_FEED_SILENCE",
        default_value = "60s",
        value_parser = humantime::parse_duration,
    )]
    pub feed_silence: Duration,
    /// Calls to sessions for editors, such as refreshes, in flight at the same time; further ones
    /// wait for their turn. Half as many beside them replace lost acknowledgements
    #[arg(
        id = "relay-calls-at-once",
        long,
        env = "VVS_RELAY_CALLS_AT_ONCE",
        default_value_t = 32,
        value_parser = calls,
    )]
    pub calls_at_once: usize,
    /// How long a call to sessions waits for its turn before the editor is told to try again
    #[arg(
        id = "relay-turn-time",
        long,
        env = "VVS_RELAY_TURN_TIME",
        default_value = "30s",
        value_parser = humantime::parse_duration,
    )]
    pub turn_time: Duration,
    /// Proofs that one socket accepts before it is closed with 4000; a new socket starts from zero
    #[arg(
        id = "relay-proofs-per-socket",
        long,
        env = "VVS_RELAY_PROOFS_PER_SOCKET",
        default_value_t = 128
    )]
    pub proofs_per_socket: usize,
    /// Sockets at this relay that are signed in with one session; the next one gets `unavailable`,
    /// and none is closed
    #[arg(
        id = "relay-max-sockets-per-session",
        long,
        env = "VVS_RELAY_MAX_SOCKETS_PER_SESSION",
        default_value = "64",
        value_parser = calls,
    )]
    pub max_sockets_per_session: usize,
    /// Refused proofs of sessions' own keys that go into the audit log each minute; all go into
    /// this relay's own log
    #[arg(
        id = "relay-audits-per-minute",
        long,
        env = "VVS_RELAY_AUDITS_PER_MINUTE",
        default_value = "60",
        value_parser = rate,
    )]
    pub audits_per_minute: NonZeroU32,
    /// Whether the gRPC port describes itself (server reflection)
    #[arg(
        id = "relay-reflection",
        long,
        env = "VVS_RELAY_REFLECTION",
        default_value_t = true,
        action = clap::ArgAction::Set,
    )]
    pub reflection: bool,
}

impl Settings {
    /// Returns the problems with the choices that were made. A file that disappears later is waited
    /// for.
    pub fn problems(&self, public_url: Option<&Origin>) -> Vec<String> {
        let files = [
            (
                "VVS_RELAY_NATS_CA_FILE (--relay-nats-ca-file)",
                &self.nats_ca_file,
            ),
            (
                "VVS_RELAY_NATS_NKEY_FILE (--relay-nats-nkey-file)",
                &self.nats_nkey_file,
            ),
            (
                "VVS_RELAY_NATS_CERT_FILE (--relay-nats-cert-file)",
                &self.nats_cert_file,
            ),
            (
                "VVS_RELAY_NATS_KEY_FILE (--relay-nats-key-file)",
                &self.nats_key_file,
            ),
        ];
        let unread = |(setting, path): (&str, &Option<PathBuf>)| {
            let path = path.as_ref()?;
            let cause = std::fs::read(path).err()?;
            Some(format!(
                "{setting}: cannot read {}: {cause}",
                path.display()
            ))
        };
        let own = self
            .return_uris
            .iter()
            .filter(|uri| is_own(uri, public_url))
            .map(|uri| {
                format!(
                    "VVS_RELAY_RETURN_URIS (--relay-return-uris): {uri} is this server itself, as \
                VVS_PUBLIC_URL says"
                )
            });

        files.into_iter().filter_map(unread).chain(own).collect()
    }

    /// Returns how other relays are reached, if there are any.
    pub(crate) fn dial(&self) -> Option<Broker> {
        let Some(BackplaneKind::Nats(servers)) = self.backplane.clone() else {
            return None;
        };
        Some(Broker {
            servers,
            ca_file: self.nats_ca_file.clone(),
            nkey_file: self.nats_nkey_file.clone(),
            certificate: self.nats_cert_file.clone().zip(self.nats_key_file.clone()),
            max_asks: self.max_asks,
            max_answers: self.max_answers,
        })
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            handshakes_per_minute: self.handshakes_per_minute,
            handshake_burst: self.handshake_burst,
            logins_per_address: self.max_logins_per_address,
            silent_login_time: self.silent_login_time,
            connections: share::Bounds {
                total: self.max_connections,
                per_address: self.max_connections_per_address,
            },
            networks: Networks {
                ipv4_24: self.places_per_24,
                ipv6_56: self.places_per_56,
                ipv6_48: self.places_per_48,
                shared: self.shared_networks.clone(),
            },
            memory: self.max_memory,
            calls: self.max_calls,
        }
    }

    pub(crate) fn quota(&self) -> Quota {
        let bound = |most, setting| Bound { most, setting };
        Quota::new(quota::Bounds {
            connections: bound(
                self.max_connections_per_peer,
                "VVS_RELAY_MAX_CONNECTIONS_PER_PEER",
            ),
            calls: bound(self.max_calls_per_peer, "VVS_RELAY_MAX_CALLS_PER_PEER"),
            streams: bound(self.max_streams_per_peer, "VVS_RELAY_MAX_STREAMS_PER_PEER"),
        })
    }

    pub(crate) fn terms(&self) -> Terms {
        Terms {
            keys_interval: self.keys_interval,
            keys_pause: self.keys_pause,
            feed_silence: self.feed_silence,
            calls_at_once: self.calls_at_once,
            ends_at_once: self.max_connections,
            turn_time: self.turn_time,
            audits_per_minute: self.audits_per_minute,
            proofs_per_socket: self.proofs_per_socket,
            sockets_per_session: self.max_sockets_per_session,
        }
    }
}

/// Refuses an address that the hand-back page would refuse.
fn return_uri(text: &str) -> Result<String, String> {
    match text.parse::<ReturnUri>() {
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(format!(
            "VVS_RELAY_RETURN_URIS (--relay-return-uris): {text:?} {why}"
        )),
    }
}

/// Returns whether a code would be taken back to this server.
fn is_own(uri: &str, public_url: Option<&Origin>) -> bool {
    let port = public_url.and_then(Origin::loopback_port);
    uri.parse::<ReturnUri>()
        .is_ok_and(|uri| uri.is_listener_on(port))
}

/// At least one place: without any, nobody would ever be served.
fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

fn times<const LEAST: u32>(text: &str) -> Result<u32, String> {
    share::times(text, LEAST)
}

fn silent_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|cause| cause.to_string())?;
    let is_sound = (Duration::from_secs(1)..=Duration::from_hours(1)).contains(&time);
    if is_sound {
        Ok(time)
    } else {
        Err("must be from 1s to 1h".to_owned())
    }
}

/// At least one place: without any, no call would ever be made, and nobody would sign in.
fn calls(text: &str) -> Result<usize, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=100_000).contains(count));
    count.ok_or_else(|| "must be from 1 to 100000".to_owned())
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

/// The kind of backplane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackplaneKind {
    /// In this process; for a single relay.
    Memory,
    /// Over these servers of one NATS cluster.
    Nats(Vec<String>),
}

/// Refuses secrets in an address, because it is shown and logged.
fn backplane(text: &str) -> Result<BackplaneKind, String> {
    if text == "memory" {
        return Ok(BackplaneKind::Memory);
    }

    let is_server = |server: &str| {
        let url = server.parse::<url::Url>().ok()?;
        let is_bare =
            url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let is_ours =
            matches!(url.scheme(), "nats" | "tls") && url.has_host() && url.fragment().is_none();
        (is_bare && is_ours && matches!(url.path(), "" | "/")).then(|| url.scheme().to_owned())
    };
    let servers: Vec<_> = text
        .split(',')
        .map(|server| server.trim().to_owned())
        .collect();
    let schemes: Option<Vec<_>> = servers.iter().map(|server| is_server(server)).collect();

    match schemes {
        Some(schemes) if schemes.iter().all(|scheme| *scheme == schemes[0]) => {
            Ok(BackplaneKind::Nats(servers))
        }
        _ => Err(
            "VVS_RELAY_BACKPLANE takes `memory`, or nats://HOST:PORT or tls://HOST:PORT, several \
             separated by commas, all of one kind and without user or password: those are \
             VVS_RELAY_NATS_NKEY_FILE's"
                .to_owned(),
        ),
    }
}

/// The least binding; see the security notes for what each defends against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MinBinding {
    /// The person compares a code and confirms
    Confirm,
    /// The person types a code from the browser into the editor
    Typed,
    /// A link that only the approving machine opens carries the code
    Link,
}

impl From<MinBinding> for Binding {
    fn from(least: MinBinding) -> Self {
        match least {
            MinBinding::Confirm => Self::Confirm,
            MinBinding::Typed => Self::Typed,
            MinBinding::Link => Self::Link,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::BackplaneKind;

    #[derive(clap::Parser, Debug)]
    struct Command {
        #[command(flatten)]
        settings: super::Settings,
    }

    #[test]
    fn a_backplane_is_in_process_or_servers_of_one_kind_without_a_password() {
        let parse = |text| Command::try_parse_from(["relay", "--relay-backplane", text]);
        assert_eq!(
            parse("memory").unwrap().settings.backplane,
            Some(BackplaneKind::Memory)
        );
        assert!(parse("memory").unwrap().settings.dial().is_none());

        let two = parse("tls://a:4222, tls://b:4222")
            .unwrap()
            .settings
            .dial()
            .unwrap();
        assert_eq!(two.servers, ["tls://a:4222", "tls://b:4222"]);

        for bad in [
            "",
            "redis://a",
            "nats://",
            "nats://a,tls://b",
            "nats://user:password@a",
            "nats://a/b",
            "nats://a,",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_has_at_least_one_socket() {
        let parse =
            |most| Command::try_parse_from(["relay", "--relay-max-sockets-per-session", most]);
        assert_eq!(
            Command::try_parse_from(["relay"])
                .unwrap()
                .settings
                .max_sockets_per_session,
            64
        );
        assert!(parse("1").is_ok() && parse("100000").is_ok());
        assert!(parse("0").is_err() && parse("100001").is_err());
    }

    #[test]
    fn an_address_that_the_hand_back_page_would_refuse_is_refused_at_start_by_its_name() {
        let parse = |uris| Command::try_parse_from(["relay", "--relay-return-uris", uris]);
        assert_eq!(
            parse("vvs://a,http://127.0.0.1:5000/")
                .unwrap()
                .settings
                .return_uris
                .len(),
            2
        );

        for (bad, why) in [
            (
                "vvs://a,javascript:alert(1)",
                "\"javascript:alert(1)\" has a scheme that browsers",
            ),
            ("vvs://it's", "holds a space, quote"),
            ("vvs://a, vvs://b", "\" vvs://b\" holds a space"),
            ("", "\"\" is not a whole address"),
            ("VVS://a", "in lower case"),
            ("http://127.0.0.1:5000//x", "nothing or one NAME"),
            ("https://app.example.com/done", "has a scheme that browsers"),
        ] {
            let refusal = parse(bad).unwrap_err().to_string();
            assert!(
                refusal.contains("VVS_RELAY_RETURN_URIS") && refusal.contains(why),
                "{refusal}"
            );
        }
    }

    #[test]
    fn an_address_of_this_server_itself_is_refused_at_start() {
        let parse = |uri| {
            Command::try_parse_from(["relay", "--relay-return-uris", uri])
                .unwrap()
                .settings
        };
        for uri in ["http://127.0.0.1:8080/x", "http://[::1]:8080"] {
            let public_url = "http://localhost:8080".parse().unwrap();
            let problems = parse(uri).problems(Some(&public_url));
            assert!(
                problems[0].contains("VVS_RELAY_RETURN_URIS") && problems[0].contains(uri),
                "{problems:?}"
            );
            assert!(
                parse(uri)
                    .problems(Some(&"http://localhost:8081".parse().unwrap()))
                    .is_empty()
            );
        }
    }
}
