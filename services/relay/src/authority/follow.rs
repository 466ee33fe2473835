//! Keeps up with sessions: fetches its keys now and then, and listens to what it revokes. Both go
//! on for ever.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::{Code, Status};
use vvs_auth::token::JwkSet;
use vvs_proto::session::WatchRevocationsResponse;
use vvs_proto::session::watch_revocations_response::Event as WireEvent;
use vvs_runtime::trace;

use super::client::Client;
use super::known::{Event, Known};
use super::{Terms, backoff};

/// The first pause after a failure, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// A feed that says nothing for so long is dead: three heartbeats.
const SILENCE: Duration = Duration::from_secs(15);

/// Fetches the keys, at its interval and when somebody shows a token whose key is not known.
pub(super) async fn keys(known: Arc<Known>, client: Client, terms: Terms) {
    let mut failures = 0;
    loop {
        let earliest = Instant::now() + terms.keys_pause;
        match fetch(&known, &client).await {
            Ok(()) => failures = 0,
            Err(why) => {
                tracing::warn!(why, "the keys of sessions cannot be fetched");
                failures += 1;
            }
        }

        if known.has_keys() {
            // However many ask, and whether it went well or not.
            timeout_at(Instant::now() + terms.keys_interval, known.keys_wanted())
                .await
                .ok();
            sleep_until(earliest).await;
        } else {
            sleep(backoff(PAUSE, failures)).await;
        }
    }
}

async fn fetch(known: &Known, client: &Client) -> Result<(), &'static str> {
    let keys = client
        .signing_keys()
        .await
        .map_err(|status| trace::code_name(status.code()))?;
    let keys: JwkSet = serde_json::from_str(&keys).map_err(|_cause| "not a key set")?;
    if keys.keys.is_empty() {
        return Err("no keys");
    }
    known.set_keys(&keys);
    Ok(())
}

/// Listens to the feed, from where it was cut off.
pub(super) async fn feed(known: Arc<Known>, client: Client) {
    let mut failures = 0;
    loop {
        let (status, came_to_the_end) = listen(&known, &client).await;
        let is_gone = status.code() == Code::OutOfRange;
        known.disconnected(is_gone);
        failures = if came_to_the_end { 0 } else { failures + 1 };
        tracing::warn!(
            code = trace::code_name(status.code()),
            "the feed of revocations was cut off"
        );
        sleep(backoff(PAUSE, failures)).await;
    }
}

/// Why the stream ended, and whether its snapshot was complete.
async fn listen(known: &Known, client: &Client) -> (Status, bool) {
    let mut complete = false;
    let (sequence, database_id) = known.heard_to();
    let mut stream = match client.watch(sequence, database_id).await {
        Ok(stream) => stream,
        Err(status) => return (status, complete),
    };

    loop {
        let message = match timeout(SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return (Status::unavailable(""), complete),
            Ok(Err(status)) => return (status, complete),
            Err(_) => return (Status::deadline_exceeded(""), complete),
        };
        complete |= matches!(message.event, Some(WireEvent::CaughtUp(_)));
        known.note_database(&message.database_id);
        if let Some(event) = event(message) {
            known.take(event, OffsetDateTime::now_utc().unix_timestamp());
        }
    }
}

/// `None` for what this version does not know.
fn event(message: WatchRevocationsResponse) -> Option<Event> {
    Some(match message.event? {
        WireEvent::Revocation(revocation) => Event::Revoked {
            sequence: revocation.sequence,
            session_id: revocation.session_id,
            reason: revocation.reason,
            // Without its time it is kept.
            tokens_expire_at: revocation
                .tokens_expire_at
                .map_or(i64::MAX, |at| at.seconds),
        },
        WireEvent::CaughtUp(sequence) => Event::CaughtUp(sequence),
        WireEvent::Heartbeat(_) => Event::Heartbeat,
        WireEvent::PendingSince(at) => Event::PendingSince(at.seconds),
    })
}
