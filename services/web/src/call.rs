//! The calls to relay and sessions: messages there and back, deadlines, and the one place that reads their errors.
//! Knows no page and no cookie.

use std::net::IpAddr;
use std::time::Duration;

use time::OffsetDateTime;
use tonic::{Code, Status};
use vvs_proto::relay::relay_client::RelayClient;
use vvs_proto::relay::{Browser, DeliverAuthRequest, DenyLoginRequest, GetLoginRequest, GetLoginResponse, LoginState};
use vvs_proto::session::sessions_client::SessionsClient;
use vvs_proto::session::{CreateSessionRequest, Device, GetSigningKeysRequest, Identity, Session, Token};
use vvs_proto::{relay, session};
use vvs_runtime::rpc::{reason, within};
use vvs_runtime::trace::{TracedChannel, code_name};

use crate::error::Refusal;
use crate::identity::SignIn;
use crate::login::{ConnectionId, State, View};
use crate::page;

const RELAY: &str = "relay";
const SESSIONS: &str = "sessions";

/// For a call that is answered at once.
const CALL_TIME: Duration = Duration::from_secs(5);
/// For one that waits up to 20 s for a change.
const WAIT_TIME: Duration = Duration::from_secs(22);
/// For a delivery, the editor's acknowledgement included.
const DELIVERY_TIME: Duration = Duration::from_secs(10);

/// Where a person approves from.
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) user_agent: String,
}

/// A session that sessions has made, and its first token: what a delivery carries.
pub(crate) struct Granted {
    session: Session,
    user: session::User,
    token: Token,
}

impl Granted {
    pub(crate) fn user_id(&self) -> &str {
        &self.user.id
    }
}

/// How far a delivery got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    Sent,
    Acked,
}

pub(crate) struct Relay(pub(crate) RelayClient<TracedChannel>);

impl Relay {
    /// What is known of a login: at once, or as soon as its state is another than the known one.
    pub(crate) async fn look(&self, id: ConnectionId, known: Option<State>) -> Result<View, Refusal> {
        let time = if known.is_some() { WAIT_TIME } else { CALL_TIME };
        let known_state = known.map_or(LoginState::Unspecified, wire_state).into();
        let request = GetLoginRequest { connection_id: id.to_string(), known_state };
        let answer = self.0.clone().get_login(within(request, time)).await;
        view(answer.map_err(|status| refusal(RELAY, &status))?.into_inner())
    }

    pub(crate) async fn deliver(
        &self,
        id: ConnectionId,
        request_id: String,
        granted: Granted,
        from: &Place,
    ) -> Result<Delivered, Refusal> {
        let Granted { session, user, token } = granted;
        let session::User { id: user_id, email, name, avatar_url } = user;
        let request = DeliverAuthRequest {
            request_id,
            connection_id: id.to_string(),
            token: token.token,
            token_expires_at: token.expires_at,
            user: Some(relay::User { id: user_id, email, name, avatar_url }),
            session: Some(relay::Session { id: session.id, expires_at: session.expires_at }),
            browser: Some(Browser { address: from.address.to_string(), user_agent: from.user_agent.clone() }),
        };
        let answer = self.0.clone().deliver_auth(within(request, DELIVERY_TIME)).await;
        match state(answer.map_err(|status| refusal(RELAY, &status))?.into_inner().state) {
            Some(State::Sent) => Ok(Delivered::Sent),
            Some(State::Acked) => Ok(Delivered::Acked),
            // A page that hands a code back does not exist yet, so no login that is held can be completed from here.
            Some(State::Held) => Err(Refusal::EditorCannotBind),
            Some(State::Waiting | State::Away | State::Denied | State::Cancelled | State::Expired | State::Burned)
            | None => Err(Refusal::Incomplete { role: RELAY, field: "state" }),
        }
    }

    pub(crate) async fn deny(&self, id: ConnectionId) -> Result<(), Refusal> {
        let request = DenyLoginRequest { connection_id: id.to_string() };
        let answer = self.0.clone().deny_login(within(request, CALL_TIME)).await;
        answer.map(drop).map_err(|status| refusal(RELAY, &status))
    }
}

pub(crate) struct Sessions(pub(crate) SessionsClient<TracedChannel>);

impl Sessions {
    /// Makes the session of an approval, or finds it and signs another token for it.
    pub(crate) async fn create(
        &self,
        request_id: String,
        sign_in: &SignIn,
        editor: &page::Editor,
        from: &Place,
    ) -> Result<Granted, Refusal> {
        let SignIn { provider, subject, provider_session, email, name, at: _ } = sign_in.clone();
        let request = CreateSessionRequest {
            request_id,
            identity: Some(Identity { provider, subject, provider_session, email, name, avatar_url: None }),
            device: Some(device(editor)),
            address: from.address.to_string(),
        };
        let answer = self.0.clone().create_session(within(request, CALL_TIME)).await;
        let answer = answer.map_err(|status| refusal(SESSIONS, &status))?.into_inner();
        let missing = |field| Refusal::Incomplete { role: SESSIONS, field };
        let mut session = answer.session.ok_or(missing("session"))?;
        let user = session.user.take().ok_or(missing("user"))?;
        Ok(Granted { session, user, token: answer.token.ok_or(missing("token"))? })
    }

    /// The key set that verifies tokens, as JSON.
    pub(crate) async fn signing_keys(&self) -> Result<String, Refusal> {
        let answer = self.0.clone().get_signing_keys(within(GetSigningKeysRequest {}, CALL_TIME)).await;
        Ok(answer.map_err(|status| refusal(SESSIONS, &status))?.into_inner().jwks)
    }
}

/// What an error of either role means. Whatever has none of our reasons did not come from a role but from the way
/// there, unless its code says that the call itself was wrong.
fn refusal(role: &'static str, status: &Status) -> Refusal {
    let (code, reason) = (code_name(status.code()), reason(status));
    match reason.as_str() {
        "LOGIN_UNKNOWN" => Refusal::Unknown,
        "LOGIN_OVER" => Refusal::Over,
        "EDITOR_REFUSED" => Refusal::EditorRefused,
        "EDITOR_CANNOT_BIND" => Refusal::EditorCannotBind,
        // Sessions knows this request under another name or device: another approval was first.
        "LOGIN_CLAIMED" | "REQUEST_CLAIMED" => Refusal::Claimed,
        "EDITOR_AWAY" => Refusal::EditorAway,
        "" => match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::ResourceExhausted
            | Code::Aborted => Refusal::Unavailable { role, code, reason },
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => Refusal::Unexpected { role, code, reason },
        },
        _ if status.code() == Code::Unavailable => Refusal::Unavailable { role, code, reason },
        _ => Refusal::Unexpected { role, code, reason },
    }
}

fn view(answer: GetLoginResponse) -> Result<View, Refusal> {
    let missing = |field| Refusal::Incomplete { role: RELAY, field };
    let time = |seconds| OffsetDateTime::from_unix_timestamp(seconds).ok();
    let app = answer.app.filter(|app| !app.name.is_empty());
    let device = answer.device.filter(|device| !device.name.is_empty());
    Ok(View {
        state: state(answer.state).ok_or(missing("state"))?,
        user_code: answer.user_code,
        editor: page::Editor {
            app: app.map(|app| page::App { name: app.name, version: app.version }),
            device: device.map(|device| page::Device { name: device.name, os: device.os }),
        },
        address: answer.client_address.parse().map_err(|_cause| missing("client_address"))?,
        created_at: answer.created_at.and_then(|at| time(at.seconds)).ok_or(missing("created_at"))?,
        expires_at: answer.expires_at.and_then(|at| time(at.seconds)).ok_or(missing("expires_at"))?,
    })
}

fn device(editor: &page::Editor) -> Device {
    let (name, os) = editor.device.as_ref().map_or(("", ""), |device| (&device.name, &device.os));
    let app = editor.app.as_ref().map(|app| format!("{} {}", app.name, app.version));
    let app = app.unwrap_or_default().trim_end().to_owned();
    Device { name: name.to_owned(), os: os.to_owned(), app, jwk: String::new() }
}

fn state(number: i32) -> Option<State> {
    State::ALL.into_iter().find(|state| i32::from(wire_state(*state)) == number)
}

fn wire_state(state: State) -> LoginState {
    match state {
        State::Waiting => LoginState::Waiting,
        State::Held => LoginState::Held,
        State::Sent => LoginState::Sent,
        State::Away => LoginState::Away,
        State::Acked => LoginState::Acked,
        State::Denied => LoginState::Denied,
        State::Cancelled => LoginState::Cancelled,
        State::Expired => LoginState::Expired,
        State::Burned => LoginState::Burned,
    }
}

#[cfg(test)]
mod tests {
    use vvs_runtime::rpc;

    use super::*;
    use crate::failure::Reason;

    #[test]
    fn every_reason_of_the_contracts_has_its_page() {
        for (code, reason, page) in [
            (Code::NotFound, "LOGIN_UNKNOWN", Reason::LoginOver),
            (Code::FailedPrecondition, "LOGIN_OVER", Reason::LoginOver),
            (Code::FailedPrecondition, "EDITOR_REFUSED", Reason::EditorRefused),
            (Code::FailedPrecondition, "EDITOR_CANNOT_BIND", Reason::EditorCannotBind),
            (Code::AlreadyExists, "LOGIN_CLAIMED", Reason::Claimed),
            (Code::Unavailable, "EDITOR_AWAY", Reason::Unavailable),
            (Code::Unavailable, "DRAINING", Reason::Unavailable),
            (Code::Unavailable, "BACKPLANE_DOWN", Reason::Unavailable),
            (Code::Unavailable, "SESSIONS_DOWN", Reason::Unavailable),
            (Code::Unavailable, "DATABASE_DOWN", Reason::Unavailable),
            (Code::InvalidArgument, "MALFORMED", Reason::Broken),
            (Code::PermissionDenied, "PEER_NOT_ALLOWED", Reason::Broken),
            (Code::Internal, "INTERNAL", Reason::Broken),
        ] {
            assert_eq!(refusal(RELAY, &rpc::status(code, reason, None)).reason(), page, "{reason}");
        }
    }

    #[test]
    fn a_call_that_got_lost_may_be_made_again_and_a_wrong_one_may_not() {
        for (code, page) in [
            // An expired deadline, a connection that was refused, one that broke.
            (Code::Cancelled, Reason::Unavailable),
            (Code::Unavailable, Reason::Unavailable),
            (Code::Unknown, Reason::Unavailable),
            (Code::PermissionDenied, Reason::Broken),
            (Code::Unimplemented, Reason::Broken),
            // Somebody else's "not found" says nothing about a login.
            (Code::NotFound, Reason::Broken),
        ] {
            assert_eq!(refusal(RELAY, &Status::new(code, "")).reason(), page, "{code:?}");
        }
    }

    #[test]
    fn a_state_is_the_same_here_and_on_the_wire() {
        for known in State::ALL {
            assert_eq!(state(wire_state(known).into()), Some(known));
            assert_eq!(wire_state(known).as_str_name(), format!("LOGIN_STATE_{}", known.as_str()));
        }
        assert_eq!((state(0), state(10)), (None, None));
    }

    #[test]
    fn a_bare_editor_has_no_name_anywhere() {
        assert_eq!(device(&page::Editor { app: None, device: None }), Device::default());
        let app = |version: &str| page::App { name: "VVS Editor".to_owned(), version: version.to_owned() };
        let named = |version| device(&page::Editor { app: Some(app(version)), device: None }).app;
        assert_eq!((named("1.4.0"), named("")), ("VVS Editor 1.4.0".to_owned(), "VVS Editor".to_owned()));
    }
}
