-- Times are RFC 3339 text of fixed width, in UTC, so that they sort and SQLite's date functions read
-- them. Ids are UUID text; those of audit rows are version 7 and sort by time of receipt.

CREATE TABLE webhook_events (
    id              TEXT    NOT NULL PRIMARY KEY,
    workspace       TEXT    NOT NULL DEFAULT 'main',
    request_id      TEXT    NOT NULL,
    event_type      TEXT    NOT NULL,
    session_id      TEXT,
    received_at     TEXT    NOT NULL,
    -- The payload as it came; a small description of it where it is not JSON; NULL for a duplicate.
    request_body    TEXT,
    -- The payload's bytes where request_body cannot hold them.
    raw_body        BLOB,
    request_headers TEXT    NOT NULL DEFAULT '{}',
    ip_address      TEXT,
    status          TEXT    NOT NULL CHECK (status IN (
        'PENDING', 'PROCESSING', 'SUCCESS', 'DUPLICATE', 'INVALID', 'ERROR', 'PENDING_RETRY', 'FAILED'
    )),
    processed_at    TEXT,
    -- Milliseconds from receipt to the statement that stored the row.
    processing_time BIGINT,
    conversation_id TEXT,
    message_id      TEXT,
    tool_use_id     TEXT,
    error_code      TEXT,
    error_message   TEXT,
    error_stack     TEXT,
    retry_count     INTEGER NOT NULL DEFAULT 0,
    retry_after     TEXT,
    metadata        TEXT    NOT NULL DEFAULT '{}',
    claim_token     TEXT,
    claimed_at      TEXT,
    discarded_at    TEXT,
    created_at      TEXT    NOT NULL,
    updated_at      TEXT    NOT NULL
);

-- Every row of a request id: `events --request`, and finding the first of it.
CREATE INDEX webhook_events_request ON webhook_events (request_id, id);
-- Volume by hour and day, percentiles of the last 24 hours, pruning.
CREATE INDEX webhook_events_received ON webhook_events (received_at);
-- Counts by state, and the newest rows of a state.
CREATE INDEX webhook_events_status ON webhook_events (status, id);
-- The newest rows of an event type.
CREATE INDEX webhook_events_type ON webhook_events (event_type, id);
-- The newest rows of a session.
CREATE INDEX webhook_events_session ON webhook_events (session_id, id);
-- The timeline of a conversation.
CREATE INDEX webhook_events_conversation ON webhook_events (conversation_id, id);
-- Rows that wait for another try.
CREATE INDEX webhook_events_retry ON webhook_events (retry_after)
    WHERE status IN ('ERROR', 'PENDING_RETRY');
-- Rows that a worker has, or that wait for one.
CREATE INDEX webhook_events_claim ON webhook_events (status, claimed_at)
    WHERE status IN ('PENDING', 'PROCESSING');

-- The changes of state that may happen, as in arrakis_core::audit.
CREATE TRIGGER webhook_events_transition BEFORE UPDATE OF status ON webhook_events
WHEN OLD.status || '>' || NEW.status NOT IN (
    'PENDING>PROCESSING', 'PENDING_RETRY>PROCESSING',
    'PROCESSING>SUCCESS', 'PROCESSING>ERROR', 'PROCESSING>PENDING', 'PROCESSING>INVALID',
    'ERROR>PENDING_RETRY', 'ERROR>FAILED', 'ERROR>PENDING',
    'FAILED>PENDING', 'INVALID>PENDING'
)
BEGIN
    SELECT RAISE(ABORT, 'illegal change of state');
END;

-- The ledger of idempotency. It outlives the rows of webhook_events.
CREATE TABLE request_ids (
    request_id TEXT NOT NULL PRIMARY KEY,
    digest     TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    -- The state and the ids that a repeat is answered with.
    answer     TEXT NOT NULL,
    created_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE event_transitions (
    id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    event_id    TEXT    NOT NULL,
    from_status TEXT    NOT NULL,
    to_status   TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    created_at  TEXT    NOT NULL
);
CREATE INDEX event_transitions_event ON event_transitions (event_id, id);

CREATE TABLE conversations (
    id            TEXT NOT NULL PRIMARY KEY,
    workspace     TEXT NOT NULL DEFAULT 'main',
    session_id    TEXT NOT NULL,
    project_path  TEXT,
    title         TEXT,
    description   TEXT,
    started_at    TEXT NOT NULL,
    ended_at      TEXT,
    last_event_at TEXT NOT NULL,
    metadata      TEXT NOT NULL DEFAULT '{}',
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
);
CREATE UNIQUE INDEX conversations_session ON conversations (workspace, session_id);
CREATE INDEX conversations_latest ON conversations (workspace, last_event_at, id);

CREATE TABLE messages (
    id              TEXT NOT NULL PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    role            TEXT NOT NULL,
    content         TEXT NOT NULL,
    tool_calls      TEXT,
    timestamp       TEXT NOT NULL,
    metadata        TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX messages_conversation ON messages (conversation_id, timestamp);

CREATE TABLE tool_uses (
    id              TEXT NOT NULL PRIMARY KEY,
    message_id      TEXT,
    conversation_id TEXT NOT NULL,
    tool_name       TEXT NOT NULL,
    parameters      TEXT,
    response        TEXT,
    -- Milliseconds.
    duration        BIGINT,
    status          TEXT NOT NULL,
    timestamp       TEXT NOT NULL,
    metadata        TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX tool_uses_conversation ON tool_uses (conversation_id, timestamp);

CREATE TABLE api_keys (
    id         TEXT NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,
    scope      TEXT NOT NULL CHECK (scope IN ('ingest', 'read', 'admin')),
    workspace  TEXT NOT NULL,
    -- SHA-256 of the key; the key itself is kept nowhere.
    hash       TEXT NOT NULL,
    created_at TEXT NOT NULL,
    revoked_at TEXT
);
