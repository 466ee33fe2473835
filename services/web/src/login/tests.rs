//! One browser's view of a login, as a table, and the names of deliveries.

use super::*;
use vvs_identity::dev;

const ID: &str = "6f1f2f4e-2f0c-4a53-9d0e-8f4f3f0a9b11";
const NOW: i64 = 1_800_000_000;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW).unwrap()
}

fn view(state: Phase) -> View {
    View {
        state,
        user_code: "WXBK-RTQH".to_owned(),
        editor: Editor {
            app: None,
            device: None,
        },
        device_key: String::new(),
        return_uri: None,
        address: [203, 0, 113, 7].into(),
        created_at: now(),
        expires_at: now(),
    }
}

fn entry(approved: bool, acked: bool) -> Seen {
    Seen {
        expires_at: NOW + 1,
        approved: approved.then(|| "request".to_owned()),
        session: None,
        acked,
    }
}

/// Returns the state in one word.
fn standing(found: Result<Phase, Refusal>, entry: Option<&Seen>) -> &'static str {
    match stand(found.map(view), entry, now()) {
        Ok(Standing::Open(_)) => "open",
        Ok(Standing::Away) => "away",
        Ok(Standing::Held) => "held",
        Ok(Standing::Approved(Trouble::EditorAway)) => "approved, away",
        Ok(Standing::Approved(
            Trouble::Unacknowledged | Trouble::Unavailable | Trouble::ProviderUnavailable,
        )) => "approved",
        Ok(Standing::Done(_)) => "done",
        Err(refusal) => refusal.as_str(),
    }
}

#[test]
fn a_login_stands_differently_for_the_browser_that_approved_it() {
    for (state, here, elsewhere) in [
        // Its relay was killed, and the editor has resumed on another one.
        (Phase::Waiting, "approved, away", "open"),
        (Phase::Held, "held", "claimed"),
        (Phase::Sent, "approved", "claimed"),
        (Phase::Away, "approved, away", "away"),
        (Phase::Acked, "done", "over"),
        (Phase::Denied, "over", "over"),
        (Phase::Cancelled, "over", "over"),
        (Phase::Expired, "over", "over"),
        (Phase::Burned, "over", "over"),
    ] {
        assert_eq!(
            standing(Ok(state), Some(&entry(true, false))),
            here,
            "{state:?}"
        );
        assert_eq!(
            standing(Ok(state), Some(&entry(false, false))),
            elsewhere,
            "{state:?}"
        );
        assert_eq!(standing(Ok(state), None), elsewhere, "{state:?}");
    }
}

#[test]
fn a_login_that_no_relay_holds_waits_for_its_editor_where_it_was_seen_and_while_its_time_lasts() {
    let unknown = |entry: Option<Seen>| standing(Err(Refusal::Unknown), entry.as_ref());
    let over = |acked| Seen {
        expires_at: NOW,
        ..entry(true, acked)
    };
    assert_eq!(unknown(None), "unknown");
    assert_eq!(unknown(Some(entry(false, false))), "away");
    assert_eq!(unknown(Some(entry(true, false))), "approved, away");
    assert_eq!(unknown(Some(over(false))), "unknown");
    assert_eq!(unknown(Some(over(true))), "done");
}

#[test]
fn what_went_wrong_on_the_way_is_not_what_became_of_the_login() {
    let entry = entry(true, true);
    let down = || Refusal::Unavailable {
        role: "relay",
        code: "UNAVAILABLE",
        reason: String::new(),
    };
    assert_eq!(standing(Err(down()), Some(&entry)), "unavailable");
    assert_eq!(
        standing(Err(Refusal::EditorCannotBind), Some(&entry)),
        "editor_cannot_bind"
    );
}

#[test]
fn an_approval_goes_on_until_the_login_has_failed() {
    for state in Phase::ALL {
        let may = |entry: Option<&Seen>| {
            may_deliver(Ok(view(state)), entry, now())
                .map_or_else(|refusal| refusal.as_str(), |_| "go")
        };
        let first = if state.is_failed() { "over" } else { "go" };
        let first = if state == Phase::Away {
            "editor_away"
        } else {
            first
        };

        assert_eq!(may(None), first, "{state:?}");
        assert_eq!(may(Some(&entry(false, false))), first, "{state:?}");

        // The relay may hold what was approved before.
        assert_eq!(
            may(Some(&entry(true, false))),
            if state.is_failed() { "over" } else { "go" },
            "{state:?}"
        );
    }

    let unknown = |entry: Option<Seen>| {
        may_deliver(Err(Refusal::Unknown), entry.as_ref(), now())
            .err()
            .unwrap()
    };
    assert_eq!(unknown(None).as_str(), "unknown");
    assert_eq!(unknown(Some(entry(false, false))).as_str(), "editor_away");
    assert_eq!(
        unknown(Some(Seen {
            expires_at: NOW,
            ..entry(false, false)
        }))
        .as_str(),
        "unknown"
    );
}

#[test]
fn a_delivery_is_named_by_the_login_the_user_and_the_providers_session() {
    let keys = Keyring::parse(&Keyring::generate().unwrap()).unwrap();
    let other_keys = Keyring::parse(&Keyring::generate().unwrap()).unwrap();
    let user = |email, session: &str, at| {
        dev::sign_in(email, "", session.to_owned(), at)
            .ok()
            .unwrap()
    };
    let (id, other): (ConnectionId, ConnectionId) = (
        ID.parse().unwrap(),
        "00000000-0000-4000-8000-000000000000".parse().unwrap(),
    );
    let ada = user("ada@example.com", "one", 0);
    let name = request_id(&keys, id, &ada);

    assert_eq!(
        name,
        request_id(&keys, id, &user("Ada@example.com", "one", 99))
    );
    assert_ne!(name, request_id(&keys, other, &ada));
    assert_ne!(
        name,
        request_id(&keys, id, &user("bob@example.com", "one", 0))
    );
    assert_ne!(
        name,
        request_id(&keys, id, &user("ada@example.com", "two", 0))
    );
    assert_ne!(name, request_id(&other_keys, id, &ada));
    assert_eq!(name.to_string().parse(), Ok(name));
}
