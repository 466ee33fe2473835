//! Which files of each role nobody else may change, and what is said of those that somebody may.

use std::path::{Path, PathBuf};

use clap::Args;
use vvs_auth::peer::Role;
use vvs_runtime::secret_file::{Exposure, Policy};
use vvs_runtime::tls::Files;

use crate::settings::{Certificates, Up};
use crate::{pki, up};

/// How strict a process is with its files.
#[derive(Args, Debug, Clone, Copy, Default)]
#[command(next_help_heading = "Every role")]
pub struct Strictness {
    /// What becomes of a key, certificate or database file that every user of the machine may
    /// change: `refuse` it with exit code 78, or `warn` and use it, for volumes where modes cannot
    /// be set
    #[arg(long, env = "VVS_FILE_MODES", value_enum, default_value = "refuse")]
    pub file_modes: Policy,
}

/// A file that a role trusts.
#[derive(Debug, Clone)]
pub struct Trusted {
    /// What names it: its setting, or what it is.
    what: &'static str,
    path: PathBuf,
    /// Whether it is also nobody else's to read.
    is_secret: bool,
}

/// Says which files it trusts.
pub trait Trusts {
    fn trusted(&self) -> Vec<Trusted>;
}

/// The files that are named.
fn list<const N: usize>(files: [(&'static str, Option<&Path>, bool); N]) -> Vec<Trusted> {
    let one = |(what, path, is_secret): (_, Option<&Path>, _)| {
        Some(Trusted {
            what,
            path: path?.to_owned(),
            is_secret,
        })
    };
    files.into_iter().filter_map(one).collect()
}

const SECRET: bool = true;
const PUBLIC: bool = false;

impl Trusts for Certificates {
    fn trusted(&self) -> Vec<Trusted> {
        list([
            (
                "VVS_TLS_CERT_FILE (--tls-cert-file)",
                self.cert.as_deref(),
                PUBLIC,
            ),
            (
                "VVS_TLS_KEY_FILE (--tls-key-file)",
                self.key.as_deref(),
                SECRET,
            ),
            (
                "VVS_TLS_CA_FILE (--tls-ca-file)",
                self.ca.as_deref(),
                PUBLIC,
            ),
        ])
    }
}

impl Trusts for vvs_gateway::Settings {
    fn trusted(&self) -> Vec<Trusted> {
        list([
            (
                "VVS_GATEWAY_TLS_CERT (--gateway-tls-cert)",
                self.tls_cert.as_deref(),
                PUBLIC,
            ),
            (
                "VVS_GATEWAY_TLS_KEY (--gateway-tls-key)",
                self.tls_key.as_deref(),
                SECRET,
            ),
        ])
    }
}

impl Trusts for vvs_web::Settings {
    fn trusted(&self) -> Vec<Trusted> {
        let (clerk, oidc) = (&self.clerk, &self.oidc);
        let (secret_key, webhook) = (
            clerk.secret_key_file.as_deref(),
            clerk.webhook_secret_file.as_deref(),
        );

        list([
            (
                "VVS_WEB_KEY_FILE (--web-key-file)",
                self.key_file.as_deref(),
                SECRET,
            ),
            (
                "VVS_WEB_CLERK_SECRET_KEY_FILE (--web-clerk-secret-key-file)",
                secret_key,
                SECRET,
            ),
            (
                "VVS_WEB_CLERK_WEBHOOK_SECRET_FILE (--web-clerk-webhook-secret-file)",
                webhook,
                SECRET,
            ),
            (
                "VVS_WEB_CLERK_JWT_KEY_FILE (--web-clerk-jwt-key-file)",
                clerk.jwt_key_file.as_deref(),
                PUBLIC,
            ),
            (
                "VVS_WEB_OIDC_CLIENT_SECRET_FILE (--web-oidc-client-secret-file)",
                oidc.client_secret_file.as_deref(),
                SECRET,
            ),
        ])
    }
}

impl Trusts for vvs_relay::Settings {
    fn trusted(&self) -> Vec<Trusted> {
        list([
            (
                "VVS_RELAY_KEY_FILE (--relay-key-file)",
                self.key_file.as_deref(),
                SECRET,
            ),
            (
                "VVS_RELAY_NATS_NKEY_FILE (--relay-nats-nkey-file)",
                self.nats_nkey_file.as_deref(),
                SECRET,
            ),
            (
                "VVS_RELAY_NATS_KEY_FILE (--relay-nats-key-file)",
                self.nats_key_file.as_deref(),
                SECRET,
            ),
            (
                "VVS_RELAY_NATS_CERT_FILE (--relay-nats-cert-file)",
                self.nats_cert_file.as_deref(),
                PUBLIC,
            ),
            (
                "VVS_RELAY_NATS_CA_FILE (--relay-nats-ca-file)",
                self.nats_ca_file.as_deref(),
                PUBLIC,
            ),
        ])
    }
}

impl Trusts for vvs_sessions::Settings {
    fn trusted(&self) -> Vec<Trusted> {
        let mut files = list([(
            "VVS_SESSIONS_KEY_FILE (--sessions-key-file)",
            self.key_file.as_deref(),
            SECRET,
        )]);
        files.extend(
            self.database_files()
                .into_iter()
                .map(|(path, is_secret)| Trusted {
                    what: "VVS_SESSIONS_DATABASE_URL (--sessions-database-url)",
                    path,
                    is_secret,
                }),
        );
        files
    }
}

impl Trusts for Up {
    fn trusted(&self) -> Vec<Trusted> {
        let own = |chosen: Option<&PathBuf>, name| {
            chosen.is_none().then(|| Trusted {
                what: "a key file",
                path: up::own_key_file(&self.data_dir, name),
                is_secret: SECRET,
            })
        };
        let keys = [
            own(self.web.key_file.as_ref(), "web"),
            own(self.relay.key_file.as_ref(), "relay"),
            own(self.sessions.key_file.as_ref(), "sessions"),
        ];
        let mut sessions = self.sessions.clone();
        sessions
            .database_url
            .get_or_insert_with(|| up::database(&self.data_dir).into());

        let mut files = made(&self.data_dir);
        files.extend(keys.into_iter().flatten());
        files.extend(
            [
                self.gateway.trusted(),
                self.web.trusted(),
                self.relay.trusted(),
                sessions.trusted(),
            ]
            .concat(),
        );

        files
    }
}

/// What `up` and `pki` make below the data directory, as far as it is there.
pub(crate) fn made(data_dir: &Path) -> Vec<Trusted> {
    let at = |what, path: PathBuf, is_secret| Trusted {
        what,
        path,
        is_secret,
    };
    let mut files = vec![at("the CA's key", pki::ca_key(data_dir), SECRET)];
    for role in Role::ALL {
        let Files { cert, key, ca } = pki::files(data_dir, role);
        files.extend([
            at("a certificate", cert, PUBLIC),
            at("a certificate's key", key, SECRET),
        ]);
        files.extend(ca.map(|ca| at("the CA", ca, PUBLIC)));
    }

    files
}

/// What is wrong with the modes of files, apart by what comes of it. Files that are not there are
/// somebody else's to miss.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) refused: Vec<String>,
    pub(crate) warned: Vec<String>,
}

impl Judgement {
    pub(crate) fn of(files: Vec<Trusted>, strictness: Strictness) -> Self {
        let mut judgement = Self::default();
        for Trusted {
            what,
            path,
            is_secret,
        } in files
        {
            let Ok(Some(exposure)) = Exposure::of(&path, is_secret) else {
                continue;
            };
            let line = format!("{what}: {exposure}");
            if exposure.is_grave() && strictness.file_modes == Policy::Refuse {
                judgement.refused.push(format!(
                    "{line}, or set VVS_FILE_MODES=warn on a volume without modes"
                ));
            } else if !judgement.warned.contains(&line) {
                judgement.warned.push(line);
            }
        }

        judgement
    }
}
