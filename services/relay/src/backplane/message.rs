//! The backplane's messages: their subjects, their seals, and the conversion from and to this
//! relay's types.

use std::net::{IpAddr, Ipv4Addr};

use aws_lc_rs::digest;
use prost::Message;
use vvs_auth::key::{self, Keyring};
use vvs_proto::frame::{App, Binding, Device};
use vvs_proto::internal::backplane_answer::Answer as Wire;
use vvs_proto::internal::backplane_ask::Request as WireRequest;
use vvs_proto::internal::{
    BackplaneHandover, BackplaneLook, BackplaneRefusal, BackplaneSealed, BackplaneTakeOver,
    BackplaneView,
};
use vvs_proto::relay::{self, DeliverAuthRequest, DenyLoginRequest, GetLoginResponse, LoginState};
use vvs_proto::types;
use vvs_proto::{ConnectionId, Phase, timestamp};

use super::{Answer, Handover, Request};
use crate::contract;
use crate::hello::Hello;
use crate::login::{ATTEMPTS, Grant, State};
use crate::refusal::Refusal;
use crate::view::View;

/// The direction of a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    Ask,
    Answer,
    Claim,
    Presence,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Answer => "answer",
            Self::Claim => "claim",
            Self::Presence => "presence",
        }
    }
}

/// The subject that all relays listen to. It differs from every login's subject, and the
/// permissions for those cover it.
pub(super) const ROLL: &str = "vvs.relay.v1.login.relays";

/// Returns the subject that the holder of a login listens to. The broker cannot derive the id from
/// it.
pub(super) fn subject(id: ConnectionId) -> String {
    let hash = digest::digest(&digest::SHA256, id.to_string().as_bytes());
    format!("vvs.relay.v1.login.{}", base32(hash.as_ref()))
}

/// Encodes base32 without padding (RFC 4648, section 6).
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let group = |first: usize| (first..first + 5).fold(0, |bits, at| bits << 1 | bit(at));
    (0..bytes.len() * 8)
        .step_by(5)
        .map(|first| char::from(LETTERS[usize::from(group(first))]))
        .collect()
}

/// Makes a new message id: 16 random bytes.
pub(super) fn message_id() -> Option<String> {
    key::random::<16>().ok().map(|bytes| key::base64url(&bytes))
}

/// Returns the data that is authenticated with a message, so that it is useless for any other
/// purpose.
fn context(direction: Direction, subject: &str, message_id: &str) -> String {
    [direction.as_str(), subject, message_id].join(" ")
}

/// Seals a message for its subject.
pub(super) fn seal(
    keys: &Keyring,
    direction: Direction,
    subject: &str,
    message_id: &str,
    message: &impl Message,
) -> Option<Vec<u8>> {
    let sealed = BackplaneSealed {
        version: VERSION,
        message: message.encode_to_vec(),
    };
    keys.seal(
        &context(direction, subject, message_id),
        &sealed.encode_to_vec(),
    )
    .ok()
}

/// The version of the messages.
const VERSION: u32 = 1;
/// The longest message that is opened, in bytes: longer than any of ours.
const LONGEST: usize = 64 * 1024;

/// Opens a message that one of our relays of this version has sealed.
pub(super) fn open<M: Message + Default>(
    keys: &Keyring,
    direction: Direction,
    subject: &str,
    message_id: &str,
    sealed: &[u8],
) -> Option<M> {
    if sealed.len() > LONGEST {
        return None;
    }
    let opened = keys
        .open(&context(direction, subject, message_id), sealed)
        .ok()?;
    let sealed = BackplaneSealed::decode(&*opened).ok()?;
    let message = (sealed.version == VERSION).then_some(sealed.message)?;
    M::decode(&*message).ok()
}

/// Converts a question for sending.
pub(super) fn request(id: ConnectionId, request: Request) -> WireRequest {
    match request {
        Request::Look { known } => {
            let known_state = known
                .map_or(LoginState::Unspecified, LoginState::from)
                .into();
            WireRequest::Look(BackplaneLook { known_state })
        }
        Request::Deliver(grant) => WireRequest::Deliver(delivery(id, *grant)),
        Request::Deny => WireRequest::Deny(DenyLoginRequest {
            connection_id: id.to_string(),
        }),
    }
}

pub(super) fn take_over() -> WireRequest {
    WireRequest::TakeOver(BackplaneTakeOver {})
}

/// Converts a received question: one about the login, or `None` for a takeover of the login itself.
pub(super) fn requested(request: WireRequest) -> Result<Option<Request>, Refusal> {
    Ok(match request {
        WireRequest::Look(look) => Some(Request::Look {
            known: contract::known_state(look.known_state)?,
        }),
        WireRequest::Deliver(delivery) => {
            Some(Request::Deliver(Box::new(contract::grant(delivery)?)))
        }
        WireRequest::Deny(_) => Some(Request::Deny),
        WireRequest::TakeOver(_) => None,
    })
}

fn delivery(id: ConnectionId, grant: Grant) -> DeliverAuthRequest {
    let Grant {
        request_id,
        token,
        token_expires_at,
        user,
        session_id,
        session_expires_at,
    } = grant;
    DeliverAuthRequest {
        request_id: request_id.to_string(),
        connection_id: id.to_string(),
        token: token.expose().to_owned(),
        token_expires_at: Some(timestamp::exact(token_expires_at)),
        user: Some(types::User {
            id: user.id,
            email: user.email,
            name: user.name,
            avatar_url: user.avatar_url,
        }),
        session: Some(relay::Session {
            id: session_id,
            expires_at: Some(timestamp::exact(session_expires_at)),
        }),
    }
}

/// Converts an answer for sending.
pub(super) fn answer(answer: Answer) -> Wire {
    match answer {
        Ok(view) => Wire::View(BackplaneView {
            acked_at: view.acked_at.map(timestamp::exact),
            held_request_id: view.held.map(|held| held.to_string()).unwrap_or_default(),
            return_uri: view
                .hello
                .as_ref()
                .and_then(|hello| hello.return_uri.clone())
                .unwrap_or_default(),
            binding: contract::binding(view.binding).into(),
            login: Some(contract::login(view)),
        }),
        Err(refusal) => refused(&refusal),
    }
}

/// Converts the login itself, or the reason against it, for sending.
pub(super) fn handover(id: ConnectionId, taken: Result<Handover, Refusal>) -> Wire {
    let state = match taken {
        Ok(Handover { state, .. }) => state,
        Err(refusal) => return refused(&refusal),
    };

    let (state, grant, attempts_left) = match state {
        State::Waiting => (LoginState::Waiting, None, ATTEMPTS),
        State::Held {
            grant,
            attempts_left,
        } => (LoginState::Held, Some(grant), attempts_left),
        State::Sent(grant) => (LoginState::Sent, Some(grant), 0),
        State::Activating(_)
        | State::Acked(..)
        | State::Denied
        | State::Cancelled
        | State::Refused
        | State::Expired
        | State::Burned
        | State::Moved => return refused(&Refusal::Over),
    };

    Wire::Handover(BackplaneHandover {
        state: state.into(),
        grant: grant.map(|grant| delivery(id, *grant)),
        attempts_left: attempts_left.into(),
    })
}

/// Converts the holder's answer to a question.
pub(super) fn answered(wire: Wire) -> Answer {
    match wire {
        Wire::View(view) => view_of(view).ok_or(Refusal::BackplaneDown),
        Wire::Refusal(reason) => Err(refusal(reason)),
        Wire::Accepted(_) | Wire::Handover(_) => Err(Refusal::BackplaneDown),
    }
}

/// Converts the login that its holder gave.
pub(super) fn taken(generation: u64, wire: Wire) -> Result<Handover, Refusal> {
    let state = match wire {
        Wire::Handover(handover) => state_of(handover).ok_or(Refusal::BackplaneDown)?,
        Wire::Refusal(reason) => return Err(refusal(reason)),
        Wire::Accepted(_) | Wire::View(_) => return Err(Refusal::BackplaneDown),
    };
    Ok(Handover {
        generation,
        state,
        listening: None,
        login_place: None,
    })
}

fn state_of(handover: BackplaneHandover) -> Option<State> {
    let attempts_left = u8::try_from(handover.attempts_left).ok()?;
    let grant = match handover.grant {
        Some(delivery) => Some(Box::new(contract::grant(delivery).ok()?)),
        None => None,
    };

    match (LoginState::try_from(handover.state).ok()?, grant) {
        (LoginState::Waiting, None) => Some(State::Waiting),
        (LoginState::Held, Some(grant)) if (1..=ATTEMPTS).contains(&attempts_left) => {
            Some(State::Held {
                grant,
                attempts_left,
            })
        }
        (LoginState::Sent, Some(grant)) => Some(State::Sent(grant)),
        _ => None,
    }
}

fn view_of(view: BackplaneView) -> Option<View> {
    let login: GetLoginResponse = view.login?;
    let return_uri = (!view.return_uri.is_empty()).then_some(view.return_uri);
    let hello = match (login.app, login.device) {
        (Some(app), Some(device)) => Some(Hello {
            app: App {
                name: app.name,
                version: app.version,
            },
            device: Device {
                name: device.name,
                os: device.os,
            },
            jwk: device.jwk,
            return_uri,
        }),
        _ => None,
    };

    Some(View {
        phase: Phase::from_wire(login.state)?,
        user_code: login.user_code,
        client_address: login
            .client_address
            .parse()
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        created_at: timestamp::read(login.created_at)?,
        expires_at: timestamp::read(login.expires_at)?,
        acked_at: timestamp::read(view.acked_at),
        binding: match relay::Binding::try_from(view.binding).ok()? {
            relay::Binding::Unspecified => return None,
            relay::Binding::Confirm => Binding::Confirm,
            relay::Binding::Typed => Binding::Typed,
            relay::Binding::Link => Binding::Link,
        },
        hello,
        held: view.held_request_id.parse().ok(),
    })
}

fn refused(refusal: &Refusal) -> Wire {
    let reason = match refusal {
        Refusal::Unknown => BackplaneRefusal::Unknown,
        Refusal::Over => BackplaneRefusal::Over,
        Refusal::EditorRefused => BackplaneRefusal::EditorRefused,
        Refusal::EditorCannotBind => BackplaneRefusal::EditorCannotBind,
        Refusal::Claimed => BackplaneRefusal::Claimed,
        Refusal::Away => BackplaneRefusal::Away,
        Refusal::SessionsDown => BackplaneRefusal::SessionsDown,
        // The others are no login's own words.
        Refusal::Draining
        | Refusal::Overloaded
        | Refusal::Malformed { .. }
        | Refusal::BackplaneDown
        | Refusal::NotAllowed(_) => BackplaneRefusal::Draining,
    };

    Wire::Refusal(reason.into())
}

fn refusal(reason: i32) -> Refusal {
    match BackplaneRefusal::try_from(reason) {
        Ok(BackplaneRefusal::Unknown) => Refusal::Unknown,
        Ok(BackplaneRefusal::Over) => Refusal::Over,
        Ok(BackplaneRefusal::EditorRefused) => Refusal::EditorRefused,
        Ok(BackplaneRefusal::EditorCannotBind) => Refusal::EditorCannotBind,
        Ok(BackplaneRefusal::Claimed) => Refusal::Claimed,
        Ok(BackplaneRefusal::Away) => Refusal::Away,
        Ok(BackplaneRefusal::Draining) => Refusal::Draining,
        Ok(BackplaneRefusal::SessionsDown) => Refusal::SessionsDown,
        Ok(BackplaneRefusal::Unspecified) | Err(_) => Refusal::BackplaneDown,
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use vvs_proto::Secret;

    use super::*;
    use crate::login::User;

    #[test]
    fn base32_is_that_of_the_rfc() {
        for (plain, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(plain.as_bytes()), text);
        }
    }

    #[test]
    fn a_sealed_message_opens_for_its_direction_subject_and_id_alone() {
        let keys = || Keyring::parse(&Keyring::generate().unwrap()).unwrap();
        let (ours, theirs) = (keys(), keys());
        let look = BackplaneLook { known_state: 3 };
        let sealed = seal(&ours, Direction::Ask, "s", "1", &look).unwrap();
        let open =
            |keys: &Keyring, direction, subject, id| open(keys, direction, subject, id, &sealed);
        assert_eq!(open(&ours, Direction::Ask, "s", "1"), Some(look));

        for other in [
            open(&theirs, Direction::Ask, "s", "1"),
            open(&ours, Direction::Answer, "s", "1"),
            open(&ours, Direction::Claim, "s", "1"),
            open(&ours, Direction::Presence, "s", "1"),
            open(&ours, Direction::Ask, "t", "1"),
            open(&ours, Direction::Ask, "s", "2"),
        ] {
            assert_eq!(other, None);
        }
    }

    #[test]
    fn a_message_of_another_version_is_not_opened() {
        let keys = Keyring::parse(&Keyring::generate().unwrap()).unwrap();
        let look = BackplaneLook { known_state: 3 };
        let seen = |bytes: &[u8]| {
            let sealed = keys
                .seal(&context(Direction::Ask, "s", "1"), bytes)
                .unwrap();
            open::<BackplaneLook>(&keys, Direction::Ask, "s", "1", &sealed)
        };
        let of_version = |version| {
            let message = look.encode_to_vec();
            BackplaneSealed { version, message }.encode_to_vec()
        };

        assert_eq!(seen(&of_version(VERSION)), Some(look));
        assert_eq!(seen(&of_version(VERSION + 1)), None);
        // The version before had no version.
        assert_eq!(seen(&look.encode_to_vec()), None);
    }

    #[test]
    fn a_login_that_crosses_is_what_it_was() {
        let id = ConnectionId::mint();
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let grant = Box::new(Grant {
            request_id: "9b2f2d0e-6f0a-4c7e-8f5e-0d3c8f1f0a11".parse().unwrap(),
            token: Secret::new("the token"),
            token_expires_at: at,
            user: User {
                id: "usr_1".to_owned(),
                email: None,
                name: Some("Ada".to_owned()),
                avatar_url: None,
            },
            session_id: "ses_1".to_owned(),
            session_expires_at: at,
        });

        for state in [
            State::Waiting,
            State::Held {
                grant: grant.clone(),
                attempts_left: 2,
            },
            State::Sent(grant),
        ] {
            let given = Handover {
                generation: 7,
                state: state.clone(),
                listening: None,
                login_place: None,
            };
            let got = taken(7, handover(id, Ok(given))).unwrap();
            assert_eq!((got.generation, got.state), (7, state));
        }
    }
}
