-- What bounds a session and a person.

-- The day (since 1970, in UTC) of the session's last row `refreshed` in the audit log, which has one a day.
ALTER TABLE sessions ADD COLUMN refresh_audited_on BIGINT NOT NULL DEFAULT -1;

-- A person's rows of the last day are counted.
CREATE INDEX audit_by_user ON audit (user_id, at);
