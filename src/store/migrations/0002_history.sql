-- The spec of a VM made from here on has version 2: it holds the VM's policy.
ALTER TABLE vm ADD COLUMN progress TEXT CHECK (progress IS NULL OR json_valid(progress));
ALTER TABLE vm ADD COLUMN retries  TEXT CHECK (retries IS NULL OR json_valid(retries));

-- What happened. It outlives the VM, so it names it without referring to its row.
CREATE TABLE history (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    time       TEXT    NOT NULL,
    vm         TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    actor      TEXT    NOT NULL CHECK (json_valid(actor)),
    happening  TEXT    NOT NULL CHECK (json_valid(happening))
) STRICT;

CREATE INDEX history_of_vm ON history (vm, id);
