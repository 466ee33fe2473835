//! How often one person may cause calls to other systems: to the other roles, and to the identity
//! provider, whose quota is for all people together. Knows no page and no call.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use vvs_runtime::limit::Reached;

use crate::error::Refusal;

/// People who are counted at once; some hundred bytes each.
const MAX_COUNTED: usize = 100_000;

/// What each person has asked for lately, as far as this process sees it.
#[derive(Clone, Debug)]
pub(crate) struct People {
    limiter: Arc<DefaultKeyedRateLimiter<(String, String)>>,
    reached: Reached,
}

/// More than anybody asks for.
#[cfg(test)]
impl Default for People {
    fn default() -> Self {
        Self::new(NonZeroU32::new(1_000_000).unwrap(), Reached::default())
    }
}

impl People {
    pub(crate) fn new(per_minute: NonZeroU32, reached: Reached) -> Self {
        Self {
            limiter: Arc::new(RateLimiter::keyed(Quota::per_minute(per_minute))),
            reached,
        }
    }

    /// Counts a request of this person that goes on to others. Only who has shown who they are is
    /// counted, so nobody can use up what is somebody else's, and nobody fills the memory with
    /// names.
    pub(crate) fn count(&self, provider: &str, subject: &str) -> Result<(), Refusal> {
        if self.limiter.len() >= MAX_COUNTED {
            return Ok(());
        }
        self.limiter
            .check_key(&(provider.to_owned(), subject.to_owned()))
            .map_err(|_until| {
                self.reached.tell("VVS_WEB_REQUESTS_PER_PERSON");
                Refusal::TooOften
            })
    }

    /// Forgets those who have been quiet, now and then; never ends.
    pub(crate) async fn tidy(self) {
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }
}
