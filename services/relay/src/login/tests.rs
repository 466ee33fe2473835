use time::Duration;

use super::*;

fn grant(request: u8) -> Box<Grant> {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
    Box::new(Grant {
        request_id: format!("00000000-0000-4000-8000-0000000000{request:02}")
            .parse()
            .unwrap(),
        token: Secret::new("token"),
        token_expires_at: at,
        user: User {
            id: "usr_1".to_owned(),
            email: None,
            name: None,
            avatar_url: None,
        },
        session_id: "ses_1".to_owned(),
        session_expires_at: at,
    })
}

fn all_states() -> Vec<State> {
    let receipt = grant(1).receipt();
    vec![
        State::Waiting,
        State::Held {
            grant: grant(1),
            attempts_left: ATTEMPTS,
        },
        State::Held {
            grant: grant(1),
            attempts_left: 1,
        },
        State::Sent(grant(1)),
        State::Activating(receipt.clone()),
        State::Acked(receipt, OffsetDateTime::UNIX_EPOCH),
        State::Denied,
        State::Cancelled,
        State::Refused,
        State::Expired,
        State::Burned,
        State::Moved,
    ]
}

fn all_logins() -> impl Iterator<Item = Login> {
    let bindings = [Binding::Confirm, Binding::Typed, Binding::Link];
    let here_or_not = bindings
        .into_iter()
        .flat_map(|binding| [(binding, true), (binding, false)]);
    here_or_not.flat_map(|(binding, is_attached)| {
        all_states().into_iter().map(move |state| Login {
            binding,
            is_attached,
            state,
        })
    })
}

fn all_events() -> Vec<Event> {
    vec![
        Event::Approved(grant(1)),
        Event::Approved(grant(2)),
        Event::Denied,
        Event::Completed,
        Event::Miscompleted,
        Event::Acked,
        Event::Refused,
        Event::Activated(OffsetDateTime::UNIX_EPOCH),
        Event::NotActivated,
        Event::Cancelled,
        Event::SocketGone,
        Event::TakenOver,
        Event::TimedOut,
        Event::GaveWay,
    ]
}

/// Every login, every event, and the result.
fn all_steps() -> impl Iterator<Item = (Login, Event, Login, Vec<Action>)> {
    all_logins().flat_map(|login| {
        all_events().into_iter().map(move |event| {
            let mut next = login.clone();
            let actions = next.on(event.clone());
            (login.clone(), event, next, actions)
        })
    })
}

#[test]
fn a_bare_login_is_approved_acknowledged_and_activated() {
    let mut login = Login::new(Binding::Confirm);
    assert_eq!(
        (login.on(Event::Approved(grant(1))), login.phase()),
        (vec![Action::Push], Phase::Sent)
    );
    assert_eq!(
        (login.on(Event::Acked), login.phase()),
        (vec![Action::Activate], Phase::Sent),
        "not active yet"
    );
    assert_eq!(
        (
            login.on(Event::Activated(OffsetDateTime::UNIX_EPOCH)),
            login.phase()
        ),
        (vec![], Phase::Acked)
    );
}

#[test]
fn a_login_whose_session_was_ended_before_it_was_active_is_cancelled() {
    let mut login = Login::resumed(Binding::Confirm, State::Activating(grant(1).receipt()));
    assert_eq!(
        (login.on(Event::NotActivated), login.phase()),
        (vec![], Phase::Cancelled)
    );

    let mut login = Login::resumed(
        Binding::Confirm,
        State::Acked(grant(1).receipt(), OffsetDateTime::UNIX_EPOCH),
    );
    assert_eq!(
        (login.on(Event::NotActivated), login.phase()),
        (vec![], Phase::Acked),
        "an answer that came late"
    );
}

#[test]
fn a_bound_login_gets_its_token_for_the_code_only() {
    for binding in [Binding::Typed, Binding::Link] {
        let mut login = Login::new(binding);
        let told = vec![Action::TellPending {
            attempts_left: ATTEMPTS,
        }];
        assert_eq!(
            (login.on(Event::Approved(grant(1))), login.phase()),
            (told, Phase::Held)
        );
        assert_eq!(
            login.on(Event::Approved(grant(1))),
            vec![],
            "a repeat tells nothing twice"
        );
        assert_eq!(
            (login.on(Event::Completed), login.phase()),
            (vec![Action::Push], Phase::Sent)
        );
    }
}

#[test]
fn the_fifth_wrong_code_burns_the_login_and_ends_its_session() {
    let mut login = Login::new(Binding::Typed);
    login.on(Event::Approved(grant(1)));

    for attempts_left in (1..ATTEMPTS).rev() {
        assert_eq!(
            login.on(Event::Miscompleted),
            vec![Action::TellBadCode { attempts_left }]
        );
    }

    let end = Action::EndSession {
        session_id: "ses_1".to_owned(),
        reason: RevocationReason::Burned,
    };
    let burned = vec![
        end,
        Action::TellBadCode { attempts_left: 0 },
        Action::Close(close::LOGIN_OVER),
    ];
    assert_eq!(
        (login.on(Event::Miscompleted), login.phase()),
        (burned, Phase::Burned)
    );
    assert_eq!(login.on(Event::Completed), vec![Action::NotNow]);
}

#[test]
fn a_token_is_pushed_to_a_bare_editor_for_an_approval_and_to_another_for_a_code() {
    for (login, event, _, actions) in all_steps() {
        if actions.contains(&Action::Push) {
            let is_bare = login.binding == Binding::Confirm;
            let approved =
                is_bare && matches!(event, Event::Approved(_)) && login.state == State::Waiting;
            let completed = event == Event::Completed && matches!(login.state, State::Held { .. });
            assert!(approved || completed, "{login:?} {event:?}");
        }
    }
}

#[test]
fn an_end_is_final() {
    for (login, event, next, actions) in all_steps() {
        if !login.state.is_unfinished() && login.state.receipt().is_none() {
            assert_eq!(next.state, login.state, "{event:?}");
            assert!(
                actions.iter().all(|action| *action == Action::NotNow),
                "{login:?} {event:?} {actions:?}"
            );
        }
    }
}

#[test]
fn a_login_whose_editor_has_the_token_cannot_be_undone() {
    for (login, event, next, _) in all_steps().filter(|(login, ..)| login.state.receipt().is_some())
    {
        let session_is_over =
            event == Event::NotActivated && matches!(login.state, State::Activating(_));
        assert_eq!(
            next.state.receipt().is_none(),
            session_is_over,
            "{login:?} {event:?}"
        );
    }
}

#[test]
fn a_grant_that_no_editor_acknowledged_takes_its_session_along() {
    for (login, event, next, actions) in all_steps() {
        let ended = actions
            .iter()
            .any(|action| matches!(action, Action::EndSession { .. }));
        let is_over = !next.state.is_unfinished()
            && next.state != State::Moved
            && next.state.receipt().is_none();
        assert_eq!(
            ended,
            login.state.grant().is_some() && is_over,
            "{login:?} {event:?}"
        );
    }
}

#[test]
fn an_editor_with_a_ticket_may_come_back_and_a_bare_one_may_not() {
    for binding in [Binding::Confirm, Binding::Typed, Binding::Link] {
        let mut login = Login::new(binding);
        assert_eq!(login.on(Event::SocketGone), vec![]);
        assert_eq!(
            login.phase(),
            if binding == Binding::Confirm {
                Phase::Cancelled
            } else {
                Phase::Away
            }
        );

        login.on(Event::Approved(grant(1)));
        assert!(
            login.state.grant().is_none(),
            "nothing is approved for an editor that is away"
        );
    }
}

#[test]
fn what_was_due_is_due_again_after_a_resume() {
    assert_eq!(State::Waiting.due(), None);
    assert_eq!(State::Sent(grant(1)).due(), Some(Action::Push));
    let held = State::Held {
        grant: grant(1),
        attempts_left: 2,
    };
    assert_eq!(
        held.due(),
        Some(Action::TellPending { attempts_left: 2 }),
        "tries that were used stay used"
    );
}

#[test]
fn a_repeated_delivery_activates_again_and_a_foreign_one_does_nothing() {
    let mut login = Login::resumed(Binding::Confirm, State::Activating(grant(1).receipt()));
    assert_eq!(login.on(Event::Approved(grant(1))), vec![Action::Activate]);
    assert_eq!(login.on(Event::Approved(grant(2))), vec![]);
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
    for (login, event, _, actions) in all_steps() {
        let from_editor = matches!(
            event,
            Event::Completed
                | Event::Miscompleted
                | Event::Acked
                | Event::Refused
                | Event::Cancelled
        );
        assert!(
            !actions.contains(&Action::NotNow) || from_editor,
            "{login:?} {event:?}"
        );
    }
}

#[test]
fn a_grant_does_not_print_its_token() {
    assert!(!format!("{:?}", State::Sent(grant(1))).contains("token\""));
}
