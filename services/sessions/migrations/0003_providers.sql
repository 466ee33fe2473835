-- What follows from other people's systems: when a provider was last asked about a person, which of its sessions an editor
-- was approved with, and which keys have ever signed here.

-- When the provider last said something about the person, or was to be asked.
ALTER TABLE users ADD COLUMN checked_at BIGINT NOT NULL DEFAULT 0;

UPDATE users SET checked_at = created_at;

CREATE INDEX users_by_check ON users (provider, checked_at);
CREATE INDEX sessions_by_provider_session ON sessions (provider_session);

-- Every key that ever was in signing_keys. Whoever shows a token of another one was signed in with another database.
CREATE TABLE known_keys (
    kid TEXT PRIMARY KEY
);

INSERT INTO known_keys (kid) SELECT kid FROM signing_keys;
