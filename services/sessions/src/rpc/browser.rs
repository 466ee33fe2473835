//! The calls about browser sign-ins: what a request means, and what the answer looks like.

use std::time::Duration;

use vvs_proto::session as wire;

use super::Service;
use crate::browser::{End, Millis, SignIn, Whose};
use crate::clock::clock_millis;
use crate::error::Error;
use crate::session;
use crate::store::Cause;

impl Service {
    pub(super) async fn begin_sign_in(
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

    pub(super) async fn check_sign_in(
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

    pub(super) async fn end_sign_ins(
        &self,
        request: wire::EndBrowserSignInsRequest,
    ) -> Result<wire::EndBrowserSignInsResponse, Error> {
        let remember_for = duration("remember_for", request.remember_for.unwrap_or_default())?;
        let end = End::new(request.sign_in_id, whose(request.identity)?, remember_for)?;
        let cause = Cause {
            reason: request.reason.parse()?,
            address: session::address(request.address)?,
        };

        self.store
            .end_sign_ins(&end, &cause, clock_millis())
            .await?;
        Ok(wire::EndBrowserSignInsResponse {})
    }
}

fn whose(identity: Option<wire::Identity>) -> Result<Whose, Error> {
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
