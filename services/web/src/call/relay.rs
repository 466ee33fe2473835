//! The calls to the relay: the state of a login, its delivery and its end.

use std::time::Duration;

use secrecy::SecretString;
use vvs_proto::relay::deliver_auth_response::Outcome;
use vvs_proto::relay::relay_client::RelayClient;
use vvs_proto::relay::{
    Binding, DeliverAuthRequest, DeliverAuthResponse, DenyLoginRequest, GetLoginRequest,
    GetLoginResponse, LoginState, Session,
};
use vvs_proto::types::Device;
use vvs_proto::{ConnectionId, Phase, RequestId, ReturnUri, timestamp};
use vvs_runtime::origin::Origin;
use vvs_runtime::rpc::within;
use vvs_runtime::trace::TracedChannel;

use super::{CALL_TIME, Delivered, Granted, refusal, shown};
use crate::editor;
use crate::error::Refusal;
use crate::handback::Handback;
use crate::login::View;

const RELAY: &str = "relay";

/// For a call that waits up to 20 s for a change.
const WAIT_TIME: Duration = Duration::from_secs(22);
/// For a delivery, the editor's acknowledgement included.
const DELIVERY_TIME: Duration = Duration::from_secs(10);

pub(crate) struct Relay {
    client: RelayClient<TracedChannel>,
    public_url: Origin,
}

impl Relay {
    pub(crate) fn new(channel: TracedChannel, public_url: Origin) -> Self {
        Self {
            client: RelayClient::new(channel),
            public_url,
        }
    }

    /// Returns the state of a login: immediately, or as soon as it differs from the known one.
    pub(crate) async fn look(
        &self,
        id: ConnectionId,
        known: Option<Phase>,
    ) -> Result<View, Refusal> {
        let time = if known.is_some() {
            WAIT_TIME
        } else {
            CALL_TIME
        };

        let known_state = known
            .map_or(LoginState::Unspecified, LoginState::from)
            .into();
        let request = GetLoginRequest {
            connection_id: id.to_string(),
            known_state,
        };
        let answer = self.client.clone().get_login(within(request, time)).await;

        view(
            answer
                .map_err(|status| refusal(RELAY, &status))?
                .into_inner(),
            &self.public_url,
        )
    }

    pub(crate) async fn deliver(
        &self,
        id: ConnectionId,
        request_id: RequestId,
        granted: Granted,
    ) -> Result<Delivered, Refusal> {
        let Granted {
            session,
            user,
            token,
        } = granted;
        let request = DeliverAuthRequest {
            request_id: request_id.to_string(),
            connection_id: id.to_string(),
            token: token.token,
            token_expires_at: token.expires_at,
            user: Some(user),
            session: Some(Session {
                id: session.id,
                expires_at: session.expires_at,
            }),
        };
        let answer = self
            .client
            .clone()
            .deliver_auth(within(request, DELIVERY_TIME))
            .await;

        delivered(
            answer
                .map_err(|status| refusal(RELAY, &status))?
                .into_inner(),
            &self.public_url,
        )
    }

    pub(crate) async fn deny(&self, id: ConnectionId) -> Result<(), Refusal> {
        let request = DenyLoginRequest {
            connection_id: id.to_string(),
        };
        let answer = self
            .client
            .clone()
            .deny_login(within(request, CALL_TIME))
            .await;
        answer.map(drop).map_err(|status| refusal(RELAY, &status))
    }
}

/// Returns where the editor waits for its code, if anywhere. The relay has checked the address, but
/// a browser is sent there, so it is checked again.
fn return_uri(text: &str, public_url: &Origin) -> Result<Option<ReturnUri>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri: ReturnUri = text.parse().map_err(|_cause| Refusal::UnsafeReturn)?;
    if uri.is_listener_on(public_url.loopback_port()) {
        Err(Refusal::UnsafeReturn)
    } else {
        Ok(Some(uri))
    }
}

fn delivered(answer: DeliverAuthResponse, public_url: &Origin) -> Result<Delivered, Refusal> {
    let missing = |field| Refusal::Incomplete { role: RELAY, field };
    match answer.outcome {
        // One of a later version counts as sent: the page repeats the delivery.
        None | Some(Outcome::Sent(_)) => Ok(Delivered::Sent),
        Some(Outcome::Acked(_)) => Ok(Delivered::Acked),
        Some(Outcome::Held(held)) => {
            let may_show = held.min_binding() != Binding::Link;
            let return_uri = return_uri(&held.return_uri, public_url)?;
            let code = Some(held.code).filter(|code| !code.is_empty());
            let code = SecretString::from(code.ok_or(missing("held.code"))?);
            Handback::new(code, return_uri, may_show)
                .map(Delivered::Held)
                .ok_or(missing("held.return_uri"))
        }
    }
}

fn view(answer: GetLoginResponse, public_url: &Origin) -> Result<View, Refusal> {
    let missing = |field| Refusal::Incomplete { role: RELAY, field };
    let app = answer.app.map(|app| editor::App {
        name: shown(&app.name),
        version: shown(&app.version),
    });
    let Device { name, os, jwk } = answer.device.unwrap_or_default();
    let device = editor::Device {
        name: shown(&name),
        os: shown(&os),
    };
    let is_named = !device.name.is_empty() || !device.os.is_empty();

    Ok(View {
        state: Phase::from_wire(answer.state).ok_or(missing("state"))?,
        user_code: answer.user_code,
        editor: editor::Editor {
            app: app.filter(|app| !app.name.is_empty()),
            device: is_named.then_some(device),
        },
        device_key: jwk,
        return_uri: return_uri(&answer.return_uri, public_url)?,
        address: answer
            .client_address
            .parse()
            .map_err(|_cause| missing("client_address"))?,
        created_at: timestamp::read(answer.created_at).ok_or(missing("created_at"))?,
        expires_at: timestamp::read(answer.expires_at).ok_or(missing("expires_at"))?,
    })
}

#[cfg(test)]
mod tests {
    use vvs_proto::relay::Held;
    use vvs_proto::types::App;

    use super::*;

    const ORIGIN: &str = "http://localhost:8080";

    /// Returns the hand-back of a held delivery: whether the code may be shown and whether there is
    /// a link. Otherwise returns what is missing.
    fn held(code: &str, uri: &str, min_binding: Binding) -> Result<(bool, bool), &'static str> {
        let answer = DeliverAuthResponse {
            outcome: Some(Outcome::Held(Held {
                code: code.to_owned(),
                return_uri: uri.to_owned(),
                min_binding: min_binding.into(),
            })),
        };
        match delivered(answer, &ORIGIN.parse().unwrap()) {
            Ok(Delivered::Held(handback)) => Ok((
                handback.shown_code().is_some(),
                handback.return_uri().is_some(),
            )),
            Ok(_) => Err("not held"),
            Err(Refusal::Incomplete { field, .. }) => Err(field),
            Err(Refusal::UnsafeReturn) => Err("unsafe"),
            Err(_) => Err("another refusal"),
        }
    }

    #[test]
    fn an_editor_whose_words_do_not_show_did_not_say() {
        let editor = |app: &str, device: &str| {
            let login = GetLoginResponse {
                state: LoginState::Waiting.into(),
                client_address: "127.0.0.1".to_owned(),
                created_at: Some(prost_types::Timestamp::default()),
                expires_at: Some(prost_types::Timestamp::default()),
                app: Some(App {
                    name: app.to_owned(),
                    version: "\u{2800}1".to_owned(),
                }),
                device: Some(Device {
                    name: device.to_owned(),
                    os: "\u{3164}".to_owned(),
                    jwk: String::new(),
                }),
                ..GetLoginResponse::default()
            };
            let editor = view(login, &ORIGIN.parse().unwrap()).ok().unwrap().editor;

            (
                editor
                    .app
                    .map(|app| format!("{}/{}", app.name, app.version)),
                editor.device.map(|device| device.name),
            )
        };
        assert_eq!(
            editor("V\u{202e}VS", "A\u{ad}da"),
            (Some("VVS/1".to_owned()), Some("Ada".to_owned()))
        );
        assert_eq!(editor("\u{3164}", "\u{e0041}"), (None, None));
    }

    #[test]
    fn a_code_is_shown_unless_the_server_asks_for_a_link() {
        let uri = "http://127.0.0.1:50000/done";
        assert_eq!(held("BCDFGHJK", "", Binding::Confirm), Ok((true, false)));
        assert_eq!(held("BCDFGHJK", "", Binding::Typed), Ok((true, false)));
        assert_eq!(held("BCDFGHJK", uri, Binding::Typed), Ok((true, true)));
        assert_eq!(held("BCDFGHJK", uri, Binding::Link), Ok((false, true)));
    }

    #[test]
    fn an_outcome_of_a_later_version_counts_as_sent() {
        let unknown = delivered(DeliverAuthResponse::default(), &ORIGIN.parse().unwrap());
        assert!(matches!(unknown, Ok(Delivered::Sent)));
    }

    #[test]
    fn a_held_delivery_without_a_way_back_is_nothing_to_show() {
        assert_eq!(held("BCDFGHJK", "", Binding::Link), Err("held.return_uri"));
        assert_eq!(
            held("", "http://127.0.0.1:50000/done", Binding::Confirm),
            Err("held.code")
        );
    }

    #[test]
    fn no_browser_is_led_where_a_relay_should_not_have_let_an_editor_wait() {
        for uri in [
            "javascript:alert(1)",
            "https://evil.example/",
            "http://127.0.0.1:50000//evil.example/x",
            "http://127.0.0.1:50000/%2fevil.example",
            "http://127.0.0.1:50000/x?next=evil",
            "http://127.0.0.1:8080/login",
            "http://[::1]:8080/",
        ] {
            assert_eq!(
                held("BCDFGHJK", uri, Binding::Confirm),
                Err("unsafe"),
                "{uri}"
            );
            let login = GetLoginResponse {
                return_uri: uri.to_owned(),
                ..waiting()
            };
            let seen = view(login, &ORIGIN.parse().unwrap());
            assert!(matches!(seen, Err(Refusal::UnsafeReturn)), "{uri}");
        }

        for uri in ["", "vvs://auth/complete", "http://127.0.0.1:50000/done"] {
            let login = GetLoginResponse {
                return_uri: uri.to_owned(),
                ..waiting()
            };
            let seen = view(login, &ORIGIN.parse().unwrap())
                .ok()
                .unwrap()
                .return_uri;
            assert_eq!(seen.as_ref().map_or("", ReturnUri::as_str), uri);
        }
    }

    fn waiting() -> GetLoginResponse {
        GetLoginResponse {
            state: LoginState::Waiting.into(),
            client_address: "127.0.0.1".to_owned(),
            created_at: Some(prost_types::Timestamp::default()),
            expires_at: Some(prost_types::Timestamp::default()),
            ..GetLoginResponse::default()
        }
    }
}
