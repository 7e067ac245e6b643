-- How long each tenant's bodies are kept, and whether they are held for a court or an inquiry.
CREATE TABLE retention (
    tenant TEXT PRIMARY KEY, days INTEGER NOT NULL, hold INTEGER NOT NULL, reason TEXT NOT NULL,
    changed_us INTEGER NOT NULL
);
