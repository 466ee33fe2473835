//! `vvs.internal.v1.Browsers`: the browser sign-ins that have ended.

use std::time::Duration;

use tonic::{Request, Response, Status};
use vvs_proto::internal as wire;
use vvs_proto::internal::browsers_server::Browsers;
use vvs_proto::session::Identity;

use super::Service;
use crate::browser::{End, Millis, SignIn, Whose};
use crate::clock::clock_millis;
use crate::error::Error;
use crate::session;
use crate::store::Cause;

impl Service {
    async fn begin_sign_in(
        &self,
        request: wire::BeginBrowserSignInRequest,
    ) -> Result<wire::BeginBrowserSignInResponse, Error> {
        let proof_age = request
            .proof_age
            .map(|age| duration("proof_age", age))
            .transpose()?;
        let proof_age =
            proof_age.map(|age| Millis::try_from(age.as_millis()).unwrap_or(Millis::MAX));

        let watermark = self.store.watermark(proof_age, clock_millis()).await?;
        Ok(wire::BeginBrowserSignInResponse {
            watermark: watermark.cast_unsigned(),
        })
    }

    async fn check_sign_in(
        &self,
        request: wire::CheckBrowserSignInRequest,
    ) -> Result<wire::CheckBrowserSignInResponse, Error> {
        let sign_in = SignIn::new(
            request.sign_in_id,
            whose(request.identity)?,
            request.watermark,
        )?;

        let ended = self.store.has_ended(&sign_in).await?;
        Ok(wire::CheckBrowserSignInResponse { ended })
    }

    async fn end_sign_ins(
        &self,
        request: wire::EndBrowserSignInsRequest,
    ) -> Result<wire::EndBrowserSignInsResponse, Error> {
        let remember_for = duration("remember_for", request.remember_for.unwrap_or_default())?;
        let cause = Cause {
            reason: request.reason().try_into()?,
            address: session::address(request.address)?,
        };
        let end = End::new(request.sign_in_id, whose(request.identity)?, remember_for)?;

        self.store
            .end_sign_ins(&end, &cause, clock_millis())
            .await?;
        Ok(wire::EndBrowserSignInsResponse {})
    }
}

#[tonic::async_trait]
impl Browsers for Service {
    async fn begin_browser_sign_in(
        &self,
        request: Request<wire::BeginBrowserSignInRequest>,
    ) -> Result<Response<wire::BeginBrowserSignInResponse>, Status> {
        self.answer(self.begin_sign_in(request.into_inner())).await
    }

    async fn check_browser_sign_in(
        &self,
        request: Request<wire::CheckBrowserSignInRequest>,
    ) -> Result<Response<wire::CheckBrowserSignInResponse>, Status> {
        self.answer(self.check_sign_in(request.into_inner())).await
    }

    async fn end_browser_sign_ins(
        &self,
        request: Request<wire::EndBrowserSignInsRequest>,
    ) -> Result<Response<wire::EndBrowserSignInsResponse>, Status> {
        self.answer(self.end_sign_ins(request.into_inner())).await
    }
}

fn whose(identity: Option<Identity>) -> Result<Whose, Error> {
    let identity = identity.ok_or(Error::Malformed { field: "identity" })?;
    Whose::new(
        identity.provider,
        identity.subject,
        identity.provider_session,
    )
}

fn duration(field: &'static str, duration: prost_types::Duration) -> Result<Duration, Error> {
    duration
        .try_into()
        .map_err(|_negative| Error::Malformed { field })
}
