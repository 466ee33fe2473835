//! Clerk: people sign in with ClerkJS on our own page. Its data in the browser's cookies is
//! verified, looked up and dropped. Only the ids of a user and a session are stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use http::header::COOKIE;
use http::{HeaderMap, StatusCode};
use time::OffsetDateTime;
use vvs_auth::key::base64url;
use vvs_auth::provider::KeySet;
use vvs_auth::provider::clerk::{Claims, Rules, verify};
use vvs_runtime::metrics::{Counters, Metrics, count};

use self::api::Api;
use self::form::ClerkForm;
use self::script::Scripts;
use self::user::ClerkUser;
use self::webhook::{BANNED, BadWebhook, Ended, Inbox, Webhook};
use crate::allow::{Rule, RuleFacts, admits};
use crate::asking::Asking;
use crate::cache::Source;
use crate::error::Error;
use crate::fetch::Fetch;
use crate::keys::ProviderKeys;
use crate::people::People;
use crate::person::{Freshness, SignIn};
use crate::provider::{
    Arrival, Ask, Part, Path, PathKind, PlainRequest, Provider, ProviderContext, Response, bare,
};
use crate::refusal::Refusal;
use crate::sessions::{Sessions, Whose};

mod api;
mod form;
mod recheck;
mod script;
mod settings;
mod user;
mod webhook;

pub use settings::ClerkSettings;

/// Where Clerk delivers.
const WEBHOOK_PATH: &str = "/webhooks/clerk";

/// Clerk, as one of its instances signs people in here.
pub(crate) struct Clerk {
    /// The issuer of its tokens.
    name: String,
    authorized_parties: Vec<String>,
    allow_impersonation: bool,
    allow: Vec<Rule>,
    /// The suffix of the names of cookies.
    suffix: String,
    keys: ProviderKeys,
    api: Arc<Api>,
    has_known_users: AtomicBool,
    form: ClerkForm,
    files: Option<Scripts>,
    inbox: Option<Inbox>,
    sessions: Arc<dyn Sessions>,
    people: People,
    /// Deliveries of webhooks, by result.
    webhooks: Counters,
    /// Repeated questions to Clerk about users, by result.
    rechecks: Counters,
}

impl Clerk {
    pub(crate) fn new(
        settings: &ClerkSettings,
        allow: Vec<Rule>,
        fetch: Fetch,
        common: ProviderContext,
    ) -> Result<Self, Error> {
        let config = settings.read().map_err(Error::Settings)?;
        let ProviderContext {
            people,
            public_url,
            sessions,
            metrics,
            tasks,
        } = common;
        let [webhooks, rechecks] = counters(&metrics);
        let form = ClerkForm::new(&config, settings.proxy_url.as_ref());
        let authorized_parties = match &settings.authorized_parties[..] {
            [] => vec![public_url.to_string()],
            parties => parties.iter().map(ToString::to_string).collect(),
        };

        let secret_key = config.secret_key;
        let api = Arc::new(Api {
            base: settings.api_url.to_string(),
            secret_key,
            fetch,
        });
        let fetching = api.clone();
        let source: Source<KeySet> = match config.jwt_key {
            Some(key) => Box::new(move || Box::pin(std::future::ready(Ok(key.clone())))),
            None => Box::new(move || {
                let api = fetching.clone();
                Box::pin(async move { api.keys().await })
            }),
        };

        let keys = ProviderKeys::new(source, tasks);

        Ok(Self {
            name: config.issuer.to_string(),
            authorized_parties,
            allow_impersonation: settings.allow_impersonation,
            // Clerk itself has a say in who can sign up.
            allow: if allow.is_empty() {
                vec![Rule::Everyone]
            } else {
                allow
            },
            suffix: suffix(&config.publishable_key),
            keys,
            api,
            has_known_users: AtomicBool::new(false),
            form,
            files: config.files,
            inbox: config
                .webhook_secret
                .map(|secret| Inbox::new(&secret, settings.end_with_session)),
            sessions,
            people,
            webhooks,
            rechecks,
        })
    }

    async fn arrived(&self, headers: &HeaderMap, at: OffsetDateTime) -> Result<Arrival, Refusal> {
        let now = at.unix_timestamp();
        let Some(token) = token(headers, &self.suffix) else {
            return Ok(Arrival::Stale);
        };

        let keys = self.keys.for_token(token).await?;
        let rules = Rules {
            issuer: &self.name,
            authorized_parties: &self.authorized_parties,
            allow_impersonation: self.allow_impersonation,
        };
        let claims = match verify(token, &keys, &rules, now) {
            Ok(claims) => claims,
            Err(distrust) if distrust.is_stale() => return Ok(Arrival::Stale),
            Err(distrust) => return Err(Refusal::NotBelieved(distrust.to_string())),
        };

        self.people.count(&self.name, &claims.subject)?;
        let user = self.user(&claims.subject).await?;
        let verified_email = user
            .email()
            .and_then(|(address, is_verified)| is_verified.then_some(address));
        let facts = RuleFacts {
            verified_email,
            groups: &[],
            organization: claims.organization.as_deref(),
        };
        if !admits(&self.allow, &facts) {
            return Err(Refusal::NotAllowed(
                "none of the rules of VVS_WEB_ALLOW fits the user",
            ));
        }

        if let Some(actor) = &claims.actor {
            tracing::warn!(
                actor,
                subject = claims.subject,
                "a member of staff signs in as the user"
            );
        }

        // In doubt it is older: what has ended since then ends this too.
        let millis = now
            .saturating_mul(1000)
            .saturating_add(at.millisecond().into());
        let age = millis.saturating_sub(claims.issued_at.saturating_mul(1000));
        let proof = Freshness::Aged(Duration::from_millis(age.max(0).unsigned_abs()));

        Ok(Arrival::SignedIn(self.sign_in(claims, &user, now), proof))
    }

    /// Returns a user, if Clerk has one with this id.
    async fn known_user(&self, id: &str) -> Result<Option<ClerkUser>, Refusal> {
        let user = self.api.user(id).await?;
        if user.is_some() {
            self.has_known_users.store(true, Ordering::Relaxed);
        }
        Ok(user)
    }

    /// Returns whether the secret key has ever found a user of this instance.
    fn has_known_users(&self) -> bool {
        self.has_known_users.load(Ordering::Relaxed)
    }

    /// Returns a user who may be signed in.
    async fn user(&self, id: &str) -> Result<ClerkUser, Refusal> {
        let user = self
            .known_user(id)
            .await?
            .ok_or(Refusal::NotAllowed("Clerk no longer has this user"))?;
        user.is_barred()
            .map_or(Ok(user), |why| Err(Refusal::NotAllowed(why)))
    }

    fn sign_in(&self, claims: Claims, user: &ClerkUser, at: i64) -> SignIn {
        let email = user.email();
        SignIn {
            provider: self.name.clone(),
            subject: claims.subject,
            provider_session: claims.session,
            email: email.map(|(address, _)| address.to_owned()),
            email_verified: email.is_some_and(|(_, is_verified)| is_verified),
            name: user.name(),
            avatar_url: user.picture(),
            at,
        }
    }

    async fn confirmed(&self, sign_in: &SignIn) -> Result<(), Refusal> {
        let (user, session) = tokio::join!(
            self.user(&sign_in.subject),
            self.api.session(&sign_in.provider_session)
        );

        // Of two answers the one that decides counts, whatever the other call came to.
        if matches!(user, Err(Refusal::NotAllowed(_))) {
            return user.map(drop);
        }

        let is_over = |session: &Option<api::ClerkSession>| {
            session
                .as_ref()
                .is_none_or(|it| !it.is_active() || it.user_id != sign_in.subject)
        };
        if session.as_ref().is_ok_and(is_over) {
            return Err(Refusal::SignInOver("the session with Clerk has ended"));
        }

        user?;
        session?;

        Ok(())
    }

    /// `POST /webhooks/clerk`: the answer tells Svix whether to send it again, and reveals nothing
    /// else.
    async fn delivered(&self, request: PlainRequest<'_>) -> StatusCode {
        let Some(inbox) = &self.inbox else {
            return StatusCode::NOT_FOUND;
        };

        let now = request.now.unix_timestamp();
        let read = request
            .body
            .ok_or(BadWebhook::Malformed)
            .and_then(|body| inbox.read(request.headers, body, now));
        let (outcome, status) = match read {
            Ok(delivery) => self.acted(inbox, delivery).await,
            Err(refused) => {
                tracing::info!(outcome = refused.as_str(), "a webhook was refused");
                (refused.as_str(), refused.status())
            }
        };

        count(&self.webhooks, "outcome", outcome);

        status
    }

    async fn acted(&self, inbox: &Inbox, delivery: Webhook) -> (&'static str, StatusCode) {
        let Webhook { id, ended } = delivery;
        if inbox.has_seen(&id) {
            return ("repeated", StatusCode::OK);
        }

        let Some(Ended {
            subject,
            provider_session,
            reason,
            editors,
        }) = ended
        else {
            return ("ignored", StatusCode::OK);
        };

        // A delivery that was delayed may tell of a ban that was lifted since. What cannot be asked
        // about is believed.
        if reason == BANNED
            && matches!(self.known_user(&subject).await, Ok(Some(user)) if !user.is_banned())
        {
            return ("ignored", StatusCode::OK);
        }

        let whose = Whose {
            provider: &self.name,
            subject: &subject,
            provider_session: &provider_session,
        };
        match self.sessions.end(whose, editors, reason).await {
            Ok(revoked) => {
                tracing::info!(
                    svix_id = id,
                    subject,
                    reason = reason.word(),
                    revoked,
                    "signed out by a webhook"
                );
                inbox.remember(id);
                ("revoked", StatusCode::OK)
            }
            Err(refusal) => {
                refusal.log(&id);
                ("failed", StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

impl Provider for Clerk {
    fn name(&self) -> &str {
        &self.name
    }

    fn part(&self, ask: &Ask<'_>) -> Part {
        self.form.part(ask)
    }

    fn paths(&self) -> Vec<Path> {
        let webhook = self.inbox.as_ref().map(|_| Path {
            path: WEBHOOK_PATH,
            kind: PathKind::Message(webhook::MAX_BODY),
        });
        let scripts = self.files.as_ref().map(|_| Path {
            path: form::SCRIPT_PATH,
            kind: PathKind::File,
        });

        webhook.into_iter().chain(scripts).collect()
    }

    fn answer<'a>(&'a self, request: PlainRequest<'a>) -> Asking<'a, Response> {
        Box::pin(async move {
            match (request.path, &self.files, request.segments) {
                (WEBHOOK_PATH, _, _) => bare(self.delivered(request).await),
                (form::SCRIPT_PATH, Some(files), [package, file]) => files.answer(package, file),
                _ => bare(StatusCode::NOT_FOUND),
            }
        })
    }

    fn arrive<'a>(
        &'a self,
        headers: &'a HeaderMap,
        now: OffsetDateTime,
    ) -> Asking<'a, Result<Arrival, Refusal>> {
        Box::pin(self.arrived(headers, now))
    }

    fn confirm<'a>(&'a self, sign_in: &'a SignIn) -> Asking<'a, Result<(), Refusal>> {
        Box::pin(self.confirmed(sign_in))
    }

    fn watch(self: Arc<Self>) -> Asking<'static, ()> {
        Box::pin(recheck::run(self))
    }
}

/// Returns the counters of webhooks and rechecks.
fn counters(metrics: &Metrics) -> [Counters; 2] {
    let (webhooks, rechecks) = (Counters::default(), Counters::default());
    metrics.register(
        "vvs_clerk_webhooks",
        "Deliveries of Clerk's webhooks, by outcome",
        webhooks.clone(),
    );
    metrics.register(
        "vvs_clerk_rechecks",
        "Repeated questions to Clerk about users, by outcome",
        rechecks.clone(),
    );

    [webhooks, rechecks]
}

/// Returns the suffix that ClerkJS adds to the names of cookies, so that several instances do not
/// mix on one host.
fn suffix(publishable_key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, publishable_key.as_bytes());
    base64url(hash.as_ref()).chars().take(8).collect()
}

/// Returns the token that ClerkJS has stored: under its own name, or under the one that all
/// instances share.
fn token<'a>(headers: &'a HeaderMap, suffix: &str) -> Option<&'a str> {
    let own = format!("__session_{suffix}");
    [&*own, "__session"]
        .into_iter()
        .find_map(|name| cookie(headers, name))
}

/// Returns the first cookie of this name that is not empty.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
}

#[cfg(test)]
mod tests;
