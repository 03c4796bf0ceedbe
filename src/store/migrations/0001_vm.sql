PRAGMA application_id = 0x56697273; -- "Virs": tells this file from another program's database

CREATE TABLE vm (
    uuid       TEXT    NOT NULL PRIMARY KEY,
    number     INTEGER NOT NULL UNIQUE CHECK (number BETWEEN 1 AND 4294967295),
    name       TEXT    NOT NULL UNIQUE,
    node       TEXT    NOT NULL DEFAULT 'local',
    template   TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    intent     TEXT,
    spec       TEXT    NOT NULL CHECK (json_valid(spec)),
    exit       TEXT    CHECK (exit IS NULL OR json_valid(exit)),
    runtime    TEXT    CHECK (runtime IS NULL OR json_valid(runtime)),
    owner      TEXT    CHECK (owner IS NULL OR json_valid(owner)),
    created_at TEXT    NOT NULL,
    updated_at TEXT    NOT NULL,
    started_at TEXT
) STRICT;

CREATE TABLE address (
    network    TEXT    NOT NULL,
    ip         TEXT    NOT NULL,
    vm         TEXT    NOT NULL REFERENCES vm (uuid) ON DELETE CASCADE,
    nic        INTEGER NOT NULL,
    PRIMARY KEY (network, ip)
) STRICT, WITHOUT ROWID;

CREATE INDEX address_of_vm ON address (vm);

-- One row. It outlives the VMs, so that a number is never given twice.
CREATE TABLE last_number (
    only_row   INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    number     INTEGER NOT NULL CHECK (number BETWEEN 0 AND 4294967295)
) STRICT;

INSERT INTO last_number (only_row, number) VALUES (1, 0);
