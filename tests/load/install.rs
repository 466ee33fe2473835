//! Editor installs that are signed in, each with a session and a user of its own: made at sessions
//! as web makes them after an approval, with no browser.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{sleep, timeout};
use tonic::Code;
use vvs_auth::key::random;
use vvs_auth::peer::Role;
use vvs_client::DeviceKey;
use vvs_proto::session::revoke_user_sessions_request::Whose;
use vvs_proto::session::sessions_client::SessionsClient;
use vvs_proto::session::{
    CreateSessionRequest, Identity, ProviderSession, RevokeUserSessionsRequest,
};
use vvs_proto::types::{Device, RevocationReason};
use vvs_runtime::trace::TracedChannel;
use vvs_tests::{Browser, Secrets};

use crate::Failure;
use crate::child::Child;
use crate::editor::Entrance;
use crate::system::{Existing, channel};

/// Calls under way at once.
const AT_ONCE: usize = 16;
/// How often sessions is asked again that is not available, and after which time.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);
/// How long all sessions together may take to be activated, and how often that is looked at.
const PATIENCE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(50);

/// What an editor keeps.
pub(crate) struct Install {
    pub(crate) key: DeviceKey,
    pub(crate) token: String,
    pub(crate) session_id: String,
    request: CreateSessionRequest,
}

/// The sessions role, in a process of its own or of a system that runs already.
pub(crate) struct Sessions {
    client: SessionsClient<TracedChannel>,
    /// Where its metrics are.
    admin: Option<SocketAddr>,
    child: Option<Child>,
}

impl Sessions {
    pub(crate) async fn of(
        existing: &Existing,
        data: &Path,
        flags: &[&str],
    ) -> Result<Self, Failure> {
        if existing.is_chosen() {
            let (client, admin) = (
                SessionsClient::new(existing.sessions()?),
                existing.sessions_admin,
            );
            return Ok(Self {
                client,
                admin,
                child: None,
            });
        }

        let child = Child::start(data, "sessions", flags).await?;
        let channel = channel(data, Role::Sessions, &child.address(0)?.to_string())?;

        Ok(Self {
            client: SessionsClient::new(channel),
            admin: Some(child.address(1)?),
            child: Some(child),
        })
    }

    /// One that runs already, where nothing is counted.
    pub(crate) fn at(client: SessionsClient<TracedChannel>) -> Self {
        Self {
            client,
            admin: None,
            child: None,
        }
    }

    /// Where relays call it, when it was started for this run.
    pub(crate) fn address(&self) -> Result<String, Failure> {
        self.child.as_ref().map_or_else(
            || Ok(String::new()),
            |child| Ok(child.address(0)?.to_string()),
        )
    }

    pub(crate) async fn make(&self, count: usize) -> Result<Vec<Install>, Failure> {
        let making = (0..count).map(async |number| {
            let key = DeviceKey::generate()?;
            let request = CreateSessionRequest {
                request_id: uuid()?,
                identity: Some(who(&format!("vvs-load-{number}@example.com"))),
                device: Some(Device {
                    name: "vvs-load".to_owned(),
                    jwk: key.jwk().to_string(),
                    ..Device::default()
                }),
                ..CreateSessionRequest::default()
            };
            let (session_id, token) = self.create(&request).await?;

            Ok::<_, Failure>(Install {
                key,
                token,
                session_id,
                request,
            })
        });
        stream::iter(making).buffered(AT_ONCE).try_collect().await
    }

    /// Signs each on once, for the relay to activate its session, as it does when a token is shown
    /// for the first time.
    pub(crate) async fn activate(
        &self,
        installs: &[Install],
        entrance: &Entrance,
    ) -> Result<(), Failure> {
        let before = self.calls().await;
        drop(entrance.sign_all_on(installs).await?);
        let Some(before) = before else { return Ok(()) };
        let all = before + u64::try_from(installs.len())?;
        let reached = async {
            while self.calls().await.is_some_and(|calls| calls < all) {
                sleep(POLL).await;
            }
        };
        Ok(timeout(PATIENCE, reached).await?)
    }

    /// Gives each a new token of its session: one that was signed after the session was activated
    /// says so.
    pub(crate) async fn renew(&self, installs: &mut [Install]) -> Result<(), Failure> {
        let renewing = installs.iter_mut().map(async |install| {
            install.token = self.create(&install.request).await?.1;
            Ok::<_, Failure>(())
        });
        stream::iter(renewing).buffered(AT_ONCE).try_collect().await
    }

    /// What a relay has asked of it for editors that showed a token: to activate a session, or to
    /// refresh the token.
    pub(crate) async fn calls(&self) -> Option<u64> {
        let mut browser = Browser::at("http://127.0.0.1:1", &Secrets::default());
        let page = browser.get_at(self.admin?, "/metrics").await.body;
        let count = |name| {
            page.lines()
                .find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok())
                .unwrap_or_default()
        };
        Some(count("vvs_sessions_activated_total ") + count("vvs_sessions_refreshed_total "))
    }

    async fn create(&self, request: &CreateSessionRequest) -> Result<(String, String), Failure> {
        let mut tried = 0;
        let made = loop {
            match self.client.clone().create_session(request.clone()).await {
                Ok(made) => break made.into_inner(),
                // The database is busy; the same request makes the same session.
                Err(status) if status.code() == Code::Unavailable && tried < TRIES => tried += 1,
                Err(status) => return Err(status.into()),
            }
            sleep(PAUSE).await;
        };

        let (session, token) = made.session.zip(made.token).ok_or("sessions made none")?;

        Ok((session.id, token.token))
    }

    /// Ends all that were made, in this run and in others.
    pub(crate) async fn revoke_all(&self) -> Result<(), Failure> {
        let Identity {
            provider,
            provider_session: session,
            ..
        } = who("");
        let request = RevokeUserSessionsRequest {
            whose: Some(Whose::ProviderSession(ProviderSession {
                provider,
                session,
                subject: String::new(),
            })),
            reason: RevocationReason::Logout.into(),
            address: String::new(),
        };
        self.client.clone().revoke_user_sessions(request).await?;
        Ok(())
    }

    pub(crate) async fn stop(self) -> Result<(), Failure> {
        match self.child {
            Some(child) => child.stop().await,
            None => self.revoke_all().await,
        }
    }
}

/// A user; whoever it was when that is empty. Each has one session, for there is a limit to those.
fn who(subject: &str) -> Identity {
    let [provider, subject, provider_session] = ["dev", subject, "vvs-load"].map(str::to_owned);
    Identity {
        provider,
        subject,
        provider_session,
        ..Identity::default()
    }
}

/// Of version 4 (RFC 9562, section 5.4).
pub(crate) fn uuid() -> Result<String, Failure> {
    let bits = u128::from_be_bytes(random::<16>()?);
    let hex = format!(
        "{:032x}",
        bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62)
    );

    Ok(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}
