//! The command line: every setting of every role, as a flag and as an environment variable, and the
//! checks on them. A single role requires each choice; `up` and `demo` make them for you.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vvs_auth::peer::{Entry, Peers};
use vvs_identity::IdentityKind;
use vvs_runtime::admin::HostName;
use vvs_runtime::origin::Origin;
use vvs_runtime::telemetry;
use vvs_runtime::tls::Files;

use crate::Error;
use crate::guard::{self, Judgement, Strictness, Trusts};
use crate::launch::read_keys;

/// Signs a desktop editor in through the browser
#[derive(Parser, Debug)]
#[command(
    name = "vvs-mesh",
    version,
    max_term_width = 100,
    after_help = "Try it: `vvs-mesh demo` runs everything and signs a terminal editor in.\n\
                  Exit codes: 0 drained and ended, 1 a role failed, 2 wrong usage, 78 bad settings."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run all four roles in this process, with nothing else installed
    ///
    /// Keeps its certificates, keys and database in the data directory, prints the addresses it
    /// serves on and then `ready URL` on standard output, and logs to standard error. Ctrl-C
    /// drains, a second one cuts.
    Up(Box<Up>),
    /// Run all four roles, and sign the reference editor in in this terminal
    Demo(Box<Up>),
    /// Run the public edge: TLS, address and rate limits, the route to web and relay
    Gateway(Box<Single<vvs_gateway::Settings>>),
    /// Run the pages: sign-in and approval
    Web(Box<Single<vvs_web::Settings>>),
    /// Run the relay, which holds the editors' sockets
    Relay(Box<Single<vvs_relay::Settings>>),
    /// Run sessions, which keeps users, sessions and signing keys
    Sessions(Box<Single<vvs_sessions::Settings>>),
    /// Read all settings and report all problems
    Check(Box<Check>),
    /// Make or renew the development certificates
    ///
    /// Writes pki/ca.crt, pki/ca.key and pki/ROLE/tls.crt and tls.key for each role and for
    /// `backend` below the data directory. Use it on one machine and for trials; in production, let
    /// cert-manager or a SPIFFE helper write the files.
    Pki(Pki),
    /// Manage the keys that sign tokens
    #[command(subcommand)]
    Keys(Keys),
}

#[derive(Subcommand, Debug)]
pub enum Keys {
    /// Publish the next signing key now, before the current one has had its time
    ///
    /// Works on the database, beside running sessions processes: they publish the key immediately
    /// and sign with it after `VVS_SESSIONS_KEY_LEAD`. Nobody is signed out: the old key verifies
    /// until its last token expires. Prints the key's id and when it begins to sign.
    Rotate(Box<Rotation>),
}

#[derive(Args, Debug)]
pub struct Rotation {
    #[command(flatten)]
    pub strictness: Strictness,
    #[command(flatten)]
    pub sessions: vvs_sessions::Settings,
}

/// Settings of every process.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Every role")]
pub struct Common {
    /// The address that browsers and editors use, such as `https://auth.example.com`; `up` on
    /// loopback makes its own
    #[arg(long, env = "VVS_PUBLIC_URL")]
    pub public_url: Option<Origin>,
    /// How long connections may take to end when the process is told to stop [default: 30s, `up`
    /// 5s]
    #[arg(long, env = "VVS_GRACE", value_parser = humantime::parse_duration)]
    pub grace: Option<Duration>,
    /// The SPIFFE trust domain of all roles
    #[arg(long, env = "VVS_TRUST_DOMAIN", default_value = "vvs.internal")]
    pub trust_domain: String,
    /// The role of each SPIFFE id, as ID=ROLE separated by commas [default: `spiffe://<trust
    /// domain>/<role>`]
    #[arg(long, env = "VVS_PEERS", value_delimiter = ',')]
    pub peers: Vec<Entry>,
    /// Where /livez, /readyz and /metrics are served, in plain HTTP
    #[arg(long, env = "VVS_ADMIN_ADDR", default_value = "127.0.0.1:9090")]
    pub admin_addr: SocketAddr,
    /// Names that this port answers to, besides addresses and `localhost`: without a port,
    /// separated by commas; under any other name it answers 421
    #[arg(long, env = "VVS_ADMIN_HOSTS", value_delimiter = ',')]
    pub admin_hosts: Vec<HostName>,
    #[command(flatten)]
    pub strictness: Strictness,
    #[command(flatten)]
    pub telemetry: telemetry::Settings,
}

/// A role's certificate among its peers.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Certificates (reloaded when the files change)")]
pub struct Certificates {
    /// This role's certificate in PEM, with its SPIFFE id as the only URI name
    #[arg(id = "tls-cert-file", long, env = "VVS_TLS_CERT_FILE")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key in PEM
    #[arg(id = "tls-key-file", long, env = "VVS_TLS_KEY_FILE")]
    pub key: Option<PathBuf>,
    /// The CA certificates that sign all peers, in PEM
    #[arg(id = "tls-ca-file", long, env = "VVS_TLS_CA_FILE")]
    pub ca: Option<PathBuf>,
}

/// Settings of one role in one process.
#[derive(Args, Debug)]
pub struct Single<R: Args> {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub certificates: Certificates,
    #[command(flatten)]
    pub role: R,
}

/// All four roles.
#[derive(Args, Debug, Clone)]
pub struct Up {
    /// Where certificates, keys and the database are kept
    #[arg(long, env = "VVS_DATA_DIR", default_value = ".vvs")]
    pub data_dir: PathBuf,
    /// Ask each browser once for a key that is printed at the start, before the development sign-in
    /// serves it: for a machine whose ports others can reach through a tunnel
    #[arg(long, env = "VVS_DEV_KEY")]
    pub dev_key: bool,
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub gateway: vvs_gateway::Settings,
    #[command(flatten)]
    pub web: vvs_web::Settings,
    #[command(flatten)]
    pub relay: vvs_relay::Settings,
    #[command(flatten)]
    pub sessions: vvs_sessions::Settings,
}

/// The commands whose settings can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    Up,
    Gateway,
    Web,
    Relay,
    Sessions,
}

#[derive(Args, Debug)]
pub struct Check {
    /// The command that the settings are for
    #[arg(value_enum, default_value = "up")]
    pub target: Target,
    #[command(flatten)]
    pub certificates: Certificates,
    #[command(flatten)]
    pub all: Up,
}

#[derive(Args, Debug)]
pub struct Pki {
    /// Where to create `pki/`
    #[arg(long, env = "VVS_DATA_DIR", default_value = ".vvs")]
    pub data_dir: PathBuf,
    /// The SPIFFE trust domain in the certificates
    #[arg(long, env = "VVS_TRUST_DOMAIN", default_value = "vvs.internal")]
    pub trust_domain: String,
    #[command(flatten)]
    pub strictness: Strictness,
}

/// Collects all problems, so that a person learns of them together.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    pub fn say(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// Reports a choice that must be made.
    fn missing<T>(&mut self, choice: Option<&T>, setting: &str, flag: &str, what: &str) {
        if choice.is_none() {
            self.say(format!("{setting} ({flag}) is not set: {what}"));
        }
    }

    /// Returns the warnings if there is no problem, or all problems.
    fn into_result(mut self, files: Judgement) -> Result<Vec<String>, Error> {
        self.0.extend(files.refused);
        if self.0.is_empty() {
            Ok(files.warned)
        } else {
            Err(Error::Settings(self.0))
        }
    }
}

impl Common {
    /// Returns the peers and their roles.
    pub fn peers(&self) -> Result<Peers, Error> {
        Peers::new(self.peers.clone(), &self.trust_domain).map_err(|cause| {
            Error::Settings(vec![format!("VVS_TRUST_DOMAIN (--trust-domain): {cause}")])
        })
    }

    fn check(&self, problems: &mut Problems) {
        if let Err(Error::Settings(more)) = self.peers() {
            problems.0.extend(more);
        }

        if let Some(url) = &self.public_url
            && !url.is_secure()
            && !url.is_loopback()
        {
            problems.say(format!(
                "VVS_PUBLIC_URL (--public-url) is {url}: plain http carries sign-ins in the clear; \
                 use https, or a loopback address to try things"
            ));
        }
    }

    fn check_single(&self, problems: &mut Problems) {
        self.check(problems);
        let what = "the address that browsers and editors use, such as https://auth.example.com";
        problems.missing(
            self.public_url.as_ref(),
            "VVS_PUBLIC_URL",
            "--public-url",
            what,
        );
    }
}

impl Certificates {
    /// Returns the three files, when all are set.
    pub fn files(&self) -> Option<Files> {
        let Self { cert, key, ca } = self.clone();
        Some(Files {
            cert: cert?,
            key: key?,
            ca: Some(ca?),
        })
    }

    fn check(&self, problems: &mut Problems) {
        let make = "; `vvs-mesh pki` makes certificates to try things";
        let what = format!("this role's certificate{make}");
        problems.missing(
            self.cert.as_ref(),
            "VVS_TLS_CERT_FILE",
            "--tls-cert-file",
            &what,
        );
        let what = "the certificate's private key";
        problems.missing(
            self.key.as_ref(),
            "VVS_TLS_KEY_FILE",
            "--tls-key-file",
            what,
        );
        let what = "the CA that signs all peers";
        problems.missing(self.ca.as_ref(), "VVS_TLS_CA_FILE", "--tls-ca-file", what);

        if let Some(files) = self.files()
            && let Err(cause) = vvs_runtime::tls::Identity::load(files)
        {
            problems.say(format!("VVS_TLS_*_FILE: {cause}"));
        }
    }
}

/// The settings that a role requires when it runs alone.
pub trait Choices: Trusts {
    fn check(&self, problems: &mut Problems, public_url: Option<&Origin>);
}

impl Choices for vvs_gateway::Settings {
    fn check(&self, problems: &mut Problems, _public_url: Option<&Origin>) {
        let what = "where the gateway reaches web's HTTP port, as HOST:PORT";
        problems.missing(
            self.web_addr.as_ref(),
            "VVS_GATEWAY_WEB_ADDR",
            "--gateway-web-addr",
            what,
        );
        let what = "where the gateway reaches the relay's WebSocket port, as HOST:PORT";
        problems.missing(
            self.relay_addr.as_ref(),
            "VVS_GATEWAY_RELAY_ADDR",
            "--gateway-relay-addr",
            what,
        );
        check_public_port(self, problems);
    }
}

impl Choices for vvs_web::Settings {
    fn check(&self, problems: &mut Problems, public_url: Option<&Origin>) {
        let what = "where web listens for the gateway, as ADDRESS:PORT";
        problems.missing(
            self.http_addr.as_ref(),
            "VVS_WEB_HTTP_ADDR",
            "--web-http-addr",
            what,
        );

        let what = "who signs people in: `clerk`, `oidc`, or `dev` on loopback";
        problems.missing(
            self.identity.kind.as_ref(),
            "VVS_WEB_IDENTITY",
            "--web-identity",
            what,
        );

        let what = "the key that seals cookies: base64 of 32 random bytes in a file";
        problems.missing(
            self.key_file.as_ref(),
            "VVS_WEB_KEY_FILE",
            "--web-key-file",
            what,
        );
        check_key(
            self.key_file.as_ref(),
            "VVS_WEB_KEY_FILE (--web-key-file)",
            problems,
        );

        let what = "where the relay's gRPC port is, as HOST:PORT";
        problems.missing(
            self.relay_addr.as_ref(),
            "VVS_WEB_RELAY_ADDR",
            "--web-relay-addr",
            what,
        );

        let what = "where the sessions role's gRPC port is, as HOST:PORT";
        problems.missing(
            self.sessions_addr.as_ref(),
            "VVS_WEB_SESSIONS_ADDR",
            "--web-sessions-addr",
            what,
        );
        check_identity(&self.identity, problems, public_url);
    }
}

impl Choices for vvs_relay::Settings {
    fn check(&self, problems: &mut Problems, public_url: Option<&Origin>) {
        let what = "where the relay listens for the gateway, as ADDRESS:PORT";
        problems.missing(
            self.ws_addr.as_ref(),
            "VVS_RELAY_WS_ADDR",
            "--relay-ws-addr",
            what,
        );

        let what = "how relays find each other's logins: nats://HOST:PORT; `memory` is right for \
            exactly one relay";
        problems.missing(
            self.backplane.as_ref(),
            "VVS_RELAY_BACKPLANE",
            "--relay-backplane",
            what,
        );

        let what = "where the sessions role's gRPC port is, as HOST:PORT";
        problems.missing(
            self.sessions_addr.as_ref(),
            "VVS_RELAY_SESSIONS_ADDR",
            "--relay-sessions-addr",
            what,
        );

        let what = "the key that all relays share: base64 of 32 random bytes in a file";
        problems.missing(
            self.key_file.as_ref(),
            "VVS_RELAY_KEY_FILE",
            "--relay-key-file",
            what,
        );
        check_key(
            self.key_file.as_ref(),
            "VVS_RELAY_KEY_FILE (--relay-key-file)",
            problems,
        );
        self.problems(public_url)
            .into_iter()
            .for_each(|problem| problems.say(problem));
    }
}

impl Choices for vvs_sessions::Settings {
    fn check(&self, problems: &mut Problems, _public_url: Option<&Origin>) {
        let what = "where users and sessions are kept, such as sqlite:/var/lib/vvs/sessions.db or \
                    postgres://vvs:PASSWORD@db.internal/vvs";
        let url = self.database_url.as_ref();
        problems.missing(
            url,
            "VVS_SESSIONS_DATABASE_URL",
            "--sessions-database-url",
            what,
        );
        let what = "the key that encrypts the signing keys: base64 of 32 random bytes in a file";
        problems.missing(
            self.key_file.as_ref(),
            "VVS_SESSIONS_KEY_FILE",
            "--sessions-key-file",
            what,
        );
        check_sessions(self, problems);
    }
}

/// Checks the choices that were made.
fn check_sessions(sessions: &vvs_sessions::Settings, problems: &mut Problems) {
    check_key(
        sessions.key_file.as_ref(),
        "VVS_SESSIONS_KEY_FILE (--sessions-key-file)",
        problems,
    );
    sessions
        .problems()
        .into_iter()
        .for_each(|problem| problems.say(problem));
}

impl Keys {
    /// Returns all problems with the settings, or the warnings.
    pub fn check(&self) -> Result<Vec<String>, Error> {
        let Self::Rotate(rotation) = self;
        let mut problems = Problems::default();
        rotation.sessions.check(&mut problems, None);
        problems.into_result(Judgement::of(
            rotation.sessions.trusted(),
            rotation.strictness,
        ))
    }
}

impl Pki {
    /// Returns all problems with the existing files, or the warnings.
    pub fn check(&self) -> Result<Vec<String>, Error> {
        Problems::default().into_result(Judgement::of(guard::made(&self.data_dir), self.strictness))
    }
}

/// Checks that a configured key file is a key file.
fn check_key(path: Option<&PathBuf>, setting: &str, problems: &mut Problems) {
    if let Some(Err(cause)) = path.map(|path| read_keys(path)) {
        problems.say(format!("{setting}: {cause}"));
    }
}

/// Allows sign-ins over plain text only on one machine.
fn check_public_port(gateway: &vvs_gateway::Settings, problems: &mut Problems) {
    let named = (gateway.tls_cert.is_some(), gateway.tls_key.is_some());
    if named.0 != named.1 {
        problems.say("VVS_GATEWAY_TLS_CERT and VVS_GATEWAY_TLS_KEY go together: set both or none");
    }

    if named == (false, false)
        && !gateway.listen.ip().is_loopback()
        && gateway.trusted_proxies.is_empty()
    {
        problems.say(format!(
            "VVS_GATEWAY_LISTEN (--listen) is {}, without TLS: set VVS_GATEWAY_TLS_CERT and \
             VVS_GATEWAY_TLS_KEY, or VVS_GATEWAY_TRUSTED_PROXIES when a proxy in front has the \
             certificate",
            gateway.listen
        ));
    }
}

/// Checks the provider's settings; each provider checks its own. The development provider signs
/// anybody in as anybody.
fn check_identity(
    identity: &vvs_identity::Settings,
    problems: &mut Problems,
    public_url: Option<&Origin>,
) {
    if identity.kind == Some(IdentityKind::Dev) && public_url.is_some_and(|url| !url.is_loopback())
    {
        problems.say(
            "VVS_WEB_IDENTITY (--web-identity) is dev: it runs only while the public URL \
            is on loopback",
        );
    }
    identity
        .problems()
        .into_iter()
        .for_each(|problem| problems.say(problem));
}

impl<R: Args + Choices> Single<R> {
    /// Returns all problems with one role's settings, or the warnings.
    pub fn check(&self) -> Result<Vec<String>, Error> {
        check_single(&self.common, &self.certificates, &self.role)
    }
}

fn check_single(
    common: &Common,
    certificates: &Certificates,
    role: &impl Choices,
) -> Result<Vec<String>, Error> {
    let mut problems = Problems::default();
    common.check_single(&mut problems);
    certificates.check(&mut problems);
    role.check(&mut problems, common.public_url.as_ref());
    let files = [certificates.trusted(), role.trusted()].concat();
    problems.into_result(Judgement::of(files, common.strictness))
}

impl Up {
    /// Returns all problems with the settings of all roles together, or the warnings.
    pub fn check(&self) -> Result<Vec<String>, Error> {
        let mut problems = Problems::default();
        self.common.check(&mut problems);
        check_public_port(&self.gateway, &mut problems);
        check_key(
            self.web.key_file.as_ref(),
            "VVS_WEB_KEY_FILE (--web-key-file)",
            &mut problems,
        );
        check_key(
            self.relay.key_file.as_ref(),
            "VVS_RELAY_KEY_FILE (--relay-key-file)",
            &mut problems,
        );
        self.relay
            .problems(self.common.public_url.as_ref())
            .into_iter()
            .for_each(|problem| problems.say(problem));
        check_sessions(&self.sessions, &mut problems);

        if self.relay.audience != self.sessions.audience {
            problems.say(
                "VVS_RELAY_AUDIENCE (--relay-audience) and VVS_SESSIONS_AUDIENCE \
                 (--sessions-audience) differ: the relay would take no token that sessions signs",
            );
        }

        if self.web.identity.kind.is_none() {
            let is_local = self.gateway.listen.ip().is_loopback()
                && self
                    .common
                    .public_url
                    .as_ref()
                    .is_none_or(Origin::is_loopback);
            if !is_local {
                problems.say(
                    "VVS_WEB_IDENTITY (--web-identity) is not set: off loopback the built-in \
                     development sign-in does not run",
                );
            }
        } else if self.web.identity.kind == Some(IdentityKind::Dev)
            && !self.gateway.listen.ip().is_loopback()
        {
            problems.say(
                "VVS_WEB_IDENTITY (--web-identity) is dev: it runs only while --listen is \
                on loopback",
            );
        }

        if self.dev_key
            && self
                .web
                .identity
                .kind
                .is_some_and(|kind| kind != IdentityKind::Dev)
        {
            problems.say(
                "VVS_DEV_KEY (--dev-key) is set, but VVS_WEB_IDENTITY (--web-identity) is not the \
                 development sign-in",
            );
        }

        check_identity(
            &self.web.identity,
            &mut problems,
            self.common.public_url.as_ref(),
        );

        problems.into_result(Judgement::of(self.trusted(), self.common.strictness))
    }
}

impl Check {
    pub fn check(&self) -> Result<Vec<String>, Error> {
        let Up {
            common,
            gateway,
            web,
            relay,
            sessions,
            ..
        } = &self.all;
        match self.target {
            Target::Up => self.all.check(),
            Target::Gateway => check_single(common, &self.certificates, gateway),
            Target::Web => check_single(common, &self.certificates, web),
            Target::Relay => check_single(common, &self.certificates, relay),
            Target::Sessions => check_single(common, &self.certificates, sessions),
        }
    }
}
