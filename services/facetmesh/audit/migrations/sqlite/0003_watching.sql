-- How far those who go through the log have come, and which replica does it until when.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, holder TEXT NOT NULL, until_us INTEGER NOT NULL
);

-- Which values the rules have seen, such as the regions from which a key was used.
CREATE TABLE sightings (rule TEXT, subject TEXT, value TEXT, PRIMARY KEY (rule, subject, value));
