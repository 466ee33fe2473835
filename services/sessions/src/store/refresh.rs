//! Refreshes: those that prolong a session, and those that follow so soon that nothing is written
//! for them.

use vvs_auth::device::{DeviceKey, Thumbprint};

use super::{Change, Store, commit, find};
use crate::Error;
use crate::audit::{AuditRow, Event};
use crate::id::SessionId;
use crate::session::{DAY, Seconds, Session, Terms};

/// A session after a refresh.
#[derive(Debug)]
pub(crate) struct Refreshed {
    pub(crate) session: Session,
    /// Whether it was pending before.
    pub(crate) activated: bool,
    /// When its token ends.
    pub(crate) token_end: Seconds,
}

impl Store {
    /// Prolongs the session of the editor that holds this key, and activates it if it was pending.
    /// Right after another refresh it changes nothing: the new token has the same end as the
    /// previous one. The row already knows the end of each of these tokens, so a revocation need
    /// not wait for it.
    pub(crate) async fn refresh(
        &self,
        id: &SessionId,
        key: &Thumbprint,
        address: &str,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Refreshed, Error> {
        let session = find(&mut *self.pool.acquire().await?, id).await?;
        if let Some(token_end) = unchanged(&session, key, terms, now)? {
            return Ok(Refreshed {
                session,
                activated: false,
                token_end,
            });
        }

        let mut change = self.pool.begin().await?;

        // Takes the row, so that a revocation comes either before this token or after it, and then
        // knows its end.
        sqlx::query("UPDATE sessions SET refreshed_at = refreshed_at WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut *change)
            .await?;
        let session = find(&mut change, id).await?;

        // Another window of the editor may have been faster.
        if let Some(token_end) = unchanged(&session, key, terms, now)? {
            return Ok(Refreshed {
                session,
                activated: false,
                token_end,
            });
        }

        self.prolong(change, session, address, terms, now).await
    }

    async fn prolong(
        &self,
        mut change: Change,
        mut session: Session,
        address: &str,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Refreshed, Error> {
        let activated = session.activated_at.is_none();
        session.activated_at.get_or_insert(now);
        session.refreshed_at = now;
        session.expires_at = terms.session_end(&session.device, session.created_at, now);
        let token_end = terms.token_end(&session.device, session.expires_at, now);
        session.tokens_expire_at = session.tokens_expire_at.max(token_end);
        if !address.is_empty() {
            address.clone_into(&mut session.address);
        }

        sqlx::query(
            "UPDATE sessions SET activated_at = $1, refreshed_at = $2, expires_at = $3,
             tokens_expire_at = $4, address = $5
             WHERE id = $6",
        )
        .bind(session.activated_at)
        .bind(session.refreshed_at)
        .bind(session.expires_at)
        .bind(session.tokens_expire_at)
        .bind(&session.address)
        .bind(session.id.as_str())
        .execute(&mut *change)
        .await?;

        let mut entries = Vec::new();
        if activated {
            entries.push(AuditRow::of(Event::Activated, &session));
        }

        if is_first_of_day(&mut change, &session.id, now).await? {
            entries.push(AuditRow::of(Event::Refreshed, &session));
        }

        self.audit(&mut change, &entries, now).await?;
        commit(change, &entries).await?;

        Ok(Refreshed {
            session,
            activated,
            token_end,
        })
    }
}

/// Refuses an editor that may not refresh. Returns the end of the token, when nothing changes
/// because the last refresh was a moment ago.
fn unchanged(
    session: &Session,
    key: &Thumbprint,
    terms: &Terms,
    now: Seconds,
) -> Result<Option<Seconds>, Error> {
    if session
        .device
        .key
        .as_ref()
        .map(DeviceKey::thumbprint)
        .as_ref()
        != Some(key)
    {
        return Err(Error::KeyMismatch(session.id.clone()));
    }

    terms.check_live(session, now)?;
    Ok(terms.same_token_end(session, now))
}

/// Returns whether it is the session's first refresh on this day, and records it.
async fn is_first_of_day(change: &mut Change, id: &SessionId, now: Seconds) -> Result<bool, Error> {
    let today = now.div_euclid(DAY);
    let noted = sqlx::query(
        "UPDATE sessions SET refresh_audited_on = $1 WHERE id = $2 AND refresh_audited_on < $3",
    )
    .bind(today)
    .bind(id.as_str())
    .bind(today)
    .execute(&mut **change)
    .await?;
    Ok(noted.rows_affected() == 1)
}
