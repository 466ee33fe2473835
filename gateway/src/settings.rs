//! The settings of the public edge, with names, defaults and help in one place.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use ipnet::IpNet;
use vvs_runtime::share::{self, Networks, SharedNetwork};

use crate::limit::Bounds;
use crate::rate::MOST_PER_MINUTE;

/// The public edge.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Gateway")]
#[group(skip)]
pub struct Settings {
    /// Where browsers and editors connect
    #[arg(
        long,
        env = "VVS_GATEWAY_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,
    /// The public certificate and its chain, PEM; without one the edge speaks plain HTTP
    #[arg(
        id = "gateway-tls-cert",
        long,
        env = "VVS_GATEWAY_TLS_CERT",
        value_name = "FILE"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The public certificate's private key, PEM
    #[arg(
        id = "gateway-tls-key",
        long,
        env = "VVS_GATEWAY_TLS_KEY",
        value_name = "FILE"
    )]
    pub tls_key: Option<PathBuf>,
    /// Where the relays accept WebSockets: names or addresses, separated by commas. A name that
    /// resolves to several addresses is several relays, and is resolved again every 5 seconds
    #[arg(
        id = "gateway-relay-addr",
        long,
        env = "VVS_GATEWAY_RELAY_ADDR",
        value_name = "HOST:PORT,…"
    )]
    pub relay_addr: Option<String>,
    /// Where the webs serve their pages, in the same form as the relays
    #[arg(
        id = "gateway-web-addr",
        long,
        env = "VVS_GATEWAY_WEB_ADDR",
        value_name = "HOST:PORT,…"
    )]
    pub web_addr: Option<String>,
    /// Networks of the proxies in front of the gateway; `x-forwarded-for` from any other address is
    /// not believed
    #[arg(
        id = "gateway-trusted-proxies",
        long,
        env = "VVS_GATEWAY_TRUSTED_PROXIES",
        value_name = "CIDR,…",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<IpNet>,
    /// Connections held at the same time; further ones are closed immediately
    #[arg(
        id = "gateway-max-connections",
        long,
        env = "VVS_GATEWAY_MAX_CONNECTIONS",
        value_name = "COUNT",
        default_value = "20000",
        value_parser = count()
    )]
    pub max_connections: usize,
    /// Connections held at the same time by one IPv4 address or IPv6 /64; behind a trusted proxy,
    /// sockets and requests under way
    #[arg(
        id = "gateway-max-connections-per-address",
        long,
        env = "VVS_GATEWAY_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "COUNT",
        default_value = "500",
        value_parser = count()
    )]
    pub max_connections_per_address: usize,
    /// Connections a minute from one IPv4 address or IPv6 /64, each of which may begin with a TLS
    /// handshake; as many are allowed in one burst, and further ones are closed immediately. Those
    /// of trusted proxies do not count
    #[arg(
        id = "gateway-connections-per-minute",
        long,
        env = "VVS_GATEWAY_CONNECTIONS_PER_MINUTE",
        value_name = "COUNT",
        default_value = "1200",
        value_parser = rate
    )]
    pub connections_per_minute: NonZeroU32,
    /// Complete requests under way at the same time, except sockets, waiting pages and identity
    /// providers; further ones get 503
    #[arg(
        id = "gateway-max-requests",
        long,
        env = "VVS_GATEWAY_MAX_REQUESTS",
        value_name = "COUNT",
        default_value = "5000",
        value_parser = count()
    )]
    pub max_requests: usize,
    /// Requests under way at the same time from one IPv4 address or IPv6 /64; further ones get 429
    #[arg(
        id = "gateway-max-requests-per-address",
        long,
        env = "VVS_GATEWAY_MAX_REQUESTS_PER_ADDRESS",
        value_name = "COUNT",
        default_value = "100",
        value_parser = count()
    )]
    pub max_requests_per_address: usize,
    /// Pages that wait for news of a login at the same time; further ones get 503, and retry
    /// automatically
    #[arg(
        id = "gateway-max-polls",
        long,
        env = "VVS_GATEWAY_MAX_POLLS",
        value_name = "COUNT",
        default_value = "5000",
        value_parser = count()
    )]
    pub max_polls: usize,
    /// Pages that wait for news of a login at the same time from one IPv4 address or IPv6 /64;
    /// further ones get 429
    #[arg(
        id = "gateway-max-polls-per-address",
        long,
        env = "VVS_GATEWAY_MAX_POLLS_PER_ADDRESS",
        value_name = "COUNT",
        default_value = "100",
        value_parser = count()
    )]
    pub max_polls_per_address: usize,
    /// Requests of identity providers under way at the same time, which are Clerk's webhooks and
    /// back-channel logouts; further ones get 503
    #[arg(
        id = "gateway-max-hooks",
        long,
        env = "VVS_GATEWAY_MAX_HOOKS",
        value_name = "COUNT",
        default_value = "1000",
        value_parser = count()
    )]
    pub max_hooks: usize,
    /// Requests of identity providers under way at the same time from one IPv4 address or IPv6 /64;
    /// further ones get 429
    #[arg(
        id = "gateway-max-hooks-per-address",
        long,
        env = "VVS_GATEWAY_MAX_HOOKS_PER_ADDRESS",
        value_name = "COUNT",
        default_value = "100",
        value_parser = count()
    )]
    pub max_hooks_per_address: usize,
    /// Requests under way at the same time whose body has not completely arrived; further ones get
    /// 503
    #[arg(
        id = "gateway-max-bodies",
        long,
        env = "VVS_GATEWAY_MAX_BODIES",
        value_name = "COUNT",
        default_value = "2000",
        value_parser = count()
    )]
    pub max_bodies: usize,
    /// Requests under way at the same time from one IPv4 address or IPv6 /64 whose body has not
    /// completely arrived; further ones get 429
    #[arg(
        id = "gateway-max-bodies-per-address",
        long,
        env = "VVS_GATEWAY_MAX_BODIES_PER_ADDRESS",
        value_name = "COUNT",
        default_value = "50",
        value_parser = count()
    )]
    pub max_bodies_per_address: usize,
    /// Requests under way at the same time over one connection (HTTP/2)
    #[arg(
        id = "gateway-max-streams",
        long,
        env = "VVS_GATEWAY_MAX_STREAMS",
        value_name = "COUNT",
        default_value = "100"
    )]
    pub max_streams: u32,
    /// Requests a minute from one IPv4 address or IPv6 /64; as many are allowed in one burst
    #[arg(
        id = "gateway-requests-per-minute",
        long,
        env = "VVS_GATEWAY_REQUESTS_PER_MINUTE",
        value_name = "COUNT",
        default_value = "600",
        value_parser = rate
    )]
    pub requests_per_minute: NonZeroU32,
    /// Requests of identity providers a minute from one IPv4 address or IPv6 /64, counted
    /// separately from its others; as many are allowed in one burst
    #[arg(
        id = "gateway-hooks-per-minute",
        long,
        env = "VVS_GATEWAY_HOOKS_PER_MINUTE",
        value_name = "COUNT",
        default_value = "6000",
        value_parser = rate
    )]
    pub hooks_per_minute: NonZeroU32,
    /// How many times the places of an address an IPv4 /24 holds in each pool (connections,
    /// requests, waiting pages, identity providers, bodies) while more than half of the pool is
    /// taken: 0 for no limit, or from 8 to 10000
    #[arg(
        id = "gateway-places-per-24",
        long,
        env = "VVS_GATEWAY_PLACES_PER_24",
        value_name = "TIMES",
        default_value = "8",
        value_parser = times::<8>
    )]
    pub places_per_24: u32,
    /// How many times the places of an address an IPv6 /56 holds: 0, or from 8 to 10000
    #[arg(
        id = "gateway-places-per-56",
        long,
        env = "VVS_GATEWAY_PLACES_PER_56",
        value_name = "TIMES",
        default_value = "8",
        value_parser = times::<8>
    )]
    pub places_per_56: u32,
    /// How many times the places of an address an IPv6 /48 holds: 0, or from 16 to 10000
    #[arg(
        id = "gateway-places-per-48",
        long,
        env = "VVS_GATEWAY_PLACES_PER_48",
        value_name = "TIMES",
        default_value = "16",
        value_parser = times::<16>
    )]
    pub places_per_48: u32,
    /// Networks whose addresses are each shared by many people, such as offices and mobile
    /// carriers, and a factor for the bounds and rates of each address in them:
    /// `203.0.113.0/24=20`. The narrowest network of an address counts
    #[arg(
        id = "gateway-shared-networks",
        long,
        env = "VVS_GATEWAY_SHARED_NETWORKS",
        value_name = "CIDR=TIMES,…",
        value_delimiter = ','
    )]
    pub shared_networks: Vec<SharedNetwork>,
    /// Bytes of a request's body
    #[arg(
        id = "gateway-max-body-bytes",
        long,
        env = "VVS_GATEWAY_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value = "65536"
    )]
    pub max_body_bytes: usize,
    /// How long a client may take for the TLS handshake, for its first request, and for the headers
    /// of each request
    #[arg(
        id = "gateway-header-timeout",
        long,
        env = "VVS_GATEWAY_HEADER_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub header_timeout: Duration,
    /// How long a connection over which no page is requested stays open (HTTP/2), and twice that at
    /// most; and how long a client may then take to read an answer
    #[arg(
        id = "gateway-idle-timeout",
        long,
        env = "VVS_GATEWAY_IDLE_TIMEOUT",
        value_name = "TIME",
        default_value = "1m",
        value_parser = humantime::parse_duration
    )]
    pub idle_timeout: Duration,
    /// How long a client may take for a request's whole body
    #[arg(
        id = "gateway-body-timeout",
        long,
        env = "VVS_GATEWAY_BODY_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub body_timeout: Duration,
    /// How long a client may read nothing of the data that waits for it before its connection is
    /// cut (Linux only)
    #[arg(
        id = "gateway-write-timeout",
        long,
        env = "VVS_GATEWAY_WRITE_TIMEOUT",
        value_name = "TIME",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    pub write_timeout: Duration,
    /// How long web and the relay may take to answer; more than the 20 seconds that a page waits
    /// for news
    #[arg(
        id = "gateway-response-timeout",
        long,
        env = "VVS_GATEWAY_RESPONSE_TIMEOUT",
        value_name = "TIME",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    pub response_timeout: Duration,
}

impl Settings {
    pub(crate) fn bounds(&self) -> Bounds {
        let share = |total, per_address| share::Bounds { total, per_address };
        Bounds {
            requests_per_minute: self.requests_per_minute,
            hooks_per_minute: self.hooks_per_minute,
            connections_per_minute: self.connections_per_minute,
            connections: share(self.max_connections, self.max_connections_per_address),
            bodies: share(self.max_bodies, self.max_bodies_per_address),
            requests: share(self.max_requests, self.max_requests_per_address),
            polls: share(self.max_polls, self.max_polls_per_address),
            hooks: share(self.max_hooks, self.max_hooks_per_address),
            networks: Networks {
                ipv4_24: self.places_per_24,
                ipv6_56: self.places_per_56,
                ipv6_48: self.places_per_48,
                shared: self.shared_networks.clone(),
            },
        }
    }
}

/// At least one place: without any, nothing would ever be served.
fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

fn rate(text: &str) -> Result<NonZeroU32, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=MOST_PER_MINUTE).contains(count));
    count
        .and_then(NonZeroU32::new)
        .ok_or_else(|| format!("must be from 1 to {MOST_PER_MINUTE}"))
}

fn times<const LEAST: u32>(text: &str) -> Result<u32, String> {
    share::times(text, LEAST)
}
