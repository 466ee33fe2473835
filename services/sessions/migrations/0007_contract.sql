-- What the contract names separately: an app's version, and the user of a revocation.

-- Empty in a session of before, whose device_app has both.
ALTER TABLE sessions ADD COLUMN device_app_version TEXT NOT NULL DEFAULT '';

-- Empty in an entry of before whose session is deleted.
ALTER TABLE revocations ADD COLUMN user_id TEXT NOT NULL DEFAULT '';
UPDATE revocations SET user_id = COALESCE((SELECT user_id FROM sessions WHERE sessions.id = revocations.session_id), '');
