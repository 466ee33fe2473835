//! Clerk's session tokens, which a browser that is signed in with Clerk presents and which are
//! valid for a minute. Every rule is as strict as possible without refusing what Clerk signs for a
//! signed-in user.

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::claim::meaning;
use super::jws::Jws;
use super::{Distrust, KeySet};

/// The header's `cat` of session tokens.
const SESSION: &str = "cl_B7d4PD111AAA";
/// The header's `cat` without information.
const NO_INFORMATION: &str = "cl_I7d4PD111III";
/// The prefix of the ids of machines, which have tokens but no session.
const MACHINE: &str = "mch_";

/// The values that a valid token must contain.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The frontend API: scheme and authority, no slash.
    pub issuer: &'a str,
    /// Our origins at which a browser may have got its token. A token that names none of them is
    /// refused.
    pub authorized_parties: &'a [String],
    /// Whether a member of staff may be signed in as the user.
    pub allow_impersonation: bool,
}

/// The content of a session token. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The user's id.
    pub subject: String,
    /// The id of the browser's session with Clerk.
    pub session: String,
    /// 0 when the token does not say; it then counts as older than any other.
    pub issued_at: i64,
    pub expires_at: i64,
    /// The member of staff who is signed in as the user.
    pub actor: Option<String>,
    /// The id of the organization that the user has chosen.
    pub organization: Option<String>,
}

/// Checks a session token at a time in seconds since 1970.
///
/// # Errors
///
/// [`Distrust`] says why. It says that the token is stale only when everything else is right.
pub fn verify(token: &str, keys: &KeySet, rules: &Rules<'_>, now: i64) -> Result<Claims, Distrust> {
    let jws = Jws::parse(token)?;
    let is_session = matches!(jws.header("cat")?, None | Some(SESSION | NO_INFORMATION));
    if !is_session || !matches!(jws.header("typ")?, None | Some("JWT")) {
        return Err(Distrust::WrongKind);
    }

    let algorithm = jws.algorithm(&[("RS256", Algorithm::RS256)])?;
    let key_id = jws.key_id()?;
    if key_id.is_none() && keys.must_be_named() {
        return Err(Distrust::Malformed);
    }

    let key = keys.find(key_id, algorithm).ok_or(Distrust::UnknownKey)?;
    let claims = jws.verify(key, algorithm)?;

    claims.check_issuer(rules.issuer)?;
    let subject = claims.required("sub")?;
    if subject.starts_with(MACHINE) {
        return Err(Distrust::WrongKind);
    }

    let session = claims.required("sid")?;
    let party = claims
        .get("azp")
        .and_then(Value::as_str)
        .ok_or(Distrust::WrongParty)?;
    if !rules.authorized_parties.iter().any(|known| known == party) {
        return Err(Distrust::WrongParty);
    }

    let actor = match claims.get("act") {
        None => None,
        Some(_) if !rules.allow_impersonation => return Err(Distrust::Impersonated),
        Some(actor) => Some(
            actor
                .get("sub")
                .and_then(meaning)
                .ok_or(Distrust::Claim("act"))?,
        ),
    };

    if claims.get("sts").is_some_and(|status| status == "pending") {
        return Err(Distrust::Pending);
    }

    // Only members that a version reserves are Clerk's own word: the others may be an application's
    // custom claims.
    let organization = match claims.get("v").and_then(Value::as_i64) {
        Some(2) => claims
            .get("o")
            .and_then(|organization| organization.get("id")),
        Some(_) | None => claims.get("org_id"),
    };

    let times = claims.times()?;
    let expires_at = times.expires_at.ok_or(Distrust::Claim("exp"))?;
    times.check(now)?;

    Ok(Claims {
        subject: subject.to_owned(),
        session: session.to_owned(),
        issued_at: times.issued_at.unwrap_or_default(),
        expires_at,
        actor: actor.map(str::to_owned),
        organization: organization.and_then(meaning).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests;
