//! The person who is signed in to the browser: the only access to it, which first asks whether the
//! sign-in has ended.

use vvs_identity::{Freshness, SignIn};
use vvs_proto::ConnectionId;

use super::Visit;
use crate::error::Refusal;
use crate::kept::{Kept, Person, SignInId};
use crate::login::request_id;

impl Visit {
    /// Returns the person that the browser's cookie names, as confirmed by sessions.
    pub(super) async fn recognize(&self) -> Person {
        let (web, now) = (&self.web, self.now);
        let kept = self
            .jar
            .sealed()
            .filter(|kept| kept.is_live(now, web.sign_in_max_ttl));

        // What another provider has said does not count.
        let Some(kept) = kept.filter(|kept| kept.who.provider == web.identity.name()) else {
            return Person::Nobody;
        };

        match web.checks.has_ended(kept).await {
            Ok(false) => Person::SignedIn(kept.clone()),
            Ok(true) => Person::Ended,
            Err(cause) => Person::Unknown(cause.to_string()),
        }
    }

    /// Returns the signed-in person. While sessions does not confirm the sign-in, nobody may be
    /// shown or act in anybody's name.
    pub(crate) fn person(&self) -> Result<Option<&Kept>, Refusal> {
        match &self.person {
            Person::Nobody | Person::Ended => Ok(None),
            Person::SignedIn(kept) => Ok(Some(kept)),
            Person::Unknown(cause) => Err(Refusal::Unchecked(cause.clone())),
        }
    }

    /// Returns the signed-in person, if the sign-in is recent enough for an approval.
    pub(crate) fn signed_in(&self) -> Result<Option<&Kept>, Refusal> {
        Ok(self
            .person()?
            .filter(|kept| kept.who.holds(self.now, self.web.sign_in_ttl)))
    }

    /// Signs the person in to the browser, unless that was ended since its proof was made.
    pub(crate) async fn sign_in(&mut self, who: SignIn, proof: Freshness) -> Result<(), Refusal> {
        let web = self.web.clone();
        let watermark = match proof {
            Freshness::Fresh => web.sessions.begin_sign_in(None).await?,
            Freshness::Aged(age) => web.sessions.begin_sign_in(Some(age)).await?,
            Freshness::Since(watermark) => watermark,
        };

        let id = match self.person()?.cloned() {
            Some(before) if before.who.is_same_user(&who) => before.id,
            Some(other) => {
                // Nobody could sign out of it here any longer.
                web.sessions
                    .end_sign_in(&other, false, &self.from, self.now)
                    .await?;
                SignInId::mint()?
            }
            None => SignInId::mint()?,
        };

        let expires_at = who
            .at
            .saturating_add(web.sign_in_max_ttl.as_secs().cast_signed());
        let kept = Kept {
            who,
            id,
            expires_at,
            watermark,
        };
        if web.checks.has_ended_by_now(&kept).await? {
            return Err(Refusal::sign_in_over(
                "it was ended after its proof was made",
            ));
        }

        tracing::info!(provider = kept.who.provider, address = %self.from.address, "signed in");
        self.jar.keep(&web.cookies, kept.clone())?;
        self.person = Person::SignedIn(kept);

        Ok(())
    }

    /// Makes the browser forget who was signed in, and all copies of its cookies worthless. If
    /// sessions cannot be reached, the browser forgets anyway.
    pub(crate) async fn sign_out(&mut self) -> Result<(), Refusal> {
        let live = self
            .jar
            .sealed()
            .filter(|kept| kept.is_live(self.now, self.web.sign_in_max_ttl))
            .cloned();
        self.forget();
        let Some(kept) = live else { return Ok(()) };

        let ended = self
            .web
            .sessions
            .end_sign_in(&kept, true, &self.from, self.now)
            .await;
        self.web.checks.forget(&kept);

        ended.map_err(|cause| Refusal::NotEnded(cause.to_string()))
    }

    /// Makes the browser forget who was signed in, because that has ended already.
    pub(crate) fn forget(&mut self) {
        self.jar.sign_out(&self.web.cookies);
        self.person = Person::Nobody;
    }

    /// Does the same where the provider no longer confirms the sign-in.
    pub(crate) async fn sign_out_by_provider(&mut self) {
        if let Err(cause) = self.sign_out().await {
            tracing::warn!(%cause, "copies of a browser's cookies are not known to be worth \
                nothing");
        }
    }

    /// Counts a request that goes on to other systems, when its person is known.
    pub(crate) fn count_person(&self) -> Result<(), Refusal> {
        let Ok(Some(kept)) = self.person() else {
            return Ok(());
        };
        Ok(self
            .web
            .people
            .count(&kept.who.provider, &kept.who.subject)?)
    }

    /// Returns the person who manages their editors, if they have done so recently and the provider
    /// confirms the sign-in. Records this use.
    pub(crate) async fn account(&mut self) -> Result<Option<SignIn>, Refusal> {
        let (seen, now, ttl) = (self.jar.seen, self.now, self.web.account_ttl);
        let kept = self
            .person()?
            .filter(|kept| kept.who.is_in_use(seen, now, ttl));
        let Some(sign_in) = kept.map(|kept| kept.who.clone()) else {
            return Ok(None);
        };

        self.count_person()?;

        // While the provider does not answer, people may still sign a lost editor out.
        let confirmed = self.web.clone().identity.confirm(&sign_in).await;
        if confirmed.is_err_and(|refusal| refusal.ends_sign_in()) {
            self.sign_out_by_provider().await;
            return Ok(None);
        }

        self.jar.see(&self.web.cookies, now.unix_timestamp())?;

        Ok(Some(sign_in))
    }

    /// Returns whether the person who is signed in now has approved this login: the same delivery
    /// can be repeated.
    pub(crate) fn has_approved(&self, id: ConnectionId) -> Result<bool, Refusal> {
        let approved = self
            .jar
            .login(id)
            .and_then(|entry| entry.approved.as_deref());
        let own = self
            .person()?
            .map(|kept| request_id(&self.web.requests, id, &kept.who).to_string());
        Ok(approved.is_some() && approved == own.as_deref())
    }
}
