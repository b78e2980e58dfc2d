-- The newest report of each spool, as its drainer gave it: one row a machine and user.
CREATE TABLE spools (
    workspace TEXT NOT NULL,
    spool_id  TEXT NOT NULL,
    heard_at  TEXT NOT NULL,
    report    TEXT NOT NULL,                             -- JSON; read whole, never searched
    PRIMARY KEY (workspace, spool_id)
) STRICT;
