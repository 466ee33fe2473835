//! Browser sign-ins, as web begins, checks and ends them.

use super::*;

#[expect(clippy::unnecessary_wraps, reason = "as the messages want it")]
fn identity(subject: &str, provider_session: &str) -> Option<wire::Identity> {
    let (subject, provider_session) = (subject.to_owned(), provider_session.to_owned());
    Some(wire::Identity {
        provider: "dev".into(),
        subject,
        provider_session,
        ..wire::Identity::default()
    })
}

fn end(id: &str, subject: &str, provider_session: &str) -> internal::EndBrowserSignInsRequest {
    internal::EndBrowserSignInsRequest {
        sign_in_id: id.into(),
        identity: identity(subject, provider_session),
        remember_for: Some(prost_types::Duration {
            seconds: 86_400,
            nanos: 0,
        }),
        reason: RevocationReason::SignedOutByUser.into(),
        address: "192.0.2.9".into(),
    }
}

impl Bench {
    async fn begin(&self, proof_age: Option<i64>) -> Result<u64, Status> {
        let proof_age = proof_age.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let begun =
            self.service
                .begin_browser_sign_in(Request::new(internal::BeginBrowserSignInRequest {
                    proof_age,
                }));
        Ok(begun.await?.into_inner().watermark)
    }

    async fn has_ended(
        &self,
        id: &str,
        identity: Option<wire::Identity>,
        watermark: u64,
    ) -> Result<bool, Status> {
        let request = internal::CheckBrowserSignInRequest {
            sign_in_id: id.into(),
            identity,
            watermark,
        };
        Ok(self
            .service
            .check_browser_sign_in(Request::new(request))
            .await?
            .into_inner()
            .ended)
    }

    async fn end(&self, request: internal::EndBrowserSignInsRequest) -> Result<(), Status> {
        self.service
            .end_browser_sign_ins(Request::new(request))
            .await
            .map(drop)
    }
}

async fn every_process_knows_what_has_ended_and_who_signs_in_again_is_signed_in(place: &Location) {
    let (one, other) = (bench(place).await, bench(place).await);
    for ending in [
        end("id", "ada", ""),
        end("", "ada", "s-1"),
        end("", "", "s-1"),
        end("", "ada", ""),
    ] {
        let hers = || identity("ada", "s-1");
        let is_by_id = !ending.sign_in_id.is_empty();
        let id = if is_by_id { "id" } else { "any" };
        let watermark = one.begin(None).await.unwrap();
        assert!(!other.has_ended(id, hers(), watermark).await.unwrap());

        one.end(ending.clone()).await.unwrap();
        assert!(
            other.has_ended(id, hers(), watermark).await.unwrap(),
            "{ending:?}"
        );

        let again = other.begin(None).await.unwrap();
        assert!(
            !one.has_ended("another", hers(), again).await.unwrap(),
            "{ending:?}"
        );

        // A proof from before is no new sign-in.
        let early = other.begin(Some(3600)).await.unwrap();
        assert!(
            is_by_id || one.has_ended("another", hers(), early).await.unwrap(),
            "{ending:?}"
        );
    }
}

async fn beyond_the_setting_the_limit_is_told(place: &Location) {
    let bench = bench(place).await;
    for id in ["a", "b", "c", "d"] {
        bench.end(end(id, "ada", "")).await.unwrap();
    }

    assert_eq!(
        bench
            .metrics
            .reached
            .times("VVS_SESSIONS_MAX_ENDED_SIGN_INS"),
        1
    );
    assert!(bench.has_ended("e", identity("ada", ""), 0).await.unwrap());
}

async fn what_names_nobody_is_malformed_and_changes_nothing(place: &Location) {
    let bench = bench(place).await;
    let short = internal::EndBrowserSignInsRequest {
        remember_for: None,
        ..end("id", "ada", "")
    };
    let nobody = internal::EndBrowserSignInsRequest {
        identity: None,
        ..end("id", "ada", "")
    };
    let silent = internal::EndBrowserSignInsRequest {
        reason: RevocationReason::Unspecified.into(),
        ..end("id", "ada", "")
    };
    for bad in [
        end("", "", ""),
        end("id", "", "s-1"),
        end("' OR 1=1", "ada", ""),
        short,
        nobody,
        silent,
    ] {
        let refused = bench.end(bad.clone()).await.unwrap_err();
        assert_eq!(reason(&refused), "MALFORMED", "{bad:?}");
    }

    for (id, whose, watermark) in [
        ("", identity("ada", ""), 0),
        ("id", None, 0),
        ("id", identity("", "s"), 0),
        ("id", identity("ada", ""), u64::MAX),
    ] {
        assert_eq!(
            reason(&bench.has_ended(id, whose, watermark).await.unwrap_err()),
            "MALFORMED"
        );
    }

    assert_eq!(
        reason(&bench.begin(Some(-1)).await.unwrap_err()),
        "MALFORMED"
    );
    assert_eq!(
        count(&bench.service.store, "SELECT count(*) FROM browser_ends").await,
        0
    );
}

on_both_databases! {
    every_process_knows_what_has_ended_and_who_signs_in_again_is_signed_in
    beyond_the_setting_the_limit_is_told
    what_names_nobody_is_malformed_and_changes_nothing
}

#[tokio::test]
async fn without_a_database_nothing_is_said_to_hold_or_to_have_ended() {
    let bench = bench(&Location::new()).await;
    bench.service.store.pool().close().await;
    bench.down(&bench.begin(None).await.unwrap_err(), "io");
    bench.down(
        &bench
            .has_ended("id", identity("ada", ""), 0)
            .await
            .unwrap_err(),
        "io",
    );
    bench.down(&bench.end(end("id", "ada", "")).await.unwrap_err(), "io");
}
