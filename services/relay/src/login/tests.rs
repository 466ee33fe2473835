use time::Duration;

use super::*;

fn grant(request: u8) -> Box<Grant> {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
    Box::new(Grant {
        request_id: format!("00000000-0000-4000-8000-0000000000{request:02}").parse().unwrap(),
        token: Secret::new("token"),
        token_expires_at: at,
        user: User { id: "usr_1".to_owned(), email: None, name: None, avatar_url: None },
        session_id: "ses_1".to_owned(),
        session_expires_at: at,
    })
}

fn all_states() -> Vec<State> {
    let receipt = grant(1).receipt();
    vec![
        State::Waiting,
        State::Sent(grant(1)),
        State::Activating(receipt.clone()),
        State::Acked(receipt, OffsetDateTime::UNIX_EPOCH),
        State::Denied,
        State::Cancelled,
        State::Refused,
        State::Expired,
    ]
}

fn all_events() -> Vec<Event> {
    vec![
        Event::Approved(grant(1)),
        Event::Approved(grant(2)),
        Event::Denied,
        Event::Acked,
        Event::Refused,
        Event::Activated(OffsetDateTime::UNIX_EPOCH),
        Event::Cancelled,
        Event::SocketGone,
        Event::TimedOut,
    ]
}

#[test]
fn a_login_is_approved_acknowledged_and_activated() {
    let (state, actions) = State::Waiting.on(Event::Approved(grant(1)));
    assert_eq!((state.phase(), actions), (Phase::Sent, vec![Action::Push]));
    let (state, actions) = state.on(Event::Acked);
    assert_eq!((state.phase(), actions), (Phase::Sent, vec![Action::Activate]), "acked is not active yet");
    let (state, actions) = state.on(Event::Activated(OffsetDateTime::UNIX_EPOCH));
    assert_eq!((state.phase(), actions), (Phase::Acked, vec![]));
}

#[test]
fn a_token_is_pushed_only_out_of_waiting() {
    for state in all_states() {
        for event in all_events() {
            let (_, actions) = state.clone().on(event);
            assert!(!actions.contains(&Action::Push) || state == State::Waiting, "{state:?}");
        }
    }
}

#[test]
fn an_end_is_final() {
    for state in all_states() {
        let ended = !matches!(state.phase(), Phase::Waiting | Phase::Sent);
        for event in all_events() {
            let (next, actions) = state.clone().on(event.clone());
            if ended {
                assert_eq!(next, state, "{event:?}");
                assert!(actions.iter().all(|action| *action == Action::NotNow), "{state:?} {event:?} {actions:?}");
            }
        }
    }
}

#[test]
fn a_login_whose_editor_has_the_token_cannot_be_undone() {
    for state in all_states().into_iter().filter(|state| state.receipt().is_some()) {
        for event in all_events() {
            let (next, _) = state.clone().on(event.clone());
            assert!(next.receipt().is_some(), "{state:?} {event:?}");
        }
    }
}

#[test]
fn a_repeated_delivery_activates_again_and_a_foreign_one_does_nothing() {
    let waiting_for_sessions = State::Activating(grant(1).receipt());
    assert_eq!(waiting_for_sessions.clone().on(Event::Approved(grant(1))).1, vec![Action::Activate]);
    assert_eq!(waiting_for_sessions.on(Event::Approved(grant(2))).1, vec![]);
}

#[test]
fn the_same_request_for_another_user_is_another_delivery() {
    let sent = State::Sent(grant(1));
    assert!(sent.took(&grant(1)));
    let mut other = grant(1);
    other.user.id = "usr_2".to_owned();
    assert!(!sent.took(&other));
    let mut other = grant(1);
    other.session_id = "ses_2".to_owned();
    assert!(!sent.took(&other));
    assert!(!sent.took(&grant(2)));
}

#[test]
fn only_the_editor_hears_that_its_frame_does_not_fit() {
    for state in all_states() {
        for event in all_events() {
            let told = state.clone().on(event.clone()).1.contains(&Action::NotNow);
            let from_editor = matches!(event, Event::Acked | Event::Refused | Event::Cancelled);
            assert!(!told || from_editor, "{state:?} {event:?}");
        }
    }
}

#[test]
fn a_grant_does_not_print_its_token() {
    assert!(!format!("{:?}", State::Sent(grant(1))).contains("token\""));
}
