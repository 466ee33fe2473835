//! Converts messages of the contract from and to this role's own types.

use secrecy::{ExposeSecret as _, SecretString};
use vvs_auth::device::DeviceKey;
use vvs_proto::types::{App, Device as WireDevice, User};
use vvs_proto::{internal, session as wire, timestamp};

use crate::Error;
use crate::id::{SessionId, request_id};
use crate::session::{self, Approval, Device, Identity, Profile, Seconds, Session, SignIn};

pub(super) fn approval(request: wire::CreateSessionRequest) -> Result<Approval, Error> {
    Ok(Approval {
        request_id: request_id(&request.request_id)?,
        identity: identity(
            request
                .identity
                .ok_or(Error::Malformed { field: "identity" })?,
        )?,
        device: device(request.device, request.app)?,
        address: session::address(request.address)?,
        connection_id: session::connection_id(request.connection_id)?,
    })
}

pub(super) fn activation(request: internal::Activation) -> Result<(SessionId, String), Error> {
    Ok((
        request.session_id.parse()?,
        session::address(request.address)?,
    ))
}

pub(super) fn identity(identity: wire::Identity) -> Result<Identity, Error> {
    let profile = Profile::new(identity.email, identity.name, identity.avatar_url)?;
    Identity::new(
        identity.provider,
        identity.subject,
        identity.provider_session,
        profile,
    )
}

pub(super) fn person(user: wire::ProviderUser) -> Result<Identity, Error> {
    Identity::new(
        user.provider,
        user.subject,
        String::new(),
        Profile::default(),
    )
}

pub(super) fn sign_in(session: wire::ProviderSession) -> Result<SignIn, Error> {
    SignIn::new(session.provider, session.subject, session.session)
}

pub(super) fn device(device: Option<WireDevice>, app: Option<App>) -> Result<Device, Error> {
    let WireDevice { name, os, jwk } = device.unwrap_or_default();
    let app = app.unwrap_or_default();
    Device::new(name, os, (app.name, app.version), &jwk)
}

pub(super) fn session(session: Session) -> wire::Session {
    let Session {
        id,
        user,
        profile,
        device,
        ..
    } = session;
    let Profile {
        email,
        name,
        avatar_url,
    } = profile;
    let jwk = device
        .key
        .as_ref()
        .map(DeviceKey::to_json)
        .unwrap_or_default();

    wire::Session {
        id: id.as_str().to_owned(),
        user: Some(User {
            id: user.as_str().to_owned(),
            email,
            name,
            avatar_url,
        }),
        device: Some(WireDevice {
            name: device.name,
            os: device.os,
            jwk,
        }),
        app: Some(App {
            name: device.app,
            version: device.app_version,
        }),
        created_at: Some(timestamp::seconds(session.created_at)),
        activated_at: session.activated_at.map(timestamp::seconds),
        refreshed_at: Some(timestamp::seconds(session.refreshed_at)),
        expires_at: Some(timestamp::seconds(session.expires_at)),
        address: session.address,
    }
}

pub(super) fn token(token: &SecretString, expires_at: Seconds) -> wire::Token {
    wire::Token {
        token: token.expose_secret().to_owned(),
        expires_at: Some(timestamp::seconds(expires_at)),
    }
}
