//! One login while it is held: its state, its waiters, and its activation. It outlives the socket,
//! because the relay reports the end of a login until its time is over, and because an editor that
//! closes right after its acknowledgement is still signed in.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Instrument as _;
use vvs_proto::frame::{AuthErrorCode, Binding};
use vvs_proto::{Phase, Secret};
use vvs_runtime::metrics::count;
use vvs_runtime::trace::Parent;

use crate::authority::{Activation, NotActivated};
use crate::backplane::{Answer, Handover, Mailbox, Registration};
use crate::clock;
use crate::hello::Hello;
use crate::limit::LoginPlace;
use crate::login::{Action, Event, Login, State};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::ticket::{Facts, Ticket};

mod asked;

/// How long after a failed activation the next one is tried.
const ACTIVATION_RETRY: Duration = Duration::from_secs(2);
/// How long activation is tried at all: after that a pending session is deleted.
const ACTIVATION_WINDOW: Duration = Duration::from_mins(90);

struct Waiter {
    /// `None`: waits for the outcome of a delivery.
    known: Option<Phase>,
    reply: oneshot::Sender<Answer>,
}

/// A login and its waiters.
pub(crate) struct Attempt {
    pub(crate) facts: Facts,
    hello: Option<Box<Hello>>,
    /// How often the login has changed sockets.
    generation: u64,
    /// Web has asked for this login: from now on the data that the person was shown must not
    /// change.
    is_shown: bool,
    login: Login,
    listening: Option<(Registration, Mailbox)>,
    /// Another relay may have the login by now. Until that relay claims it, or this moment has
    /// passed, nothing may change it.
    offered: Option<Instant>,
    /// Held while the login is unfinished, whether its socket exists or not.
    login_place: Option<LoginPlace>,
    waiting: Vec<Waiter>,
    expiry: Instant,
    activation: Option<Activation>,
    retry: Option<Instant>,
    /// The position of the delivery in its trace, under which the push and the activation belong.
    place: Parent,
    shared: Arc<Shared>,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Attempt {
    /// Starts a login and registers it at the backplane.
    pub(crate) fn open(facts: Facts, login_place: LoginPlace, shared: Arc<Shared>) -> Box<Self> {
        count(&shared.metrics.logins, "state", Phase::Waiting.as_str());
        let expiry = Instant::now() + facts.ttl;
        let listening = shared.backplane.register(facts.id, 0);
        Self::hold(
            facts,
            Login::new(Binding::Confirm),
            expiry,
            listening,
            Some(login_place),
            shared,
        )
    }

    fn hold(
        facts: Facts,
        login: Login,
        expiry: Instant,
        listening: (Registration, Mailbox),
        login_place: Option<LoginPlace>,
        shared: Arc<Shared>,
    ) -> Box<Self> {
        // On the heap: it moves from task to task, and each would have room for it.
        Box::new(Self {
            listening: Some(listening),
            offered: None,
            login_place,
            expiry,
            facts,
            hello: None,
            generation: 0,
            is_shown: false,
            login,
            waiting: Vec::new(),
            activation: None,
            retry: None,
            place: Parent::default(),
            shared,
        })
    }

    /// Resumes a login in the state in which its editor left it. Its last holder has released it,
    /// or is gone and the grant with it: then web delivers again.
    pub(crate) fn resume(
        ticket: Ticket,
        handover: Option<Handover>,
        shared: Arc<Shared>,
    ) -> Result<Box<Self>, AuthErrorCode> {
        let facts = ticket.facts().ok_or(AuthErrorCode::BadTicket)?;
        let left = facts.created_at + facts.ttl - clock::now();

        // One that was handed over too late expires here, and its session with it.
        let left = Duration::try_from(left).unwrap_or_default();
        if handover.is_none() && left.is_zero() {
            return Err(AuthErrorCode::LoginOver);
        }

        let Handover {
            generation,
            state,
            listening,
            login_place,
        } = handover.unwrap_or(Handover {
            generation: 0,
            state: State::Waiting,
            listening: None,
            login_place: None,
        });
        let mut login_place = match login_place {
            Some(place) => place,
            None => shared
                .limits
                .login(facts.client_address, Instant::now())
                .map_err(|full| {
                    count(&shared.metrics.handshakes_refused, "reason", full.reason);
                    AuthErrorCode::NotReady
                })?,
        };

        // Its editor has said who it is.
        login_place.keep();
        let generation = generation.max(ticket.generation) + 1;
        let listening =
            listening.unwrap_or_else(|| shared.backplane.register(facts.id, generation));
        listening.0.raise(generation);
        let login = Login::resumed(ticket.binding, state);
        let mut attempt = Self::hold(
            facts,
            login,
            Instant::now() + left,
            listening,
            Some(login_place),
            shared,
        );
        attempt.generation = generation;
        attempt.hello = Some(Box::new(ticket.hello));

        // A relay that knows of the login may have shown it to a person.
        attempt.is_shown = true;

        Ok(attempt)
    }

    pub(crate) fn state(&self) -> &State {
        self.login.state()
    }

    pub(crate) fn binding(&self) -> Binding {
        self.login.binding()
    }

    /// Returns whether the editor has said nothing and nobody has looked at it.
    pub(crate) fn is_untouched(&self) -> bool {
        *self.state() == State::Waiting && !self.is_shown && self.hello.is_none()
    }

    /// Returns whether it failed.
    pub(crate) fn is_over(&self) -> bool {
        !self.state().is_unfinished() && self.state().receipt().is_none()
    }

    /// Returns whether it is over and nobody can be waiting for that, because it was never asked
    /// for.
    pub(crate) fn is_over_unseen(&self) -> bool {
        !self.is_shown && !self.state().is_unfinished()
    }

    /// Returns the frames that are due to an editor that has resumed its login.
    pub(crate) fn due(&self) -> Option<Action> {
        self.state().due()
    }

    pub(crate) fn editor(&self) -> Option<&Hello> {
        self.hello.as_deref()
    }

    /// Accepts the editor's introduction: once, and only before anybody was shown the login.
    pub(crate) fn hello(&mut self, hello: Hello) -> Result<(), AuthErrorCode> {
        if !self.is_untouched() || !self.keeps_place() {
            return Err(AuthErrorCode::TooLate);
        }
        self.login.bind(hello.binding());
        self.hello = Some(Box::new(hello));
        Ok(())
    }

    /// Records that somebody is interested in the login. Returns whether the login still has its
    /// place, which it then keeps; otherwise a newer login has it, and this one is about to be
    /// over.
    fn keeps_place(&mut self) -> bool {
        self.login_place.as_mut().is_none_or(LoginPlace::keep)
    }

    /// Returns the ticket with which the editor can move the login to another socket.
    pub(crate) fn ticket(&self) -> Option<Secret> {
        let hello = self.editor()?.clone();
        let ticket = Ticket::new(&self.facts, hello, self.binding(), self.generation);
        ticket.seal(&self.shared.keys.ticket).ok()
    }

    /// Checks a completion code from the editor.
    pub(crate) fn complete(&mut self, code: &Secret) -> Vec<Action> {
        let State::Held { grant, .. } = self.state() else {
            return self.apply(Event::Completed);
        };

        let is_right = self
            .shared
            .keys
            .is_completion_code(self.facts.id, grant.request_id, code);

        self.apply(if is_right {
            Event::Completed
        } else {
            Event::Miscompleted
        })
    }

    pub(crate) fn expires_at(&self) -> OffsetDateTime {
        self.facts.created_at + self.facts.ttl
    }

    /// Returns the position for the span of the push.
    pub(crate) fn place(&self) -> &Parent {
        &self.place
    }

    /// Returns when [`Attempt::on_timer`] is due; `None` when nothing is left to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let expiry = self
            .listening
            .is_some()
            .then_some(self.offered.unwrap_or(self.expiry));
        // An activation is waited for when all else is over. Its call ends before that by a
        // separate deadline.
        let activation = self
            .activation
            .as_ref()
            .map(|_| self.expiry + ACTIVATION_WINDOW * 2);
        expiry.into_iter().chain(self.retry).chain(activation).min()
    }

    /// Returns whether another relay may have it by now.
    pub(crate) fn is_offered(&self) -> bool {
        self.offered.is_some()
    }

    /// Returns whether the session still has to be activated.
    pub(crate) fn is_activating(&self) -> bool {
        matches!(self.state(), State::Activating(_))
            && (self.activation.is_some() || self.retry.is_some())
    }

    /// Returns whether its editor would lose it with its socket: it has no ticket, its token is on
    /// its way, or there is no other relay.
    pub(crate) fn is_tied(&self, is_alone: bool) -> bool {
        let is_stuck = is_alone || self.hello.is_none() || self.state().unacked().is_some();
        self.is_activating() || self.state().is_unfinished() && is_stuck
    }

    /// Resolves when something happened that concerns the socket.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Action>> {
        if self
            .login_place
            .as_mut()
            .is_some_and(|place| place.poll_lost(cx).is_ready())
        {
            return Poll::Ready(self.apply(Event::GaveWay));
        }

        if let Some(activation) = &mut self.activation
            && let Poll::Ready(result) = activation.as_mut().poll(cx)
        {
            self.activation = None;
            return Poll::Ready(self.activated(result));
        }

        let Some((_, mailbox)) = &mut self.listening else {
            return Poll::Pending;
        };

        match mailbox.poll_next_unpin(cx) {
            Poll::Ready(Some(envelope)) => Poll::Ready(self.answer(envelope)),
            // Somebody else has registered for it.
            Poll::Ready(None) => Poll::Ready(self.leave()),
            Poll::Pending => Poll::Pending,
        }
    }

    fn activated(&mut self, result: Result<(), NotActivated>) -> Vec<Action> {
        let Err(failure) = result else {
            return self.apply(Event::Activated(clock::now()));
        };

        let now = Instant::now();
        let again = failure == NotActivated::NotYet && now < self.expiry + ACTIVATION_WINDOW;
        self.retry = again.then_some(now + ACTIVATION_RETRY);
        if !again {
            return self.apply(Event::NotActivated);
        }

        for waiter in self.waiting.extract_if(.., |waiter| waiter.known.is_none()) {
            waiter.reply.send(Err(Refusal::SessionsDown)).ok();
        }

        Vec::new()
    }

    /// Call when [`Attempt::deadline`] has passed.
    pub(crate) fn on_timer(&mut self, now: Instant) -> Vec<Action> {
        if self.retry.is_some_and(|due| due <= now) {
            self.start_activation();
        }

        if self.offered.is_some_and(|due| due <= now) {
            self.offered = None;
        }

        if self.listening.is_none() || self.offered.is_some() || now < self.expiry {
            return Vec::new();
        }

        let actions = self.apply(Event::TimedOut);
        self.listening = None;
        for waiter in self.waiting.drain(..) {
            waiter.reply.send(Err(Refusal::Unknown)).ok();
        }

        actions
    }

    /// Runs the state machine and answers the waiters for the outcome. Returns the actions for the
    /// socket.
    pub(crate) fn apply(&mut self, event: Event) -> Vec<Action> {
        let before = self.login.phase();
        let mut actions = self.login.on(event);
        let phase = self.login.phase();
        if !self.state().is_unfinished() {
            self.login_place = None;
        }

        if phase != before {
            count(&self.shared.metrics.logins, "state", phase.as_str());
            tracing::info!(connection_id = %self.facts.id, state = phase.as_str(), "login");
        }

        for action in actions.extract_if(.., |action| action.is_for_sessions()) {
            if let Action::EndSession { session_id, reason } = action {
                let address = self.facts.client_address;
                self.shared
                    .authority
                    .end_pending(session_id, address, reason);
            } else {
                self.start_activation();
            }
        }

        self.settle();

        actions
    }

    fn start_activation(&mut self) {
        self.retry = None;
        if let (None, Some(receipt)) = (&self.activation, self.login.state().receipt()) {
            let span =
                tracing::info_span!(parent: None, "activate", connection_id = %self.facts.id);
            self.place.hang(&span);
            let authority = &self.shared.authority;
            let activation =
                authority.activate(receipt.session_id.clone(), self.facts.client_address);
            self.activation = Some(Box::pin(activation.instrument(span)));
        }
    }
}
