//! What can be set about the public edge, with names, defaults and help in one place.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// The public edge.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Gateway")]
#[group(skip)]
pub struct Settings {
    /// Where browsers and editors connect
    #[arg(long, env = "VVS_GATEWAY_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// The public certificate and its chain, PEM; without one the edge speaks plain HTTP
    #[arg(id = "gateway-tls-cert", long, env = "VVS_GATEWAY_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The public certificate's private key, PEM
    #[arg(id = "gateway-tls-key", long, env = "VVS_GATEWAY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Where the relays take WebSockets: names or addresses with commas between them. A name that stands for several
    /// addresses is several relays, and is looked up again every 5 seconds
    #[arg(id = "gateway-relay-addr", long, env = "VVS_GATEWAY_RELAY_ADDR", value_name = "HOST:PORT,…")]
    pub relay_addr: Option<String>,
    /// Where the webs serve their pages, written like the relays
    #[arg(id = "gateway-web-addr", long, env = "VVS_GATEWAY_WEB_ADDR", value_name = "HOST:PORT,…")]
    pub web_addr: Option<String>,
    /// Networks of the proxies in front of us; what any other address says in `x-forwarded-for` is not believed
    #[arg(
        id = "gateway-trusted-proxies",
        long,
        env = "VVS_GATEWAY_TRUSTED_PROXIES",
        value_name = "CIDR,…",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<IpNet>,
    /// Connections held at once; further ones are closed at once
    #[arg(
        id = "gateway-max-connections",
        long,
        env = "VVS_GATEWAY_MAX_CONNECTIONS",
        value_name = "COUNT",
        default_value = "20000"
    )]
    pub max_connections: usize,
    /// Connections held at once by one IPv4 address or IPv6 /64; behind a trusted proxy, sockets and requests under way
    #[arg(
        id = "gateway-max-connections-per-address",
        long,
        env = "VVS_GATEWAY_MAX_CONNECTIONS_PER_ADDRESS",
        value_name = "COUNT",
        default_value = "500"
    )]
    pub max_connections_per_address: usize,
    /// Connections a minute from one IPv4 address or IPv6 /64, of which each may begin with a TLS handshake; as many may come
    /// at once, and further ones are closed at once. Those of trusted proxies do not count
    #[arg(
        id = "gateway-connections-per-minute",
        long,
        env = "VVS_GATEWAY_CONNECTIONS_PER_MINUTE",
        value_name = "COUNT",
        default_value = "1200"
    )]
    pub connections_per_minute: NonZeroU32,
    /// Requests under way at once, sockets not among them; further ones get 503
    #[arg(
        id = "gateway-max-requests",
        long,
        env = "VVS_GATEWAY_MAX_REQUESTS",
        value_name = "COUNT",
        default_value = "5000"
    )]
    pub max_requests: usize,
    /// Requests under way at once over one connection (HTTP/2)
    #[arg(
        id = "gateway-max-streams",
        long,
        env = "VVS_GATEWAY_MAX_STREAMS",
        value_name = "COUNT",
        default_value = "100"
    )]
    pub max_streams: u32,
    /// Requests a minute from one IPv4 address or IPv6 /64; as many may come at once
    #[arg(
        id = "gateway-requests-per-minute",
        long,
        env = "VVS_GATEWAY_REQUESTS_PER_MINUTE",
        value_name = "COUNT",
        default_value = "600"
    )]
    pub requests_per_minute: NonZeroU32,
    /// Bytes of a request's body
    #[arg(
        id = "gateway-max-body-bytes",
        long,
        env = "VVS_GATEWAY_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value = "65536"
    )]
    pub max_body_bytes: usize,
    /// How long a client may take for the TLS handshake, for its first request, and for the headers of each request
    #[arg(
        id = "gateway-header-timeout",
        long,
        env = "VVS_GATEWAY_HEADER_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub header_timeout: Duration,
    /// How long a connection stays open over which no page is asked for (HTTP/2), and twice that at most; and how long a
    /// client may then take for what it has asked for
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
    /// How long a client may take nothing of what waits for it before its connection is cut (Linux only)
    #[arg(
        id = "gateway-write-timeout",
        long,
        env = "VVS_GATEWAY_WRITE_TIMEOUT",
        value_name = "TIME",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    pub write_timeout: Duration,
    /// How long web and the relay may take to answer; more than the 20 seconds that a page waits for news
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
