//! Finds the login that a call is about: the holder of a login listens under its id, and answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::{mpsc, oneshot};
use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use vvs_proto::{ConnectionId, Phase};
use vvs_runtime::trace::Parent;

use crate::limit::LoginPlace;
use crate::login::{Grant, State};
use crate::refusal::Refusal;
use crate::view::View;

mod message;
mod nats;

pub use nats::NatsError;
pub(crate) use nats::{Broker, LinkState, Nats};

/// The maximum number of requests that wait for one login's task.
const MAILBOX: usize = 16;

/// A question to a login.
#[derive(Debug)]
pub(crate) enum Request {
    /// Answers as soon as the phase differs from the known one.
    Look {
        known: Option<Phase>,
    },
    /// Answers when the editor has the token and the session is active, or when that has failed.
    Deliver(Box<Grant>),
    Deny,
}

/// One answer to one request.
pub(crate) type Answer = Result<View, Refusal>;

/// The data that the holder of a login gives to the socket that takes it over.
#[derive(Debug)]
pub(crate) struct Handover {
    /// How often the login had changed sockets.
    pub(crate) generation: u64,
    /// Unfinished.
    pub(crate) state: State,
    /// Its registration at the backplane with all messages that wait there, so that none is lost
    /// between the two sockets, and so that tries for a code are never forgotten when two sockets
    /// resume at the same time. `None` when it comes from another relay, which keeps the login
    /// until this one has registered for it.
    pub(crate) listening: Option<(Registration, Mailbox)>,
    /// Its place among the logins of its address, on the same relay.
    pub(crate) login_place: Option<LoginPlace>,
}

/// The holder's answer to a socket that wants the login.
pub(crate) type Taken = Result<Handover, Refusal>;

/// A message to a login's task.
pub(crate) enum Envelope {
    /// A request, the channel for its answer, its position in a trace, and until when it may be
    /// acted on.
    Ask {
        request: Request,
        reply: oneshot::Sender<Answer>,
        place: Parent,
        drop_after: Option<OffsetDateTime>,
    },
    /// The editor is on another socket of this relay now.
    TakeOver(oneshot::Sender<Taken>),
    /// The editor is on another relay now, which claims the login when it has it.
    Offer {
        reply: oneshot::Sender<Taken>,
        drop_after: OffsetDateTime,
    },
    /// Another relay has the login.
    Claimed,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask { request, .. } => request.fmt(f),
            Self::TakeOver(_) => f.write_str("TakeOver"),
            Self::Offer { .. } => f.write_str("Offer"),
            Self::Claimed => f.write_str("Claimed"),
        }
    }
}

/// Where a login's requests arrive.
pub(crate) type Mailbox = mpsc::Receiver<Envelope>;

/// Finds logins, on this relay and on others.
pub(crate) trait Backplane: fmt::Debug + Send + Sync {
    /// Listens for one login until the registration is dropped. Any other holder with a lower
    /// generation drops the login.
    fn register(&self, id: ConnectionId, generation: u64) -> (Registration, Mailbox);

    /// Asks the holder of the login; [`Refusal::Unknown`] when nobody holds it,
    /// [`Refusal::BackplaneDown`] when that cannot be determined.
    fn ask(&self, id: ConnectionId, request: Request) -> BoxFuture<'_, Answer>;

    /// Makes the holder release the login; [`Refusal::Unknown`] when nobody holds it,
    /// [`Refusal::Over`] when it can no longer be taken over.
    fn take_over(&self, id: ConnectionId) -> BoxFuture<'static, Taken>;
}

/// A login's registration under its id; dropping it takes the login off the backplane.
pub(crate) struct Registration {
    /// How often the login has changed sockets.
    generation: Arc<AtomicU64>,
    remove: Option<Box<dyn FnOnce() + Send>>,
}

impl Registration {
    /// Sets the new generation after the login has changed sockets.
    pub(crate) fn raise(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registration")
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(remove) = self.remove.take() {
            remove();
        }
    }
}

/// The backplane of a single relay.
#[derive(Debug, Default, Clone)]
pub(crate) struct LocalBackplane(Arc<Mutex<Logins>>);

#[derive(Debug, Default)]
struct Logins {
    registrations: u64,
    held: HashMap<ConnectionId, (u64, mpsc::Sender<Envelope>)>,
}

impl Backplane for LocalBackplane {
    fn register(&self, id: ConnectionId, generation: u64) -> (Registration, Mailbox) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let mut logins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logins.registrations += 1;
        let number = logins.registrations;
        logins.held.insert(id, (number, sender));
        let shared = self.0.clone();
        let remove = move || {
            // Only this registration, so that a late guard never removes its successor.
            let mut logins = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if let Entry::Occupied(held) = logins.held.entry(id)
                && held.get().0 == number
            {
                held.remove();
            }
        };
        let generation = Arc::new(AtomicU64::new(generation));

        (
            Registration {
                generation,
                remove: Some(Box::new(remove)),
            },
            mailbox,
        )
    }

    fn ask(&self, id: ConnectionId, request: Request) -> BoxFuture<'_, Answer> {
        let (reply, answer) = oneshot::channel();
        let envelope = Envelope::Ask {
            request,
            reply,
            place: Parent::current(),
            drop_after: None,
        };
        let sent = self.send(id, envelope);

        Box::pin(async move {
            sent?;
            // Dropped without an answer: the login went away while it was asked.
            answer.await.unwrap_or(Err(Refusal::Unknown))
        })
    }

    fn take_over(&self, id: ConnectionId) -> BoxFuture<'static, Taken> {
        let (reply, answer) = oneshot::channel();
        let sent = self.send(id, Envelope::TakeOver(reply));
        Box::pin(async move {
            sent?;
            answer.await.unwrap_or(Err(Refusal::Unknown))
        })
    }
}

impl LocalBackplane {
    fn holds(&self, id: ConnectionId) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .held
            .contains_key(&id)
    }

    fn send(&self, id: ConnectionId, envelope: Envelope) -> Result<(), Refusal> {
        let mut logins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, sender) = logins.held.get_mut(&id).ok_or(Refusal::Unknown)?;
        // Full: its task does not keep up, so come back later, as when it drains.
        sender.try_send(envelope).map_err(|cause| {
            if cause.is_full() {
                Refusal::Draining
            } else {
                Refusal::Unknown
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_late_guard_never_removes_its_successor() {
        let backplane = LocalBackplane::default();
        let id = ConnectionId::mint();
        let (old, _old_mailbox) = backplane.register(id, 0);
        let (_new, mut mailbox) = backplane.register(id, 0);
        drop(old);
        let asking = backplane.ask(id, Request::Look { known: None });
        let answering = async {
            let Some(Envelope::Ask { reply, .. }) = mailbox.next().await else {
                panic!("nothing was asked")
            };
            reply.send(Err(Refusal::Over)).unwrap();
        };

        let (answer, ()) = tokio::join!(asking, answering);
        assert!(matches!(answer, Err(Refusal::Over)));
    }

    #[tokio::test]
    async fn a_login_that_nobody_holds_is_unknown() {
        let backplane = LocalBackplane::default();
        let id = ConnectionId::mint();
        assert!(matches!(
            backplane.ask(id, Request::Deny).await,
            Err(Refusal::Unknown)
        ));
        drop(backplane.register(id, 0));
        assert!(matches!(
            backplane.ask(id, Request::Deny).await,
            Err(Refusal::Unknown)
        ));
    }
}
