//! The answers of a login to requests, as tables over its states.

use vvs_proto::Phase;

use super::{Grant, Login, State};

/// Why a login refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objection {
    /// Its editor may come back, here or elsewhere.
    Away,
    /// Another delivery has it.
    Claimed,
    Over,
    /// Its editor refused the token.
    EditorRefused,
    Expired,
}

impl Login {
    /// Checks whether it accepts this delivery, for the first time or again.
    pub(crate) fn takes(&self, grant: &Grant) -> Result<(), Objection> {
        let took = self.state.took(grant);
        let if_here = || {
            if self.phase() == Phase::Away {
                Err(Objection::Away)
            } else {
                Ok(())
            }
        };

        match &self.state {
            State::Waiting => if_here(),
            State::Sent(_) if took => if_here(),
            // While it is held, the code is with the person, and the editor may come back for it.
            State::Held { .. } | State::Activating(_) | State::Acked(..) if took => Ok(()),
            State::Held { .. } | State::Sent(_) | State::Activating(_) | State::Acked(..) => {
                Err(Objection::Claimed)
            }
            State::Denied | State::Cancelled | State::Burned => Err(Objection::Over),
            State::Refused => Err(Objection::EditorRefused),
            State::Expired => Err(Objection::Expired),
            State::Moved => Err(Objection::Away),
        }
    }

    /// Checks whether it is denied, after a denial.
    pub(crate) fn is_denied(&self) -> Result<(), Objection> {
        match &self.state {
            State::Denied => Ok(()),
            State::Waiting
            | State::Held { .. }
            | State::Sent(_)
            | State::Activating(_)
            | State::Acked(..) => Err(Objection::Claimed),
            State::Cancelled | State::Refused | State::Burned => Err(Objection::Over),
            State::Expired => Err(Objection::Expired),
            State::Moved => Err(Objection::Away),
        }
    }

    /// Returns the answer for a waiter; `None` while it must continue to wait. A look waits for a
    /// phase other than the one that it knows, a delivery for its outcome.
    pub(crate) fn news(&self, known: Option<Phase>) -> Option<Result<(), Objection>> {
        let phase = self.phase();
        if let Some(known) = known {
            return (phase != known).then_some(Ok(()));
        }

        (phase != Phase::Sent).then(|| self.outcome())
    }

    /// Returns the outcome of the delivery that it has accepted.
    fn outcome(&self) -> Result<(), Objection> {
        match &self.state {
            State::Held { .. } | State::Activating(_) | State::Acked(..) => Ok(()),
            State::Denied | State::Cancelled | State::Burned => Err(Objection::Over),
            State::Refused => Err(Objection::EditorRefused),
            State::Expired => Err(Objection::Expired),
            State::Waiting | State::Sent(_) | State::Moved => Err(Objection::Away),
        }
    }
}
