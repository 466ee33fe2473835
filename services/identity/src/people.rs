//! How often one person may cause calls to other systems: to the other roles, and to the identity
//! provider, whose quota all people share. Knows no page and no call.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use vvs_runtime::limit::Reached;

use crate::refusal::Refusal;

/// People who are counted at the same time; some hundred bytes each.
const MAX_COUNTED: usize = 100_000;

/// The recent requests of each person, as counted by this process.
#[derive(Clone, Debug)]
pub struct People {
    limiter: Arc<DefaultKeyedRateLimiter<(String, String)>>,
    reached: Reached,
}

impl People {
    pub fn new(per_minute: NonZeroU32, reached: Reached) -> Self {
        Self {
            limiter: Arc::new(RateLimiter::keyed(Quota::per_minute(per_minute))),
            reached,
        }
    }

    /// Counts a request of this person that goes on to other systems. Only people who have signed
    /// in are counted, so nobody can use up another person's share, and nobody can fill the memory
    /// with names.
    pub fn count(&self, provider: &str, subject: &str) -> Result<(), Refusal> {
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

    /// Deletes the counts of quiet people regularly; never ends.
    pub async fn tidy(self) {
        loop {
            tokio::time::sleep(Duration::from_mins(1)).await;
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }
}
