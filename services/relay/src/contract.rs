//! Messages of the contracts about a login, checked and converted to this relay's types.

use prost_types::Timestamp;
use time::OffsetDateTime;
use vvs_proto::frame;
use vvs_proto::relay::{Binding, DeliverAuthRequest, GetLoginResponse, LoginState};
use vvs_proto::types::{App, Device};
use vvs_proto::{Phase, Secret, timestamp};

use crate::login::{Grant, User};
use crate::refusal::Refusal;
use crate::view::View;

/// The longest token, id or text that is accepted, in bytes.
const MAX_TOKEN: usize = 4096;
const MAX_TEXT: usize = 1024;

/// Converts a view of a login for callers.
pub(crate) fn login(view: View) -> GetLoginResponse {
    GetLoginResponse {
        state: LoginState::from(view.phase).into(),
        user_code: view.user_code,
        return_uri: view
            .hello
            .as_ref()
            .and_then(|hello| hello.return_uri.clone())
            .unwrap_or_default(),
        app: view.hello.as_ref().map(|hello| App {
            name: hello.app.name.clone(),
            version: hello.app.version.clone(),
        }),
        device: view.hello.map(|hello| Device {
            name: hello.device.name,
            os: hello.device.os,
            jwk: hello.jwk,
        }),
        client_address: view.client_address.to_string(),
        created_at: Some(to_the_second(view.created_at)),
        expires_at: Some(to_the_second(view.expires_at)),
    }
}

pub(crate) fn binding(binding: frame::Binding) -> Binding {
    match binding {
        frame::Binding::Confirm => Binding::Confirm,
        frame::Binding::Typed => Binding::Typed,
        frame::Binding::Link => Binding::Link,
    }
}

/// Returns the state that a caller knows, if it names one.
pub(crate) fn known_state(number: i32) -> Result<Option<Phase>, Refusal> {
    if number == i32::from(LoginState::Unspecified) {
        return Ok(None);
    }
    let malformed = Refusal::Malformed {
        field: "known_state",
    };
    Phase::from_wire(number).map(Some).ok_or(malformed)
}

/// Returns the checked grant of a delivery.
pub(crate) fn grant(request: DeliverAuthRequest) -> Result<Grant, Refusal> {
    let malformed = |field| Refusal::Malformed { field };
    let request_id = request
        .request_id
        .parse()
        .map_err(|_malformed| malformed("request_id"))?;
    let user = request.user.ok_or(malformed("user"))?;
    let session = request.session.ok_or(malformed("session"))?;
    let is_text = |text: &str, most: usize| !text.is_empty() && text.len() <= most;
    for (text, most, field) in [
        (Some(&request.token), MAX_TOKEN, "token"),
        (Some(&user.id), MAX_TEXT, "user.id"),
        (Some(&session.id), MAX_TEXT, "session.id"),
        (user.email.as_ref(), MAX_TEXT, "user.email"),
        (user.name.as_ref(), MAX_TEXT, "user.name"),
        (user.avatar_url.as_ref(), MAX_TEXT, "user.avatar_url"),
    ] {
        if text.is_some_and(|text| !is_text(text, most)) {
            return Err(malformed(field));
        }
    }

    Ok(Grant {
        request_id,
        token: Secret::new(request.token),
        token_expires_at: timestamp::read(request.token_expires_at)
            .ok_or(malformed("token_expires_at"))?,
        user: User {
            id: user.id,
            email: user.email,
            name: user.name,
            avatar_url: user.avatar_url,
        },
        session_id: session.id,
        session_expires_at: timestamp::read(session.expires_at)
            .ok_or(malformed("session.expires_at"))?,
    })
}

pub(crate) fn to_the_second(at: OffsetDateTime) -> Timestamp {
    timestamp::seconds(at.unix_timestamp())
}
