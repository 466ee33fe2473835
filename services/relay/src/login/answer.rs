//! What a login answers to those who ask something of it, as tables over its states.

use vvs_proto::Phase;

use super::{Grant, Login, State};

/// Why a login does not do what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objection {
    /// Its editor may come back, here or elsewhere.
    Away,
    /// Another delivery has it.
    Claimed,
    Over,
    /// Its editor did not want what it got.
    EditorRefused,
    Expired,
}

impl Login {
    /// Whether it takes this delivery, for the first time or again.
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
            // The code is with the person, and the editor may come back for it.
            State::Held { .. } if took => Ok(()),
            State::Sent(_) if took => if_here(),
            State::Activating(_) | State::Acked(..) if took => Ok(()),
            State::Held { .. } | State::Sent(_) | State::Activating(_) | State::Acked(..) => {
                Err(Objection::Claimed)
            }
            State::Denied | State::Cancelled | State::Burned => Err(Objection::Over),
            State::Refused => Err(Objection::EditorRefused),
            State::Expired => Err(Objection::Expired),
            State::Moved => Err(Objection::Away),
        }
    }

    /// Whether it is denied, behind a denial.
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

    /// What somebody who waits is told; `None` while it is to wait on. A look waits for another
    /// phase than the one that it knows, a delivery for its outcome.
    pub(crate) fn news(&self, known: Option<Phase>) -> Option<Result<(), Objection>> {
        let phase = self.phase();
        if let Some(known) = known {
            return (phase != known).then_some(Ok(()));
        }

        (phase != Phase::Sent).then(|| self.outcome())
    }

    /// What became of the delivery that it has taken.
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
