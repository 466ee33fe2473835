//! OpenID Connect: any provider that has the code flow and a discovery document. The browser goes
//! there and comes back to `/api/auth/oidc`. Web checks the answer, and drops the provider's
//! tokens. Issuer and subject identify a person.

use std::sync::Arc;

use ::http::StatusCode;
use askama::Template;
use oauth2::{ClientId, ClientSecret, RedirectUrl, Scope};
use tokio_util::task::TaskTracker;
use vvs_auth::provider::KeySet;
use vvs_runtime::metrics::{Counters, Metrics};
use vvs_runtime::origin::Origin;

use self::discovery::Discovery;
use self::http::{Http, host};
use self::logout::HeardTokens;
use self::settings::{issuer_url, read_secret};
use crate::about::{About, SIGN_IN_PATH};
use crate::allow::Rule;
use crate::asking::Asking;
use crate::browser::Browser;
use crate::cache::Source;
use crate::error::Error;
use crate::fetch::Fetch;
use crate::keys::{ProviderKeys, parse};
use crate::provider::{
    Ask, BrowserRequest, Part, Path, PathKind, PlainRequest, Provider, ProviderContext, Reply,
    Response, bare, html,
};
use crate::refusal::Refusal;
use crate::sessions::Sessions;
use crate::source::Nonce;

mod clock;
mod discovery;
mod exchange;
mod http;
mod logout;
mod profile;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod trip;

pub use settings::OidcSettings;

/// Where a trip to the provider begins.
const START_PATH: &str = "/login/oidc";
/// Where the provider sends the browser back to: the redirect URI.
const BACK_PATH: &str = "/api/auth/oidc";
/// Where the provider reports that somebody is no longer signed in.
const LOGOUT_PATH: &str = "/api/auth/oidc/logout";

/// An OpenID provider, and this server as its client.
pub(crate) struct Oidc {
    issuer: String,
    /// The name that people use for it.
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
    keys: ProviderKeys,
    sessions: Arc<dyn Sessions>,
    heard: HeardTokens,
    sign_ins: Counters,
    logouts: Counters,
}

impl Oidc {
    pub(crate) fn new(
        settings: &OidcSettings,
        allow: Vec<Rule>,
        fetch: Fetch,
        common: ProviderContext,
    ) -> Result<Self, Error> {
        Self::over(settings, allow, Http::over(fetch), common)
    }

    fn over(
        settings: &OidcSettings,
        allow: Vec<Rule>,
        http: Http,
        common: ProviderContext,
    ) -> Result<Self, Error> {
        let problems = settings.problems(&allow);
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
        let [sign_ins, logouts] = counters(&common.metrics);
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
            allow,
            public_url: common.public_url,
            redirect: redirect.map_err(|cause| {
                bad(format!("VVS_PUBLIC_URL cannot be a redirect URI: {cause}"))
            })?,
            keys: keys(discovery.clone(), http.clone(), common.tasks),
            http,
            discovery,
            sessions: common.sessions,
            heard: HeardTokens::default(),
            sign_ins,
            logouts,
            issuer,
        })
    }

    /// Returns where the person can sign out of the provider too (RP-Initiated Logout 1.0). No ID
    /// token is stored, so the provider asks for confirmation.
    fn end_session(&self) -> Option<String> {
        let mut url = self.discovery.last()?.end_session.clone()?;
        let back = self.public_url.join(SIGN_IN_PATH);
        url.query_pairs_mut()
            .append_pair("client_id", &self.client_id)
            .append_pair("post_logout_redirect_uri", &back);
        Some(url.into())
    }
}

/// Returns the counters of sign-ins and logouts.
fn counters(metrics: &Metrics) -> [Counters; 2] {
    let (sign_ins, logouts) = (Counters::default(), Counters::default());
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

    [sign_ins, logouts]
}

/// Returns the provider's keys, from the address in its document.
fn keys(discovery: Arc<Discovery>, http: Http, tasks: TaskTracker) -> ProviderKeys {
    let source: Source<KeySet> = Box::new(move || {
        let (discovery, http) = (discovery.clone(), http.clone());
        Box::pin(async move {
            let url = &discovery.document().await?.keys;
            parse(host(url), &http.get(url, None).await?)
        })
    });
    ProviderKeys::new(source, tasks)
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
            // Not for a person who has been there or wants something else; and to the account's
            // page people come from having signed out of the provider.
            goes_on: ask.about != About::Account && !(ask.retry || ask.another || ask.signed_out),
            nonce: ask.nonce,
        };

        Part {
            html: html(&part),
            ..Part::default()
        }
    }

    fn paths(&self) -> Vec<Path> {
        let page = |path| Path {
            path,
            kind: PathKind::Page,
        };
        let logout = Path {
            path: LOGOUT_PATH,
            kind: PathKind::Message(logout::MAX_BODY),
        };

        vec![page(START_PATH), page(BACK_PATH), logout]
    }

    fn serve<'a>(
        &'a self,
        call: BrowserRequest<'a>,
        browser: &'a mut dyn Browser,
    ) -> Asking<'a, Result<Reply, Refusal>> {
        Box::pin(async move {
            match call.path {
                START_PATH => self.start(call, browser).await,
                BACK_PATH => self.back(call, browser).await,
                _ => Err(Refusal::NotFound),
            }
        })
    }

    fn answer<'a>(&'a self, request: PlainRequest<'a>) -> Asking<'a, Response> {
        Box::pin(async move {
            match request.path {
                LOGOUT_PATH => self.logged_out(request).await,
                _ => bare(StatusCode::NOT_FOUND),
            }
        })
    }

    /// Reports early when the provider cannot be used. It may be up later, so nothing waits for it.
    fn watch(self: Arc<Self>) -> Asking<'static, ()> {
        Box::pin(async move {
            if let Err(cause) = self.discovery.document().await {
                let issuer = &self.issuer;
                tracing::warn!(issuer, %cause, "the identity provider cannot be used");
            }
        })
    }
}

/// The button that leads to the provider.
#[derive(Template)]
#[template(path = "oidc.html")]
struct Continue<'a> {
    name: &'a str,
    /// One of our paths.
    href: String,
    another: bool,
    /// The provider's own address.
    end_session: Option<String>,
    /// With a script it does not wait for the person.
    goes_on: bool,
    nonce: &'a Nonce,
}
