//! One login while it is held: its state, who waits for it, and its activation. It outlives the socket, because what
//! became of a login is answered until its time is over, and an editor that closes right behind its acknowledgement is
//! signed in all the same.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Instrument as _;
use vvs_runtime::metrics::{Counters, count};
use vvs_runtime::trace::Place;

use crate::backplane::{Answer, Backplane, Envelope, Mailbox, Registration, Request, View};
use crate::id::ConnectionId;
use crate::login::{Action, Event, Grant, Phase, State};
use crate::refusal::Refusal;

/// How long after a failed activation the next one is tried.
const ACTIVATION_RETRY: Duration = Duration::from_secs(2);
/// How long activation is tried at all: a pending session is swept after that.
const ACTIVATION_WINDOW: Duration = Duration::from_mins(90);

/// The sessions role did not activate the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotActivated {
    /// It does not answer; it may later.
    NotYet,
    /// The session is unknown to it, or over.
    Never,
}

type Activation = Pin<Box<dyn Future<Output = Result<(), NotActivated>> + Send>>;
/// Tells the sessions role that the editor of this session has its token.
pub(crate) type Activate = Arc<dyn Fn(String) -> Activation + Send + Sync>;

/// What is fixed about a login from its start.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) id: ConnectionId,
    pub(crate) user_code: String,
    /// What proofs on this socket are made over: 16 random bytes, base64url.
    pub(crate) nonce: String,
    pub(crate) client_address: IpAddr,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) ttl: Duration,
    /// Whether this editor can reach the minimum binding that the server asks for.
    pub(crate) can_bind: bool,
}

struct Waiter {
    /// `None`: waits for the outcome of a delivery.
    known: Option<Phase>,
    reply: oneshot::Sender<Answer>,
}

impl Waiter {
    /// A look waits for any change, a delivery for an end.
    fn is_due(&self, phase: Phase) -> bool {
        self.known.map_or(!matches!(phase, Phase::Waiting | Phase::Sent), |known| known != phase)
    }
}

/// A login and everything that waits for it.
pub(crate) struct Attempt {
    pub(crate) facts: Facts,
    state: State,
    listening: Option<(Registration, Mailbox)>,
    waiting: Vec<Waiter>,
    expiry: Instant,
    activation: Option<Activation>,
    retry: Option<Instant>,
    /// Where the delivery hangs in its trace, and the push and the activation with it.
    place: Place,
    activate: Activate,
    phases: Counters,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Attempt {
    /// Starts a login and makes it known to the backplane.
    pub(crate) fn open(facts: Facts, backplane: &dyn Backplane, activate: Activate, phases: Counters) -> Box<Self> {
        count(&phases, "state", Phase::Waiting.as_str());
        // On the heap: it moves from task to task, and each would have room for it.
        Box::new(Self {
            listening: Some(backplane.register(facts.id)),
            expiry: Instant::now() + facts.ttl,
            facts,
            state: State::Waiting,
            waiting: Vec::new(),
            activation: None,
            retry: None,
            place: Place::default(),
            activate,
            phases,
        })
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn expires_at(&self) -> OffsetDateTime {
        self.facts.created_at + self.facts.ttl
    }

    /// Where to hang the push.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// When [`Attempt::on_timer`] is due; `None` when nothing is left to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let expiry = self.listening.is_some().then_some(self.expiry);
        expiry.into_iter().chain(self.retry).min()
    }

    /// Whether the session still has to be activated.
    pub(crate) fn is_activating(&self) -> bool {
        matches!(self.state, State::Activating(_)) && (self.activation.is_some() || self.retry.is_some())
    }

    /// Resolves when something happened that concerns the socket.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Action>> {
        if let Some(activation) = &mut self.activation
            && let Poll::Ready(result) = activation.as_mut().poll(cx)
        {
            self.activation = None;
            return Poll::Ready(self.activated(result));
        }
        if let Some((_, mailbox)) = &mut self.listening
            && let Poll::Ready(Some(envelope)) = mailbox.poll_next_unpin(cx)
        {
            return Poll::Ready(self.answer(envelope));
        }
        Poll::Pending
    }

    fn activated(&mut self, result: Result<(), NotActivated>) -> Vec<Action> {
        let Err(failure) = result else { return self.apply(Event::Activated(OffsetDateTime::now_utc())) };
        let now = Instant::now();
        let again = failure == NotActivated::NotYet && now < self.expiry + ACTIVATION_WINDOW;
        self.retry = again.then_some(now + ACTIVATION_RETRY);
        for waiter in self.waiting.extract_if(.., |waiter| waiter.known.is_none()) {
            let refusal = if again { Refusal::SessionsDown } else { Refusal::Over };
            waiter.reply.send(Err(refusal)).ok();
        }
        Vec::new()
    }

    /// Call when [`Attempt::deadline`] has passed.
    pub(crate) fn on_timer(&mut self, now: Instant) -> Vec<Action> {
        if self.retry.is_some_and(|due| due <= now) {
            self.start_activation();
        }
        if self.listening.is_none() || now < self.expiry {
            return Vec::new();
        }
        let actions = self.apply(Event::TimedOut);
        self.listening = None;
        for waiter in self.waiting.drain(..) {
            waiter.reply.send(Err(Refusal::Unknown)).ok();
        }
        actions
    }

    /// Runs the machine and answers whoever waited for the outcome. What is returned is the socket's to do.
    pub(crate) fn apply(&mut self, event: Event) -> Vec<Action> {
        let before = self.state.phase();
        let (state, mut actions) = std::mem::replace(&mut self.state, State::Waiting).on(event);
        self.state = state;
        if self.state.phase() != before {
            count(&self.phases, "state", self.state.phase().as_str());
            tracing::info!(connection_id = %self.facts.id, state = self.state.phase().as_str(), "login");
        }
        if actions.contains(&Action::Activate) {
            actions.retain(|action| *action != Action::Activate);
            self.start_activation();
        }
        self.settle();
        actions
    }

    fn start_activation(&mut self) {
        self.retry = None;
        if let (None, Some(receipt)) = (&self.activation, self.state.receipt()) {
            let span = tracing::info_span!(parent: None, "activate", connection_id = %self.facts.id);
            self.place.hang(&span);
            let activation = (self.activate)(receipt.session_id.clone());
            self.activation = Some(Box::pin(activation.instrument(span)));
        }
    }

    fn answer(&mut self, Envelope { request, reply, place }: Envelope) -> Vec<Action> {
        if !self.facts.can_bind {
            reply.send(Err(Refusal::EditorCannotBind)).ok();
            return Vec::new();
        }
        match request {
            Request::Look { known } if known == Some(self.state.phase()) => {
                self.wait(Waiter { known, reply });
                Vec::new()
            }
            Request::Look { .. } => {
                reply.send(Ok(self.view())).ok();
                Vec::new()
            }
            Request::Deny => {
                let actions = self.apply(Event::Denied);
                reply.send(self.after_denial()).ok();
                actions
            }
            Request::Deliver(grant) => self.deliver(grant, reply, place),
        }
    }

    fn deliver(&mut self, grant: Box<Grant>, reply: oneshot::Sender<Answer>, place: Place) -> Vec<Action> {
        let refusal = match &self.state {
            State::Waiting => None,
            State::Sent(_) | State::Activating(_) | State::Acked(..) => {
                (!self.state.took(&grant)).then_some(Refusal::Claimed)
            }
            State::Denied | State::Cancelled => Some(Refusal::Over),
            State::Refused => Some(Refusal::EditorRefused),
            State::Expired => Some(Refusal::Unknown),
        };
        if let Some(refusal) = refusal {
            reply.send(Err(refusal)).ok();
            return Vec::new();
        }
        self.place = place;
        let actions = self.apply(Event::Approved(grant));
        self.wait(Waiter { known: None, reply });
        self.settle();
        actions
    }

    /// Waiters whose callers have given up make room.
    fn wait(&mut self, waiter: Waiter) {
        self.waiting.retain(|waiter| !waiter.reply.is_canceled());
        self.waiting.push(waiter);
    }

    fn after_denial(&self) -> Answer {
        match self.state {
            State::Denied => Ok(self.view()),
            State::Waiting | State::Sent(_) | State::Activating(_) | State::Acked(..) => Err(Refusal::Claimed),
            State::Cancelled | State::Refused => Err(Refusal::Over),
            State::Expired => Err(Refusal::Unknown),
        }
    }

    /// Answers the waiters whose time has come.
    fn settle(&mut self) {
        let phase = self.state.phase();
        let mut waiting = std::mem::take(&mut self.waiting);
        for waiter in waiting.extract_if(.., |waiter| waiter.is_due(phase)) {
            let answer = match &self.state {
                _ if waiter.known.is_some() => Ok(self.view()),
                State::Cancelled | State::Denied => Err(Refusal::Over),
                State::Refused => Err(Refusal::EditorRefused),
                State::Expired => Err(Refusal::Unknown),
                State::Waiting | State::Sent(_) | State::Activating(_) | State::Acked(..) => Ok(self.view()),
            };
            waiter.reply.send(answer).ok();
        }
        self.waiting = waiting;
    }

    fn view(&self) -> View {
        let acked_at = if let State::Acked(_, at) = self.state { Some(at) } else { None };
        View {
            phase: self.state.phase(),
            user_code: self.facts.user_code.clone(),
            client_address: self.facts.client_address,
            created_at: self.facts.created_at,
            expires_at: self.expires_at(),
            acked_at,
        }
    }
}
