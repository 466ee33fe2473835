//! All editors at once, after their relay was killed: what they cost the sessions role, with all
//! limits as they are when nobody sets them. Each scenario runs on SQLite and on PostgreSQL;
//! `vvs-load reconnect` cuts off thousands, on SQLite.

use vvs_tests::database::Database;
use vvs_tests::{crowd, on_both};

on_both!(
    editors_with_good_tokens_come_back_without_a_call_to_sessions,
    editors_with_tokens_that_ran_out_come_back_with_one_call_each,
);

/// All of them behind one address, which may make fewer handshakes at once.
const EDITORS: usize = crowd::PER_ADDRESS;

async fn editors_with_good_tokens_come_back_without_a_call_to_sessions(database: Database) {
    let (split, installs) = crowd::without_a_relay(database, EDITORS, &[]).await;
    let before = crowd::calls(&split.stack);
    let mut editors = crowd::sign_on(&split.stack, &installs).await;
    for (editor, answer) in &mut editors {
        assert!(answer["token"].is_null(), "{answer}");
        editor.read_on().await;
    }
    assert_eq!(crowd::calls(&split.stack), before);
    assert_nobody_was_hindered(&split).await;
}

async fn editors_with_tokens_that_ran_out_come_back_with_one_call_each(database: Database) {
    let (split, installs) =
        crowd::without_a_relay(database, EDITORS, &["--sessions-token-ttl", "1s"]).await;
    crowd::until_expired(&installs).await;
    let before = crowd::calls(&split.stack);
    let editors = crowd::sign_on(&split.stack, &installs).await;
    for (_, answer) in &editors {
        assert!(answer["token"].is_string(), "{answer}");
    }

    let mut expected = before;
    *expected.entry("RefreshToken".to_owned()).or_default() += EDITORS;
    assert_eq!(crowd::calls(&split.stack), expected);

    assert_nobody_was_hindered(&split).await;
}

/// Whoever is signed in gives back what he took to come in, and nobody was signed out.
async fn assert_nobody_was_hindered(split: &vvs_tests::split::Split) {
    for reason in ["handshake_rate", "logins_per_address", "connections"] {
        let refused = split
            .relay_metric(&format!(
                "vvs_handshakes_refused_total{{reason=\"{reason}\"}}"
            ))
            .await;
        assert!(refused < 1.0, "{refused} were refused: {reason}");
    }

    assert_eq!(
        split
            .database
            .count("SELECT count(*) FROM revocations")
            .await,
        0
    );
}
