//! Reads claims (RFC 7519, section 4.1) whose signature is valid. A claim of the wrong type is
//! refused, never treated as missing.

use serde_json::{Map, Value};

use super::Distrust;

/// How far the provider's clock may be off, in seconds.
const SKEW: i64 = 5;

pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns a text that is not blank, if the claim is present.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, Distrust> {
        let text = |value| meaning(value).ok_or(Distrust::Claim(name));
        self.get(name).map(text).transpose()
    }

    /// Returns a text that is not blank; the claim is required.
    pub(super) fn required(&self, name: &'static str) -> Result<&str, Distrust> {
        self.text(name)?.ok_or(Distrust::Claim(name))
    }

    /// Returns a time in seconds since 1970, if the claim is present. A fraction of a second counts
    /// as a whole one, so comparisons with whole seconds give the same result.
    pub(super) fn time(&self, name: &'static str) -> Result<Option<i64>, Distrust> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a time beyond the range is as good as its end"
        )]
        let seconds = |value: &Value| {
            value
                .as_i64()
                .or_else(|| Some(value.as_f64()?.ceil() as i64))
        };
        let time = |value| seconds(value).ok_or(Distrust::Claim(name));
        self.get(name).map(time).transpose()
    }

    pub(super) fn times(&self) -> Result<Times, Distrust> {
        Ok(Times {
            not_before: self.time("nbf")?,
            issued_at: self.time("iat")?,
            expires_at: self.time("exp")?,
        })
    }

    /// Checks that the issuer has exactly this spelling.
    pub(super) fn check_issuer(&self, issuer: &str) -> Result<(), Distrust> {
        let is_right = self.get("iss").and_then(Value::as_str) == Some(issuer);
        if is_right {
            Ok(())
        } else {
            Err(Distrust::WrongIssuer)
        }
    }
}

/// Returns a text that is not blank.
pub(super) fn meaning(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.trim().is_empty())
}

/// The times of a token.
pub(super) struct Times {
    not_before: Option<i64>,
    pub(super) issued_at: Option<i64>,
    pub(super) expires_at: Option<i64>,
}

impl Times {
    /// The time from which the token counts as expired.
    pub(super) fn good_until(&self) -> Option<i64> {
        self.expires_at.map(|at| at.saturating_add(SKEW))
    }

    /// Checks that a token with these times is valid now.
    pub(super) fn check(&self, now: i64) -> Result<(), Distrust> {
        if self.good_until().is_some_and(|end| end <= now) {
            return Err(Distrust::Expired);
        }
        let is_future = |at: Option<i64>| at.is_some_and(|at| at > now.saturating_add(SKEW));
        if is_future(self.not_before) || is_future(self.issued_at) {
            return Err(Distrust::NotYet);
        }
        Ok(())
    }
}
