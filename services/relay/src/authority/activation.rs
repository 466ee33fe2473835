//! Activations on their way to sessions. Those that gather while calls are under way go with the
//! next one: with a separate call for each, the calls would be most of the cost of a delivery when
//! there are many.

use std::net::IpAddr;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt as _;
use tracing::{Instrument as _, Span};
use vvs_runtime::trace;

use super::{Client, NotActivated};

/// The maximum number of simultaneous calls: while one of them waits for a member that does not
/// answer, the other continues.
const CALLS: usize = 2;
/// Sessions in one call: the maximum that it accepts.
const MOST: usize = 100;

/// One session to activate.
struct Wish {
    session_id: String,
    address: IpAddr,
    /// The span that waits for it.
    span: Span,
    reply: oneshot::Sender<Result<(), NotActivated>>,
}

/// The queue of activations.
#[derive(Clone)]
pub(super) struct Activations(mpsc::UnboundedSender<Wish>);

impl Activations {
    /// Creates the queue, and the task that carries activations to sessions until the last handle
    /// is gone. Each login has at most one that waits. An activation is sent even if nobody waits
    /// for it any longer, because its editor has its token.
    pub(super) fn new(client: Client) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, wishes) = mpsc::unbounded();
        let carrying = async move {
            let calls = wishes.ready_chunks(MOST).map(|some| carry(&client, some));
            calls.buffer_unordered(CALLS).collect::<()>().await;
        };
        (Self(sender), carrying)
    }

    /// Tells sessions that the editor of this session, at this address, has its token.
    pub(super) async fn activate(
        &self,
        session_id: String,
        address: IpAddr,
    ) -> Result<(), NotActivated> {
        let (reply, answer) = oneshot::channel();

        // Nobody takes it, or it is lost with this process; the editor makes up for it when it
        // comes back.
        self.0
            .unbounded_send(Wish {
                session_id,
                address,
                span: Span::current(),
                reply,
            })
            .ok();

        answer.await.unwrap_or(Err(NotActivated::NotYet))
    }
}

/// Makes one call.
async fn carry(client: &Client, wishes: Vec<Wish>) {
    let Some(Wish { span, .. }) = wishes.first() else {
        return;
    };

    let span = span.clone();
    trace::link(wishes.iter().skip(1).map(|wish| &wish.span), &span);
    let asked = wishes
        .iter()
        .map(|wish| (wish.session_id.as_str(), wish.address));
    let answer = client.activate(asked).instrument(span).await;
    if let Err(cause) = &answer {
        tracing::warn!(
            code = cause.code,
            reason = cause.reason,
            sessions = wishes.len(),
            "sessions were not activated"
        );
    }

    for Wish {
        session_id, reply, ..
    } in wishes
    {
        let outcome = match &answer {
            Err(_) => Err(NotActivated::NotYet),
            Ok(not_activated) => match not_activated.get(&session_id) {
                None => Ok(()),
                Some(reason) => {
                    tracing::warn!(session_id, reason, "the session was not activated");
                    Err(verdict(reason))
                }
            },
        };

        // A caller that no longer waits has lost nothing.
        reply.send(outcome).ok();
    }
}

fn verdict(reason: &str) -> NotActivated {
    match reason {
        "SESSION_UNKNOWN" | "SESSION_EXPIRED" | "SESSION_REVOKED" => NotActivated::Never,
        _ => NotActivated::NotYet,
    }
}
