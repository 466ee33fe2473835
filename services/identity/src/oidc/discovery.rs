//! A provider's description of itself (OpenID Connect Discovery 1.0): its endpoints and what they
//! accept. It is fetched on first use and cached for an hour, and longer while no newer one is
//! available.

use std::sync::Arc;
use std::time::Duration;

use oauth2::url::Url;
use oauth2::{AuthType, AuthUrl, TokenUrl};
use serde::Deserialize;
use tokio_util::task::TaskTracker;

use super::http::{Http, host, unreadable};
use super::settings::is_loopback;
use crate::cache::{Cache, Source};
use crate::fetch::Failed;

/// How long a document is valid.
const FRESH: Duration = Duration::from_hours(1);

/// The used part of a provider's document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) authorization: AuthUrl,
    pub(super) token: TokenUrl,
    pub(super) keys: Url,
    pub(super) userinfo: Option<Url>,
    pub(super) end_session: Option<Url>,
    /// Every answer of the authorization endpoint names its issuer (RFC 9207).
    pub(super) names_itself: bool,
    /// How it accepts the client's secret.
    pub(super) secret: AuthType,
}

/// The document's wire format.
#[derive(Deserialize)]
struct DiscoveryBody {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    jwks_uri: Url,
    userinfo_endpoint: Option<Url>,
    end_session_endpoint: Option<Url>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Document {
    /// Reads a document that must be the issuer's own.
    fn parse(json: &[u8], issuer: &str) -> Result<Self, String> {
        let wire: DiscoveryBody =
            serde_json::from_slice(json).map_err(|cause| cause.to_string())?;
        if wire.issuer != issuer {
            let named: String = wire.issuer.chars().take(200).collect();
            return Err(format!(
                "it names the issuer {named:?}, and VVS_WEB_OIDC_ISSUER says {issuer:?}"
            ));
        }

        let of_loopback = Url::parse(issuer)
            .is_ok_and(|issuer| issuer.scheme() == "http" && is_loopback(&issuer));

        // Nobody off this machine may send us to it.
        let is_safe = |url: &Url| {
            url.scheme() == "https" || (url.scheme() == "http" && of_loopback && is_loopback(url))
        };
        let required = [
            &wire.authorization_endpoint,
            &wire.token_endpoint,
            &wire.jwks_uri,
        ];
        let optional = [&wire.userinfo_endpoint, &wire.end_session_endpoint]
            .into_iter()
            .flatten();
        if let Some(unsafe_one) = required
            .into_iter()
            .chain(optional)
            .find(|url| !is_safe(url))
        {
            return Err(format!("its endpoint at {} is not https", host(unsafe_one)));
        }

        // Without a list it takes the first (Discovery, section 3).
        let methods = wire.token_endpoint_auth_methods_supported;
        let takes = |method: &str| {
            methods
                .as_ref()
                .is_some_and(|methods| methods.iter().any(|one| one == method))
        };
        let is_post_only = takes("client_secret_post") && !takes("client_secret_basic");

        Ok(Self {
            authorization: AuthUrl::from_url(wire.authorization_endpoint),
            token: TokenUrl::from_url(wire.token_endpoint),
            keys: wire.jwks_uri,
            userinfo: wire.userinfo_endpoint,
            end_session: wire.end_session_endpoint,
            names_itself: wire.authorization_response_iss_parameter_supported,
            secret: if is_post_only {
                AuthType::RequestBody
            } else {
                AuthType::BasicAuth
            },
        })
    }
}

/// The document of one issuer.
pub(super) struct Discovery(Cache<Document>);

impl Discovery {
    pub(super) fn new(issuer: &str, mut url: Url, http: Http, tasks: TaskTracker) -> Self {
        // Behind the issuer's whole path (Discovery, section 4).
        let path = url.path();
        url.set_path(&format!(
            "{}/.well-known/openid-configuration",
            path.strip_suffix('/').unwrap_or(path)
        ));
        let issuer = issuer.to_owned();
        let source: Source<Document> = Box::new(move || {
            let (issuer, url, http) = (issuer.clone(), url.clone(), http.clone());
            Box::pin(async move {
                let answer = http.get(&url, None).await?;
                Document::parse(&answer, &issuer).map_err(|cause| unreadable(host(&url), cause))
            })
        });

        Self(Cache::new("the description", source, FRESH, tasks))
    }

    pub(super) async fn document(&self) -> Result<Arc<Document>, Failed> {
        self.0.get(|_| true).await
    }

    /// Returns the last fetched document, however stale, without a call.
    pub(super) fn last(&self) -> Option<Arc<Document>> {
        self.0.last()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::settings::issuer_url;
    use super::super::testing::{Fake, Fault, ISSUER};
    use super::*;
    use crate::cache::GAP;

    const PATH: &str = "/realms/a/.well-known/openid-configuration";

    fn discovery(fake: &Fake) -> Discovery {
        Discovery::new(
            ISSUER,
            issuer_url(ISSUER).unwrap(),
            fake.http(),
            TaskTracker::new(),
        )
    }

    fn parse(issuer: &str, base: &str, change: Value) -> Result<Document, String> {
        let mut document = json!({"issuer": issuer});
        for name in [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "end_session_endpoint",
        ] {
            document[name] = format!("{base}/{name}").into();
        }

        let Value::Object(change) = change else {
            panic!("not an object")
        };

        document.as_object_mut().unwrap().extend(change);

        Document::parse(document.to_string().as_bytes(), issuer)
    }

    #[test]
    fn a_document_is_the_issuers_own_to_the_letter() {
        assert!(parse(ISSUER, "https://id.test", json!({})).is_ok());

        for other in [
            "https://id.test/realms/a/",
            "https://ID.test/realms/a",
            "https://id.test/realms/b",
            "",
        ] {
            assert!(
                parse(ISSUER, "https://id.test", json!({"issuer": other})).is_err(),
                "{other}"
            );
        }

        for garbage in ["", "null", "{}", "<html>", "[]"] {
            assert!(
                Document::parse(garbage.as_bytes(), ISSUER).is_err(),
                "{garbage}"
            );
        }
    }

    #[test]
    fn every_endpoint_is_https_or_on_the_issuers_own_machine() {
        const HERE: &str = "http://127.0.0.1:9000";

        for name in [
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "end_session_endpoint",
        ] {
            for bad in [
                "http://id.test/x",
                "http://127.0.0.1/x",
                "ftp://id.test/x",
                "javascript:alert(1)",
                "/x",
                "",
            ] {
                assert!(
                    parse(ISSUER, "https://id.test", json!({name: bad})).is_err(),
                    "{name} {bad}"
                );
            }

            assert!(
                parse(HERE, HERE, json!({name: "http://id.test/x"})).is_err(),
                "{name}"
            );
            assert!(
                parse(HERE, HERE, json!({name: "https://id.test/x"})).is_ok(),
                "{name}"
            );
        }

        assert!(
            parse(
                HERE,
                HERE,
                json!({"userinfo_endpoint": null, "end_session_endpoint": null})
            )
            .is_ok()
        );
    }

    #[test]
    fn the_secret_goes_into_the_form_only_where_that_is_all_there_is() {
        const METHODS: &str = "token_endpoint_auth_methods_supported";
        let posts = |methods: Value| {
            let document = parse(ISSUER, "https://id.test", json!({METHODS: methods})).unwrap();
            matches!(document.secret, AuthType::RequestBody)
        };
        assert!(posts(json!(["client_secret_post", "private_key_jwt"])));
        assert!(!posts(json!(["client_secret_post", "client_secret_basic"])));
        assert!(!posts(json!(["client_secret_basic"])) && !posts(json!(null)) && !posts(json!([])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_is_kept_for_an_hour_and_longer_while_there_is_no_other() {
        let fake = Fake::new();
        let discovery = discovery(&fake);
        for _ in 0..3 {
            discovery.document().await.unwrap();
        }

        assert_eq!(fake.calls(PATH), 1);

        tokio::time::advance(FRESH).await;
        fake.fail(PATH, Fault::Down);
        for _ in 0..3 {
            discovery.document().await.unwrap();
        }

        assert_eq!(fake.calls(PATH), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_is_down_is_asked_once_in_ten_seconds() {
        let fake = Fake::new();
        fake.fail(PATH, Fault::Down);
        let discovery = discovery(&fake);
        for _ in 0..5 {
            assert!(discovery.document().await.is_err());
        }
        assert_eq!(fake.calls(PATH), 1);
        tokio::time::advance(GAP).await;
        fake.change(|state| state.faults.clear());
        discovery.document().await.unwrap();
        assert_eq!(fake.calls(PATH), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_wait_for_one_call() {
        let fake = Fake::new();
        fake.fail(PATH, Fault::Late);
        let discovery = discovery(&fake);
        let (one, two, three) = tokio::join!(
            discovery.document(),
            discovery.document(),
            discovery.document()
        );
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        assert_eq!(fake.calls(PATH), 1);
    }
}
