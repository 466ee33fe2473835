//! How far a login has come, as everybody but its relay sees it.

use crate::generated::relay::v1::LoginState;

/// A state of the contract: `LoginState` without the one that is never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Waiting,
    Held,
    Sent,
    Away,
    Acked,
    Denied,
    Cancelled,
    Expired,
    Burned,
}

impl Phase {
    pub const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Held,
        Self::Sent,
        Self::Away,
        Self::Acked,
        Self::Denied,
        Self::Cancelled,
        Self::Expired,
        Self::Burned,
    ];

    /// Reads the number of a message; `None` for the one that is never sent and for one of a later
    /// version.
    pub fn from_wire(number: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|phase| i32::from(LoginState::from(*phase)) == number)
    }

    /// The contract's name without its prefix, as metrics, logs and scripts spell it.
    pub fn as_str(self) -> &'static str {
        let name = LoginState::from(self).as_str_name();
        name.strip_prefix("LOGIN_STATE_").unwrap_or(name)
    }

    /// Returns whether nobody has approved or denied it.
    pub fn is_undecided(self) -> bool {
        matches!(self, Self::Waiting | Self::Away)
    }

    /// Returns whether it may still succeed.
    pub fn is_open(self) -> bool {
        self != Self::Acked && !self.is_failed()
    }

    /// Returns whether it has failed.
    pub fn is_failed(self) -> bool {
        match self {
            Self::Denied | Self::Cancelled | Self::Expired | Self::Burned => true,
            Self::Waiting | Self::Held | Self::Sent | Self::Away | Self::Acked => false,
        }
    }
}

impl From<Phase> for LoginState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Waiting => Self::Waiting,
            Phase::Held => Self::Held,
            Phase::Sent => Self::Sent,
            Phase::Away => Self::Away,
            Phase::Acked => Self::Acked,
            Phase::Denied => Self::Denied,
            Phase::Cancelled => Self::Cancelled,
            Phase::Expired => Self::Expired,
            Phase::Burned => Self::Burned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_the_same_here_and_on_the_wire() {
        let spelled = Phase::ALL.map(Phase::as_str);
        assert_eq!(
            spelled,
            [
                "WAITING",
                "HELD",
                "SENT",
                "AWAY",
                "ACKED",
                "DENIED",
                "CANCELLED",
                "EXPIRED",
                "BURNED"
            ]
        );

        for number in -1..=i32::from(u8::MAX) {
            let known = LoginState::try_from(number)
                .ok()
                .filter(|state| *state != LoginState::Unspecified);
            assert_eq!(Phase::from_wire(number).map(LoginState::from), known);
        }
    }
}
