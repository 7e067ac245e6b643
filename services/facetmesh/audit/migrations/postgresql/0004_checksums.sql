-- Tells fsck of a flipped bit. Those of the rows that are there are filled in with this step.
ALTER TABLE retention ADD COLUMN checksum BIGINT NOT NULL DEFAULT -1;
ALTER TABLE cursors ADD COLUMN checksum BIGINT NOT NULL DEFAULT -1;
ALTER TABLE sightings ADD COLUMN checksum BIGINT NOT NULL DEFAULT -1;
