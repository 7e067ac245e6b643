-- The tree's hashes, 256 in a row.
CREATE TABLE tiles (level INTEGER, number INTEGER, hashes BLOB NOT NULL, PRIMARY KEY (level, number));

-- The entries, 256 in a row, as C2SP tlog-tiles writes them.
CREATE TABLE bundles (number INTEGER PRIMARY KEY, entries BLOB NOT NULL);

-- Beside each entry: whose event it is, and its encrypted body, which may expire.
CREATE TABLE events (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, time_us INTEGER NOT NULL,
    digest BLOB NOT NULL, checksum INTEGER NOT NULL, body BLOB
);
CREATE INDEX events_by_tenant ON events (tenant, time_us) WHERE body IS NOT NULL;
CREATE INDEX events_by_time ON events (time_us) WHERE body IS NOT NULL;

CREATE TABLE head (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), size INTEGER NOT NULL, root BLOB NOT NULL);
