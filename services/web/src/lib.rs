//! The web role: pages, identity providers and the approval. Holds no socket, no signing key and no
//! database.
//!
//! `route` lists all paths, and `visit` checks what stands in front of each. A handler asks relay
//! and sessions through `call`, decides with `login` and `account`, and answers with a `page`. What
//! a browser keeps is sealed in `cookie`; `csrf` and `check` decide whether a form and a sign-in
//! are still good; `failure` has what people read when something is not. Identity providers are
//! behind one trait, in `identity`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vvs_auth::key::Keyring;
use vvs_auth::peer::{self, Peers, Role};
use vvs_runtime::Process;
use vvs_runtime::http::{Connector, Limits, Listener};
use vvs_runtime::metrics::{Counters, Metrics};
use vvs_runtime::origin::Origin;
use vvs_runtime::rpc::channel;
use vvs_runtime::trace::TracedChannel;

use crate::call::{Relay, Sessions};
use crate::check::Checks;
use crate::cookie::Cookies;
use crate::csrf::Csrf;
use crate::fetch::Fetch;
use crate::identity::clerk::Clerk;
use crate::identity::dev::{Dev, Key};
use crate::identity::oidc::Oidc;
use crate::identity::{Common, Provider};
use crate::person::People;

mod account;
mod asset;
mod call;
mod check;
mod cookie;
mod csrf;
mod error;
mod failure;
mod fetch;
mod handback;
mod header;
mod identity;
mod jwks;
mod kept;
mod login;
mod page;
mod person;
mod route;
mod visit;

pub use error::Error;

/// How long connecting to another role may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Web's settings.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Web")]
#[group(skip)]
pub struct Settings {
    /// Where the gateway reaches this role's pages
    #[arg(id = "web-http-addr", long, env = "VVS_WEB_HTTP_ADDR")]
    pub http_addr: Option<SocketAddr>,
    /// Who signs people in
    #[arg(id = "web-identity", long, env = "VVS_WEB_IDENTITY", value_enum)]
    pub identity: Option<IdentityKind>,
    /// Which of the people that the identity provider signs in may sign in here: `everyone`,
    /// `domain:example.com` (of a verified email address), `group:NAME`, `organization:ID`,
    /// separated by commas; one that matches is enough
    #[arg(id = "web-allow", long, env = "VVS_WEB_ALLOW", value_delimiter = ',')]
    pub allow: Vec<identity::allow::Rule>,
    /// File with the key that seals cookies: base64 of 32 random bytes; a second line may hold the
    /// key before it
    #[arg(id = "web-key-file", long, env = "VVS_WEB_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// Where the relay is reached (gRPC), as HOST:PORT; several with commas between, and a name
    /// that stands for several addresses is several relays
    #[arg(id = "web-relay-addr", long, env = "VVS_WEB_RELAY_ADDR")]
    pub relay_addr: Option<String>,
    /// Where the sessions role is reached (gRPC), as HOST:PORT; several with commas between
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
    /// How long a person may leave the page of their editors alone before signing in to the browser
    /// again
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
    /// Keys that the development sign-in of `up --dev-key` looks at each minute; further ones get
    /// 429
    #[arg(
        id = "web-dev-key-guesses-per-minute",
        long,
        env = "VVS_WEB_DEV_KEY_GUESSES_PER_MINUTE",
        default_value = "10",
        value_parser = guesses,
    )]
    pub dev_key_guesses_per_minute: NonZeroU32,
    /// What each browser has to show once before the development sign-in serves it.
    #[arg(skip)]
    pub dev_key: Option<SecretString>,
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
    pub clerk: identity::clerk::Settings,
    #[command(flatten)]
    pub oidc: identity::oidc::Settings,
}

/// What sessions remembers an end for, less a day for clocks.
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

/// Beyond a million the limiter's arithmetic ends.
fn rate(text: &str) -> Result<NonZeroU32, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=1_000_000).contains(count));
    count
        .and_then(NonZeroU32::new)
        .ok_or_else(|| "must be from 1 to 1000000".to_owned())
}

impl Settings {
    /// What does not fit together, each with the setting's name; nothing while no identity provider
    /// is chosen.
    pub fn problems(&self) -> Vec<String> {
        let foreign = match self.identity {
            Some(IdentityKind::Oidc) => self.clerk.chosen(),
            Some(IdentityKind::Clerk) => self.oidc.chosen(),
            Some(IdentityKind::Dev) => self.clerk.chosen().or(self.oidc.chosen()),
            None => None,
        };

        let foreign = foreign.map(|setting| {
            format!("{setting} is set, but VVS_WEB_IDENTITY (--web-identity) is another")
        });
        let mut problems = match self.identity {
            Some(IdentityKind::Clerk) => self.clerk.problems(&self.allow),
            Some(IdentityKind::Oidc) => self.oidc.problems(&self.allow),
            Some(IdentityKind::Dev) if !self.allow.is_empty() => {
                vec![
                    "VVS_WEB_ALLOW (--web-allow) is set, but the development sign-in lets in \
                     anyone as anyone"
                        .to_owned(),
                ]
            }
            Some(IdentityKind::Dev) | None => Vec::new(),
        };

        problems.extend(foreign);

        problems
    }
}

fn guesses(text: &str) -> Result<NonZeroU32, String> {
    let count = text.parse().ok().filter(|count| (1..=1000).contains(count));
    count
        .and_then(NonZeroU32::new)
        .ok_or_else(|| "must be from 1 to 1000".to_owned())
}

/// Which identity provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum IdentityKind {
    /// Anyone is whoever they say they are; only while everything is on loopback
    Dev,
    /// Clerk: its sign-in on our page; see `VVS_WEB_CLERK_…`
    Clerk,
    /// Any OpenID Connect provider, such as Keycloak, Authentik, Google or Entra; see
    /// `VVS_WEB_OIDC_…`
    Oidc,
}

/// What all requests share.
struct Web {
    public_url: Origin,
    identity: Arc<dyn Provider>,
    /// How old a sign-in may be to approve with.
    sign_in_ttl: Duration,
    /// How long it may lie idle to look after one's editors with.
    account_ttl: Duration,
    /// How long it lasts at most.
    sign_in_max_ttl: Duration,
    checks: Checks,
    cookies: Cookies,
    csrf: Csrf,
    /// Makes the names of deliveries.
    requests: Keyring,
    relay: Relay,
    sessions: Sessions,
    jwks: jwks::Cache,
    people: People,
    /// Decisions of people in browsers, by what came of them.
    approvals: Counters,
    /// Who may say where a client is; `None` on a plain port.
    gateways: Option<Arc<Peers>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How long a sign-in is good for what.
#[derive(Clone, Copy)]
struct Ttls {
    sign_in: Duration,
    account: Duration,
    max: Duration,
}

/// The other roles, as this one calls them.
struct Calls {
    relay: TracedChannel,
    sessions: TracedChannel,
}

impl Web {
    fn new(
        identity: Arc<dyn Provider>,
        ttls: Ttls,
        public_url: Origin,
        keyring: &Keyring,
        calls: Calls,
        people: People,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let (approvals, sessions) = (Counters::default(), Sessions::new(calls.sessions, ttls.max));
        metrics.register(
            "vvs_approvals",
            "Decisions in browsers, by outcome",
            approvals.clone(),
        );

        Ok(Self {
            identity,
            sign_in_ttl: ttls.sign_in,
            account_ttl: ttls.account,
            sign_in_max_ttl: ttls.max,
            checks: Checks::new(sessions.clone()),
            cookies: Cookies::new(keyring, &public_url)?,
            csrf: Csrf::new(keyring)?,
            requests: keyring.derive("vvs.web.request")?,
            relay: Relay::new(calls.relay, public_url.clone()),
            sessions,
            jwks: jwks::Cache::default(),
            people,
            approvals,
            gateways: None,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            public_url,
        })
    }
}

/// Serves until stopped. A port without TLS takes the client's address from anybody, so it must be
/// on loopback.
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

    let calls = Calls {
        relay: dial(
            settings.relay_addr.as_deref(),
            Role::Relay,
            &peers,
            &process,
        )
        .map_err(Error::RelayAddr)?,
        sessions: dial(
            settings.sessions_addr.as_deref(),
            Role::Sessions,
            &peers,
            &process,
        )
        .map_err(Error::SessionsAddr)?,
    };
    let people = People::new(
        settings.requests_per_person,
        process.metrics.reached.clone(),
    );
    let common = Common {
        people: people.clone(),
        public_url: public_url.clone(),
        allow: settings.allow.clone(),
        fetch: Fetch::new()?,
        sessions: Sessions::new(calls.sessions.clone(), settings.sign_in_max_ttl),
        metrics: process.metrics.clone(),
        tasks: process.tasks.clone(),
    };
    let identity = provider(&settings, &common)?;
    if identity.is_development() && !address.ip().is_loopback() {
        return Err(Error::DevelopmentOffLoopback(address.to_string()));
    }

    let ttls = Ttls {
        sign_in: settings.sign_in_ttl,
        account: settings.account_ttl,
        max: settings.sign_in_max_ttl,
    };
    let mut web = Web::new(
        identity,
        ttls,
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
    let (watching, stop) = (
        web.identity.clone().watch(web.clone()),
        process.stop.clone(),
    );
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

fn provider(settings: &Settings, common: &Common) -> Result<Arc<dyn Provider>, Error> {
    Ok(match settings.identity.ok_or(Error::NoIdentity)? {
        IdentityKind::Dev => {
            let (guesses, reached) = (
                settings.dev_key_guesses_per_minute,
                common.metrics.reached.clone(),
            );
            let key = settings
                .dev_key
                .as_ref()
                .map(|key| Key::new(key, guesses, reached))
                .transpose()?;
            Arc::new(Dev::new(&common.public_url, key)?)
        }
        IdentityKind::Clerk => Arc::new(Clerk::new(&settings.clerk, common)?),
        IdentityKind::Oidc => Arc::new(Oidc::new(&settings.oidc, common)?),
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
                settings.dev_key_guesses_per_minute.get(),
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
