-- Times are seconds since 1970. Nothing here lets anybody sign in: no token, no code, and signing keys only encrypted.

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    email TEXT,
    name TEXT,
    avatar_url TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (provider, subject)
);

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (id),
    provider_session TEXT NOT NULL,
    device_name TEXT NOT NULL,
    device_os TEXT NOT NULL,
    device_app TEXT NOT NULL,
    address TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    activated_at BIGINT,
    refreshed_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX sessions_pending ON sessions (created_at) WHERE activated_at IS NULL;

CREATE TABLE signing_keys (
    number BIGINT PRIMARY KEY,
    kid TEXT NOT NULL UNIQUE,
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
