//! This relay's questions to others.

use std::time::Duration;

use async_nats::{StatusCode, Subscriber};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument as _, Span};
use vvs_proto::internal::backplane_answer::Answer as Wire;
use vvs_proto::internal::backplane_ask::Request as WireRequest;
use vvs_proto::internal::{BackplaneAnswer, BackplaneAsk};
use vvs_proto::{ConnectionId, timestamp};
use vvs_runtime::metrics::count;

use super::roll::Whereabouts;
use super::{ACCEPT_TIME, NatsLink, PATIENCE, headers};
use crate::backplane::message::{self, Direction};
use crate::backplane::{Answer, Request, Taken};
use crate::clock;
use crate::refusal::Refusal;

/// How long the outcome of an immediate request may take.
const OUTCOME_TIME: Duration = Duration::from_secs(2);
/// The pauses before asking again whether really nobody listens.
const ASK_AGAIN: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
];
/// How often a silent holder is asked for a login before it counts as gone.
const TAKE_TRIES: usize = 2;

/// Why a question has no outcome.
#[derive(Debug)]
enum Miss {
    /// Nobody listens.
    Nobody,
    /// Some client may listen and not answer, or has fallen silent.
    Silent,
    /// There is no connection.
    Down,
    /// Too many questions are under way.
    Full,
}

impl Miss {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Nobody => "unknown",
            Self::Silent => "silent",
            Self::Down => "down",
            Self::Full => "full",
        }
    }
}

impl NatsLink {
    pub(super) async fn ask(&self, id: ConnectionId, request: Request) -> Answer {
        let patience = if matches!(request, Request::Deny) {
            OUTCOME_TIME
        } else {
            PATIENCE
        };

        let span =
            tracing::info_span!("backplane_client", otel.kind = "client", connection_id = %id);
        let asking = self.question(id, message::request(id, request), patience);

        match asking.instrument(span).await {
            Ok((_, outcome)) => message::answered(outcome),
            Err(miss) => Err(self.refusal(&miss)),
        }
    }

    pub(super) async fn take_over(&self, id: ConnectionId) -> Taken {
        for _ in 0..TAKE_TRIES {
            let span =
                tracing::info_span!("backplane_client", otel.kind = "client", connection_id = %id);
            match self
                .question(id, message::take_over(), OUTCOME_TIME)
                .instrument(span)
                .await
            {
                Ok((generation, outcome)) => return message::taken(generation, outcome),
                Err(Miss::Silent) => {}
                Err(miss) => return Err(self.refusal(&miss)),
            }
        }

        // Its holder hangs, and lets go when it continues and learns of the new one; unless it is
        // us who hears nothing.
        Err(if self.echo().await {
            Refusal::Unknown
        } else {
            Refusal::BackplaneDown
        })
    }

    /// Converts a failed question. Silence is believed only after all relays have had the time to
    /// listen.
    fn refusal(&self, miss: &Miss) -> Refusal {
        let is_settled = self.line.borrow().is_settled();
        match miss {
            Miss::Nobody if is_settled => Refusal::Unknown,
            Miss::Full => Refusal::Overloaded,
            Miss::Nobody | Miss::Silent | Miss::Down => Refusal::BackplaneDown,
        }
    }

    async fn question(
        &self,
        id: ConnectionId,
        request: WireRequest,
        patience: Duration,
    ) -> Result<(u64, Wire), Miss> {
        let outcome = if let Ok(_place) = self.asks.try_acquire() {
            self.question_again(id, request, patience).await
        } else {
            self.reached.tell("VVS_RELAY_MAX_ASKS");
            Err(Miss::Full)
        };

        count(
            &self.requests,
            "outcome",
            outcome.as_ref().map_or_else(Miss::as_str, |_| "answered"),
        );
        outcome
    }

    /// Asks again before silence is believed, and then asks all relays.
    async fn question_again(
        &self,
        id: ConnectionId,
        request: WireRequest,
        patience: Duration,
    ) -> Result<(u64, Wire), Miss> {
        let mut outcome = Err(Miss::Nobody);
        for pause in ASK_AGAIN {
            tokio::time::sleep(pause).await;
            outcome = self
                .question_once(id, request.clone(), patience, true)
                .await;
            if !matches!(outcome, Err(Miss::Nobody)) {
                break;
            }
        }

        match outcome {
            Err(miss @ (Miss::Nobody | Miss::Silent)) => match (self.find(id).await, miss) {
                // Somebody listens under its subject who is no relay.
                (Whereabouts::Nowhere, _) => Err(Miss::Nobody),
                // Somebody says that nobody listens who is no broker; or it was on its way from one
                // relay to another.
                (Whereabouts::Somewhere, Miss::Nobody) => {
                    self.question_once(id, request, patience, false).await
                }
                (Whereabouts::Somewhere | Whereabouts::Unsaid, miss) => Err(miss),
            },
            outcome => outcome,
        }
    }

    /// Asks once. `trusts_broker`: whether the broker's word that nobody listens counts; any client
    /// that knows the inbox can send it too.
    async fn question_once(
        &self,
        id: ConnectionId,
        request: WireRequest,
        patience: Duration,
        trusts_broker: bool,
    ) -> Result<(u64, Wire), Miss> {
        let mut line = self.line.clone();
        // What is published without a connection is kept, and sent when nobody waits for it any
        // longer.
        if !line.borrow().is_up {
            return Err(Miss::Down);
        }

        let subject = message::subject(id);
        let message_id = message::message_id().ok_or(Miss::Down)?;

        let exchange = self.exchange(&subject, &message_id, request, patience, trusts_broker);
        tokio::select! {
            outcome = exchange => outcome,
            // The answer may be lost with the connection.
            _ = line.wait_for(|line| !line.is_up) => Err(Miss::Down),
        }
    }

    async fn exchange(
        &self,
        subject: &str,
        message_id: &str,
        request: WireRequest,
        patience: Duration,
        trusts_broker: bool,
    ) -> Result<(u64, Wire), Miss> {
        let drop_after = Some(timestamp::exact(clock::now() + ACCEPT_TIME));
        let ask = BackplaneAsk {
            drop_after,
            request: Some(request),
        };
        let sealed = message::seal(&self.keys, Direction::Ask, subject, message_id, &ask)
            .ok_or(Miss::Down)?;
        let mut due = Instant::now() + ACCEPT_TIME;
        let sending = async {
            let inbox = self.client.new_inbox();
            let answers = self.client.subscribe(inbox.clone()).await.ok()?;
            let headers = headers(message_id, Some(&Span::current()));
            self.client
                .publish_with_reply_and_headers(subject.to_owned(), inbox, headers, sealed.into())
                .await
                .ok()?;
            Some(answers)
        };

        let sent = timeout_at(due, sending).await.ok().flatten();
        let mut answers: Subscriber = sent.ok_or(Miss::Down)?;
        let mut generation = 0;
        while let Ok(message) = timeout_at(due, answers.next()).await {
            let message = message.ok_or(Miss::Down)?;
            // A relay that was stopped meanwhile finds it waiting, and others have gone on without
            // us.
            if Instant::now() > due {
                break;
            }

            if message.status == Some(StatusCode::NO_RESPONDERS) {
                if trusts_broker {
                    return Err(Miss::Nobody);
                }
                continue;
            }

            let opened = message::open(
                &self.keys,
                Direction::Answer,
                subject,
                message_id,
                &message.payload,
            );
            let Some(BackplaneAnswer {
                generation: answered,
                answer: Some(answer),
            }) = opened
            else {
                count(&self.dropped, "reason", "unreadable");
                continue;
            };

            // From an old holder that does not know of the new one yet.
            if answered < generation {
                continue;
            }

            generation = answered;

            match answer {
                Wire::Accepted(_) => due = Instant::now() + patience,
                Wire::View(_) | Wire::Refusal(_) | Wire::Handover(_) => {
                    return Ok((generation, answer));
                }
            }
        }

        Err(Miss::Silent)
    }

    /// Returns whether published messages arrive.
    async fn echo(&self) -> bool {
        let echo = async {
            let inbox = self.client.new_inbox();
            let mut echoes = self.client.subscribe(inbox.clone()).await.ok()?;
            self.client.publish(inbox, "".into()).await.ok()?;
            echoes.next().await
        };
        timeout(ACCEPT_TIME, echo)
            .await
            .is_ok_and(|echo| echo.is_some())
    }
}
