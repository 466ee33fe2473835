//! The cache of answers, without calls.

use tonic::transport::Endpoint;
use vvs_runtime::trace::TracedChannel;

use super::*;
use vvs_identity::dev;

fn kept(number: usize) -> Kept {
    let who = dev::sign_in("ada@example.com", "", "s".to_owned(), 0).unwrap();
    Kept {
        who,
        id: SignInId::mint().unwrap(),
        expires_at: 1,
        watermark: number.try_into().unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_answers_are_kept_than_fit_and_old_ones_make_room() {
    let channel = TracedChannel::new(Endpoint::from_static("http://role").connect_lazy());
    let checks = Checks::new(Sessions::new(channel, FRESH));
    let asked_at = Instant::now();
    for number in 0..MAX_KNOWN {
        checks.remember(
            &kept(number),
            Cached {
                asked_at,
                has_ended: false,
            },
        );
    }

    let (one, other) = (kept(MAX_KNOWN), kept(MAX_KNOWN));
    checks.remember(
        &one,
        Cached {
            asked_at,
            has_ended: true,
        },
    );
    assert_eq!(checks.known(&one, asked_at), None);
    assert_eq!(checks.lock().len(), MAX_KNOWN);

    let later = asked_at + FRESH;
    checks.remember(
        &other,
        Cached {
            asked_at: later,
            has_ended: true,
        },
    );
    assert_eq!(checks.known(&other, later), Some(true));
    assert_eq!(checks.lock().len(), 1);

    checks.forget(&other);
    assert_eq!(checks.known(&other, later), None);
}
