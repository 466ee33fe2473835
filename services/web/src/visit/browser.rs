//! A browser as the identity provider sees it: its trips are sealed into cookies.

use std::time::Duration;

use secrecy::SecretString;
use vvs_identity::{About, Asking, Browser, Freshness, SignIn, Trip};

use super::Visit;
use crate::cookie::Flow;
use crate::error::Refusal;

impl Browser for Visit {
    fn begin<'a>(
        &'a mut self,
        state: &'a str,
        trip: Trip,
        time: Duration,
    ) -> Asking<'a, Result<(), vvs_identity::Refusal>> {
        Box::pin(async move { Ok(self.depart(state, trip, time).await?) })
    }

    fn end(&mut self, state: &str) -> Option<(Trip, Freshness)> {
        let web = self.web.clone();
        let flow = self
            .jar
            .end(&web.cookies, state, self.now.unix_timestamp())?;
        // The cookie is ours, so that it can be read.
        let about = flow
            .login
            .map_or(Some(About::Account), |id| id.parse().ok().map(About::Login))?;
        self.about = Some(about);

        let trip = Trip {
            about,
            nonce: flow.nonce,
            verifier: flow.verifier,
        };
        Some((trip, Freshness::Since(flow.watermark)))
    }

    fn before(&self) -> Option<&SignIn> {
        self.person().ok().flatten().map(|kept| &kept.who)
    }

    fn csrf(&mut self, about: About) -> Result<SecretString, vvs_identity::Refusal> {
        Ok(Self::csrf(self, about)?)
    }
}

impl Visit {
    /// Seals a trip into a cookie. An end after its beginning also ends the resulting sign-in.
    async fn depart(&mut self, state: &str, trip: Trip, time: Duration) -> Result<(), Refusal> {
        let web = self.web.clone();
        let watermark = web.sessions.begin_sign_in(None).await?;
        let now = self.now.unix_timestamp();
        let flow = Flow {
            login: match trip.about {
                About::Login(id) => Some(id.to_string()),
                About::Account => None,
            },
            nonce: trip.nonce,
            verifier: trip.verifier,
            watermark,
            expires_at: now.saturating_add(time.as_secs().cast_signed()),
        };
        Ok(self.jar.begin(&web.cookies, state, flow, now)?)
    }
}
