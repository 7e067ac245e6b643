-- The tree's hashes, 256 in a row.
CREATE TABLE tiles (level BIGINT, number BIGINT, hashes BYTEA NOT NULL, PRIMARY KEY (level, number));
ALTER TABLE tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- The entries, 256 in a row, as C2SP tlog-tiles writes them.
CREATE TABLE bundles (number BIGINT PRIMARY KEY, entries BYTEA NOT NULL);
ALTER TABLE bundles ALTER COLUMN entries SET STORAGE EXTERNAL;

-- Beside each entry: whose event it is, and its encrypted body, which may expire.
CREATE TABLE events (
    position BIGINT PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, time_us BIGINT NOT NULL,
    digest BYTEA NOT NULL, checksum BIGINT NOT NULL, body BYTEA
);
ALTER TABLE events ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX events_by_tenant ON events (tenant, time_us) WHERE body IS NOT NULL;
CREATE INDEX events_by_time ON events (time_us) WHERE body IS NOT NULL;

CREATE TABLE head (only_row BIGINT PRIMARY KEY CHECK (only_row = 1), size BIGINT NOT NULL, root BYTEA NOT NULL);
