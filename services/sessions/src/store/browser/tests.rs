//! Which events end which sign-in, on both databases.

use std::time::Duration;

use super::*;
use crate::browser::Whose;
use crate::store::tests::{Location, approval, cause, count, on_both_databases, terms};

const NOW: Millis = 1_800_000_000_000;
const DAY: Duration = Duration::from_hours(24);
const MOST: u32 = 100;

fn whose(subject: &str, provider_session: &str) -> Whose {
    Whose::new(
        "dev".to_owned(),
        subject.to_owned(),
        provider_session.to_owned(),
    )
    .unwrap()
}

fn sign_in(id: &str, subject: &str, provider_session: &str, watermark: i64) -> SignIn {
    SignIn::new(
        id.to_owned(),
        whose(subject, provider_session),
        watermark.cast_unsigned(),
    )
    .unwrap()
}

fn end(id: &str, subject: &str, provider_session: &str) -> End {
    End::new(id.to_owned(), whose(subject, provider_session), DAY).unwrap()
}

impl Store {
    /// Ends these sign-ins. Returns whether there was room for the end.
    async fn end_at(&self, end: &End, now: Millis) -> bool {
        let full = || self.room.reached.times("VVS_SESSIONS_MAX_ENDED_SIGN_INS");
        let before = full();
        self.end_sign_ins(end, &cause("signed_out_by_user"), now)
            .await
            .unwrap();
        full() == before
    }

    async fn holds(&self, sign_in: &SignIn) -> bool {
        !self.has_ended(sign_in).await.unwrap()
    }
}

async fn a_sign_in_ends_by_its_id_and_nobody_elses_does(place: &Location) {
    let store = place.open().await;
    let watermark = store.watermark(None, NOW).await.unwrap();
    let hers = sign_in("a", "ada", "s-1", watermark);
    assert!(store.holds(&hers).await);

    for _ in 0..2 {
        assert!(store.end_at(&end("a", "ada", ""), NOW).await);
        assert!(!store.holds(&hers).await);
    }

    // Whatever its watermark says.
    assert!(
        !store
            .holds(&SignIn {
                watermark: i64::MAX,
                ..hers.clone()
            })
            .await
    );
    assert!(store.holds(&sign_in("b", "ada", "s-1", watermark)).await);

    let elsewhere = Whose {
        provider: "https://id.test".to_owned(),
        ..hers.whose.clone()
    };
    assert!(
        store
            .holds(&SignIn {
                whose: elsewhere,
                ..hers
            })
            .await
    );
    assert_eq!(
        count(&store, "SELECT count(*) FROM browser_ends").await,
        1,
        "the same end stands there twice"
    );
}

async fn what_a_provider_ends_ends_what_was_made_with_it_before_and_nothing_that_is_made_later(
    place: &Location,
) {
    let store = place.open().await;
    let before = store.watermark(None, NOW).await.unwrap();

    // The provider has named a subject, or none.
    for (subject, session) in [("ada", "s-1"), ("", "s-2")] {
        assert!(store.end_at(&end("", subject, session), NOW).await);
        assert!(
            !store.holds(&sign_in("a", "ada", session, before)).await,
            "{session}"
        );
        let after = store.watermark(None, NOW).await.unwrap();
        assert!(
            store.holds(&sign_in("a", "ada", session, after)).await,
            "{session}"
        );
    }

    assert!(store.holds(&sign_in("a", "ada", "s-3", before)).await);
    assert!(store.holds(&sign_in("a", "ada", "", before)).await);
}

async fn a_cut_off_ends_all_that_a_user_made_before_whatever_the_clocks_say(place: &Location) {
    let store = place.open().await;
    let before = store.watermark(None, NOW).await.unwrap();
    store.end_at(&end("", "ada", ""), NOW).await;
    assert!(!store.holds(&sign_in("a", "ada", "s-1", before)).await);
    assert!(store.holds(&sign_in("a", "bob", "s-1", before)).await);

    // In the same millisecond, and with a clock that has gone back.
    for now in [NOW, NOW - 5000] {
        let between = store.watermark(None, now).await.unwrap();
        assert!(
            store.holds(&sign_in("b", "ada", "s-1", between)).await,
            "who signs in right after is locked out"
        );
        store.end_at(&end("", "ada", ""), now).await;
        assert!(
            !store.holds(&sign_in("b", "ada", "s-1", between)).await,
            "a sign-in has outlived a cut-off"
        );
    }

    assert_eq!(count(&store, "SELECT count(*) FROM browser_ends").await, 1);
}

async fn a_sign_in_is_as_old_as_its_proof(place: &Location) {
    let store = place.open().await;
    store.end_at(&end("", "ada", "s-1"), NOW).await;
    let made_after = async |proof_age, now| {
        let watermark = store.watermark(Some(proof_age), now).await.unwrap();
        store.holds(&sign_in("a", "ada", "s-1", watermark)).await
    };
    assert!(
        !made_after(3001, NOW + 3000).await,
        "the proof was there before the end"
    );
    assert!(made_after(2999, NOW + 3000).await);
    assert_eq!(store.watermark(Some(Millis::MAX), NOW).await.unwrap(), 0);
}

async fn a_user_with_too_many_ends_has_one_that_ends_all(place: &Location) {
    let store = place.open().await;
    let watermark = store.watermark(None, NOW).await.unwrap();
    let (other, bob) = (
        sign_in("other", "ada", "s", watermark),
        sign_in("bob", "bob", "s", watermark),
    );
    for number in 0..MOST {
        assert!(
            store
                .end_at(&end(&number.to_string(), "ada", ""), NOW)
                .await
        );
    }

    assert!(
        store.end_at(&end("0", "ada", ""), NOW).await,
        "that one is known already"
    );
    assert!(store.holds(&other).await);

    for number in MOST..MOST + 3 {
        assert!(
            !store
                .end_at(&end(&number.to_string(), "ada", ""), NOW)
                .await
        );
        assert!(
            !store
                .holds(&sign_in(&number.to_string(), "ada", "s", watermark))
                .await
        );
    }

    assert!(!store.holds(&other).await && !store.holds(&sign_in("0", "ada", "s", watermark)).await);
    assert!(store.holds(&bob).await);
    assert_eq!(
        count(&store, "SELECT count(*) FROM browser_ends").await,
        i64::from(MOST) + 1
    );
    assert!(
        store.end_at(&end("9", "bob", ""), NOW).await,
        "one user fills up another's list"
    );
}

async fn an_end_is_forgotten_when_it_concerns_nobody(place: &Location) {
    let store = place.open().await;
    let hers = sign_in("a", "ada", "s", 0);
    store.end_at(&end("a", "ada", ""), NOW).await;
    store.end_at(&end("", "ada", ""), NOW).await;
    let gone = NOW / 1000 + 86_400 + 1 + 300;
    assert_eq!(store.forget_ends(gone - 1).await.unwrap(), 0);
    assert!(!store.holds(&hers).await);
    assert_eq!(store.forget_ends(gone).await.unwrap(), 2);

    // An end that is repeated for a shorter time is not forgotten earlier.
    store.end_at(&end("a", "ada", ""), NOW).await;
    let soon = End::new("a".to_owned(), whose("ada", ""), Duration::from_secs(1)).unwrap();
    store.end_at(&soon, NOW).await;
    assert_eq!(store.forget_ends(gone - 1).await.unwrap(), 0);
}

async fn the_audit_log_has_each_end_once_and_every_cut_off(place: &Location) {
    let store = place.open().await;
    let ada = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session
        .user;
    for now in [NOW, NOW + 1] {
        store.end_at(&end("a", "ada", "s-1"), now).await;
        store.end_at(&end("", "bob", ""), now).await;
    }

    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT event, user_id, reason FROM audit WHERE event LIKE 'browser%' ORDER \
            BY event, reason",
    )
    .fetch_all(store.pool())
    .await
    .unwrap();
    let row = |event: &str, user: &str, reason: &str| {
        (event.to_owned(), user.to_owned(), reason.to_owned())
    };
    let bobs = row(
        "browsers_signed_out",
        "",
        "signed_out_by_user, of bob at dev",
    );
    assert_eq!(
        rows,
        [
            row("browser_signed_out", ada.as_str(), "signed_out_by_user"),
            bobs.clone(),
            bobs
        ]
    );
}

on_both_databases! {
    a_sign_in_ends_by_its_id_and_nobody_elses_does
    what_a_provider_ends_ends_what_was_made_with_it_before_and_nothing_that_is_made_later
    a_cut_off_ends_all_that_a_user_made_before_whatever_the_clocks_say
    a_sign_in_is_as_old_as_its_proof
    a_user_with_too_many_ends_has_one_that_ends_all
    an_end_is_forgotten_when_it_concerns_nobody
    the_audit_log_has_each_end_once_and_every_cut_off
}
