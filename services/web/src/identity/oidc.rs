//! OpenID Connect: any provider that has the code flow and says where its parts are. The browser
//! goes there and comes back to `/api/auth/oidc`; what it brings is checked, and the provider's
//! tokens are dropped. A person is issuer and subject.

use std::sync::Arc;

use askama::Template;
use axum::routing::{get, post};
use axum::{Extension, Router};
use oauth2::{ClientId, ClientSecret, RedirectUrl, Scope};
use tokio_util::task::TaskTracker;
use vvs_auth::provider::KeySet;
use vvs_runtime::metrics::Counters;
use vvs_runtime::origin::Origin;

use self::discovery::Discovery;
use self::http::{Http, host};
use self::logout::Tokens;
use self::settings::{issuer_url, read_secret};
use super::allow::Rule;
use super::keys::{Keys, Source, parse};
use super::{Ask, Asking, Common, Part, Provider};
use crate::Web;
use crate::call::Sessions;
use crate::error::Error;
use crate::header::Nonce;
use crate::visit::{About, SIGN_IN_PATH};

mod discovery;
mod exchange;
mod flow;
mod http;
mod logout;
mod profile;
mod settings;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use settings::Settings;

/// Where a trip to the provider begins.
const START_PATH: &str = "/login/oidc";
/// Where the provider sends the browser back to: the redirect URI.
const BACK_PATH: &str = "/api/auth/oidc";
/// Where the provider says that somebody is signed in no more.
const LOGOUT_PATH: &str = "/api/auth/oidc/logout";

/// An OpenID provider, and this server as its client.
pub(crate) struct Oidc {
    issuer: String,
    /// What people call it.
    label: String,
    client_id: ClientId,
    secret: Option<ClientSecret>,
    scopes: Vec<Scope>,
    groups_claim: String,
    allow: Vec<Rule>,
    public_url: Origin,
    redirect: RedirectUrl,
    http: Http,
    discovery: Arc<Discovery>,
    keys: Keys,
    sessions: Sessions,
    heard: Tokens,
    sign_ins: Counters,
    logouts: Counters,
}

impl Oidc {
    pub(crate) fn new(settings: &Settings, common: &Common) -> Result<Self, Error> {
        Self::over(settings, common, Http::over(common.fetch.clone()))
    }

    fn over(settings: &Settings, common: &Common, http: Http) -> Result<Self, Error> {
        let problems = settings.problems(&common.allow);
        if !problems.is_empty() {
            return Err(Error::Settings(problems));
        }

        let bad = |problem: String| Error::Settings(vec![problem]);
        let issuer = settings.issuer.clone().unwrap_or_default();
        let url = issuer_url(&issuer).map_err(|problem| bad(problem.to_owned()))?;
        let secret = settings
            .client_secret_file
            .as_deref()
            .map(read_secret)
            .transpose()
            .map_err(bad)?;
        let redirect = RedirectUrl::new(common.public_url.join(BACK_PATH));
        let (sign_ins, logouts) = (Counters::default(), Counters::default());
        let metrics = &common.metrics;
        metrics.register(
            "vvs_oidc_sign_ins",
            "Browsers back from the OpenID provider, by outcome",
            sign_ins.clone(),
        );
        metrics.register(
            "vvs_oidc_logouts",
            "Logouts that the OpenID provider has sent, by outcome",
            logouts.clone(),
        );
        let label = settings
            .name
            .as_deref()
            .unwrap_or(host(&url))
            .trim()
            .to_owned();
        let discovery = Arc::new(Discovery::new(
            &issuer,
            url,
            http.clone(),
            common.tasks.clone(),
        ));

        Ok(Self {
            label,
            client_id: ClientId::new(settings.client_id.clone().unwrap_or_default()),
            secret: secret.map(ClientSecret::new),
            scopes: settings
                .scopes()
                .map(|scope| Scope::new(scope.to_owned()))
                .collect(),
            groups_claim: settings.groups_claim.clone(),
            allow: common.allow.clone(),
            public_url: common.public_url.clone(),
            redirect: redirect.map_err(|cause| {
                bad(format!("VVS_PUBLIC_URL cannot be a redirect URI: {cause}"))
            })?,
            keys: keys(discovery.clone(), http.clone(), common.tasks.clone()),
            http,
            discovery,
            sessions: common.sessions.clone(),
            heard: Tokens::default(),
            sign_ins,
            logouts,
            issuer,
        })
    }

    /// Where the person can sign out of the provider too (RP-Initiated Logout 1.0). Without an ID
    /// token, which is not kept, the provider asks whether they mean it.
    fn end_session(&self) -> Option<String> {
        let mut url = self.discovery.last()?.end_session.clone()?;
        let back = self.public_url.join(SIGN_IN_PATH);
        url.query_pairs_mut()
            .append_pair("client_id", &self.client_id)
            .append_pair("post_logout_redirect_uri", &back);
        Some(url.into())
    }
}

/// The provider's keys, wherever its document says they are.
fn keys(discovery: Arc<Discovery>, http: Http, tasks: TaskTracker) -> Keys {
    let source: Source<KeySet> = Box::new(move || {
        let (discovery, http) = (discovery.clone(), http.clone());
        Box::pin(async move {
            let url = &discovery.document().await?.keys;
            parse(host(url), &http.get(url, None).await?)
        })
    });
    Keys::new(source, tasks)
}

impl Provider for Oidc {
    fn name(&self) -> &str {
        &self.issuer
    }

    fn part(&self, ask: &Ask<'_>) -> Part {
        let about = match ask.about {
            About::Login(id) => format!("connection_id={id}"),
            About::Account => "account=1".to_owned(),
        };

        let another = if ask.another { "&another=1" } else { "" };
        let part = Continue {
            name: &self.label,
            href: format!("{START_PATH}?{about}{another}"),
            another: ask.another,
            end_session: self.end_session().filter(|_| ask.signed_out),
            // Not for whoever has been there or wants something else; and to the account's page
            // people come from having signed out of the provider.
            goes_on: ask.about != About::Account && !(ask.retry || ask.another || ask.signed_out),
            nonce: ask.nonce,
        };

        Part {
            html: super::html(&part),
            ..Part::default()
        }
    }

    fn routes(self: Arc<Self>) -> Router<Arc<Web>> {
        Router::new()
            .route(START_PATH, get(flow::start))
            .route(BACK_PATH, get(flow::back))
            .route(LOGOUT_PATH, post(logout::logout))
            .layer(Extension(self))
    }

    /// Says early when the provider cannot be used. It may be up later: nobody waits for it.
    fn watch(self: Arc<Self>, _web: Arc<Web>) -> Asking<'static, ()> {
        Box::pin(async move {
            if let Err(cause) = self.discovery.document().await {
                tracing::warn!(issuer = self.issuer, %cause, "the identity provider cannot be used");
            }
        })
    }
}

/// The button that leads to the provider.
#[derive(Template)]
#[template(path = "identity/oidc.html")]
struct Continue<'a> {
    name: &'a str,
    /// A path of ours.
    href: String,
    another: bool,
    /// The provider's own address.
    end_session: Option<String>,
    /// With a script it does not wait for the person.
    goes_on: bool,
    nonce: &'a Nonce,
}
