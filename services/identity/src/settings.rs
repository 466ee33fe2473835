//! The settings of the identity provider, and the dependencies of every provider.

use std::num::NonZeroU32;
use std::sync::Arc;

use secrecy::SecretString;

use crate::allow::Rule;
use crate::clerk::{Clerk, ClerkSettings};
use crate::dev::Dev;
use crate::dev_key::DevKey;
use crate::error::Error;
use crate::fetch::Fetch;
use crate::oidc::{Oidc, OidcSettings};
use crate::provider::{Provider, ProviderContext};

/// Settings of the identity provider.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Web")]
#[group(skip)]
pub struct Settings {
    /// The identity provider
    #[arg(id = "web-identity", long, env = "VVS_WEB_IDENTITY", value_enum)]
    pub kind: Option<IdentityKind>,
    /// Which of the people that the identity provider signs in may sign in here: `everyone`,
    /// `domain:example.com` (of a verified email address), `group:NAME`, `organization:ID`,
    /// separated by commas; one that matches is enough
    #[arg(id = "web-allow", long, env = "VVS_WEB_ALLOW", value_delimiter = ',')]
    pub allow: Vec<Rule>,
    /// Keys that the development sign-in of `up --dev-key` checks each minute; further ones get 429
    #[arg(
        id = "web-dev-key-guesses-per-minute",
        long,
        env = "VVS_WEB_DEV_KEY_GUESSES_PER_MINUTE",
        default_value = "10",
        value_parser = guesses,
    )]
    pub dev_key_guesses_per_minute: NonZeroU32,
    /// The key that each browser has to enter once before the development sign-in serves it.
    #[arg(skip)]
    pub dev_key: Option<SecretString>,
    #[command(flatten)]
    pub clerk: ClerkSettings,
    #[command(flatten)]
    pub oidc: OidcSettings,
}

/// The kind of identity provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum IdentityKind {
    /// Signs in everybody under any name; only while everything is on loopback
    Dev,
    /// Clerk: its sign-in on our page; see `VVS_WEB_CLERK_…`
    Clerk,
    /// Any OpenID Connect provider, such as Keycloak, Authentik, Google or Entra; see
    /// `VVS_WEB_OIDC_…`
    Oidc,
}

impl Settings {
    /// Returns the contradictions, each with the setting's name; nothing while no identity provider
    /// is chosen.
    pub fn problems(&self) -> Vec<String> {
        let foreign = match self.kind {
            Some(IdentityKind::Oidc) => self.clerk.chosen(),
            Some(IdentityKind::Clerk) => self.oidc.chosen(),
            Some(IdentityKind::Dev) => self.clerk.chosen().or(self.oidc.chosen()),
            None => None,
        };
        let foreign = foreign.map(|setting| {
            format!("{setting} is set, but VVS_WEB_IDENTITY (--web-identity) is another")
        });

        let mut problems = match self.kind {
            Some(IdentityKind::Clerk) => self.clerk.problems(&self.allow),
            Some(IdentityKind::Oidc) => self.oidc.problems(&self.allow),
            Some(IdentityKind::Dev) if !self.allow.is_empty() => {
                vec![
                    "VVS_WEB_ALLOW (--web-allow) is set, but the development sign-in signs in \
                     anyone as anyone"
                        .to_owned(),
                ]
            }
            Some(IdentityKind::Dev) | None => Vec::new(),
        };

        problems.extend(foreign);

        problems
    }

    /// Returns the provider that these settings choose.
    pub fn provider(&self, common: ProviderContext) -> Result<Arc<dyn Provider>, Error> {
        let allow = self.allow.clone();

        Ok(match self.kind.ok_or(Error::NoIdentity)? {
            IdentityKind::Dev => {
                let (guesses, reached) = (
                    self.dev_key_guesses_per_minute,
                    common.metrics.reached.clone(),
                );
                let key = self
                    .dev_key
                    .as_ref()
                    .map(|key| DevKey::new(key, guesses, reached))
                    .transpose()?;
                Arc::new(Dev::new(&common.public_url, key)?)
            }
            IdentityKind::Clerk => Arc::new(Clerk::new(&self.clerk, allow, Fetch::new()?, common)?),
            IdentityKind::Oidc => Arc::new(Oidc::new(&self.oidc, allow, Fetch::new()?, common)?),
        })
    }
}

fn guesses(text: &str) -> Result<NonZeroU32, String> {
    let count = text.parse().ok().filter(|count| (1..=1000).contains(count));
    count
        .and_then(NonZeroU32::new)
        .ok_or_else(|| "must be from 1 to 1000".to_owned())
}
