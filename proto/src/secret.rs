//! Text that must cross the wire and must never reach a log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A token, code, proof or ticket. It serializes, because the wire needs it; its `Debug` shows
/// nothing, and it has no `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text itself; every call needs a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The generated messages that hold secrets, with a `Debug` that omits them.
macro_rules! redact {
    ($($message:path),+ $(,)?) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), "([redacted])"))
            }
        }
    )+};
}

redact!(
    crate::generated::relay::v1::DeliverAuthRequest,
    crate::generated::relay::v1::Held,
    crate::generated::session::v1::Token,
    crate::generated::internal::v1::RefreshTokenRequest,
    crate::generated::internal::v1::EndSessionRequest,
    crate::generated::internal::v1::BackplaneSealed,
);

#[cfg(test)]
mod tests {
    use crate::internal::BackplaneSealed;
    use crate::relay::deliver_auth_response::Outcome;
    use crate::relay::{DeliverAuthResponse, Held};

    #[test]
    fn what_carries_a_token_or_a_code_does_not_print_it() {
        let sealed = BackplaneSealed {
            version: 1,
            message: vec![250],
        };
        let held = Held {
            code: "BCDFGHJK".to_owned(),
            ..Held::default()
        };
        let answer = DeliverAuthResponse {
            outcome: Some(Outcome::Held(held)),
        };
        let printed = format!("{sealed:?} {answer:?}");
        assert!(
            !printed.contains("250") && !printed.contains("BCDFGHJK"),
            "{printed}"
        );
    }
}
