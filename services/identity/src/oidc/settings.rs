//! The settings of the OpenID Connect provider, and the checks on them.

use std::path::{Path, PathBuf};

use oauth2::url::{Host, Url};

use crate::allow::Rule;

/// The longest issuer, in bytes: sessions stores it as the provider's name.
const MAX_ISSUER: usize = 255;
/// The longest name on the button, in characters.
const MAX_NAME: usize = 60;

/// Settings of OpenID Connect; they apply while `VVS_WEB_IDENTITY` is `oidc`.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct OidcSettings {
    /// OpenID Connect: the issuer, in exactly the provider's spelling
    #[arg(id = "web-oidc-issuer", long, env = "VVS_WEB_OIDC_ISSUER")]
    pub issuer: Option<String>,
    /// OpenID Connect: the id that the provider has for this server
    #[arg(id = "web-oidc-client-id", long, env = "VVS_WEB_OIDC_CLIENT_ID")]
    pub client_id: Option<String>,
    /// OpenID Connect: file with the client's secret; none for a public client
    #[arg(
        id = "web-oidc-client-secret-file",
        long,
        env = "VVS_WEB_OIDC_CLIENT_SECRET_FILE"
    )]
    pub client_secret_file: Option<PathBuf>,
    /// OpenID Connect: the scopes to ask for, separated by spaces
    #[arg(
        id = "web-oidc-scopes",
        long,
        env = "VVS_WEB_OIDC_SCOPES",
        default_value = "openid profile email"
    )]
    pub scopes: String,
    /// OpenID Connect: the claim that names a person's groups, for the `group:` rules of who may
    /// sign in
    #[arg(
        id = "web-oidc-groups-claim",
        long,
        env = "VVS_WEB_OIDC_GROUPS_CLAIM",
        default_value = "groups"
    )]
    pub groups_claim: String,
    /// OpenID Connect: the name that people use for the provider; the issuer's host if not set
    #[arg(id = "web-oidc-name", long, env = "VVS_WEB_OIDC_NAME")]
    pub name: Option<String>,
}

impl OidcSettings {
    /// Returns the setting, if it chooses a provider.
    pub(crate) fn chosen(&self) -> Option<&'static str> {
        let is_set = self.issuer.is_some() || self.client_id.is_some();
        is_set.then_some("VVS_WEB_OIDC_ISSUER or VVS_WEB_OIDC_CLIENT_ID")
    }

    pub(crate) fn problems(&self, allow: &[Rule]) -> Vec<String> {
        let issuer = match self.issuer.as_deref() {
            None => Some(
                "is not set: give the provider's issuer, such as \
                    https://id.example.com/realms/main"
                    .to_owned(),
            ),
            Some(issuer) => issuer_url(issuer)
                .err()
                .map(|what| format!("{what}: {}", shown(issuer))),
        };

        let client_id = match self.client_id.as_deref() {
            None => Some("is not set: give the id that the provider has for this server"),
            Some(id) if !is_plain(id) => {
                Some("is blank or holds something else than visible ASCII")
            }
            Some(_) => None,
        };

        let secret = self
            .client_secret_file
            .as_deref()
            .and_then(|path| read_secret(path).err());
        let scopes =
            is_plain(&self.scopes.replace(' ', "")) && self.scopes().any(|scope| scope == "openid");
        let scopes = (!scopes).then_some("must be a list of scopes, and openid one of them");
        let claim = (!is_plain(&self.groups_claim)).then_some("must be the name of a claim");
        let name = self
            .name
            .as_deref()
            .is_some_and(|name| name.trim().is_empty() || name.chars().count() > MAX_NAME);
        let name = name.then_some("must be a short name, such as Example Inc.");

        let named = [
            ("OIDC_ISSUER", issuer),
            ("OIDC_CLIENT_ID", client_id.map(str::to_owned)),
            ("OIDC_CLIENT_SECRET_FILE", secret),
            ("OIDC_SCOPES", scopes.map(str::to_owned)),
            ("OIDC_GROUPS_CLAIM", claim.map(str::to_owned)),
            ("OIDC_NAME", name.map(str::to_owned)),
            ("ALLOW", allow_problem(allow).map(str::to_owned)),
        ];
        let lines = named
            .into_iter()
            .filter_map(|(setting, problem)| Some((setting, problem?)));
        let flag = |setting: &str| setting.to_ascii_lowercase().replace('_', "-");

        lines
            .map(|(setting, problem)| {
                format!("VVS_WEB_{setting} (--web-{}) {problem}", flag(setting))
            })
            .collect()
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.split_whitespace()
    }
}

/// Returns the problem with the rules for who may sign in.
fn allow_problem(allow: &[Rule]) -> Option<&'static str> {
    let is_foreign = allow
        .iter()
        .any(|rule| matches!(rule, Rule::Organization(_)));
    match () {
        () if allow.is_empty() => Some(
            "is not set, and OpenID Connect needs it: everyone that the provider signs in, or a \
             list of domain:example.com (verified addresses) and group:NAME",
        ),
        () if is_foreign => {
            Some("holds organization:, which OpenID Connect does not know: use group: or domain:")
        }
        () => None,
    }
}

/// Returns the issuer as a URL: https, or http on this machine.
pub(super) fn issuer_url(issuer: &str) -> Result<Url, &'static str> {
    let url = Url::parse(issuer)
        .ok()
        .filter(|_| is_plain(issuer))
        .ok_or("is not a URL")?;
    let is_bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();

    match url.scheme() {
        _ if !is_bare || url.password().is_some() => Err("must have no user, query or fragment"),
        _ if issuer.len() > MAX_ISSUER => Err("is longer than 255 bytes"),
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err("must be https; http is for loopback only"),
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Returns the secret without the line's end, or the problem with the file.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| format!("cannot be read: {}: {cause}", path.display()))?;
    let secret = text.trim();
    if secret.is_empty() {
        Err(format!("is empty: {}", path.display()))
    } else {
        Ok(secret.to_owned())
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> OidcSettings {
        OidcSettings {
            issuer: Some("https://id.test/realms/a".to_owned()),
            client_id: Some("vvs".to_owned()),
            client_secret_file: None,
            scopes: "openid profile email".to_owned(),
            groups_claim: "groups".to_owned(),
            name: None,
        }
    }

    /// Returns the settings that a problem names.
    fn blamed(change: impl FnOnce(&mut OidcSettings), allow: &[Rule]) -> Vec<String> {
        let mut settings = whole();
        change(&mut settings);
        let name = |problem: String| problem.split(' ').next().unwrap().to_owned();
        settings.problems(allow).into_iter().map(name).collect()
    }

    #[test]
    fn whole_settings_are_no_problem() {
        let rules = [
            Rule::Domain("example.com".to_owned()),
            Rule::Group("staff".to_owned()),
        ];
        assert!(blamed(|_| {}, &rules).is_empty());

        for issuer in [
            "http://127.0.0.1:9000",
            "http://localhost/realms/a/",
            "http://[::1]:9000",
            "https://id.test/",
        ] {
            assert!(
                blamed(|settings| settings.issuer = Some(issuer.to_owned()), &rules).is_empty(),
                "{issuer}"
            );
        }
    }

    #[test]
    fn an_issuer_is_https_and_nothing_but_an_issuer() {
        let long = format!("https://id.test/{}", "a".repeat(240));
        for issuer in [
            "",
            "id.test",
            "http://id.test",
            "http://127.0.0.1.id.test",
            "ftp://id.test",
            "https://id.test?x",
            "https://id.test#x",
            "https://ada@id.test",
            " https://id.test",
            "https://id.test/\n",
            "https://id.test/\u{e9}",
            &long,
        ] {
            let blamed = blamed(
                |settings| settings.issuer = Some(issuer.to_owned()),
                &[Rule::Everyone],
            );
            assert_eq!(blamed, ["VVS_WEB_OIDC_ISSUER"], "{issuer}");
        }
    }

    #[test]
    fn every_problem_names_its_setting() {
        type Change = fn(&mut OidcSettings);
        let changes: [(&str, Change); 9] = [
            ("VVS_WEB_OIDC_ISSUER", |settings| settings.issuer = None),
            ("VVS_WEB_OIDC_CLIENT_ID", |settings| {
                settings.client_id = None;
            }),
            ("VVS_WEB_OIDC_CLIENT_ID", |settings| {
                settings.client_id = Some(String::new());
            }),
            ("VVS_WEB_OIDC_CLIENT_SECRET_FILE", |settings| {
                settings.client_secret_file = Some("/nowhere/at/all".into());
            }),
            ("VVS_WEB_OIDC_CLIENT_SECRET_FILE", |settings| {
                settings.client_secret_file = Some("/dev/null".into());
            }),
            ("VVS_WEB_OIDC_SCOPES", |settings| {
                settings.scopes = "profile email".to_owned();
            }),
            ("VVS_WEB_OIDC_SCOPES", |settings| {
                settings.scopes = "openid \"all\u{7f}\"".to_owned();
            }),
            ("VVS_WEB_OIDC_GROUPS_CLAIM", |settings| {
                settings.groups_claim = String::new();
            }),
            ("VVS_WEB_OIDC_NAME", |settings| {
                settings.name = Some(" ".to_owned());
            }),
        ];
        for (setting, change) in changes {
            assert_eq!(blamed(change, &[Rule::Everyone]), [setting]);
        }

        assert_eq!(blamed(|_| {}, &[]), ["VVS_WEB_ALLOW"]);
        assert_eq!(
            blamed(
                |_| {},
                &[Rule::Everyone, Rule::Organization("org_1".to_owned())]
            ),
            ["VVS_WEB_ALLOW"]
        );

        let nothing =
            |settings: &mut OidcSettings| (settings.issuer, settings.client_id) = (None, None);
        assert_eq!(blamed(nothing, &[]).len(), 3);
        assert!(whole().problems(&[])[0].contains("(--web-allow)"));
    }
}
