-- The spec of a VM made from here on has version 3: its NICs may have IPv6, a guard and forwards.

-- The networks that this program has made, or is making: what is undone is what is noted here.
CREATE TABLE network (
    name       TEXT    NOT NULL PRIMARY KEY,
    state      TEXT    NOT NULL,
    spec       TEXT    NOT NULL CHECK (json_valid(spec)),
    made       TEXT    NOT NULL CHECK (json_valid(made)),
    server     TEXT    CHECK (server IS NULL OR json_valid(server)),
    updated_at TEXT    NOT NULL
) STRICT;

-- The IPv6 subnets that were made up. They outlive the network's row: VMs keep their addresses.
CREATE TABLE prefix6 (
    network    TEXT    NOT NULL PRIMARY KEY,
    net        TEXT    NOT NULL UNIQUE
) STRICT;

-- Settings of the kernel that were changed, with what they were before.
CREATE TABLE host_setting (
    path       TEXT    NOT NULL PRIMARY KEY,
    before     TEXT    NOT NULL
) STRICT;
