-- Which sign-ins of browsers have ended, so that every web process knows. Nothing here lets anybody sign in.

-- A row ends the sign-in with its `sign_in_id`, and all that were made before it with its `provider_session`. With neither it
-- ends all that the subject has made before it; without a subject too, all that anybody at the provider has.
CREATE TABLE browser_ends (
    -- Milliseconds since 1970, made to grow with each row. A sign-in made before has a lower watermark.
    number BIGINT PRIMARY KEY,
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    sign_in_id TEXT NOT NULL,
    provider_session TEXT NOT NULL,
    -- When no sign-in made before can last any longer.
    forget_at BIGINT NOT NULL
);

CREATE INDEX browser_ends_by_user ON browser_ends (provider, subject);
CREATE INDEX browser_ends_of_all ON browser_ends (provider, subject) WHERE sign_in_id = '' AND provider_session = '';
CREATE INDEX browser_ends_by_id ON browser_ends (sign_in_id);
CREATE INDEX browser_ends_by_provider_session ON browser_ends (provider_session);
CREATE INDEX browser_ends_by_time ON browser_ends (forget_at);

-- One row. Whoever ends a sign-in holds it until the commit, so that the order of the numbers is the order of the commits.
CREATE TABLE browser_ends_newest (
    id BIGINT PRIMARY KEY,
    number BIGINT NOT NULL
);

INSERT INTO browser_ends_newest (id, number) VALUES (1, 0);
