//! Dependencies of a provider for its tests: a browser that goes on trips, and sessions that record
//! ends.

use std::collections::BTreeMap;
use std::future::ready;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::task::TaskTracker;
use vvs_proto::types::RevocationReason;
use vvs_runtime::limit::Reached;
use vvs_runtime::metrics::Metrics;

use crate::about::About;
use crate::asking::Asking;
use crate::browser::{Browser, Trip};
use crate::people::People;
use crate::person::{Freshness, SignIn};
use crate::provider::ProviderContext;
use crate::refusal::Refusal;
use crate::sessions::{Sessions, Whose};

/// Where this server is.
pub(crate) const ORIGIN: &str = "https://auth.example.com";
/// The watermark of every trip.
pub(crate) const WATERMARK: u64 = 7;

/// Returns the dependencies of every provider, with these sessions.
pub(crate) fn common(sessions: Arc<RecordedSessions>) -> ProviderContext {
    ProviderContext {
        people: People::new(NonZeroU32::new(1_000_000).unwrap(), Reached::default()),
        public_url: ORIGIN.parse().unwrap(),
        sessions,
        metrics: Metrics::default(),
        tasks: TaskTracker::new(),
    }
}

/// An end that a provider has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) provider: String,
    pub(crate) subject: String,
    pub(crate) provider_session: String,
    pub(crate) editors: bool,
    pub(crate) reason: RevocationReason,
}

/// Sessions of which every end ends two editors.
#[derive(Debug, Default)]
pub(crate) struct RecordedSessions {
    pub(crate) ended: Mutex<Vec<Ended>>,
    /// Of each provider.
    pub(crate) stale: Mutex<BTreeMap<String, Vec<String>>>,
    pub(crate) is_down: Mutex<bool>,
}

impl RecordedSessions {
    /// Returns the ends that also apply to editors.
    pub(crate) fn of_editors(&self) -> Vec<Ended> {
        let ended = self.ended.lock().unwrap();
        ended
            .iter()
            .filter(|ended| ended.editors)
            .cloned()
            .collect()
    }
}

impl Sessions for RecordedSessions {
    fn end<'a>(
        &'a self,
        whose: Whose<'a>,
        editors: bool,
        reason: RevocationReason,
    ) -> Asking<'a, Result<u32, Refusal>> {
        if *self.is_down.lock().unwrap() {
            return Box::pin(ready(Err(Refusal::Unavailable("no sessions".to_owned()))));
        }

        self.ended.lock().unwrap().push(Ended {
            provider: whose.provider.to_owned(),
            subject: whose.subject.to_owned(),
            provider_session: whose.provider_session.to_owned(),
            editors,
            reason,
        });

        Box::pin(ready(Ok(if editors { 2 } else { 0 })))
    }

    fn take_stale<'a>(
        &'a self,
        provider: &'a str,
        limit: u32,
    ) -> Asking<'a, Result<Vec<String>, Refusal>> {
        let mut stale = self.stale.lock().unwrap();
        let stale = stale.entry(provider.to_owned()).or_default();
        let count = stale.len().min(limit as usize);
        Box::pin(ready(Ok(stale.drain(..count).collect())))
    }
}

/// One browser, whose cookies nobody can read.
#[derive(Debug, Default)]
pub(crate) struct TestBrowser {
    pub(crate) before: Option<SignIn>,
    pub(crate) trips: BTreeMap<String, (Trip, Duration)>,
}

impl Browser for TestBrowser {
    fn begin<'a>(
        &'a mut self,
        state: &'a str,
        trip: Trip,
        time: Duration,
    ) -> Asking<'a, Result<(), Refusal>> {
        self.trips.insert(state.to_owned(), (trip, time));
        Box::pin(ready(Ok(())))
    }

    fn end(&mut self, state: &str) -> Option<(Trip, Freshness)> {
        let (trip, _) = self.trips.remove(state)?;
        Some((trip, Freshness::Since(WATERMARK)))
    }

    fn before(&self) -> Option<&SignIn> {
        self.before.as_ref()
    }

    fn csrf(&mut self, about: About) -> Result<SecretString, Refusal> {
        Ok(format!("csrf of {}", about.purpose()).into())
    }
}
