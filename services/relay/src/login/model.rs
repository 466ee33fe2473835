//! Random lives of a login, against a model that is written from the protocol and not from the
//! machine. It has no states, only the knowledge of the people and programs around the login.

use proptest::prelude::*;
use proptest::sample::select;
use time::Duration;

use super::*;

/// An action of people, programs or the network on a login. A number names a delivery.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Approve(u8),
    Deny,
    /// From here on by the editor, which sends nothing while it is away.
    RightCode,
    WrongCode,
    Ack,
    RefuseGrant,
    Cancel,
    /// By the sessions role, when it was asked to; or it says that the session is over.
    Activated,
    NotActivated,
    /// The socket breaks.
    Leave,
    /// The editor presents its ticket on another socket; this may happen before the old one is
    /// known to be broken.
    Resume,
    TimeOut,
    /// Its address is full, and a newer login gets its place.
    GiveWay,
}

/// The model's knowledge of a login.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "states would be the machine again"
)]
struct Model {
    binding: Binding,
    is_here: bool,
    approved: Option<u8>,
    wrong_codes: u8,
    /// The token went out to the editor.
    released: bool,
    stored: bool,
    active: bool,
    /// The editor refused the token.
    refused: bool,
    ended: Option<Phase>,
}

fn session(delivery: u8) -> String {
    format!("ses_{delivery}")
}

impl Model {
    fn new(binding: Binding) -> Self {
        Self {
            binding,
            is_here: true,
            approved: None,
            wrong_codes: 0,
            released: false,
            stored: false,
            active: false,
            refused: false,
            ended: None,
        }
    }

    /// Returns the state that `GetLogin` answers.
    fn phase(&self) -> Phase {
        match self {
            Self {
                ended: Some(end), ..
            } => *end,
            Self { active: true, .. } => Phase::Acked,
            Self {
                is_here: false,
                stored: false,
                ..
            } => Phase::Away,
            Self { released: true, .. } => Phase::Sent,
            Self {
                approved: Some(_), ..
            } => Phase::Held,
            Self { .. } => Phase::Waiting,
        }
    }

    fn tries(&self) -> u8 {
        5 - self.wrong_codes
    }

    fn is_open(&self) -> bool {
        self.ended.is_none() && !self.stored
    }

    /// Returns whether the editor has acknowledged and its session is not over.
    fn is_stored(&self) -> bool {
        self.ended.is_none() && self.stored
    }

    fn awaits_code(&self) -> bool {
        self.is_open() && self.approved.is_some() && !self.released
    }

    fn awaits_ack(&self) -> bool {
        self.is_open() && self.released
    }

    /// Returns whether this can happen at all.
    fn can(&self, step: Step) -> bool {
        match step {
            Step::RightCode
            | Step::WrongCode
            | Step::Ack
            | Step::RefuseGrant
            | Step::Cancel
            | Step::Leave => self.is_here,
            Step::Activated | Step::NotActivated => self.is_stored(),
            // Nobody has a ticket without a hello, and there is nothing to take over when it is
            // over.
            Step::Resume => self.binding > Binding::Confirm && self.is_open(),
            Step::Approve(_) | Step::Deny | Step::TimeOut | Step::GiveWay => true,
        }
    }

    /// Ends the login; a session that no editor has acknowledged ends with it.
    fn end(
        &mut self,
        phase: Phase,
        reason: RevocationReason,
        mut told: Vec<Action>,
    ) -> Vec<Action> {
        self.ended = Some(phase);
        if let Some(delivery) = self.approved {
            told.push(Action::EndSession {
                session_id: session(delivery),
                reason,
            });
        }
        told
    }

    fn release(&mut self) -> Vec<Action> {
        self.released = true;
        vec![Action::Push]
    }

    /// Returns the actions that the protocol requires.
    fn take(&mut self, step: Step) -> Vec<Action> {
        let over = Action::Close(4503);
        let untouched = self.is_open() && self.approved.is_none();

        match step {
            Step::Approve(delivery) if untouched && self.is_here => {
                self.approved = Some(delivery);
                if self.binding == Binding::Confirm {
                    return self.release();
                }
                vec![Action::TellPending {
                    attempts_left: self.tries(),
                }]
            }
            Step::Approve(delivery)
                if self.is_stored() && !self.active && self.approved == Some(delivery) =>
            {
                vec![Action::Activate]
            }
            Step::Deny if untouched => self.end(
                Phase::Denied,
                RevocationReason::Unspecified,
                vec![Action::TellDenied, over],
            ),
            Step::RightCode if self.awaits_code() => self.release(),
            Step::WrongCode if self.awaits_code() => {
                self.wrong_codes += 1;
                let tell = Action::TellBadCode {
                    attempts_left: self.tries(),
                };
                if self.tries() > 0 {
                    return vec![tell];
                }
                self.end(Phase::Burned, RevocationReason::Burned, vec![tell, over])
            }
            Step::Ack if self.awaits_ack() => {
                self.stored = true;
                vec![Action::Activate]
            }
            // A bare editor's pong may come behind its ack.
            Step::Ack if self.is_stored() => vec![],
            Step::RefuseGrant if self.awaits_ack() => {
                self.refused = true;
                self.end(Phase::Cancelled, RevocationReason::Refused, vec![over])
            }
            Step::Cancel if self.is_open() => self.end(
                Phase::Cancelled,
                RevocationReason::Cancelled,
                vec![Action::Close(1000)],
            ),
            Step::RightCode | Step::WrongCode | Step::Ack | Step::RefuseGrant | Step::Cancel => {
                vec![Action::NotNow]
            }
            Step::Activated => {
                self.active = true;
                vec![]
            }
            // Sessions has ended it already.
            Step::NotActivated if !self.active => {
                self.ended = Some(Phase::Cancelled);
                vec![]
            }
            Step::Leave => {
                self.is_here = false;
                if self.binding == Binding::Confirm && self.is_open() {
                    return self.end(Phase::Cancelled, RevocationReason::Cancelled, vec![]);
                }
                vec![]
            }
            Step::TimeOut if self.is_open() => self.end(
                Phase::Expired,
                RevocationReason::Expired,
                vec![Action::TellExpired, over],
            ),
            // A login that has said hello is not displaced, nor one that has been approved.
            Step::GiveWay if untouched && self.binding == Binding::Confirm => self.end(
                Phase::Expired,
                RevocationReason::Expired,
                vec![Action::TellExpired, over],
            ),
            Step::Resume => {
                self.is_here = true;
                self.due()
            }
            Step::Approve(_) | Step::Deny | Step::NotActivated | Step::TimeOut | Step::GiveWay => {
                vec![]
            }
        }
    }

    /// Returns why a delivery fails, once the login has failed.
    fn objection(&self) -> Option<Objection> {
        self.ended.map(|end| {
            if end == Phase::Expired {
                Objection::Expired
            } else if self.refused {
                Objection::EditorRefused
            } else {
                Objection::Over
            }
        })
    }

    /// Returns the immediate answer to `DeliverAuth`.
    fn takes(&self, delivery: u8) -> Result<(), Objection> {
        let is_on_its_way = self.approved.is_none() || self.awaits_ack();
        match (self.objection(), self.approved) {
            (Some(objection), _) => Err(objection),
            (None, Some(other)) if other != delivery => Err(Objection::Claimed),
            (None, _) if is_on_its_way && !self.is_here => Err(Objection::Away),
            (None, _) => Ok(()),
        }
    }

    /// Returns the answer to `DenyLogin`.
    fn denied(&self) -> Result<(), Objection> {
        match self.ended {
            Some(Phase::Denied) => Ok(()),
            Some(Phase::Expired) => Err(Objection::Expired),
            Some(_) => Err(Objection::Over),
            None => Err(Objection::Claimed),
        }
    }

    /// Returns the answer to `DeliverAuth` after it has waited.
    fn outcome(&self) -> Option<Result<(), Objection>> {
        if let Some(objection) = self.objection() {
            return Some(Err(objection));
        }

        let is_done = self.active || self.awaits_code();
        let is_away = !self.is_here && !self.stored;
        match (is_done, is_away) {
            (true, _) => Some(Ok(())),
            (_, true) => Some(Err(Objection::Away)),
            _ => None,
        }
    }

    fn due(&self) -> Vec<Action> {
        match (self.awaits_code(), self.awaits_ack()) {
            (true, _) => vec![Action::TellPending {
                attempts_left: self.tries(),
            }],
            (_, true) => vec![Action::Push],
            _ => vec![],
        }
    }
}

fn grant(delivery: u8) -> Box<Grant> {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
    Box::new(Grant {
        request_id: format!("00000000-0000-4000-8000-0000000000{delivery:02}")
            .parse()
            .unwrap(),
        token: Secret::new(format!("token {delivery}")),
        token_expires_at: at,
        user: User {
            id: format!("usr_{delivery}"),
            email: None,
            name: None,
            avatar_url: None,
        },
        session_id: session(delivery),
        session_expires_at: at,
    })
}

/// The machine, on as many sockets as its editor has had.
struct Machine {
    now: Login,
    left: Vec<Login>,
}

impl Machine {
    /// Creates a login as an editor does: bare, and bound by its hello.
    fn new(binding: Binding) -> Self {
        let mut login = Login::new(Binding::Confirm);
        login.bind(binding);
        Self {
            now: login,
            left: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) -> Vec<Action> {
        let event = match step {
            Step::Approve(delivery) => Event::Approved(grant(delivery)),
            Step::Deny => Event::Denied,
            Step::RightCode => Event::Completed,
            Step::WrongCode => Event::Miscompleted,
            Step::Ack => Event::Acked,
            Step::RefuseGrant => Event::Refused,
            Step::Cancel => Event::Cancelled,
            Step::Activated => Event::Activated(OffsetDateTime::UNIX_EPOCH),
            Step::NotActivated => Event::NotActivated,
            Step::Leave => Event::SocketGone,
            Step::TimeOut => Event::TimedOut,
            Step::GiveWay => Event::GaveWay,
            Step::Resume => {
                let next = Login::resumed(self.now.binding(), self.now.state().clone());
                let mut old = std::mem::replace(&mut self.now, next);
                assert_eq!(
                    old.on(Event::TakenOver),
                    [Action::Close(4503)],
                    "the old socket is closed"
                );
                self.left.push(old);
                return self.now.state().due().into_iter().collect();
            }
        };

        // A holder that lost the login may receive everything that follows, and does nothing about
        // it.
        for old in &mut self.left {
            let actions = old.on(event.clone());
            assert!(
                actions.iter().all(|action| *action == Action::NotNow),
                "an old holder did {actions:?}"
            );
        }

        self.now.on(event)
    }
}

/// Separates the actions for the editor from those for sessions, whose order does not matter.
fn apart(mut actions: Vec<Action>) -> (Vec<Action>, Vec<Action>) {
    let for_sessions = actions
        .extract_if(.., |action| action.is_for_sessions())
        .collect();
    (for_sessions, actions)
}

/// One step: the machine's result, and the model's.
#[derive(Debug)]
struct Lived {
    step: Step,
    before: State,
    actions: Vec<Action>,
    expected: Vec<Action>,
    after: Login,
    phase: Phase,
    /// The delivery whose grant is kept.
    kept: Option<u8>,
    /// The delivery that the editor has acknowledged.
    stored: Option<u8>,
    answers: Answers,
}

/// The answers to other callers then.
#[derive(Debug, PartialEq)]
struct Answers {
    /// For each of two deliveries.
    takes: [Result<(), Objection>; 2],
    /// After a denial.
    denied: Option<Result<(), Objection>>,
    /// Of a delivery, once one was accepted.
    #[expect(
        clippy::option_option,
        reason = "no delivery was accepted, or the one that was has no outcome yet"
    )]
    outcome: Option<Option<Result<(), Objection>>>,
}

/// The events of a login, as far as they could happen.
struct Life {
    binding: Binding,
    steps: Vec<Lived>,
    model: Model,
    machine: Machine,
}

impl Life {
    /// Lives the steps, and lets time run out at the end.
    fn live((binding, steps): (Binding, Vec<Step>)) -> Self {
        let mut life = Self {
            binding,
            steps: Vec::new(),
            model: Model::new(binding),
            machine: Machine::new(binding),
        };
        for step in steps.into_iter().chain([Step::TimeOut]) {
            if life.model.can(step) {
                life.step(step);
            }
        }

        life
    }

    fn step(&mut self, step: Step) {
        let before = self.machine.now.state().clone();
        let (actions, expected) = (self.machine.take(step), self.model.take(step));
        self.steps.push(Lived {
            step,
            before,
            actions,
            expected,
            after: self.machine.now.clone(),
            phase: self.model.phase(),
            kept: self.model.approved.filter(|_| self.model.is_open()),
            stored: self.model.approved.filter(|_| self.model.is_stored()),
            answers: Answers {
                takes: [1, 2].map(|delivery| self.model.takes(delivery)),
                denied: (step == Step::Deny).then(|| self.model.denied()),
                outcome: self.model.approved.map(|_| self.model.outcome()),
            },
        });
    }

    fn count(&self, matches: impl Fn(&Action) -> bool) -> usize {
        self.steps
            .iter()
            .flat_map(|lived| &lived.actions)
            .filter(|action| matches(action))
            .count()
    }
}

fn bindings() -> impl Strategy<Value = Binding> {
    select(vec![Binding::Confirm, Binding::Typed, Binding::Link])
}

/// Lives of a login without haste: most steps are those of a sign-in, so that lives get far.
fn lives() -> impl Strategy<Value = (Binding, Vec<Step>)> {
    let step = prop_oneof![
        4 => (1_u8..=2).prop_map(Step::Approve),
        4 => Just(Step::WrongCode),
        3 => Just(Step::Resume),
        2 => select(vec![Step::RightCode, Step::Ack, Step::Activated, Step::Leave]),
        1 => select(vec![Step::Deny, Step::RefuseGrant, Step::Cancel, Step::NotActivated, Step::TimeOut, Step::GiveWay]),
    ];
    (bindings(), prop::collection::vec(step, 0..24))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_machine_does_what_the_protocol_says_and_shows_it_to_web(life in lives()) {
        for Lived { step, before, actions, expected, after, phase, .. } in Life::live(life).steps {
            prop_assert_eq!(apart(actions), apart(expected), "{:?} in {:?}", step, before);
            prop_assert_eq!(after.phase(), phase, "{:?} in {:?}", step, before);
        }
    }

    /// To a caller that asks now, and to one that has waited.
    #[test]
    fn deliveries_and_denials_are_answered_as_the_protocol_says(life in lives()) {
        let life = Life::live(life);
        for Lived { step, before, after, answers, .. } in &life.steps {
            let given = Answers {
                takes: [1, 2].map(|delivery| after.takes(&grant(delivery))),
                denied: answers.denied.map(|_| after.is_denied()),
                outcome: answers.outcome.map(|_| after.news(None)),
            };
            prop_assert_eq!(&given, answers, "{:?} in {:?}", step, before);
            for known in Phase::ALL {
                let news = (known != after.phase()).then_some(Ok(()));
                prop_assert_eq!(after.news(Some(known)), news);
            }
        }
        for old in &life.machine.left {
            let away = Err(Objection::Away);
            let said = [old.takes(&grant(1)), old.is_denied(), old.news(None).unwrap_or(Ok(()))];
            prop_assert_eq!(said, [away; 3]);
        }
    }

    /// The first grant stays whatever comes after it; once it is acknowledged, the receipt stays
    /// forever.
    #[test]
    fn a_grant_is_kept_until_it_is_acknowledged_or_the_login_is_over(life in lives()) {
        for Lived { step, before, after, kept, stored, .. } in Life::live(life).steps {
            let (kept, receipt) = (kept.map(|delivery| *grant(delivery)), stored.map(|delivery| grant(delivery).receipt()));
            prop_assert_eq!(after.state().grant(), kept.as_ref(), "{:?} in {:?}", step, before);
            prop_assert_eq!(after.state().receipt(), receipt.as_ref(), "{:?} in {:?}", step, before);
        }
    }

    /// There are two causes, and both need the person in the browser. A token that was sent once is
    /// sent again only to a resuming editor.
    #[test]
    fn a_token_is_pushed_for_an_approval_without_a_binding_or_for_the_right_code(life in lives()) {
        let life = Life::live(life);
        let (mut approved, mut released) = (false, false);
        for Lived { step, actions, .. } in &life.steps {
            approved |= matches!(step, Step::Approve(_));
            if actions.contains(&Action::Push) {
                let is_cause = match life.binding {
                    Binding::Confirm => matches!(step, Step::Approve(_)),
                    Binding::Typed | Binding::Link => *step == Step::RightCode,
                };
                prop_assert!(approved && (is_cause && !released || *step == Step::Resume && released), "{:?}", step);
                released = true;
            }
        }
    }

    /// However often the editor changes sockets between them.
    #[test]
    fn nobody_gets_more_than_five_tries(life in lives()) {
        let life = Life::live(life);
        let tries = life.count(|action| matches!(action, Action::TellBadCode { .. }));
        prop_assert!(tries <= 5, "{} tries", tries);
        prop_assert_eq!(tries == 5, *life.machine.now.state() == State::Burned);
    }

    #[test]
    fn nothing_happens_after_an_end_but_to_frames_that_come_too_late(life in lives(), after in lives()) {
        let mut life = Life::live(life);
        prop_assert!(!life.model.is_open(), "time has run out");
        if life.model.stored {
            return Ok(());
        }
        let end = life.machine.now.state().clone();
        for step in after.1.into_iter().filter(|step| *step != Step::Resume) {
            let actions = life.machine.take(step);
            prop_assert!(actions.iter().all(|action| *action == Action::NotNow), "{:?} {:?}", step, actions);
            prop_assert_eq!(life.machine.now.state(), &end);
        }
    }

    /// A session that its editor has acknowledged is never ended here.
    #[test]
    fn an_approval_that_no_editor_acknowledged_takes_its_session_along_once(life in lives()) {
        let life = Life::live(life);
        let ends = life.count(|action| matches!(action, Action::EndSession { .. }));
        prop_assert_eq!(ends, usize::from(life.model.approved.is_some() && !life.model.stored));
    }

    /// The editor may come back, and web delivers the same session again to the relay that has the
    /// login then.
    #[test]
    fn a_session_does_not_end_because_its_editor_with_a_ticket_is_away(life in lives()) {
        for Lived { step, after, actions, .. } in Life::live(life).steps {
            let ended = actions.iter().any(|action| matches!(action, Action::EndSession { .. }));
            prop_assert!(!ended || step != Step::Leave || after.binding() == Binding::Confirm, "{:?}", after);
        }
    }

    /// It has nothing with which it could come back.
    #[test]
    fn a_bare_login_ends_with_its_socket(life in lives()) {
        let life = Life::live((Binding::Confirm, life.1));
        for lived in life.steps {
            prop_assert!(lived.after.phase() != Phase::Away);
            prop_assert!(lived.step != Step::Leave || !lived.after.state().is_unfinished(), "{:?}", lived);
        }
    }

    /// Only the need of a newer login ends a login before its time, and only a silent one.
    #[test]
    fn a_login_that_was_bound_or_approved_gives_way_to_nobody(life in lives()) {
        for Lived { step, before, after, .. } in Life::live(life).steps {
            let gave_way = step == Step::GiveWay && after.state() != &before;
            prop_assert!(!gave_way || before == State::Waiting && after.binding() == Binding::Confirm, "{:?}", before);
        }
    }

    /// Whatever it says of itself, and however often.
    #[test]
    fn a_binding_is_never_loosened(said in prop::collection::vec(bindings(), 0..4)) {
        let mut login = Login::new(Binding::Confirm);
        for binding in &said {
            login.bind(*binding);
        }
        prop_assert_eq!(login.binding(), said.into_iter().max().unwrap_or(Binding::Confirm));
    }
}
