-- Which database the numbers of the feed are of, so that a relay that comes from another one notices. Made at start while it
-- is empty.
ALTER TABLE feed ADD COLUMN database_id TEXT NOT NULL DEFAULT '';
