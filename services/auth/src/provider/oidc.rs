//! OpenID Connect: ID tokens, which say who has just signed in, and logout tokens, which say that a
//! session is over. Knows no discovery, no code flow and no particular provider.

use serde_json::{Map, Value};

use super::claim::Claims as Signed;
use super::jws::Jws;
use super::key_set::ALGORITHMS;
use super::{Distrust, KeySet};

/// Longest subject, in bytes (OpenID Connect Core, section 2).
const MAX_SUBJECT: usize = 255;
/// For how long after its issue an ID token counts as the answer to the request just made, in
/// seconds.
const ID_TOKEN_AGE: i64 = 600;
/// For how long after its issue a logout token is accepted, in seconds.
const LOGOUT_TOKEN_AGE: i64 = 300;
/// The event that a logout token is about (Back-Channel Logout, section 2.4).
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The values that a valid ID token must contain.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Exactly as in the discovery document.
    pub issuer: &'a str,
    pub client_id: &'a str,
    /// The nonce of the request that this token answers.
    pub nonce: &'a str,
}

/// The content of an ID token. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// The provider's id of the user; never an address.
    pub subject: String,
    /// The id of the session with the provider, if the provider sends one.
    pub session: Option<String>,
    pub email: Option<String>,
    /// Only if the provider says `true`.
    pub email_verified: bool,
    pub name: Option<String>,
    pub picture: Option<String>,
    /// When the user last proved who they are.
    pub auth_time: Option<i64>,
    pub issued_at: i64,
    pub expires_at: i64,
    /// Every claim as it arrived, including those above.
    pub rest: Map<String, Value>,
}

/// The content of a logout token. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// The user whose sessions are over. Either this or the session is present.
    pub subject: Option<String>,
    pub session: Option<String>,
    /// A logout token is valid once: the caller remembers this id until the token expires.
    pub jti: String,
    pub issued_at: i64,
    /// The time from which the token is always refused.
    pub expires_at: i64,
}

/// Checks an ID token (OpenID Connect Core, section 3.1.3.7) at a time in seconds since 1970.
///
/// # Errors
///
/// [`Distrust`] says why. It says that the token is stale only when everything else is right.
pub fn verify_id_token(
    token: &str,
    keys: &KeySet,
    rules: &Rules<'_>,
    now: i64,
) -> Result<Claims, Distrust> {
    let claims = open(token, keys, &["JWT"])?;
    claims.check_issuer(rules.issuer)?;
    check_audience(&claims, rules.client_id)?;
    check_party(&claims, rules.client_id)?;
    let subject = subject(&claims)?.ok_or(Distrust::Claim("sub"))?;
    if claims.get("nonce").and_then(Value::as_str) != Some(rules.nonce) {
        return Err(Distrust::WrongNonce);
    }

    let times = claims.times()?;
    let expires_at = times.expires_at.ok_or(Distrust::Claim("exp"))?;
    let issued_at = times.issued_at.ok_or(Distrust::Claim("iat"))?;
    let auth_time = claims.time("auth_time")?;
    let session = claims.text("sid")?.map(str::to_owned);
    times.check(now)?;
    if issued_at < now.saturating_sub(ID_TOKEN_AGE) {
        return Err(Distrust::TooOld);
    }

    // The profile is for show: a broken member of it is no reason to send somebody away.
    let shown = |name| claims.text(name).ok().flatten().map(str::to_owned);

    Ok(Claims {
        subject,
        session,
        email: shown("email"),
        email_verified: claims.get("email_verified") == Some(&Value::Bool(true)),
        name: shown("name"),
        picture: shown("picture"),
        auth_time,
        issued_at,
        expires_at,
        rest: claims.0,
    })
}

/// Checks a logout token (OpenID Connect Back-Channel Logout, section 2.6) at a time in seconds
/// since 1970. The caller checks whether its `jti` has been used before.
///
/// # Errors
///
/// [`Distrust`] says why. It says that the token is stale only when everything else is right.
pub fn verify_logout_token(
    token: &str,
    keys: &KeySet,
    issuer: &str,
    client_id: &str,
    now: i64,
) -> Result<Logout, Distrust> {
    let claims = open(token, keys, &["logout+jwt", "JWT"])?;
    claims.check_issuer(issuer)?;
    check_audience(&claims, client_id)?;
    let is_logout = claims
        .get("events")
        .and_then(|events| events.get(LOGOUT))
        .is_some_and(Value::is_object);

    // A nonce makes it an ID token, which the user's browser can get at.
    if !is_logout || claims.get("nonce").is_some() {
        return Err(Distrust::WrongKind);
    }

    let (subject, session) = (subject(&claims)?, claims.text("sid")?.map(str::to_owned));
    if subject.is_none() && session.is_none() {
        return Err(Distrust::Claim("sub or sid"));
    }

    let jti = claims.required("jti")?.to_owned();
    let times = claims.times()?;
    let issued_at = times.issued_at.ok_or(Distrust::Claim("iat"))?;
    times.check(now)?;
    if issued_at < now.saturating_sub(LOGOUT_TOKEN_AGE) {
        return Err(Distrust::TooOld);
    }

    let too_old_at = issued_at.saturating_add(LOGOUT_TOKEN_AGE + 1);
    let expires_at = times
        .good_until()
        .map_or(too_old_at, |end| end.min(too_old_at));

    Ok(Logout {
        subject,
        session,
        jti,
        issued_at,
        expires_at,
    })
}

/// Returns the claims of a token with a valid header and signature.
fn open(token: &str, keys: &KeySet, types: &[&str]) -> Result<Signed, Distrust> {
    let jws = Jws::parse(token)?;
    // Media types have no case (RFC 7515, section 4.1.9).
    let is_one = |typ: &str| types.iter().any(|known| known.eq_ignore_ascii_case(typ));
    if !jws.header("typ")?.is_none_or(is_one) {
        return Err(Distrust::WrongKind);
    }
    let algorithm = jws.algorithm(&ALGORITHMS)?;
    let key = keys
        .find(jws.key_id()?, algorithm)
        .ok_or(Distrust::UnknownKey)?;
    jws.verify(key, algorithm)
}

/// Checks that we are the audience, or one of the list of audiences.
fn check_audience(claims: &Signed, client_id: &str) -> Result<(), Distrust> {
    let audience = claims.get("aud").ok_or(Distrust::Claim("aud"))?;
    let audience = audience
        .as_array()
        .map_or(std::slice::from_ref(audience), Vec::as_slice);
    if !audience.iter().all(Value::is_string) {
        return Err(Distrust::Claim("aud"));
    }

    if audience.iter().any(|one| one == client_id) {
        Ok(())
    } else {
        Err(Distrust::WrongAudience)
    }
}

/// Checks that a token for several audiences says that it was issued to us.
fn check_party(claims: &Signed, client_id: &str) -> Result<(), Distrust> {
    let is_for_several = claims
        .get("aud")
        .and_then(Value::as_array)
        .is_some_and(|many| many.len() > 1);
    let is_ours = match claims.get("azp") {
        Some(party) => party == client_id,
        None => !is_for_several,
    };

    if is_ours {
        Ok(())
    } else {
        Err(Distrust::WrongParty)
    }
}

fn subject(claims: &Signed) -> Result<Option<String>, Distrust> {
    let subject = claims.text("sub")?;
    if subject.is_some_and(|subject| subject.len() > MAX_SUBJECT) {
        return Err(Distrust::Claim("sub"));
    }
    Ok(subject.map(str::to_owned))
}

#[cfg(test)]
mod tests;
