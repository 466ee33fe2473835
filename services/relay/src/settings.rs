//! What can be set about the relay, with names, defaults and help in one place.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use vvs_proto::frame::Binding;

use crate::authority::Terms;
use crate::hello::is_return_uri;

/// The relay's settings.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Relay")]
#[group(skip)]
pub struct Settings {
    /// Where the gateway reaches this relay's WebSockets
    #[arg(id = "relay-ws-addr", long, env = "VVS_RELAY_WS_ADDR")]
    pub ws_addr: Option<SocketAddr>,
    /// Where web calls this relay (gRPC)
    #[arg(id = "relay-rpc-addr", long, env = "VVS_RELAY_RPC_ADDR", default_value = "127.0.0.1:50051")]
    pub rpc_addr: SocketAddr,
    /// Where the sessions role is reached (gRPC), as HOST:PORT; several with commas between
    #[arg(id = "relay-sessions-addr", long, env = "VVS_RELAY_SESSIONS_ADDR")]
    pub sessions_addr: Option<String>,
    /// How relays find each other's logins: `memory` for a single relay
    #[arg(id = "relay-backplane", long, env = "VVS_RELAY_BACKPLANE")]
    pub backplane: Option<BackplaneKind>,
    /// How long a login may take, from connecting to approval
    #[arg(id = "relay-login-ttl", long, env = "VVS_RELAY_LOGIN_TTL", default_value = "10m", value_parser = humantime::parse_duration)]
    pub login_ttl: Duration,
    /// How an approving browser must at least be tied to its editor; no client can lower it
    #[arg(id = "relay-min-binding", long, env = "VVS_RELAY_MIN_BINDING", value_enum, default_value = "confirm")]
    pub min_binding: MinBinding,
    /// Where a browser may take a completion code besides an editor's loopback listener, separated by commas
    #[arg(id = "relay-return-uris", long, env = "VVS_RELAY_RETURN_URIS", value_delimiter = ',', default_value = "vvs://auth/complete", value_parser = return_uri)]
    pub return_uris: Vec<String>,
    /// The key that all relays share, for tickets and completion codes: a file with the base64 of 32 random bytes
    #[arg(id = "relay-key-file", long, env = "VVS_RELAY_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// How long a socket may be open that starts no login, authenticates and resumes nothing; then it is closed with
    /// 4000. At most twelve times as long when it is told to try again
    #[arg(id = "relay-sign-in-time", long, env = "VVS_RELAY_SIGN_IN_TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub sign_in_time: Duration,
    /// Web origins that may open a WebSocket besides the editor's own, separated by commas
    #[arg(id = "relay-allowed-origins", long, env = "VVS_RELAY_ALLOWED_ORIGINS", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub allowed_origins: Vec<String>,
    /// How often an editor is pinged
    #[arg(id = "relay-heartbeat-interval", long, env = "VVS_RELAY_HEARTBEAT_INTERVAL", default_value = "25s", value_parser = humantime::parse_duration)]
    pub heartbeat_interval: Duration,
    /// How long an editor may take to answer a ping
    #[arg(id = "relay-heartbeat-timeout", long, env = "VVS_RELAY_HEARTBEAT_TIMEOUT", default_value = "8s", value_parser = humantime::parse_duration)]
    pub heartbeat_timeout: Duration,
    /// WebSockets held at once; further ones get 503. As many logins are kept whose WebSocket is gone, and a
    /// tenth as many that came to nothing
    #[arg(id = "relay-max-connections", long, env = "VVS_RELAY_MAX_CONNECTIONS", default_value_t = 100_000)]
    pub max_connections: usize,
    /// Unfinished logins of one IPv4 address or IPv6 /64, with a WebSocket or without; further ones get 429
    #[arg(id = "relay-max-logins-per-address", long, env = "VVS_RELAY_MAX_LOGINS_PER_ADDRESS", default_value_t = 20)]
    pub max_logins_per_address: usize,
    /// Handshakes that one IPv4 address or IPv6 /64 regains each minute
    #[arg(id = "relay-handshakes-per-minute", long, env = "VVS_RELAY_HANDSHAKES_PER_MINUTE", default_value = "60", value_parser = rate)]
    pub handshakes_per_minute: NonZeroU32,
    /// Handshakes that one IPv4 address or IPv6 /64 may make at once, and its sockets that are not signed in; further ones get 429. Whoever signs in gives its own back
    #[arg(id = "relay-handshake-burst", long, env = "VVS_RELAY_HANDSHAKE_BURST", default_value = "300", value_parser = rate)]
    pub handshake_burst: NonZeroU32,
    /// Messages, pings, and pongs that answer no ping, that one socket may send each minute; beyond, it is closed with 4003
    #[arg(id = "relay-messages-per-minute", long, env = "VVS_RELAY_MESSAGES_PER_MINUTE", default_value = "60", value_parser = rate)]
    pub messages_per_minute: NonZeroU32,
    /// Longest message before sign-in, in bytes; longer ones close the socket with 1009
    #[arg(id = "relay-max-message-bytes", long, env = "VVS_RELAY_MAX_MESSAGE_BYTES", default_value_t = 8 * 1024)]
    pub max_message_bytes: usize,
    /// Longest message after sign-in, in bytes; longer ones close the socket with 1009
    #[arg(id = "relay-max-message-bytes-signed-in", long, env = "VVS_RELAY_MAX_MESSAGE_BYTES_SIGNED_IN", default_value_t = 64 * 1024)]
    pub max_message_bytes_signed_in: usize,
    /// Bytes that wait for a slow editor; beyond, its socket is closed with 4001
    #[arg(id = "relay-send-queue-bytes", long, env = "VVS_RELAY_SEND_QUEUE_BYTES", default_value_t = 64 * 1024)]
    pub send_queue_bytes: usize,
    /// Who tokens must be for: their `aud`
    #[arg(id = "relay-audience", long, env = "VVS_RELAY_AUDIENCE", default_value = "vvs", value_parser = NonEmptyStringValueParser::new())]
    pub audience: String,
    /// How often the keys of tokens are fetched
    #[arg(id = "relay-keys-interval", long, env = "VVS_RELAY_KEYS_INTERVAL", default_value = "1m", value_parser = humantime::parse_duration)]
    pub keys_interval: Duration,
    /// How long at least between two fetches of keys, however many editors show a token with an unknown one
    #[arg(id = "relay-keys-pause", long, env = "VVS_RELAY_KEYS_PAUSE", default_value = "10s", value_parser = humantime::parse_duration)]
    pub keys_pause: Duration,
    /// How long the feed of revocations may be silent before bearer tokens get `stale_feed`
    #[arg(id = "relay-feed-silence", long, env = "VVS_RELAY_FEED_SILENCE", default_value = "60s", value_parser = humantime::parse_duration)]
    pub feed_silence: Duration,
    /// Calls to sessions for editors, such as refreshes, in flight at once; further ones wait for their turn
    #[arg(id = "relay-calls-at-once", long, env = "VVS_RELAY_CALLS_AT_ONCE", default_value_t = 32, value_parser = calls)]
    pub calls_at_once: usize,
    /// How long such a call waits for its turn before the editor is told to try again
    #[arg(id = "relay-turn-time", long, env = "VVS_RELAY_TURN_TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub turn_time: Duration,
    /// Proofs that one socket takes before it is closed with 4000; a new one remembers none
    #[arg(id = "relay-proofs-per-socket", long, env = "VVS_RELAY_PROOFS_PER_SOCKET", default_value_t = 128)]
    pub proofs_per_socket: usize,
    /// Refused proofs that go into the audit log each minute; all go into this relay's own log
    #[arg(id = "relay-audits-per-minute", long, env = "VVS_RELAY_AUDITS_PER_MINUTE", default_value = "60", value_parser = rate)]
    pub audits_per_minute: NonZeroU32,
    /// Whether the gRPC port describes itself (server reflection)
    #[arg(id = "relay-reflection", long, env = "VVS_RELAY_REFLECTION", default_value_t = true, action = clap::ArgAction::Set)]
    pub reflection: bool,
}

impl Settings {
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
        }
    }
}

/// What the hand-back page would refuse must not be promised to an editor.
fn return_uri(text: &str) -> Result<String, String> {
    let refusal = "VVS_RELAY_RETURN_URIS takes a scheme that a browser hands to another program, or an http address of \
                   127.0.0.1 or [::1] with a port from 1024; without spaces, quotes and other signs that are not for URLs";
    if is_return_uri(text) { Ok(text.to_owned()) } else { Err(refusal.to_owned()) }
}

/// Without a place no call would ever go out.
fn calls(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=100_000).contains(count));
    count.ok_or_else(|| "must be from 1 to 100000".to_owned())
}

/// Beyond a million the limiter's arithmetic ends.
fn rate(text: &str) -> Result<NonZeroU32, String> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.and_then(NonZeroU32::new).ok_or_else(|| "must be from 1 to 1000000".to_owned())
}

/// Which backplane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BackplaneKind {
    /// In this process; for a single relay
    Memory,
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

    #[derive(clap::Parser, Debug)]
    struct Command {
        #[command(flatten)]
        settings: super::Settings,
    }

    #[test]
    fn an_address_that_the_hand_back_page_would_refuse_is_refused_at_start_by_its_name() {
        let parse = |uris| Command::try_parse_from(["relay", "--relay-return-uris", uris]);
        assert_eq!(parse("vvs://a,http://127.0.0.1:5000/").unwrap().settings.return_uris.len(), 2);
        for bad in ["vvs://a,javascript:alert(1)", "vvs://it's", ""] {
            let refusal = parse(bad).unwrap_err().to_string();
            assert!(refusal.contains("VVS_RELAY_RETURN_URIS"), "{refusal}");
        }
    }
}
