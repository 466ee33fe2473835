//! Other relays' questions to this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use axum::http;
use futures_channel::oneshot;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::{Instrument as _, Span};
use vvs_proto::internal::backplane_answer::Answer as Wire;
use vvs_proto::internal::backplane_ask::Request as WireRequest;
use vvs_proto::internal::{BackplaneAccepted, BackplaneAnswer, BackplaneAsk, BackplaneClaim};
use vvs_proto::{ConnectionId, timestamp};
use vvs_runtime::metrics::count;
use vvs_runtime::trace;

use super::{MESSAGE_ID, NatsLink, PATIENCE, headers};
use crate::backplane::Envelope;
use crate::backplane::message::{self, Direction};
use crate::clock;
use crate::refusal::Refusal;

/// How long after its acceptance a question may still be acted on: a socket that is being closed
/// takes a second. It is shorter than the time in which another relay takes a login from a holder
/// that hangs, so that no relay acts on a login that is no longer its own.
const ACT_TIME: Duration = Duration::from_secs(1);

impl NatsLink {
    /// Receives the questions about one login, as long as it is held here.
    pub(super) async fn listen(self: Arc<Self>, id: ConnectionId, generation: Arc<AtomicU64>) {
        let subject = message::subject(id);
        let Ok(mut messages) = self.client.subscribe(subject.clone()).await else {
            return;
        };

        let mut line = self.line.clone();
        line.mark_unchanged();

        // Behind the subscription on one connection: a relay that receives this reaches this relay.
        if generation.load(Ordering::Relaxed) > 0 {
            self.claim(&subject, &generation).await;
        }

        loop {
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return };
                    self.hear(id, &subject, &generation, message).await;
                }
                Ok(()) = line.changed() => {
                    // Somebody may have taken the login over meanwhile.
                    if line.borrow_and_update().is_up {
                        self.claim(&subject, &generation).await;
                    }
                }
            }
        }
    }

    async fn claim(&self, subject: &str, generation: &AtomicU64) {
        let claim = BackplaneClaim {
            generation: generation.load(Ordering::Relaxed),
            holder: self.holder.clone(),
        };
        let Some(message_id) = message::message_id() else {
            return;
        };

        if let Some(sealed) =
            message::seal(&self.keys, Direction::Claim, subject, &message_id, &claim)
        {
            let headers = headers(&message_id, None);
            self.client
                .publish_with_headers(subject.to_owned(), headers, sealed.into())
                .await
                .ok();
        }
    }

    async fn hear(
        self: &Arc<Self>,
        id: ConnectionId,
        subject: &str,
        generation: &Arc<AtomicU64>,
        message: Message,
    ) {
        let message_id = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(MESSAGE_ID));
        let message_id = message_id
            .map(|id| id.as_str().to_owned())
            .unwrap_or_default();
        let sealed = &message.payload;
        let Some(inbox) = message.reply else {
            let Some(claim) =
                message::open(&self.keys, Direction::Claim, subject, &message_id, sealed)
            else {
                return count(&self.dropped, "reason", "unreadable");
            };
            return self.hear_claim(id, subject, generation, &claim).await;
        };

        let ask: Option<BackplaneAsk> =
            message::open(&self.keys, Direction::Ask, subject, &message_id, sealed);
        let Some(BackplaneAsk {
            drop_after,
            request: Some(request),
        }) = ask
        else {
            return count(&self.dropped, "reason", "unreadable");
        };

        let drop_after = timestamp::read(drop_after).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        if drop_after < clock::now() {
            tracing::debug!(connection_id = %id, "a message of another relay came too late");
            return count(&self.dropped, "reason", "late");
        }

        let Ok(place) = self.answers.clone().try_acquire_owned() else {
            self.reached.tell("VVS_RELAY_MAX_ANSWERS");
            return count(&self.dropped, "reason", "full");
        };

        let span =
            tracing::info_span!("backplane_server", otel.kind = "server", connection_id = %id);
        adopt(&span, message.headers.as_ref());

        // Before anything else is heard, so that requests and claims stay in their order.
        let outcome = span.in_scope(|| self.put(id, request, drop_after + ACT_TIME));
        let back = Back {
            inbox: inbox.into_string(),
            subject: subject.to_owned(),
            message_id,
            generation: generation.clone(),
        };
        let link = self.clone();
        let replying = async move {
            link.reply(back, outcome).await;
            drop(place);
        };

        self.tasks.spawn(replying.instrument(span));
    }

    /// Makes two holders of one login agree on one of them.
    async fn hear_claim(
        &self,
        id: ConnectionId,
        subject: &str,
        generation: &AtomicU64,
        claim: &BackplaneClaim,
    ) {
        let ours = generation.load(Ordering::Relaxed);
        if claim.holder == self.holder {
            return;
        }

        if (claim.generation, &claim.holder) > (ours, &self.holder) {
            // It waits as long as its task does not keep up.
            while matches!(
                self.local.send(id, Envelope::Claimed),
                Err(Refusal::Draining)
            ) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } else {
            self.claim(subject, generation).await;
        }
    }

    /// Puts a request to the login.
    fn put(
        &self,
        id: ConnectionId,
        request: WireRequest,
        drop_after: OffsetDateTime,
    ) -> BoxFuture<'static, Wire> {
        let refused = |refusal| -> BoxFuture<'static, Wire> {
            Box::pin(async { message::answer(Err(refusal)) })
        };
        let request = match message::requested(request) {
            Ok(Some(request)) => request,
            Ok(None) => {
                let (reply, taken) = oneshot::channel();
                return match self.local.send(id, Envelope::Offer { reply, drop_after }) {
                    Ok(()) => Box::pin(async move {
                        message::handover(id, taken.await.unwrap_or(Err(Refusal::Away)))
                    }),
                    Err(refusal) => refused(refusal),
                };
            }
            Err(refusal) => return refused(refusal),
        };

        let (reply, answer) = oneshot::channel();
        let place = trace::Parent::current();

        match self.local.send(
            id,
            Envelope::Ask {
                request,
                reply,
                place,
                drop_after: Some(drop_after),
            },
        ) {
            Ok(()) => {
                Box::pin(
                    async move { message::answer(answer.await.unwrap_or(Err(Refusal::Unknown))) },
                )
            }
            Err(refusal) => refused(refusal),
        }
    }

    /// Immediately confirms that the question has arrived, and sends the outcome when it is known.
    async fn reply(&self, back: Back, outcome: BoxFuture<'static, Wire>) {
        self.say(&back, Wire::Accepted(BackplaneAccepted {})).await;
        if let Ok(outcome) = timeout(PATIENCE, outcome).await {
            self.say(&back, outcome).await;
            self.client.flush().await.ok();
        }
    }

    async fn say(&self, back: &Back, answer: Wire) {
        let generation = back.generation.load(Ordering::Relaxed);
        let answer = BackplaneAnswer {
            generation,
            answer: Some(answer),
        };
        let is_up = self.line.borrow().is_up;
        let sealed = message::seal(
            &self.keys,
            Direction::Answer,
            &back.subject,
            &back.message_id,
            &answer,
        );

        if let Some(sealed) = sealed.filter(|_| is_up) {
            self.client
                .publish(back.inbox.clone(), sealed.into())
                .await
                .ok();
        }
    }
}

/// The target of an answer, and its question.
struct Back {
    inbox: String,
    subject: String,
    message_id: String,
    generation: Arc<AtomicU64>,
}

fn adopt(span: &Span, headers: Option<&HeaderMap>) {
    let mut context = http::HeaderMap::new();
    for name in trace::HEADERS {
        let value = headers
            .and_then(|headers| headers.get(name))
            .and_then(|value| value.as_str().parse().ok());
        if let Some(value) = value {
            context.insert(name, value);
        }
    }
    trace::adopt(span, &context);
}
