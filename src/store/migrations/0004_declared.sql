-- The spec of a VM made from here on has version 4: it has labels, and what it can grow to while it runs.

-- What the config once said of a VM that it declares; a VM made by hand has none.
ALTER TABLE vm ADD COLUMN declared TEXT CHECK (declared IS NULL OR json_valid(declared));
