-- Times are RFC 3339 text in UTC of a fixed width, so that text order is time order and SQLite's
-- date functions read them. Ids are hyphenated UUIDs. JSON is text.

-- The audit log: one row per arrival, whatever became of it.
CREATE TABLE webhook_events (
    id              TEXT NOT NULL PRIMARY KEY,           -- UUIDv7 of the receipt: sorts by time
    workspace       TEXT NOT NULL,
    request_id      TEXT NOT NULL,                       -- not unique: repeats leave rows of their own
    digest          BLOB NOT NULL,                       -- SHA-256, 32 bytes
    event_type      TEXT NOT NULL,
    session_id      TEXT,
    received_at     TEXT NOT NULL,
    request_headers TEXT NOT NULL,                       -- JSON object
    ip_address      TEXT,
    status          TEXT NOT NULL CHECK (status IN (
        'PENDING', 'PROCESSING', 'SUCCESS', 'DUPLICATE', 'INVALID', 'ERROR', 'PENDING_RETRY', 'FAILED'
    )),
    processed_at    TEXT,                                -- when it reached its final state
    processing_time INTEGER,                             -- milliseconds from receipt to the statement being sent
    conversation_id TEXT,
    message_id      TEXT,
    tool_use_id     TEXT,
    error_code      TEXT,
    error_message   TEXT,
    error_stack     TEXT,
    retry_count     INTEGER NOT NULL DEFAULT 0,
    retry_after     TEXT,
    claim_token     INTEGER NOT NULL DEFAULT 0,          -- counts claims; a worker's writes name the one it holds
    claimed_at      TEXT,
    discarded_at    TEXT,
    metadata        TEXT NOT NULL,                       -- JSON object
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL,
    payload_bytes   INTEGER NOT NULL DEFAULT 0,          -- of the payload as it came; none of a duplicate
    -- Last, because SQLite reads through a large value to what stands behind it.
    request_body    TEXT,                                -- JSON as it came; a wrapper where raw_body is set; NULL for a duplicate
    raw_body        BLOB                                 -- the bytes of what is not JSON
) STRICT;

-- Eight indexes. Each comment holds the query that needs it.

-- query: SELECT event_type FROM webhook_events WHERE workspace = 'main' AND id < 'f' ORDER BY id DESC LIMIT 50
CREATE INDEX webhook_events_workspace ON webhook_events (workspace, id);
-- query: SELECT event_type FROM webhook_events WHERE status = 'INVALID' AND status <> 'SUCCESS' AND id < 'f' ORDER BY id DESC LIMIT 50
CREATE INDEX webhook_events_status ON webhook_events (status, id) WHERE status <> 'SUCCESS';
-- query: SELECT status FROM webhook_events WHERE event_type = 'Stop' AND id < 'f' ORDER BY id DESC LIMIT 50
CREATE INDEX webhook_events_type ON webhook_events (event_type, id);
-- query: SELECT event_type FROM webhook_events WHERE session_id = 's' AND conversation_id = 'c' AND status <> 'DUPLICATE' ORDER BY id
CREATE INDEX webhook_events_session ON webhook_events (session_id, id);
-- query: SELECT status FROM webhook_events WHERE workspace = 'main' AND request_id = 'r' ORDER BY id DESC LIMIT 50
CREATE INDEX webhook_events_request ON webhook_events (workspace, request_id, id);
-- query: SELECT id FROM webhook_events WHERE status = 'PENDING_RETRY' AND retry_after <= '2026-11-24T00:00:00.000000Z' ORDER BY retry_after, id LIMIT 50
CREATE INDEX webhook_events_due ON webhook_events (status, retry_after, id)
    WHERE status = 'PENDING' OR status = 'PROCESSING' OR status = 'ERROR' OR status = 'PENDING_RETRY';
-- query: SELECT event_type FROM webhook_events WHERE status = 'FAILED' AND discarded_at IS NULL AND workspace = 'main' AND request_id > 'a' ORDER BY request_id LIMIT 50
CREATE INDEX webhook_events_dead ON webhook_events (workspace, discarded_at, request_id)
    WHERE status = 'FAILED';
-- What belongs to no conversation is read by itself, to keep it elsewhere.
-- query: SELECT id FROM webhook_events WHERE workspace = 'main' AND status <> 'DUPLICATE' AND conversation_id IS NULL AND id > '0' ORDER BY id LIMIT 50
CREATE INDEX webhook_events_loose ON webhook_events (workspace, id) WHERE conversation_id IS NULL;

-- The eight states and which may follow which: the same table as `EventStatus::may_become`.
CREATE TRIGGER webhook_events_transition BEFORE UPDATE OF status ON webhook_events
WHEN (OLD.status, NEW.status) NOT IN (VALUES
    ('PENDING', 'PROCESSING'),
    ('PENDING_RETRY', 'PROCESSING'),
    ('PROCESSING', 'SUCCESS'),
    ('PROCESSING', 'ERROR'),
    ('PROCESSING', 'PENDING'),
    ('PROCESSING', 'INVALID'),
    ('ERROR', 'PENDING_RETRY'),
    ('ERROR', 'FAILED'),
    ('ERROR', 'PENDING'),
    ('FAILED', 'PENDING'),
    ('INVALID', 'PENDING')
)
BEGIN
    SELECT RAISE(ABORT, 'a webhook_events row cannot change from this status to that one');
END;

-- The ledger of idempotency: what a repeat of a request id is answered. It outlives the audit row. A request id names
-- an event of its workspace; another may use the same.
CREATE TABLE request_ids (
    workspace  TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest     BLOB NOT NULL,
    claimed    BLOB,                                     -- the digest that the sender named, where it is another
    event_id   TEXT NOT NULL,
    answer     TEXT NOT NULL,                            -- JSON: status, conversationId, messageId, toolUseId
    created_at TEXT NOT NULL,
    PRIMARY KEY (workspace, request_id)
) STRICT, WITHOUT ROWID;

-- The oldest entries are found by their events' ids, which sort by time.
CREATE INDEX request_ids_event ON request_ids (event_id);

-- The trail: every change of an audit row's state.
CREATE TABLE event_transitions (
    id          INTEGER NOT NULL PRIMARY KEY,
    event_id    TEXT NOT NULL REFERENCES webhook_events (id) ON DELETE CASCADE,
    from_status TEXT NOT NULL,
    to_status   TEXT NOT NULL,
    at          TEXT NOT NULL,
    actor       TEXT NOT NULL,
    reason      TEXT NOT NULL
) STRICT;

CREATE INDEX event_transitions_event ON event_transitions (event_id, id);

-- One row per session. Events apply in any order and each may know only a part, so nothing here
-- references another table; what a column cannot say (which event wrote it) is in metadata. The id is derived from
-- the workspace and the session, so it finds the row of both.
CREATE TABLE conversations (
    id            TEXT NOT NULL PRIMARY KEY,
    workspace     TEXT NOT NULL,
    session_id    TEXT NOT NULL,
    project_path  TEXT,
    title         TEXT,
    description   TEXT,
    started_at    TEXT NOT NULL,
    ended_at      TEXT,
    last_event_at TEXT NOT NULL,
    metadata      TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;                                 -- each event of a session replaces its row, in its place

CREATE INDEX conversations_latest ON conversations (workspace, last_event_at, id);

-- Ids of messages and tool uses come in no order. Behind the conversation they stand among their own kind, so that
-- an event writes few pages. A conversation is read whole, and sorted by whoever reads it.

-- The messages. A small one stands here as a whole. The words and blocks of a larger one are in message_blocks, and
-- the row is small and written again for each of them. People read the view messages, which has both.
CREATE TABLE message_rows (
    id              TEXT NOT NULL,
    workspace       TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    role            TEXT NOT NULL,
    content         TEXT,                                -- NULL where the words are in message_blocks
    tool_calls      TEXT,
    timestamp       TEXT NOT NULL,
    metadata        TEXT NOT NULL,
    -- What the transcript adds. What a message is made of, in order, is in blocks: of its texts only how long they
    -- are, for the content has the words. The tokens are in metadata too, with all their kinds.
    blocks          TEXT,                                -- JSON array of objects
    model           TEXT,
    input_tokens    INTEGER,
    output_tokens   INTEGER,
    cache_read_tokens INTEGER,
    cache_creation_tokens INTEGER,
    PRIMARY KEY (conversation_id, id)
) STRICT;

-- The blocks of messages that are not small, each in its place.
CREATE TABLE message_blocks (
    conversation_id TEXT NOT NULL,
    message_id      TEXT NOT NULL,
    at              TEXT NOT NULL,                       -- the time of the line, then its block's number at the API,
    block_index     INTEGER NOT NULL,
    line            TEXT NOT NULL,                       -- the line, and the block's number in it
    n               INTEGER NOT NULL,
    kind            TEXT NOT NULL,                       -- the type of the block; words for those of a message without
    value           TEXT,
    PRIMARY KEY (conversation_id, message_id, at, block_index, line, n)
) STRICT, WITHOUT ROWID;

CREATE VIEW messages AS SELECT
    m.id, m.workspace, m.conversation_id, m.role,
    CASE WHEN m.content IS NOT NULL THEN m.content ELSE (
        SELECT coalesce(group_concat(t.value, char(10) || char(10)), '') FROM (
            SELECT b.value FROM message_blocks AS b
            WHERE b.conversation_id = m.conversation_id AND b.message_id = m.id AND b.kind IN ('text', 'words')
            ORDER BY b.at, b.block_index, b.line, b.n
        ) AS t
    ) END AS content,
    m.tool_calls, m.timestamp, m.metadata,
    CASE WHEN m.content IS NOT NULL THEN m.blocks ELSE (
        SELECT nullif(json_group_array(json(t.block)), '[]') FROM (
            SELECT json_patch(
                json_object('at', b.at, 'index', b.block_index, 'line', b.line, 'n', b.n),
                CASE b.kind
                    WHEN 'text' THEN json_object('bytes', length(CAST(b.value AS BLOB)))
                    WHEN 'thinking' THEN json_object('type', b.kind, 'text', b.value)
                    WHEN 'tool_use' THEN json_object('type', b.kind, 'tool_use_id', b.value)
                    WHEN 'image' THEN json_object('type', b.kind, 'media_type', b.value)
                    ELSE json_object('type', b.kind, 'kind', b.value)
                END
            ) AS block FROM message_blocks AS b
            WHERE b.conversation_id = m.conversation_id AND b.message_id = m.id AND b.kind <> 'words'
            ORDER BY b.at, b.block_index, b.line, b.n
        ) AS t
    ) END AS blocks,
    m.model, m.input_tokens, m.output_tokens, m.cache_read_tokens, m.cache_creation_tokens,
    coalesce(m.metadata ->> 'copied', 0) AS copied
FROM message_rows AS m;

CREATE TABLE tool_uses (
    id              TEXT NOT NULL,
    workspace       TEXT NOT NULL,
    message_id      TEXT,
    conversation_id TEXT NOT NULL,
    tool_name       TEXT NOT NULL,
    parameters      TEXT,
    response        TEXT,
    duration        INTEGER,                             -- milliseconds
    status          TEXT NOT NULL,
    timestamp       TEXT NOT NULL,
    metadata        TEXT NOT NULL,
    PRIMARY KEY (conversation_id, id)
) STRICT;

-- One row per subagent: a thread of a conversation beside the main one.
CREATE TABLE subagents (
    id              TEXT NOT NULL PRIMARY KEY,
    workspace       TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    agent_id        TEXT NOT NULL,                       -- Claude Code's id, as in the metadata of messages
    agent_type      TEXT,
    tool_use_id     TEXT,                                -- Claude Code's id of the tool use that started it
    started_at      TEXT NOT NULL,
    last_event_at   TEXT NOT NULL,
    stopped_at      TEXT
) STRICT;

CREATE INDEX subagents_conversation ON subagents (conversation_id);

-- Keys as hashes; the secret is nowhere.
CREATE TABLE api_keys (
    id         TEXT NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,
    scope      TEXT NOT NULL CHECK (scope IN ('ingest', 'read', 'admin')),
    workspace  TEXT NOT NULL,
    hash       BLOB NOT NULL,
    created_at TEXT NOT NULL,
    revoked_at TEXT,
    last_used_at TEXT                                     -- to the minute
) STRICT;

-- The feed: one row per transaction, and in it per workspace, that stored audit rows, changed their state or
-- wrote messages. One connection writes at a time, so the order of the ids is the order of the commits;
-- AUTOINCREMENT keeps an id from being used again when its row is gone.
CREATE TABLE commits (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace TEXT NOT NULL,                             -- empty where rows only changed their state
    at       TEXT NOT NULL,
    events   TEXT NOT NULL,                              -- JSON array of ids in webhook_events
    messages TEXT NOT NULL,                              -- JSON array of [conversation_id, id] in message_rows
    tool_uses TEXT NOT NULL,                             -- JSON array of [conversation_id, id] in tool_uses
    counts   TEXT NOT NULL DEFAULT '[]'                  -- JSON: what changes of the rollups, whatever the workspace
) STRICT;

-- The search index takes the commits of one workspace after the other.
CREATE INDEX commits_workspace ON commits (workspace, id);

-- Counts of audit rows by their present state and the minute, hour and day of their receipt. They are added up behind the
-- transactions from what commits say, so pruning changes none. What a workspace has too many of is counted as '(other)'.
CREATE TABLE rollup_minute (
    workspace  TEXT NOT NULL,
    at         TEXT NOT NULL,                            -- the beginning of the minute
    event_type TEXT NOT NULL,
    status     TEXT NOT NULL,
    error_code TEXT NOT NULL,                            -- may be empty
    host       TEXT NOT NULL,                            -- may be empty
    events     INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,                         -- of their payloads
    latency    TEXT NOT NULL,                            -- a sketch of the milliseconds from receipt to commit
    PRIMARY KEY (workspace, at, event_type, status, error_code, host)
) STRICT;
CREATE TABLE rollup_hour (
    workspace  TEXT NOT NULL,
    at         TEXT NOT NULL,                            -- the beginning of the hour
    event_type TEXT NOT NULL,
    status     TEXT NOT NULL,
    error_code TEXT NOT NULL,                            -- may be empty
    host       TEXT NOT NULL,                            -- may be empty
    events     INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,                         -- of their payloads
    latency    TEXT NOT NULL,                            -- a sketch of the milliseconds from receipt to commit
    PRIMARY KEY (workspace, at, event_type, status, error_code, host)
) STRICT;
CREATE TABLE rollup_day (
    workspace  TEXT NOT NULL,
    at         TEXT NOT NULL,                            -- the beginning of the day
    event_type TEXT NOT NULL,
    status     TEXT NOT NULL,
    error_code TEXT NOT NULL,                            -- may be empty
    host       TEXT NOT NULL,                            -- may be empty
    events     INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,                         -- of their payloads
    latency    TEXT NOT NULL,                            -- a sketch of the milliseconds from receipt to commit
    PRIMARY KEY (workspace, at, event_type, status, error_code, host)
) STRICT;
-- What is old is found without its workspace.
CREATE INDEX rollup_minute_at ON rollup_minute (at);
CREATE INDEX rollup_hour_at ON rollup_hour (at);

-- Each message of the API as it is counted, once in whatever conversations it stands. It stays when these are pruned.
CREATE TABLE usage_messages (
    workspace       TEXT NOT NULL,
    api_id          TEXT NOT NULL,                       -- the message's own id where the API gave none
    at              TEXT NOT NULL,
    conversation_id TEXT NOT NULL,                       -- the one that it is counted in
    model           TEXT NOT NULL,
    is_subagent     INTEGER NOT NULL,
    is_copied       INTEGER NOT NULL,                    -- into that conversation, from one that is not stored
    usage           TEXT NOT NULL,                       -- JSON object: tokens by kind
    PRIMARY KEY (workspace, api_id)
) STRICT, WITHOUT ROWID;

-- What these took, by quarter of an hour.
CREATE TABLE usage_15min (
    workspace       TEXT NOT NULL,
    at              TEXT NOT NULL,                       -- the beginning of the quarter of an hour
    conversation_id TEXT NOT NULL,
    model           TEXT NOT NULL,
    is_subagent     INTEGER NOT NULL,
    prompt_size     INTEGER NOT NULL,                    -- of each message's prompt: a price may depend on it
    messages        INTEGER NOT NULL,
    input_tokens    INTEGER NOT NULL,
    output_tokens   INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_creation_tokens INTEGER NOT NULL,
    cache_creation_1h_tokens INTEGER NOT NULL,           -- part of cache_creation_tokens
    thinking_tokens INTEGER NOT NULL,                    -- part of output_tokens
    web_searches    INTEGER NOT NULL,
    PRIMARY KEY (workspace, at, conversation_id, model, is_subagent, prompt_size)
) STRICT, WITHOUT ROWID;

-- How far the commits are added up, and from when on there are minutes and hours.
CREATE TABLE rollup_position (
    only_row     INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    commit_id    INTEGER NOT NULL,                       -- the commit to go on with
    done         INTEGER NOT NULL,                       -- how many of its messages are done
    minutes_from TEXT NOT NULL,
    hours_from   TEXT NOT NULL
) STRICT;
INSERT INTO rollup_position VALUES (1, 0, 0, '1970-01-01T00:00:00.000000Z', '1970-01-01T00:00:00.000000Z');

-- Tells this database from others, so that the search index beside it is known to be its own.
CREATE TABLE identity (
    id TEXT NOT NULL
) STRICT;
INSERT INTO identity (id) VALUES (lower(hex(randomblob(16))));

-- The newest report of each spool, as its drainer gave it: one row a machine and user.
CREATE TABLE spools (
    workspace TEXT NOT NULL,
    spool_id  TEXT NOT NULL,
    heard_at  TEXT NOT NULL,
    report    TEXT NOT NULL,                             -- JSON; read whole, never searched
    PRIMARY KEY (workspace, spool_id)
) STRICT;

-- The report of each spool that was heard last in each hour. It goes with its spool, or after 90 days.
CREATE TABLE spool_hours (
    workspace TEXT NOT NULL,
    spool_id  TEXT NOT NULL,
    hour      TEXT NOT NULL,
    heard_at  TEXT NOT NULL,
    report    TEXT NOT NULL,                             -- JSON; read whole, never searched
    PRIMARY KEY (workspace, spool_id, hour)
) STRICT, WITHOUT ROWID;

CREATE INDEX spool_hours_hour ON spool_hours (hour);

-- Browsers that are signed in at the dashboard. The secret of the cookie is nowhere.
CREATE TABLE browser_sessions (
    hash       BLOB NOT NULL PRIMARY KEY,                -- SHA-256 of the secret
    workspace  TEXT NOT NULL,
    key_id     TEXT NOT NULL,                            -- of api_keys; empty where it was a one-time link
    scope      TEXT NOT NULL CHECK (scope IN ('ingest', 'read', 'admin')),
    browser    TEXT NOT NULL,                            -- how it calls itself
    created_at TEXT NOT NULL,
    seen_at    TEXT NOT NULL                             -- to the minute
) STRICT;

CREATE INDEX browser_sessions_workspace ON browser_sessions (workspace);
