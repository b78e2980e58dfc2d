-- The newest report of each spool, as its drainer gave it: one row a machine and user.
CREATE TABLE spools (
    workspace TEXT NOT NULL,
    spool_id  UUID NOT NULL,
    heard_at  TIMESTAMPTZ NOT NULL,
    report    TEXT NOT NULL,                             -- JSON; read whole, never searched
    PRIMARY KEY (workspace, spool_id)
);
