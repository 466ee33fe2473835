//! `vvs.session.v1.Sessions` over gRPC: who may call, what a request means, what the answer looks like. What happens in
//! between is the store's, the keys' and the session's business.

use std::sync::Arc;

use prost_types::Timestamp;
use secrecy::ExposeSecret as _;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use vvs_auth::method::authorize;
use vvs_auth::peer::Peers;
use vvs_proto::session as wire;
use vvs_proto::session::sessions_server::Sessions;
use vvs_runtime::rpc::MethodCheck;

use crate::Error;
use crate::clock;
use crate::key::Keys;
use crate::metric::Counts;
use crate::session::{Approval, Device, Identity, Profile, Seconds, Session, SessionId, Terms};
use crate::store::Store;

#[cfg(test)]
mod tests;

/// Asks the method table.
pub(crate) fn check(peers: Arc<Peers>) -> MethodCheck {
    Arc::new(move |connection, path| {
        authorize(&peers, connection.certificate.as_deref(), path)
            .map(drop)
            .map_err(|refusal| Error::NotAllowed(refusal).into())
    })
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    pub(crate) terms: Terms,
    pub(crate) counts: Counts,
}

impl Service {
    async fn answer<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<Response<T>, Status> {
        work.await.map(Response::new).map_err(|error| {
            self.counts.failed(&error);
            error.into()
        })
    }
}

#[tonic::async_trait]
impl Sessions for Service {
    async fn create_session(
        &self,
        request: Request<wire::CreateSessionRequest>,
    ) -> Result<Response<wire::CreateSessionResponse>, Status> {
        self.answer(async {
            let approval = approval(request.into_inner())?;
            let now = clock();
            let created = self.store.create(&approval, &self.terms, now).await?;
            if created.new {
                self.counts.created.inc();
            }
            let claims = self.terms.claims(&created.session, now)?;
            let token = self.keys.sign(&claims)?.expose_secret().to_owned();
            let token = wire::Token { token, expires_at: timestamp(claims.exp) };
            Ok(wire::CreateSessionResponse { session: Some(shown(created.session)), token: Some(token) })
        })
        .await
    }

    async fn activate_session(
        &self,
        request: Request<wire::ActivateSessionRequest>,
    ) -> Result<Response<wire::ActivateSessionResponse>, Status> {
        self.answer(async {
            let id: SessionId = request.into_inner().session_id.parse()?;
            let activated = self.store.activate(&id, &self.terms, clock()).await?;
            if activated.new {
                self.counts.activated.inc();
            }
            Ok(wire::ActivateSessionResponse { activated_at: timestamp(activated.at) })
        })
        .await
    }

    async fn get_signing_keys(
        &self,
        _request: Request<wire::GetSigningKeysRequest>,
    ) -> Result<Response<wire::GetSigningKeysResponse>, Status> {
        Ok(Response::new(wire::GetSigningKeysResponse { jwks: self.keys.jwks().to_owned() }))
    }

    async fn refresh_token(
        &self,
        _request: Request<wire::RefreshTokenRequest>,
    ) -> Result<Response<wire::RefreshTokenResponse>, Status> {
        Err(Error::NotImplemented("RefreshToken").into())
    }

    async fn get_session(
        &self,
        _request: Request<wire::GetSessionRequest>,
    ) -> Result<Response<wire::GetSessionResponse>, Status> {
        Err(Error::NotImplemented("GetSession").into())
    }

    async fn list_sessions(
        &self,
        _request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        Err(Error::NotImplemented("ListSessions").into())
    }

    async fn revoke_session(
        &self,
        _request: Request<wire::RevokeSessionRequest>,
    ) -> Result<Response<wire::RevokeSessionResponse>, Status> {
        Err(Error::NotImplemented("RevokeSession").into())
    }

    async fn revoke_user_sessions(
        &self,
        _request: Request<wire::RevokeUserSessionsRequest>,
    ) -> Result<Response<wire::RevokeUserSessionsResponse>, Status> {
        Err(Error::NotImplemented("RevokeUserSessions").into())
    }

    type WatchRevocationsStream = BoxStream<wire::WatchRevocationsResponse>;

    async fn watch_revocations(
        &self,
        _request: Request<wire::WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        Err(Error::NotImplemented("WatchRevocations").into())
    }
}

fn approval(request: wire::CreateSessionRequest) -> Result<Approval, Error> {
    let identity = request.identity.ok_or(Error::Malformed { field: "identity" })?;
    let device = request.device.unwrap_or_default();
    if !device.jwk.is_empty() {
        // A session that is bound to a key must not become one that is not.
        return Err(Error::Malformed { field: "device.jwk" });
    }
    let profile = Profile::new(identity.email, identity.name, identity.avatar_url)?;
    Approval::new(
        request.request_id.parse()?,
        Identity::new(identity.provider, identity.subject, identity.provider_session, profile)?,
        Device::new(device.name, device.os, device.app)?,
        request.address,
    )
}

fn shown(session: Session) -> wire::Session {
    let Session { id, user, profile, device, .. } = session;
    let Profile { email, name, avatar_url } = profile;
    wire::Session {
        id: id.as_str().to_owned(),
        user: Some(wire::User { id: user.as_str().to_owned(), email, name, avatar_url }),
        device: Some(wire::Device { name: device.name, os: device.os, app: device.app, jwk: String::new() }),
        created_at: timestamp(session.created_at),
        activated_at: session.activated_at.and_then(timestamp),
        refreshed_at: timestamp(session.refreshed_at),
        expires_at: timestamp(session.expires_at),
        address: session.address,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the generated messages want it")]
fn timestamp(seconds: Seconds) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}
