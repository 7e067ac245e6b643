-- How long each tenant's bodies are kept, and whether they are held for a court or an inquiry.
CREATE TABLE retention (
    tenant TEXT PRIMARY KEY, days BIGINT NOT NULL, hold BIGINT NOT NULL, reason TEXT NOT NULL,
    changed_us BIGINT NOT NULL
);
