//! The sessions role as an identity provider sees it.

use vvs_identity::{Asking, Refusal, Whose};
use vvs_proto::types::RevocationReason;

use super::Sessions;

impl vvs_identity::Sessions for Sessions {
    fn end<'a>(
        &'a self,
        whose: Whose<'a>,
        editors: bool,
        reason: RevocationReason,
    ) -> Asking<'a, Result<u32, Refusal>> {
        Box::pin(async move {
            Ok(if editors {
                self.revoke_identity(&whose, reason).await?
            } else {
                self.end_sign_ins(&whose, reason).await?;
                0
            })
        })
    }

    fn take_stale<'a>(
        &'a self,
        provider: &'a str,
        limit: u32,
    ) -> Asking<'a, Result<Vec<String>, Refusal>> {
        Box::pin(async move { Ok(self.take_stale_users(provider, limit).await?) })
    }
}
