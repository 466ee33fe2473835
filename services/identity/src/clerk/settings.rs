//! The settings of Clerk, the checks on them, and the values after their files are read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use vvs_auth::provider::KeySet;
use vvs_runtime::origin::Origin;

use super::script::Scripts;
use crate::allow::Rule;

/// Keys come without padding, and some people add it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Settings of Clerk; they apply while `VVS_WEB_IDENTITY` is `clerk`.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct ClerkSettings {
    /// Clerk: the publishable key of the instance
    #[arg(
        id = "web-clerk-publishable-key",
        long,
        env = "VVS_WEB_CLERK_PUBLISHABLE_KEY"
    )]
    pub publishable_key: Option<String>,
    /// Clerk: file with the secret key of the same instance
    #[arg(
        id = "web-clerk-secret-key-file",
        long,
        env = "VVS_WEB_CLERK_SECRET_KEY_FILE"
    )]
    pub secret_key_file: Option<PathBuf>,
    /// Clerk: the Backend API, without the version
    #[arg(
        id = "web-clerk-api-url",
        long,
        env = "VVS_WEB_CLERK_API_URL",
        default_value = "https://api.clerk.com"
    )]
    pub api_url: Base,
    /// Clerk: the Frontend API, which tokens also name as their issuer; if not set, the one that
    /// the publishable key names
    #[arg(
        id = "web-clerk-frontend-api-url",
        long,
        env = "VVS_WEB_CLERK_FRONTEND_API_URL"
    )]
    pub frontend_api_url: Option<Origin>,
    /// Clerk: where browsers reach the Frontend API instead of its usual address
    #[arg(id = "web-clerk-proxy-url", long, env = "VVS_WEB_CLERK_PROXY_URL")]
    pub proxy_url: Option<Base>,
    /// Clerk: a `node_modules` directory with `@clerk/clerk-js` and `@clerk/ui`, to serve their
    /// scripts from here
    #[arg(id = "web-clerk-js-dir", long, env = "VVS_WEB_CLERK_JS_DIR")]
    pub js_dir: Option<PathBuf>,
    /// Clerk: the origins at which a browser may have got its token, separated by commas; the
    /// public URL if not set
    #[arg(
        id = "web-clerk-authorized-parties",
        long,
        env = "VVS_WEB_CLERK_AUTHORIZED_PARTIES",
        value_delimiter = ','
    )]
    pub authorized_parties: Vec<Origin>,
    /// Clerk: file with the instance's public key (PEM), to verify tokens without asking for keys
    #[arg(
        id = "web-clerk-jwt-key-file",
        long,
        env = "VVS_WEB_CLERK_JWT_KEY_FILE"
    )]
    pub jwt_key_file: Option<PathBuf>,
    /// Clerk: the id of that key (`ins_…`, the `kid` of tokens); without it the key is used for
    /// every key id that a token names
    #[arg(id = "web-clerk-jwt-key-id", long, env = "VVS_WEB_CLERK_JWT_KEY_ID")]
    pub jwt_key_id: Option<String>,
    /// Clerk: file with the signing secret of the webhook endpoint; without it there is no
    /// `/webhooks/clerk`
    #[arg(
        id = "web-clerk-webhook-secret-file",
        long,
        env = "VVS_WEB_CLERK_WEBHOOK_SECRET_FILE"
    )]
    pub webhook_secret_file: Option<PathBuf>,
    /// Clerk: whether a member of staff who is signed in as a user may sign in that user's editor
    #[arg(
        id = "web-clerk-allow-impersonation",
        long,
        env = "VVS_WEB_CLERK_ALLOW_IMPERSONATION",
        default_value_t = false,
        action = clap::ArgAction::Set,
    )]
    pub allow_impersonation: bool,
    /// Clerk: whether signing out of the browser also signs out the editors that were approved from
    /// it
    #[arg(
        id = "web-clerk-end-with-session",
        long,
        env = "VVS_WEB_CLERK_END_WITH_SESSION",
        default_value_t = false,
        action = clap::ArgAction::Set,
    )]
    pub end_with_session: bool,
}

/// The values of the settings.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) publishable_key: String,
    pub(super) secret_key: SecretString,
    /// The Frontend API.
    pub(super) issuer: Origin,
    pub(super) files: Option<Scripts>,
    pub(super) jwt_key: Option<KeySet>,
    pub(super) webhook_secret: Option<SecretSlice<u8>>,
}

impl ClerkSettings {
    /// Returns the setting, if it chooses Clerk.
    pub(crate) fn chosen(&self) -> Option<&'static str> {
        let is_set = self.publishable_key.is_some() || self.secret_key_file.is_some();
        is_set.then_some("VVS_WEB_CLERK_PUBLISHABLE_KEY or VVS_WEB_CLERK_SECRET_KEY_FILE")
    }

    /// Returns the problems that prevent Clerk from being used, each with the setting's name and
    /// what to do.
    pub(crate) fn problems(&self, allow: &[Rule]) -> Vec<String> {
        let mut problems = self.read().err().unwrap_or_default();
        if allow.iter().any(|rule| matches!(rule, Rule::Group(_))) {
            let what =
                "holds group:, which Clerk does not know: use organization: or domain:".to_owned();
            problems.push(format!("VVS_WEB_ALLOW (--web-allow) {what}"));
        }
        problems
    }

    /// Reads all files. Returns all problems together.
    pub(super) fn read(&self) -> Result<Config, Vec<String>> {
        let mut problems = ClerkProblems::default();
        let key = problems.take("PUBLISHABLE_KEY", self.publishable());
        let secret = problems.take(
            "SECRET_KEY_FILE",
            required(self.secret_key_file.as_deref()).and_then(secret_key),
        );
        if let (Some((_, kind, _)), Some((secret_kind, _))) = (&key, &secret)
            && kind != secret_kind
        {
            problems.say(
                "SECRET_KEY_FILE",
                "is of another instance than the publishable key: one is live, one is test",
            );
        }

        let files = problems.take(
            "JS_DIR",
            self.js_dir.as_deref().map(Scripts::read).transpose(),
        );
        let jwt_key = problems.take(
            "JWT_KEY_FILE",
            self.jwt_key_file
                .as_deref()
                .map(|path| pem(path, self.jwt_key_id.as_deref()))
                .transpose(),
        );
        let webhook = problems.take(
            "WEBHOOK_SECRET_FILE",
            self.webhook_secret_file
                .as_deref()
                .map(webhook_secret)
                .transpose(),
        );
        self.check_urls(&mut problems);

        match (key, secret, files, jwt_key, webhook) {
            (
                Some((publishable_key, _, host)),
                Some((_, secret_key)),
                Some(files),
                Some(jwt_key),
                Some(webhook_secret),
            ) if problems.0.is_empty() => {
                let issuer = self.frontend_api_url.clone().unwrap_or(host);
                Ok(Config {
                    publishable_key,
                    secret_key,
                    issuer,
                    files,
                    jwt_key,
                    webhook_secret,
                })
            }
            _ => Err(problems.0),
        }
    }

    fn check_urls(&self, problems: &mut ClerkProblems) {
        let urls = [
            ("API_URL", Some(self.api_url.is_safe())),
            ("PROXY_URL", self.proxy_url.as_ref().map(Base::is_safe)),
            (
                "FRONTEND_API_URL",
                self.frontend_api_url
                    .as_ref()
                    .map(|url| url.is_secure() || url.is_loopback()),
            ),
        ];
        for (setting, _) in urls.iter().filter(|(_, is_safe)| *is_safe == Some(false)) {
            problems.say(setting, "must be https; http is for loopback only");
        }
    }

    fn publishable(&self) -> Result<(String, InstanceKind, Origin), String> {
        let key = self.publishable_key.as_deref().ok_or(MISSING)?.trim();
        let (kind, frontend_api) =
            publishable_key(key).ok_or("is not a publishable key: pk_live_… or pk_test_…")?;
        Ok((key.to_owned(), kind, frontend_api))
    }
}

const MISSING: &str = "is not set: Clerk's dashboard has it under API keys";

#[derive(Default)]
struct ClerkProblems(Vec<String>);

impl ClerkProblems {
    fn say(&mut self, setting: &str, what: &str) {
        let flag = setting.to_ascii_lowercase().replace('_', "-");
        self.0.push(format!(
            "VVS_WEB_CLERK_{setting} (--web-clerk-{flag}) {what}"
        ));
    }

    fn take<T>(&mut self, setting: &str, found: Result<T, String>) -> Option<T> {
        found.map_err(|what| self.say(setting, &what)).ok()
    }
}

/// The kind of instance that a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstanceKind {
    Live,
    Test,
}

/// Returns the Frontend API that a publishable key names. Its one `$` is at the end.
pub(super) fn publishable_key(key: &str) -> Option<(InstanceKind, Origin)> {
    let (kind, rest) = match (key.strip_prefix("pk_live_"), key.strip_prefix("pk_test_")) {
        (Some(rest), _) => (InstanceKind::Live, rest),
        (None, Some(rest)) => (InstanceKind::Test, rest),
        (None, None) => return None,
    };
    let name = String::from_utf8(BASE64.decode(rest).ok()?).ok()?;
    let host = name
        .strip_suffix('$')
        .filter(|host| host.contains('.') && !host.contains('$'))?;
    Some((kind, format!("https://{host}").parse().ok()?))
}

fn required(path: Option<&Path>) -> Result<&Path, String> {
    path.ok_or_else(|| MISSING.to_owned())
}

fn text(path: &Path) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| format!("cannot be read: {}: {cause}", path.display()))?;
    match text.trim() {
        "" => Err(format!("is empty: {}", path.display())),
        text => Ok(text.to_owned().into()),
    }
}

fn secret_key(path: &Path) -> Result<(InstanceKind, SecretString), String> {
    let key = text(path)?;
    let is_plain = key
        .expose_secret()
        .bytes()
        .all(|byte| byte.is_ascii_graphic());
    let kind = match key.expose_secret() {
        key if is_plain && key.starts_with("sk_live_") => InstanceKind::Live,
        key if is_plain && key.starts_with("sk_test_") => InstanceKind::Test,
        _ => {
            return Err(format!(
                "holds no secret key (sk_live_… or sk_test_…): {}",
                path.display()
            ));
        }
    };

    Ok((kind, key))
}

fn pem(path: &Path, key_id: Option<&str>) -> Result<KeySet, String> {
    KeySet::from_pem(text(path)?.expose_secret(), key_id)
        .map_err(|cause| format!("{cause}: {}", path.display()))
}

fn webhook_secret(path: &Path) -> Result<SecretSlice<u8>, String> {
    let secret = text(path)?;
    let key = secret
        .expose_secret()
        .strip_prefix("whsec_")
        .and_then(|key| STANDARD.decode(key).ok());
    let key = key.filter(|key| !key.is_empty());
    key.map(Into::into)
        .ok_or_else(|| format!("holds no signing secret (whsec_…): {}", path.display()))
}

/// A URL to which paths are appended, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(Url);

impl Base {
    fn is_safe(&self) -> bool {
        let origin = self.origin().parse::<Origin>();
        origin.is_ok_and(|origin| origin.is_secure() || origin.is_loopback())
    }

    /// Returns it as a source expression and as `Origin`.
    pub(super) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// The text is not a URL of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address such as https://api.example.com: scheme, host, perhaps a port and a path, \
     nothing behind"
)]
pub struct NotABase(());

impl FromStr for Base {
    type Err = NotABase;

    fn from_str(text: &str) -> Result<Self, NotABase> {
        let url = Url::parse(text).map_err(|_cause| NotABase(()))?;
        let is_bare =
            url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        let is_ours =
            matches!(url.scheme(), "http" | "https") && is_bare && url.password().is_none();
        if is_ours {
            Ok(Self(url))
        } else {
            Err(NotABase(()))
        }
    }
}

#[cfg(test)]
mod tests;
