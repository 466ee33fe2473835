//! The ends of browser sign-ins, numbered in commit order. A transaction that ends one holds the
//! row of the newest number until its commit: every end that commits after a sign-in has read a
//! number applies to that sign-in.

use vvs_runtime::limit::Reached;

use super::{BATCH, Cause, Change, Store, commit, user};
use crate::Error;
use crate::audit::{AuditRow, Event};
use crate::browser::{End, Millis, SignIn};
use crate::session::Seconds;

/// How many ends without a subject from the provider are stored one by one.
const MAX_WITHOUT_SUBJECT: u32 = 100_000;

/// How many ends of a user are stored one by one.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) ends: u32,
    pub(crate) reached: Reached,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            ends: 100,
            reached: Reached::default(),
        }
    }
}

impl Store {
    /// Sets the maximum number of ends that are stored for one user.
    pub(crate) fn with_room(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// Returns the watermark of a sign-in whose proof is that old, or was made just now.
    pub(crate) async fn watermark(
        &self,
        proof_age: Option<Millis>,
        now: Millis,
    ) -> Result<i64, Error> {
        let newest: i64 = sqlx::query_scalar("SELECT number FROM browser_ends_newest")
            .fetch_one(&self.pool)
            .await?;
        Ok(proof_age.map_or(newest, |age| newest.min(now.saturating_sub(age)).max(0)))
    }

    /// Returns whether a sign-in of a browser has ended.
    pub(crate) async fn has_ended(&self, sign_in: &SignIn) -> Result<bool, Error> {
        let SignIn {
            id,
            whose,
            watermark,
        } = sign_in;

        // Three look-ups, each in a separate index.
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT number FROM browser_ends WHERE sign_in_id = $1 AND provider = $2
             UNION ALL
             SELECT number FROM browser_ends
             WHERE provider_session = $3 AND provider_session <> '' AND provider = $4
             AND number > $5
             UNION ALL
             SELECT number FROM browser_ends
             WHERE provider = $6 AND subject IN ($7, '') AND sign_in_id = ''
             AND provider_session = '' AND number > $8
             LIMIT 1",
        )
        .bind(id)
        .bind(&whose.provider)
        .bind(&whose.provider_session)
        .bind(&whose.provider)
        .bind(watermark)
        .bind(&whose.provider)
        .bind(&whose.subject)
        .bind(watermark)
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.is_some())
    }

    /// Ends browser sign-ins. When a user has too many ends to store one more separately, all
    /// sign-ins of that user end.
    pub(crate) async fn end_sign_ins(
        &self,
        end: &End,
        cause: &Cause,
        now: Millis,
    ) -> Result<(), Error> {
        let mut change = self.pool.begin().await?;
        let number = next_number(&mut change, now).await?;

        let mut end = end.clone();
        let mut before = take_out(&mut change, &end).await?;
        let has_room = end.is_of_all()
            || before.is_some()
            || has_room(&mut change, &end, self.room.ends).await?;
        if !has_room {
            end = end.of_all();
            before = take_out(&mut change, &end).await?;
        }

        insert(
            &mut change,
            &end,
            number,
            before.unwrap_or_default().max(end.forget_at(now)),
        )
        .await?;

        let is_repeat = before.is_some() && !end.is_of_all();
        let entries = if is_repeat {
            Vec::new()
        } else {
            vec![entry(&mut change, &end, cause).await?]
        };

        self.audit(&mut change, &entries, now / 1000).await?;
        commit(change, &entries).await?;
        if !has_room {
            self.room.reached.tell("VVS_SESSIONS_MAX_ENDED_SIGN_INS");
        }

        Ok(())
    }

    /// Deletes ends that apply to no sign-in any longer. Returns how many.
    pub(crate) async fn forget_ends(&self, now: Seconds) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "DELETE FROM browser_ends WHERE number IN
             (SELECT number FROM browser_ends WHERE forget_at <= $1 LIMIT $2)",
        )
        .bind(now)
        .bind(i64::from(BATCH))
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

/// Takes the next number: the time, or a higher number if the time would not exceed the previous
/// one.
async fn next_number(change: &mut Change, now: Millis) -> Result<i64, Error> {
    let number = sqlx::query_scalar(
        "UPDATE browser_ends_newest SET number = CASE WHEN number >= $1 THEN number + 1 ELSE $2 \
         END RETURNING number",
    )
    .bind(now)
    .bind(now)
    .fetch_one(&mut **change)
    .await?;
    Ok(number)
}

/// Deletes the row of the same end. Returns until when it was to be stored.
async fn take_out(change: &mut Change, end: &End) -> Result<Option<Seconds>, Error> {
    let forget_at = sqlx::query_scalar(
        "DELETE FROM browser_ends
         WHERE provider = $1 AND subject = $2 AND sign_in_id = $3 AND provider_session = $4
         RETURNING forget_at",
    )
    .bind(&end.whose.provider)
    .bind(&end.whose.subject)
    .bind(&end.sign_in_id)
    .bind(&end.whose.provider_session)
    .fetch_optional(&mut **change)
    .await?;
    Ok(forget_at)
}

/// Returns whether one more end of this user can be stored separately.
async fn has_room(change: &mut Change, end: &End, most: u32) -> Result<bool, Error> {
    let most = if end.whose.subject.is_empty() {
        MAX_WITHOUT_SUBJECT
    } else {
        most
    };

    let known: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM browser_ends
         WHERE provider = $1 AND subject = $2 AND (sign_in_id <> '' OR provider_session <> '')",
    )
    .bind(&end.whose.provider)
    .bind(&end.whose.subject)
    .fetch_one(&mut **change)
    .await?;
    Ok(known < i64::from(most))
}

async fn insert(
    change: &mut Change,
    end: &End,
    number: i64,
    forget_at: Seconds,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO browser_ends (number, provider, subject, sign_in_id, provider_session,
         forget_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(number)
    .bind(&end.whose.provider)
    .bind(&end.whose.subject)
    .bind(&end.sign_in_id)
    .bind(&end.whose.provider_session)
    .bind(forget_at)
    .execute(&mut **change)
    .await?;
    Ok(())
}

/// Returns the entry for the audit log.
async fn entry(change: &mut Change, end: &End, cause: &Cause) -> Result<AuditRow, Error> {
    let event = if end.is_of_all() {
        Event::BrowsersSignedOut
    } else {
        Event::BrowserSignedOut
    };

    let (provider, subject) = (&end.whose.provider, &end.whose.subject);
    let reason = cause.reason.as_str();
    let entry = AuditRow::new(event).from(&cause.address);

    Ok(match user::find(change, provider, subject).await? {
        Some(user) => AuditRow {
            user_id: user.as_str().to_owned(),
            ..entry
        }
        .because(reason),
        // Somebody who never approved anything has no id of ours.
        None => entry.because(&format!("{reason}, of {subject} at {provider}")),
    })
}

#[cfg(test)]
mod tests;
