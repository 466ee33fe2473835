//! Whether a browser's sign-in has ended. It asks sessions, and caches the answer for a second, so
//! that a sign-in that ends anywhere has ended everywhere a second later. Without an answer it
//! believes nobody.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::call::Sessions;
use crate::error::Refusal;
use crate::kept::{Kept, SignInId};

/// How long an answer is valid, counted from the question.
const FRESH: Duration = Duration::from_secs(1);
/// The maximum number of cached answers. Beyond that sessions is asked each time.
const MAX_KNOWN: usize = 10_000;

/// The parts of a question that the answer depends on.
#[derive(PartialEq, Eq, Hash)]
struct Question {
    id: SignInId,
    provider_session: String,
    watermark: u64,
}

impl Question {
    fn new(kept: &Kept) -> Self {
        let (id, provider_session) = (kept.id.clone(), kept.who.provider_session.clone());
        Self {
            id,
            provider_session,
            watermark: kept.watermark,
        }
    }
}

struct Cached {
    asked_at: Instant,
    has_ended: bool,
}

/// Asks, and caches the answer for a second.
pub(crate) struct Checks {
    sessions: Sessions,
    known: Mutex<HashMap<Question, Cached>>,
}

impl Checks {
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self {
            sessions,
            known: Mutex::default(),
        }
    }

    /// Returns whether a sign-in has ended, as of a second ago at most.
    pub(crate) async fn has_ended(&self, kept: &Kept) -> Result<bool, Refusal> {
        let asked_at = Instant::now();
        if let Some(has_ended) = self.known(kept, asked_at) {
            return Ok(has_ended);
        }

        let has_ended = self.has_ended_by_now(kept).await?;
        self.remember(
            kept,
            Cached {
                asked_at,
                has_ended,
            },
        );

        Ok(has_ended)
    }

    /// Returns whether a sign-in has ended, as of now.
    pub(crate) async fn has_ended_by_now(&self, kept: &Kept) -> Result<bool, Refusal> {
        self.sessions.has_ended(kept).await
    }

    /// Drops the cached answer, because this process has ended the sign-in itself.
    pub(crate) fn forget(&self, kept: &Kept) {
        self.lock().retain(|about, _| about.id != kept.id);
    }

    fn known(&self, kept: &Kept, now: Instant) -> Option<bool> {
        let known = self.lock();
        let answer = known
            .get(&Question::new(kept))
            .filter(|answer| now.duration_since(answer.asked_at) < FRESH);
        answer.map(|answer| answer.has_ended)
    }

    fn remember(&self, kept: &Kept, answer: Cached) {
        let (mut known, now) = (self.lock(), answer.asked_at);
        if known.len() >= MAX_KNOWN {
            known.retain(|_, answer| now.duration_since(answer.asked_at) < FRESH);
        }
        if known.len() < MAX_KNOWN {
            known.insert(Question::new(kept), answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Question, Cached>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
