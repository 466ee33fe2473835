//! Questions to a login, from web and from relays that want to take it over, and its answers.

use std::time::Duration;

use futures_channel::oneshot;
use time::OffsetDateTime;
use tokio::time::Instant;
use vvs_runtime::trace::Parent;

use super::{Attempt, Waiter};
use crate::backplane::{Answer, Envelope, Handover, Request, Taken};
use crate::clock;
use crate::login::{Action, Event, Grant, Objection, State};
use crate::refusal::Refusal;
use crate::view::View;

/// How long a login that was offered to another relay waits to be claimed; longer than that relay
/// waits for the offer.
const OFFER_TIME: Duration = Duration::from_secs(3);

impl Attempt {
    pub(super) fn answer(&mut self, envelope: Envelope) -> Vec<Action> {
        let is_late = |drop_after: OffsetDateTime| drop_after < clock::now();
        let (request, reply, place) = match envelope {
            Envelope::Claimed => return self.leave(),
            Envelope::TakeOver(reply) => return self.let_go(reply),
            // The caller may have given up, and said so.
            Envelope::Offer { reply, drop_after } if is_late(drop_after) => {
                reply.send(Err(Refusal::Draining)).ok();
                return Vec::new();
            }
            Envelope::Ask {
                reply,
                drop_after: Some(drop_after),
                ..
            } if is_late(drop_after) => {
                reply.send(Err(Refusal::Draining)).ok();
                return Vec::new();
            }
            Envelope::Offer { reply, .. } => return self.offer(reply),
            Envelope::Ask {
                request,
                reply,
                place,
                ..
            } => (request, reply, place),
        };

        if self.offered.is_some() {
            reply.send(Err(Refusal::Away)).ok();
            return Vec::new();
        }

        self.is_shown = true;
        let mut actions = if self.keeps_place() {
            Vec::new()
        } else {
            self.apply(Event::GaveWay)
        };

        actions.extend(self.reply(request, reply, place));

        actions
    }

    /// Answers web's questions about a login that it may see.
    fn reply(
        &mut self,
        request: Request,
        reply: oneshot::Sender<Answer>,
        place: Parent,
    ) -> Vec<Action> {
        if self.binding() < self.shared.settings.min_binding.into() {
            reply.send(Err(Refusal::EditorCannotBind)).ok();
            return Vec::new();
        }

        match request {
            Request::Look { known } if known == Some(self.login.phase()) => {
                self.wait(Waiter { known, reply });
                Vec::new()
            }
            Request::Look { .. } => {
                reply.send(Ok(self.view())).ok();
                Vec::new()
            }
            Request::Deny => {
                let actions = self.apply(Event::Denied);
                reply.send(self.told(self.login.is_denied())).ok();
                actions
            }
            Request::Deliver(grant) => self.deliver(grant, reply, place),
        }
    }

    /// Returns why the login cannot be handed over.
    fn kept(&self) -> Option<Refusal> {
        if self.state().is_unfinished() {
            self.offered.map(|_until| Refusal::Away)
        } else {
            Some(Refusal::Over)
        }
    }

    /// Gives the login to another socket of its editor, if the editor still waits for it.
    fn let_go(&mut self, reply: oneshot::Sender<Taken>) -> Vec<Action> {
        if let Some(refusal) = self.kept() {
            reply.send(Err(refusal)).ok();
            return Vec::new();
        }

        let Some(listening) = self.listening.take() else {
            return Vec::new();
        };

        let (generation, state, login_place) = (
            self.generation,
            self.state().clone(),
            self.login_place.take(),
        );
        let handover = Handover {
            generation,
            state,
            listening: Some(listening),
            login_place,
        };
        if let Err(Ok(handover)) = reply.send(Ok(handover)) {
            (self.listening, self.login_place) = (handover.listening, handover.login_place);
            return Vec::new();
        }

        self.leave()
    }

    /// Gives the login to another relay unchanged, and does not change it until that relay claims
    /// it.
    fn offer(&mut self, reply: oneshot::Sender<Taken>) -> Vec<Action> {
        let handover = match self.kept() {
            Some(refusal) => Err(refusal),
            None => Ok(Handover {
                generation: self.generation,
                state: self.state().clone(),
                listening: None,
                login_place: None,
            }),
        };

        let is_offer = handover.is_ok();
        if reply.send(handover).is_ok() && is_offer {
            self.offered = Some(Instant::now() + OFFER_TIME);
        }

        Vec::new()
    }

    /// Records that another socket has the login now.
    pub(super) fn leave(&mut self) -> Vec<Action> {
        self.offered = None;
        let actions = self.apply(Event::TakenOver);
        for waiter in self.waiting.drain(..) {
            waiter.reply.send(Err(Refusal::Away)).ok();
        }

        // It is not unknown to those who have just asked.
        let Some((registration, mut mailbox)) = self.listening.take() else {
            return actions;
        };

        drop(registration);

        while let Ok(envelope) = mailbox.try_recv() {
            match envelope {
                Envelope::Ask { reply, .. } => drop(reply.send(Err(Refusal::Away))),
                Envelope::TakeOver(reply) | Envelope::Offer { reply, .. } => {
                    drop(reply.send(Err(Refusal::Away)));
                }
                Envelope::Claimed => {}
            }
        }

        actions
    }

    fn deliver(
        &mut self,
        grant: Box<Grant>,
        reply: oneshot::Sender<Answer>,
        place: Parent,
    ) -> Vec<Action> {
        if let Err(objection) = self.login.takes(&grant) {
            reply.send(Err(objection.into())).ok();
            return Vec::new();
        }

        self.place = place;
        let actions = self.apply(Event::Approved(grant));
        self.wait(Waiter { known: None, reply });
        self.settle();

        actions
    }

    /// Adds a waiter. Waiters whose callers have given up make room.
    fn wait(&mut self, waiter: Waiter) {
        self.waiting.retain(|waiter| !waiter.reply.is_canceled());
        self.waiting.push(waiter);
    }

    /// Answers the waiters that are due.
    pub(super) fn settle(&mut self) {
        for waiter in std::mem::take(&mut self.waiting) {
            match self.login.news(waiter.known) {
                Some(news) => drop(waiter.reply.send(self.told(news))),
                None => self.waiting.push(waiter),
            }
        }
    }

    fn told(&self, news: Result<(), Objection>) -> Answer {
        news.map(|()| self.view()).map_err(Refusal::from)
    }

    fn view(&self) -> View {
        let acked_at = if let State::Acked(_, at) = self.state() {
            Some(*at)
        } else {
            None
        };

        let held = if let State::Held { grant, .. } = self.state() {
            Some(grant.request_id)
        } else {
            None
        };

        View {
            phase: self.login.phase(),
            user_code: self.facts.user_code.clone(),
            client_address: self.facts.client_address,
            created_at: self.facts.created_at,
            expires_at: self.expires_at(),
            acked_at,
            binding: self.binding(),
            hello: self.editor().cloned(),
            held,
        }
    }
}
