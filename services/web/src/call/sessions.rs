//! The calls to sessions: the session of an approval, a person's signed-in editors, the audit log
//! and the keys.

use std::time::Duration;

use vvs_identity::{SignIn, Whose};
use vvs_proto::internal::browsers_client::BrowsersClient;
use vvs_proto::session::list_sessions_request::User;
use vvs_proto::session::revoke_user_sessions_request::Whose as Owner;
use vvs_proto::session::sessions_client::SessionsClient;
use vvs_proto::session::{
    self as wire, AuditEvent, CreateSessionRequest, GetSessionRequest, Identity,
    ListSessionsRequest, ProviderSession, ProviderUser, RecordAuditRequest, RevokeSessionRequest,
    RevokeUserSessionsRequest, TakeStaleUsersRequest,
};
use vvs_proto::token::GetSigningKeysRequest;
use vvs_proto::token::tokens_client::TokensClient;
use vvs_proto::types::{App, Device, RevocationReason};
use vvs_proto::{ConnectionId, RequestId, timestamp};
use vvs_runtime::rpc::within;
use vvs_runtime::trace::TracedChannel;

use super::{CALL_TIME, Granted, Requester, refusal, shown};
use crate::account::Install;
use crate::editor;
use crate::error::Refusal;
use crate::login::View;

pub(super) const SESSIONS: &str = "sessions";

/// The reason when a session's user has ended it here; the editor receives it.
pub(super) const BY_USER: RevocationReason = RevocationReason::SignedOutByUser;
/// The reason when the identity provider no longer confirms a sign-in.
const BY_PROVIDER: RevocationReason = RevocationReason::SignInOver;
/// How many editors one call asks for, and how often: more than anybody reads.
const LISTED_AT_ONCE: i32 = 1000;
const MAX_PAGES: usize = 10;
/// The reason when no relay has accepted the approved session.
const UNTAKEN: RevocationReason = RevocationReason::NotDelivered;

/// Returns the owner of sessions in the contract's form.
fn named(whose: &Whose<'_>) -> Owner {
    let (provider, subject) = (whose.provider.to_owned(), whose.subject.to_owned());
    if whose.provider_session.is_empty() {
        Owner::ProviderUser(ProviderUser { provider, subject })
    } else {
        Owner::ProviderSession(ProviderSession {
            provider,
            session: whose.provider_session.to_owned(),
            subject,
        })
    }
}

fn person(sign_in: &SignIn) -> ProviderUser {
    ProviderUser {
        provider: sign_in.provider.clone(),
        subject: sign_in.subject.clone(),
    }
}

#[derive(Clone)]
pub(crate) struct Sessions {
    client: SessionsClient<TracedChannel>,
    pub(super) browsers: BrowsersClient<TracedChannel>,
    tokens: TokensClient<TracedChannel>,
    /// How long a browser sign-in lasts at most, and so how long its end must be stored.
    pub(super) max_ttl: Duration,
}

impl Sessions {
    pub(crate) fn new(channel: TracedChannel, max_ttl: Duration) -> Self {
        Self {
            client: SessionsClient::new(channel.clone()),
            browsers: BrowsersClient::new(channel.clone()),
            tokens: TokensClient::new(channel),
            max_ttl,
        }
    }

    /// Creates the session of an approval, or finds it and signs another token for it.
    pub(crate) async fn create(
        &self,
        request_id: RequestId,
        id: ConnectionId,
        sign_in: &SignIn,
        view: &View,
        from: &Requester,
    ) -> Result<Granted, Refusal> {
        let request = CreateSessionRequest {
            request_id: request_id.to_string(),
            identity: Some(identity(sign_in)),
            device: Some(device(view)),
            app: app(view),
            address: from.address.to_string(),
            connection_id: id.to_string(),
        };
        let answer = self
            .client
            .clone()
            .create_session(within(request, CALL_TIME))
            .await;
        let answer = answer
            .map_err(|status| refusal(SESSIONS, &status))?
            .into_inner();
        let missing = |field| Refusal::Incomplete {
            role: SESSIONS,
            field,
        };
        let mut session = answer.session.ok_or(missing("session"))?;
        let user = session.user.take().ok_or(missing("user"))?;

        Ok(Granted {
            session,
            user,
            token: answer.token.ok_or(missing("token"))?,
        })
    }

    /// Returns whether the editor has used this session. A session that has ended is over.
    pub(crate) async fn is_active(&self, session_id: String) -> Result<bool, Refusal> {
        let request = within(GetSessionRequest { session_id }, CALL_TIME);
        let answer = self
            .client
            .clone()
            .get_session(request)
            .await
            .map_err(|status| refusal(SESSIONS, &status))?;
        Ok(answer
            .into_inner()
            .session
            .is_some_and(|found| found.activated_at.is_some()))
    }

    /// Returns the person's editors that are signed in or about to be, the most recently used
    /// first.
    pub(crate) async fn list(&self, sign_in: &SignIn) -> Result<Vec<Install>, Refusal> {
        let mut request = ListSessionsRequest {
            user: Some(User::ProviderUser(person(sign_in))),
            page_size: LISTED_AT_ONCE,
            page_token: String::new(),
        };
        let mut installs = Vec::new();

        for _ in 0..MAX_PAGES {
            let answer = self
                .client
                .clone()
                .list_sessions(within(request.clone(), CALL_TIME))
                .await;
            let page = answer
                .map_err(|status| refusal(SESSIONS, &status))?
                .into_inner();
            for session in page.sessions {
                installs.push(install(session)?);
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }

        Ok(installs)
    }

    /// Ends one session, if it belongs to this user.
    pub(crate) async fn revoke(&self, install: &Install, from: &Requester) -> Result<(), Refusal> {
        self.end_session(&install.id, &install.user_id, BY_USER, from)
            .await
    }

    /// Ends the session of an approval that failed. Ends one that an editor already uses only if
    /// asked to.
    pub(crate) async fn take_back(
        &self,
        session_id: &str,
        user_id: &str,
        only_pending: bool,
        from: &Requester,
    ) -> Result<(), Refusal> {
        let reason = if only_pending { UNTAKEN } else { BY_PROVIDER };
        self.end_session(session_id, user_id, reason, from).await
    }

    async fn end_session(
        &self,
        session_id: &str,
        user_id: &str,
        reason: RevocationReason,
        from: &Requester,
    ) -> Result<(), Refusal> {
        let request = RevokeSessionRequest {
            session_id: session_id.to_owned(),
            user_id: user_id.to_owned(),
            reason: reason.into(),
            address: from.address.to_string(),
            only_pending: reason == UNTAKEN,
        };
        let answer = self
            .client
            .clone()
            .revoke_session(within(request, CALL_TIME))
            .await;

        match answer
            .map(drop)
            .map_err(|status| refusal(SESSIONS, &status))
        {
            // It has ended in the meantime.
            Err(Refusal::Over) => Ok(()),
            answer => answer,
        }
    }

    /// Signs a person out everywhere: ends all browser sign-ins, and all sessions, listed or not.
    /// Returns the number of sessions.
    pub(crate) async fn revoke_all(
        &self,
        sign_in: &SignIn,
        from: &Requester,
    ) -> Result<u32, Refusal> {
        let whose = Whose {
            provider: &sign_in.provider,
            subject: &sign_in.subject,
            provider_session: "",
        };
        self.end(&whose, BY_USER, from.address.to_string()).await
    }

    /// Ends the browser sign-ins and editor sessions that a provider says are over. Returns the
    /// number of sessions.
    pub(crate) async fn revoke_identity(
        &self,
        whose: &Whose<'_>,
        reason: RevocationReason,
    ) -> Result<u32, Refusal> {
        self.end(whose, reason, String::new()).await
    }

    async fn end(
        &self,
        whose: &Whose<'_>,
        reason: RevocationReason,
        address: String,
    ) -> Result<u32, Refusal> {
        // First: an approval that is under way begins its session before it asks whether its
        // sign-in has ended, so that either it learns of this, or its session is among those that
        // end now.
        self.end_browsers("", whose, self.max_ttl, reason, address.clone())
            .await?;
        let request = RevokeUserSessionsRequest {
            whose: Some(named(whose)),
            reason: reason.into(),
            address,
        };
        let answer = self
            .client
            .clone()
            .revoke_user_sessions(within(request, CALL_TIME))
            .await;

        Ok(answer
            .map_err(|status| refusal(SESSIONS, &status))?
            .into_inner()
            .revoked)
    }

    /// Returns subjects of this provider who use an editor, and who have not been checked with the
    /// provider for a day.
    pub(crate) async fn take_stale_users(
        &self,
        provider: &str,
        limit: u32,
    ) -> Result<Vec<String>, Refusal> {
        let request = TakeStaleUsersRequest {
            provider: provider.to_owned(),
            limit,
        };
        let answer = self
            .client
            .clone()
            .take_stale_users(within(request, CALL_TIME))
            .await;

        Ok(answer
            .map_err(|status| refusal(SESSIONS, &status))?
            .into_inner()
            .subjects)
    }

    /// Records that a person refused a login.
    pub(crate) async fn record_denial(
        &self,
        id: ConnectionId,
        sign_in: Option<&SignIn>,
        view: Option<&View>,
        from: &Requester,
    ) -> Result<(), Refusal> {
        let request = RecordAuditRequest {
            event: AuditEvent::Denied.into(),
            connection_id: id.to_string(),
            provider_user: sign_in.map(person),
            address: from.address.to_string(),
            device: view.map(device),
            app: view.and_then(app),
        };
        let answer = self
            .client
            .clone()
            .record_audit(within(request, CALL_TIME))
            .await;
        answer
            .map(drop)
            .map_err(|status| refusal(SESSIONS, &status))
    }

    /// Returns the key set that verifies tokens, as JSON.
    pub(crate) async fn signing_keys(&self) -> Result<String, Refusal> {
        let answer = self
            .tokens
            .clone()
            .get_signing_keys(within(GetSigningKeysRequest {}, CALL_TIME))
            .await;
        Ok(answer
            .map_err(|status| refusal(SESSIONS, &status))?
            .into_inner()
            .jwks)
    }
}

fn identity(sign_in: &SignIn) -> Identity {
    let SignIn {
        provider,
        subject,
        provider_session,
        email,
        email_verified,
        name,
        avatar_url,
        at: _,
    } = sign_in.clone();

    // An address that may be somebody else's is no use to those who would take it for a name.
    Identity {
        provider,
        subject,
        provider_session,
        email: email.filter(|_| email_verified),
        name,
        avatar_url,
    }
}

fn device(view: &View) -> Device {
    let editor::Device { name, os } = view.editor.device.clone().unwrap_or_default();
    Device {
        name,
        os,
        jwk: view.device_key.clone(),
    }
}

fn app(view: &View) -> Option<App> {
    let editor::App { name, version } = view.editor.app.clone()?;
    Some(App { name, version })
}

fn install(session: wire::Session) -> Result<Install, Refusal> {
    let missing = |field| Refusal::Incomplete {
        role: SESSIONS,
        field,
    };
    let Device { name, os, jwk: _ } = session.device.unwrap_or_default();
    let app = session.app.unwrap_or_default();
    let seen_at = timestamp::read(session.refreshed_at.or(session.created_at));

    Ok(Install {
        id: session.id,
        user_id: session.user.ok_or(missing("user"))?.id,
        device: editor::Device {
            name: shown(&name),
            os: shown(&os),
        },
        app: shown(format!("{} {}", app.name, app.version).trim_end()),
        is_confirmed: session.activated_at.is_some(),
        approved_at: timestamp::read(session.created_at).ok_or(missing("created_at"))?,
        seen_at: seen_at.ok_or(missing("refreshed_at"))?,
        address: session.address,
    })
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use vvs_proto::{Phase, types};

    use super::*;

    fn view(editor: editor::Editor) -> View {
        View {
            state: Phase::Waiting,
            user_code: String::new(),
            editor,
            device_key: "the key".to_owned(),
            return_uri: None,
            address: [127, 0, 0, 1].into(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            expires_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_an_older_database_keeps_of_an_editor_is_shown_without_what_deceives() {
        let at = Some(prost_types::Timestamp::default());
        let device = |name: &str, os: &str, app: &str| {
            let device = Device {
                name: name.to_owned(),
                os: os.to_owned(),
                jwk: String::new(),
            };
            let user = Some(types::User {
                id: "usr_1".to_owned(),
                ..types::User::default()
            });
            let found = install(wire::Session {
                user,
                device: Some(device),
                app: Some(App {
                    name: app.to_owned(),
                    version: String::new(),
                }),
                created_at: at,
                ..wire::Session::default()
            });

            found
                .ok()
                .map(|found| (found.device.name, found.device.os, found.app))
                .unwrap()
        };
        let texts = |texts: [&str; 3]| texts.map(str::to_owned).into();

        assert_eq!(
            device("Ada\u{202e}s Mac", "\u{3164}", "VVS\u{e0041} 1"),
            texts(["Adas Mac", "", "VVS 1"])
        );
        assert_eq!(
            device("\u{2800}", "macOS\n15", "\u{200b}"),
            texts(["", "macOS 15", ""])
        );
    }

    #[test]
    fn an_editor_without_a_name_keeps_its_key() {
        let bare = view(editor::Editor {
            app: None,
            device: None,
        });
        let named_nothing = Device {
            jwk: "the key".to_owned(),
            ..Device::default()
        };
        assert_eq!((device(&bare), app(&bare)), (named_nothing, None));
    }

    #[test]
    fn an_app_is_shown_with_its_version_however_it_was_stored() {
        let shown = |name: &str, version: &str| {
            let session = wire::Session {
                user: Some(types::User::default()),
                app: Some(App {
                    name: name.to_owned(),
                    version: version.to_owned(),
                }),
                created_at: Some(prost_types::Timestamp::default()),
                ..wire::Session::default()
            };
            install(session).ok().unwrap().app
        };
        assert_eq!(shown("VVS Editor", "1.4.0"), "VVS Editor 1.4.0");
        assert_eq!(shown("VVS Editor", ""), "VVS Editor");
        assert_eq!(shown("VVS Editor 1.4.0", ""), "VVS Editor 1.4.0");
    }
}
