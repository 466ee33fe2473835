-- Sessions that last: device keys (the public halves), revocations in commit order, keys that take turns, an audit log.

-- A JWK; without one its tokens are bearer tokens.
ALTER TABLE sessions ADD COLUMN device_key TEXT;
ALTER TABLE sessions ADD COLUMN connection_id TEXT NOT NULL DEFAULT '';
-- The latest `exp` of any token that was signed for it.
ALTER TABLE sessions ADD COLUMN tokens_expire_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN revoked_at BIGINT;

UPDATE sessions SET tokens_expire_at = expires_at;

CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;

-- One row. Whoever revokes holds it until the commit, so that the order of the numbers is the order of the commits.
CREATE TABLE feed (
    id BIGINT PRIMARY KEY,
    newest BIGINT NOT NULL,
    -- The highest number that is gone.
    pruned BIGINT NOT NULL
);

INSERT INTO feed (id, newest, pruned) VALUES (1, 0, 0);

CREATE TABLE revocations (
    sequence BIGINT PRIMARY KEY,
    session_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    tokens_expire_at BIGINT NOT NULL
);

CREATE INDEX revocations_by_end ON revocations (tokens_expire_at);

ALTER TABLE signing_keys ADD COLUMN signs_at BIGINT NOT NULL DEFAULT 0;

UPDATE signing_keys SET signs_at = created_at;

CREATE TABLE audit (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    event TEXT NOT NULL,
    user_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    address TEXT NOT NULL,
    device TEXT NOT NULL,
    reason TEXT NOT NULL
);

CREATE INDEX audit_by_time ON audit (at);
