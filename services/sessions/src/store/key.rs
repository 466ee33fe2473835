//! The sealed signing keys, numbered in the order in which they sign.

use sqlx::Row as _;

use super::Store;
use crate::Error;
use crate::session::Seconds;

/// A private key as the store holds it.
#[derive(Debug, Clone)]
pub(crate) struct SealedKey {
    /// Its position in the order in which keys sign.
    pub(crate) number: i64,
    pub(crate) kid: String,
    /// base64url of the sealed PKCS #8.
    pub(crate) sealed: String,
    /// When it was made, and published.
    pub(crate) created_at: Seconds,
    /// When it begins to sign, until its successor does.
    pub(crate) signs_at: Seconds,
}

impl Store {
    /// Returns all signing keys, the oldest first.
    pub(crate) async fn signing_keys(&self) -> Result<Vec<SealedKey>, Error> {
        let rows = sqlx::query(
            "SELECT number, kid, sealed, created_at, signs_at FROM signing_keys ORDER BY number",
        )
        .fetch_all(&self.pool)
        .await?;
        let key = |row: &sqlx::any::AnyRow| {
            Ok(SealedKey {
                number: row.try_get("number")?,
                kid: row.try_get("kid")?,
                sealed: row.try_get("sealed")?,
                created_at: row.try_get("created_at")?,
                signs_at: row.try_get("signs_at")?,
            })
        };
        rows.iter().map(key).collect()
    }

    /// Adds a key, unless another process was faster. Returns whether it did.
    pub(crate) async fn add_signing_key(&self, key: &SealedKey) -> Result<bool, Error> {
        let mut change = self.pool.begin().await?;
        let added = sqlx::query(
            "INSERT INTO signing_keys (number, kid, sealed, created_at, signs_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (number) DO NOTHING",
        )
        .bind(key.number)
        .bind(&key.kid)
        .bind(&key.sealed)
        .bind(key.created_at)
        .bind(key.signs_at)
        .execute(&mut *change)
        .await?;
        if added.rows_affected() == 0 {
            return Ok(false);
        }

        sqlx::query("INSERT INTO known_keys (kid) VALUES ($1)")
            .bind(&key.kid)
            .execute(&mut *change)
            .await?;
        change.commit().await?;

        Ok(true)
    }

    /// Returns whether a key of this name ever signed here, even if it is deleted.
    pub(crate) async fn has_known_key(&self, kid: &str) -> Result<bool, Error> {
        // A program from before there were known keys, which runs beside us until it is replaced,
        // notes none.
        let found = sqlx::query(
            "SELECT kid FROM known_keys WHERE kid = $1 UNION SELECT kid FROM \
                signing_keys WHERE kid = $2",
        )
        .bind(kid)
        .bind(kid)
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.is_some())
    }

    /// Returns whether a token that was signed at this time or before is still valid.
    pub(crate) async fn has_tokens_from(
        &self,
        until: Seconds,
        now: Seconds,
    ) -> Result<bool, Error> {
        let found: Option<String> = sqlx::query_scalar(
            "SELECT id FROM sessions WHERE tokens_expire_at > $1 AND refreshed_at <= $2 LIMIT 1",
        )
        .bind(now)
        .bind(until)
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.is_some())
    }

    /// Deletes a key; its name stays known.
    pub(crate) async fn delete_signing_key(&self, number: i64) -> Result<(), Error> {
        let mut change = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO known_keys (kid) SELECT kid FROM signing_keys WHERE number = $1 ON \
             CONFLICT (kid) DO NOTHING",
        )
        .bind(number)
        .execute(&mut *change)
        .await?;
        sqlx::query("DELETE FROM signing_keys WHERE number = $1")
            .bind(number)
            .execute(&mut *change)
            .await?;

        Ok(change.commit().await?)
    }
}
