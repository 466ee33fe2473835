//! Keeps up with sessions: fetches its keys regularly, and listens to its revocations. Both
//! continue forever.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use vvs_auth::token::JwkSet;

use super::Terms;
use super::client::{Client, Unanswered};
use super::known::{Known, News};
use crate::clock;
use crate::pause::backoff;

/// The first pause after a failure, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Fetches the keys, regularly and when a token names an unknown key.
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
    let keys = client.signing_keys().await.map_err(|cause| cause.code)?;
    let keys: JwkSet = serde_json::from_str(&keys).map_err(|_cause| "not a key set")?;
    if keys.keys.is_empty() {
        return Err("no keys");
    }
    known.set_keys(&keys);
    Ok(())
}

/// Listens to the feed, from the number where it was cut off.
pub(super) async fn feed(known: Arc<Known>, client: Client) {
    let mut failures = 0;
    loop {
        let (cause, came_to_the_end) = listen(&known, &client).await;
        known.disconnected(cause.is_gone);
        failures = if came_to_the_end { 0 } else { failures + 1 };
        tracing::warn!(code = cause.code, "the feed of revocations was cut off");
        sleep(backoff(PAUSE, failures)).await;
    }
}

/// Returns why the stream ended, and whether its snapshot was complete.
async fn listen(known: &Known, client: &Client) -> (Unanswered, bool) {
    let mut complete = false;
    let (sequence, database_id) = known.heard_to();
    let mut told = match client.watch(sequence, database_id).await {
        Ok(told) => told,
        Err(cause) => return (cause, complete),
    };

    loop {
        let (news, database_id) = match told.next().await {
            Ok(next) => next,
            Err(cause) => return (cause, complete),
        };
        known.note_database(&database_id);
        for news in news.into_iter().flatten() {
            complete |= matches!(news, News::CaughtUp(_));
            known.take(news, clock::now().unix_timestamp());
        }
    }
}
