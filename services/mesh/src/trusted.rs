//! Which files each role trusts.

use std::path::{Path, PathBuf};

use crate::guard::{self, PUBLIC, SECRET, Trusted, Trusts};
use crate::pki;
use crate::settings::{Certificates, Up};

/// Lists the files that are set.
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
        let (clerk, oidc) = (&self.identity.clerk, &self.identity.oidc);
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
                path: pki::own_key_file(&self.data_dir, name),
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
            .get_or_insert_with(|| pki::own_database(&self.data_dir).into());

        let mut files = guard::made(&self.data_dir);
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
