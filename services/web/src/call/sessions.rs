//! The calls to sessions: the session of an approval, a person's signed-in editors, the audit log
//! and the keys.

use std::time::Duration;

use vvs_identity::{SignIn, Whose};
use vvs_proto::session::sessions_client::SessionsClient;
use vvs_proto::session::{
    self as wire, AuditEvent, CreateSessionRequest, Device, GetSessionRequest,
    GetSigningKeysRequest, Identity, ListSessionsRequest, RecordAuditRequest, RevokeSessionRequest,
    RevokeUserSessionsRequest, TakeStaleUsersRequest,
};
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
pub(super) const BY_USER: &str = "signed_out_by_user";
/// The reason when the identity provider no longer confirms a sign-in.
const BY_PROVIDER: &str = "sign_in_over";
/// The reason when no relay has accepted the approved session.
const UNTAKEN: &str = "not_delivered";

/// Returns the owner of sessions in the contract's form.
pub(super) fn named(whose: &Whose<'_>) -> Identity {
    Identity {
        provider: whose.provider.to_owned(),
        subject: whose.subject.to_owned(),
        provider_session: whose.provider_session.to_owned(),
        ..Identity::default()
    }
}

#[derive(Clone)]
pub(crate) struct Sessions {
    pub(super) client: SessionsClient<TracedChannel>,
    /// How long a browser sign-in lasts at most, and so how long its end must be stored.
    pub(super) max_ttl: Duration,
}

impl Sessions {
    pub(crate) fn new(channel: TracedChannel, max_ttl: Duration) -> Self {
        Self {
            client: SessionsClient::new(channel),
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
        let request = ListSessionsRequest {
            user_id: String::new(),
            identity: Some(identity(sign_in)),
        };
        let answer = self
            .client
            .clone()
            .list_sessions(within(request, CALL_TIME))
            .await;
        let sessions = answer
            .map_err(|status| refusal(SESSIONS, &status))?
            .into_inner()
            .sessions;

        sessions.into_iter().map(install).collect()
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
        reason: &'static str,
        from: &Requester,
    ) -> Result<(), Refusal> {
        let request = RevokeSessionRequest {
            session_id: session_id.to_owned(),
            user_id: user_id.to_owned(),
            reason: reason.to_owned(),
            address: from.address.to_string(),
            only_pending: reason == UNTAKEN,
            ..RevokeSessionRequest::default()
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
        reason: &'static str,
    ) -> Result<u32, Refusal> {
        self.end(whose, reason, String::new()).await
    }

    async fn end(
        &self,
        whose: &Whose<'_>,
        reason: &'static str,
        address: String,
    ) -> Result<u32, Refusal> {
        // First: an approval that is under way begins its session before it asks whether its
        // sign-in has ended, so that either it learns of this, or its session is among those that
        // end now.
        self.end_browsers("", whose, self.max_ttl, reason, address.clone())
            .await?;
        let (identity, reason) = (Some(named(whose)), reason.to_owned());
        let request = RevokeUserSessionsRequest {
            user_id: String::new(),
            identity,
            reason,
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
            session_id: String::new(),
            identity: sign_in.map(identity),
            address: from.address.to_string(),
            device: view.map(device),
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
            .client
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
    let editor::Editor { app, device } = view.editor.clone();
    let editor::Device { name, os } = device.unwrap_or_default();
    let app = app
        .map(|app| format!("{} {}", app.name, app.version))
        .unwrap_or_default()
        .trim_end()
        .to_owned();

    Device {
        name,
        os,
        app,
        jwk: view.device_key.clone(),
    }
}

fn install(session: wire::Session) -> Result<Install, Refusal> {
    let missing = |field| Refusal::Incomplete {
        role: SESSIONS,
        field,
    };
    let Device {
        name,
        os,
        app,
        jwk: _,
    } = session.device.unwrap_or_default();
    let seen_at = timestamp::read(session.refreshed_at.or(session.created_at));

    Ok(Install {
        id: session.id,
        user_id: session.user.ok_or(missing("user"))?.id,
        device: editor::Device {
            name: shown(&name),
            os: shown(&os),
        },
        app: shown(&app),
        is_confirmed: session.activated_at.is_some(),
        approved_at: timestamp::read(session.created_at).ok_or(missing("created_at"))?,
        seen_at: seen_at.ok_or(missing("refreshed_at"))?,
        address: session.address,
    })
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use vvs_proto::Phase;

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
                app: app.to_owned(),
                jwk: String::new(),
            };
            let user = Some(wire::User {
                id: "usr_1".to_owned(),
                ..wire::User::default()
            });
            let found = install(wire::Session {
                user,
                device: Some(device),
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
        let bare = device(&view(editor::Editor {
            app: None,
            device: None,
        }));
        assert_eq!(
            bare,
            Device {
                jwk: "the key".to_owned(),
                ..Device::default()
            }
        );

        let app = |version: &str| editor::App {
            name: "VVS Editor".to_owned(),
            version: version.to_owned(),
        };
        let named = |version| {
            device(&view(editor::Editor {
                app: Some(app(version)),
                device: None,
            }))
            .app
        };
        assert_eq!(
            (named("1.4.0"), named("")),
            ("VVS Editor 1.4.0".to_owned(), "VVS Editor".to_owned())
        );
    }
}
