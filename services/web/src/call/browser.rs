//! The calls to sessions about browser sign-ins.

use std::time::Duration;

use time::OffsetDateTime;
use vvs_identity::Whose;
use vvs_proto::internal::{
    BeginBrowserSignInRequest, CheckBrowserSignInRequest, EndBrowserSignInsRequest,
};
use vvs_proto::session::Identity;
use vvs_proto::types::RevocationReason;
use vvs_runtime::rpc::within;

use super::sessions::{BY_USER, SESSIONS};
use super::{CALL_TIME, Requester, Sessions, refusal};
use crate::error::Refusal;
use crate::kept::Kept;

impl Sessions {
    /// Returns the watermark of a sign-in whose proof is that old, or was made just now.
    pub(crate) async fn begin_sign_in(&self, proof_age: Option<Duration>) -> Result<u64, Refusal> {
        let request = BeginBrowserSignInRequest {
            proof_age: proof_age.map(wire),
        };
        let answer = self
            .browsers
            .clone()
            .begin_browser_sign_in(within(request, CALL_TIME))
            .await;

        Ok(answer
            .map_err(|status| refusal(SESSIONS, &status))?
            .into_inner()
            .watermark)
    }

    /// Returns whether a sign-in has ended.
    pub(crate) async fn has_ended(&self, kept: &Kept) -> Result<bool, Refusal> {
        let request = CheckBrowserSignInRequest {
            sign_in_id: kept.id.as_str().to_owned(),
            identity: Some(named(&whose(kept))),
            watermark: kept.watermark,
        };
        let answer = self
            .browsers
            .clone()
            .check_browser_sign_in(within(request, CALL_TIME))
            .await;

        Ok(answer
            .map_err(|status| refusal(SESSIONS, &status))?
            .into_inner()
            .ended)
    }

    /// Ends one sign-in. If it names a session at the provider, this also ends earlier sign-ins
    /// with that session, and the browser's copy cannot begin another sign-in.
    pub(crate) async fn end_sign_in(
        &self,
        kept: &Kept,
        with_provider_session: bool,
        from: &Requester,
        now: OffsetDateTime,
    ) -> Result<(), Refusal> {
        let remember_for = self.max_ttl.max(kept.remaining(now));
        let provider_session = if with_provider_session {
            &kept.who.provider_session
        } else {
            ""
        };

        let whose = Whose {
            provider_session,
            ..whose(kept)
        };

        self.end_browsers(
            kept.id.as_str(),
            &whose,
            remember_for,
            BY_USER,
            from.address.to_string(),
        )
        .await
    }

    /// Ends browser sign-ins because a provider says so, and no editor's session.
    pub(crate) async fn end_sign_ins(
        &self,
        whose: &Whose<'_>,
        reason: RevocationReason,
    ) -> Result<(), Refusal> {
        self.end_browsers("", whose, self.max_ttl, reason, String::new())
            .await
    }

    pub(super) async fn end_browsers(
        &self,
        sign_in_id: &str,
        whose: &Whose<'_>,
        remember_for: Duration,
        reason: RevocationReason,
        address: String,
    ) -> Result<(), Refusal> {
        let request = EndBrowserSignInsRequest {
            sign_in_id: sign_in_id.to_owned(),
            identity: Some(named(whose)),
            remember_for: Some(wire(remember_for)),
            reason: reason.into(),
            address,
        };
        let answer = self
            .browsers
            .clone()
            .end_browser_sign_ins(within(request, CALL_TIME))
            .await;
        answer
            .map(drop)
            .map_err(|status| refusal(SESSIONS, &status))
    }
}

fn whose(kept: &Kept) -> Whose<'_> {
    let who = &kept.who;
    Whose {
        provider: &who.provider,
        subject: &who.subject,
        provider_session: &who.provider_session,
    }
}

/// Returns the owner of sign-ins in the contract's form.
fn named(whose: &Whose<'_>) -> Identity {
    Identity {
        provider: whose.provider.to_owned(),
        subject: whose.subject.to_owned(),
        provider_session: whose.provider_session.to_owned(),
        ..Identity::default()
    }
}

fn wire(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration {
        seconds,
        nanos: duration.subsec_nanos().cast_signed(),
    }
}
