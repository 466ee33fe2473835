//! Web's settings, and the limits of their values.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// Web's settings.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Web")]
#[group(skip)]
pub struct Settings {
    /// Where the gateway connects to this role's pages
    #[arg(id = "web-http-addr", long, env = "VVS_WEB_HTTP_ADDR")]
    pub http_addr: Option<SocketAddr>,
    /// File with the key that seals cookies: base64 of 32 random bytes; a second line may hold the
    /// previous key
    #[arg(id = "web-key-file", long, env = "VVS_WEB_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// The address of the relay (gRPC), as HOST:PORT; several separated by commas, and a name that
    /// resolves to several addresses is several relays
    #[arg(id = "web-relay-addr", long, env = "VVS_WEB_RELAY_ADDR")]
    pub relay_addr: Option<String>,
    /// The address of the sessions role (gRPC), as HOST:PORT; several separated by commas
    #[arg(id = "web-sessions-addr", long, env = "VVS_WEB_SESSIONS_ADDR")]
    pub sessions_addr: Option<String>,
    /// How long after signing in to the browser a person may approve
    #[arg(
        id = "web-sign-in-ttl",
        long,
        env = "VVS_WEB_SIGN_IN_TTL",
        default_value = "15m",
        value_parser = humantime::parse_duration,
    )]
    pub sign_in_ttl: Duration,
    /// How long the page of a person's editors may be unused before the person must sign in to the
    /// browser again
    #[arg(
        id = "web-account-ttl",
        long,
        env = "VVS_WEB_ACCOUNT_TTL",
        default_value = "12h",
        value_parser = humantime::parse_duration,
    )]
    pub account_ttl: Duration,
    /// How long a sign-in to the browser lasts at most, however often it is used; 1s to 30d
    #[arg(
        id = "web-sign-in-max-ttl",
        long,
        env = "VVS_WEB_SIGN_IN_MAX_TTL",
        default_value = "24h",
        value_parser = max_ttl,
    )]
    pub sign_in_max_ttl: Duration,
    /// Requests of one signed-in person each minute that go on to other roles or to the identity
    /// provider, for each process of this role; further ones get 429
    #[arg(
        id = "web-requests-per-person",
        long,
        env = "VVS_WEB_REQUESTS_PER_PERSON",
        default_value = "60",
        value_parser = rate,
    )]
    pub requests_per_person: NonZeroU32,
    #[command(flatten)]
    pub identity: vvs_identity::Settings,
}

/// The longest time that sessions stores an end, less a day for clocks.
const MAX_TTL: Duration = Duration::from_hours(30 * 24);

fn max_ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|cause| cause.to_string())?;
    if (Duration::from_secs(1)..=MAX_TTL).contains(&ttl) {
        return Ok(ttl);
    }
    Err(format!(
        "must be from 1s to {}",
        humantime::format_duration(MAX_TTL)
    ))
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: super::Settings,
    }

    #[test]
    fn a_limit_has_a_range() {
        let parse = |flag, value| Line::try_parse_from(["web", flag, value]);
        let settings = Line::try_parse_from(["web"]).unwrap().settings;
        assert_eq!(
            (
                settings.identity.dev_key_guesses_per_minute.get(),
                settings.requests_per_person.get(),
                settings.sign_in_max_ttl.as_secs()
            ),
            (10, 60, 86_400)
        );

        for (flag, good, bad) in [
            (
                "--web-dev-key-guesses-per-minute",
                ["1", "1000"],
                ["0", "1001"],
            ),
            (
                "--web-requests-per-person",
                ["1", "1000000"],
                ["0", "1000001"],
            ),
            ("--web-sign-in-max-ttl", ["1s", "30d"], ["999ms", "31d"]),
        ] {
            for value in good {
                assert!(parse(flag, value).is_ok(), "{flag} {value}");
            }
            for value in bad {
                assert!(parse(flag, value).is_err(), "{flag} {value}");
            }
        }
    }
}
