-- Ids are UUIDs. What JSONB or text cannot hold (U+0000, numbers past its range) is kept in a wrapper or
-- beside the column, so that no payload fails a statement.

CREATE TYPE event_status AS ENUM (
    'PENDING', 'PROCESSING', 'SUCCESS', 'DUPLICATE', 'INVALID', 'ERROR', 'PENDING_RETRY', 'FAILED'
);

-- The audit log: one row per arrival, whatever became of it. It is kept in parts, one a month, so that an old month is
-- dropped and not deleted; `months.rs` makes and drops them. What belongs to an audit row alone has the same parts.
-- Together they take every id, so no insert fails for want of a part. None is a DEFAULT: with one, Postgres would not
-- read parts one after the other for a list, but all of them at once.
CREATE TABLE webhook_events (
    id              UUID PRIMARY KEY,                    -- UUIDv7 of the receipt: sorts by time
    workspace       TEXT NOT NULL,
    request_id      TEXT NOT NULL,                       -- not unique: repeats leave rows of their own
    digest          BYTEA NOT NULL,                      -- SHA-256, 32 bytes
    event_type      TEXT NOT NULL,
    session_id      TEXT,
    received_at     TIMESTAMPTZ NOT NULL,
    request_body    JSONB,                               -- a wrapper where raw_body is set; NULL for a duplicate
    raw_body        BYTEA,                               -- the bytes of what JSONB cannot hold
    request_headers JSONB NOT NULL,
    ip_address      TEXT,
    status          event_status NOT NULL,
    processed_at    TIMESTAMPTZ,                         -- when it reached its final state
    processing_time BIGINT,                              -- milliseconds from receipt to the statement being sent
    payload_bytes   BIGINT NOT NULL DEFAULT 0,           -- of the payload as it came; none of a duplicate
    conversation_id UUID,
    message_id      UUID,
    tool_use_id     UUID,
    error_code      TEXT,
    error_message   TEXT,
    error_stack     TEXT,
    retry_count     BIGINT NOT NULL DEFAULT 0,
    retry_after     TIMESTAMPTZ,
    claim_token     BIGINT NOT NULL DEFAULT 0,           -- counts claims; a worker's writes name the one it holds
    claimed_at      TIMESTAMPTZ,
    discarded_at    TIMESTAMPTZ,
    metadata        JSONB NOT NULL,
    created_at      TIMESTAMPTZ NOT NULL,
    updated_at      TIMESTAMPTZ NOT NULL
) PARTITION BY RANGE (id);
CREATE TABLE webhook_events_rest PARTITION OF webhook_events FOR VALUES FROM (MINVALUE) TO (MAXVALUE);

-- Nine indexes. Each comment holds the query that needs it.

-- query: SELECT count(*) FROM webhook_events WHERE received_at >= now() - interval '1 minute'
CREATE INDEX webhook_events_received ON webhook_events USING brin (received_at) WITH (autosummarize = on);
-- query: SELECT event_type FROM webhook_events WHERE workspace = 'small' ORDER BY id DESC LIMIT 50
CREATE INDEX webhook_events_workspace ON webhook_events (workspace, id) WHERE workspace <> 'main';
-- query: SELECT event_type FROM webhook_events WHERE status = 'INVALID' ORDER BY id DESC LIMIT 50
CREATE INDEX webhook_events_status ON webhook_events (status, id) WHERE status <> 'SUCCESS';
-- query: SELECT status FROM webhook_events WHERE event_type = 'PreCompact' ORDER BY id DESC LIMIT 50
CREATE INDEX webhook_events_type ON webhook_events (event_type, id);
-- query: SELECT event_type FROM webhook_events WHERE session_id = 's1' AND conversation_id = '00000000-0000-0000-0000-000000000000' AND status <> 'DUPLICATE' ORDER BY id
CREATE INDEX webhook_events_session ON webhook_events (session_id, id);
-- query: SELECT status FROM webhook_events WHERE workspace = 'main' AND request_id = 'r1' ORDER BY id DESC LIMIT 50
CREATE INDEX webhook_events_request ON webhook_events (workspace, request_id, id);
-- query: SELECT id FROM webhook_events WHERE status = 'PENDING_RETRY' AND retry_after <= now() ORDER BY retry_after, id LIMIT 50
CREATE INDEX webhook_events_due ON webhook_events (status, retry_after, id)
    WHERE status IN ('PENDING', 'PROCESSING', 'ERROR', 'PENDING_RETRY');
-- query: SELECT event_type FROM webhook_events WHERE status = 'FAILED' AND discarded_at IS NULL AND workspace = 'main' AND request_id > 'a' ORDER BY request_id LIMIT 50
CREATE INDEX webhook_events_dead ON webhook_events (workspace, request_id)
    WHERE status = 'FAILED' AND discarded_at IS NULL;
-- What belongs to no conversation is read by itself, to keep it elsewhere.
-- query: SELECT id FROM webhook_events WHERE workspace = 'main' AND status <> 'DUPLICATE' AND conversation_id IS NULL AND id > '00000000-0000-0000-0000-000000000000' ORDER BY id LIMIT 50
CREATE INDEX webhook_events_loose ON webhook_events (workspace, id) WHERE conversation_id IS NULL;

-- The eight states and which may follow which: the same table as `EventStatus::may_become`.
CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a webhook_events row cannot change from % to %', OLD.status, NEW.status
        USING ERRCODE = 'check_violation';
END
$$;
CREATE TRIGGER webhook_events_transition BEFORE UPDATE OF status ON webhook_events FOR EACH ROW
WHEN ((OLD.status, NEW.status) NOT IN (
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
)) EXECUTE FUNCTION refuse_transition();

-- The ledger of idempotency: what a repeat of a request id is answered. It outlives the audit row. A request id names
-- an event of its workspace; another may use the same.
CREATE TABLE request_ids (
    workspace  TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest     BYTEA NOT NULL,
    claimed    BYTEA,                                    -- the digest that the sender named, where it is another
    event_id   UUID NOT NULL,
    answer     JSONB NOT NULL,                           -- status, conversationId, messageId, toolUseId
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (workspace, request_id)
);

-- The oldest entries are found by their events' ids, which sort by time.
CREATE INDEX request_ids_event ON request_ids (event_id);

-- The trail: every change of an audit row's state.
CREATE TABLE event_transitions (
    id          BIGINT GENERATED ALWAYS AS IDENTITY,
    event_id    UUID NOT NULL,                           -- of an audit row, which goes together with it
    from_status event_status NOT NULL,
    to_status   event_status NOT NULL,
    at          TIMESTAMPTZ NOT NULL,
    actor       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    PRIMARY KEY (event_id, id)
) PARTITION BY RANGE (event_id);
CREATE TABLE event_transitions_rest PARTITION OF event_transitions FOR VALUES FROM (MINVALUE) TO (MAXVALUE);

-- One row per session. Events apply in any order and each may know only a part, so nothing here
-- references another table; what a column cannot say (which event wrote it) is in metadata.
CREATE TABLE conversations (
    id            UUID PRIMARY KEY,
    workspace     TEXT NOT NULL,
    session_id    TEXT NOT NULL,
    project_path  TEXT,
    title         TEXT,
    description   TEXT,
    started_at    TIMESTAMPTZ NOT NULL,
    ended_at      TIMESTAMPTZ,
    last_event_at TIMESTAMPTZ NOT NULL,
    last_event_hour TIMESTAMPTZ NOT NULL                 -- the hour of last_event_at, by which lists read
        GENERATED ALWAYS AS (date_trunc('hour', last_event_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') STORED,
    metadata      JSONB NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL,
    updated_at    TIMESTAMPTZ NOT NULL,
    UNIQUE (workspace, session_id)
) WITH (fillfactor = 70);                                -- each event of a session updates its row

-- An event moves its conversation here only if it is the first of its hour: all other updates stay in their page and
-- write no index.
CREATE INDEX conversations_latest ON conversations (workspace, last_event_hour);

-- The messages. A small one stands here as a whole. The words and blocks of a larger one are in message_blocks, and
-- the row is small and written again for each of them. People read the view messages, which has both.
CREATE TABLE message_rows (
    id              UUID PRIMARY KEY,
    workspace       TEXT NOT NULL,
    conversation_id UUID NOT NULL,
    role            TEXT NOT NULL,
    content         TEXT,                                -- NULL where the words are in message_blocks
    tool_calls      JSONB,
    timestamp       TIMESTAMPTZ NOT NULL,
    metadata        JSONB NOT NULL,
    -- What the transcript adds. What a message is made of, in order, is in blocks: of its texts only how long they
    -- are, for the content has the words. The tokens are in metadata too, with all their kinds.
    blocks          JSONB,                                -- array of objects
    model           TEXT,
    input_tokens    BIGINT,
    output_tokens   BIGINT,
    cache_read_tokens BIGINT,
    cache_creation_tokens BIGINT
);

CREATE INDEX messages_conversation ON message_rows (conversation_id, timestamp);

-- The blocks of messages that are not small, each in its place.
CREATE TABLE message_blocks (
    message_id      UUID NOT NULL,
    at              TIMESTAMPTZ NOT NULL,                -- the time of the line, then its block's number at the API,
    block_index     BIGINT NOT NULL,
    line            TEXT COLLATE "C" NOT NULL,           -- the line, and the block's number in it
    n               BIGINT NOT NULL,
    kind            TEXT NOT NULL,                       -- the type of the block; words for those of a message without
    value           TEXT,
    raw_value       BYTEA,                               -- the bytes of what text cannot hold
    PRIMARY KEY (message_id, at, block_index, line, n)
);

CREATE VIEW messages AS SELECT
    m.id, m.workspace, m.conversation_id, m.role,
    CASE WHEN m.content IS NOT NULL THEN m.content ELSE (
        SELECT coalesce(string_agg(b.value, E'\n\n' ORDER BY b.at, b.block_index, b.line, b.n), '')
        FROM message_blocks AS b WHERE b.message_id = m.id AND b.kind IN ('text', 'words')
    ) END AS content,
    m.tool_calls, m.timestamp, m.metadata,
    CASE WHEN m.content IS NOT NULL THEN m.blocks ELSE (
        SELECT jsonb_agg(
            jsonb_build_object(
                'at', to_char(b.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                'index', b.block_index, 'line', b.line, 'n', b.n
            ) || CASE b.kind
                WHEN 'text' THEN
                    jsonb_build_object('bytes', coalesce(octet_length(b.raw_value), octet_length(b.value)))
                WHEN 'thinking' THEN jsonb_build_object('type', b.kind, 'text', b.value)
                WHEN 'tool_use' THEN jsonb_build_object('type', b.kind, 'tool_use_id', b.value)
                WHEN 'image' THEN jsonb_strip_nulls(jsonb_build_object('type', b.kind, 'media_type', b.value))
                ELSE jsonb_build_object('type', b.kind, 'kind', b.value)
            END ORDER BY b.at, b.block_index, b.line, b.n
        )
        FROM message_blocks AS b WHERE b.message_id = m.id AND b.kind <> 'words'
    ) END AS blocks,
    m.model, m.input_tokens, m.output_tokens, m.cache_read_tokens, m.cache_creation_tokens,
    coalesce((m.metadata ->> 'copied')::boolean, false) AS copied
FROM message_rows AS m;

CREATE TABLE tool_uses (
    id              UUID PRIMARY KEY,
    workspace       TEXT NOT NULL,
    message_id      UUID,
    conversation_id UUID NOT NULL,
    tool_name       TEXT NOT NULL,
    parameters      JSONB,
    response        JSONB,
    duration        BIGINT,                              -- milliseconds
    status          TEXT NOT NULL,
    timestamp       TIMESTAMPTZ NOT NULL,
    metadata        JSONB NOT NULL
);

CREATE INDEX tool_uses_conversation ON tool_uses (conversation_id, timestamp);

-- One row per subagent: a thread of a conversation beside the main one.
CREATE TABLE subagents (
    id              UUID PRIMARY KEY,
    workspace       TEXT NOT NULL,
    conversation_id UUID NOT NULL,
    agent_id        TEXT NOT NULL,                       -- Claude Code's id, as in the metadata of messages
    agent_type      TEXT,
    tool_use_id     TEXT,                                -- Claude Code's id of the tool use that started it
    started_at      TIMESTAMPTZ NOT NULL,
    last_event_at   TIMESTAMPTZ NOT NULL,
    stopped_at      TIMESTAMPTZ
);

CREATE INDEX subagents_conversation ON subagents (conversation_id);

-- One row per transaction and workspace that it wrote to: what the live feed and the search index follow. A reader
-- remembers the snapshot that it read under, and next reads what that snapshot did not show: so a
-- transaction that took long is not skipped.
CREATE TABLE commits (
    xid       XID8 NOT NULL DEFAULT pg_current_xact_id(),
    id        BIGINT GENERATED ALWAYS AS IDENTITY,
    workspace TEXT NOT NULL,                             -- empty where rows only changed their state
    events    UUID[] NOT NULL,                           -- audit rows stored, or changed in their state
    messages  UUID[] NOT NULL,                           -- messages written
    tool_uses UUID[] NOT NULL,                           -- tool uses written
    counts    JSONB NOT NULL DEFAULT '[]',               -- what changes of the rollups
    at        TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (xid, id)
);

CREATE INDEX commits_workspace ON commits (workspace, xid, id);

-- How far the search index has followed the commits of each workspace: the snapshot that it last read under.
CREATE TABLE search_position (
    workspace TEXT PRIMARY KEY,
    position  TEXT NOT NULL
);

-- Counts of audit rows by their present state and the minute, hour and day of their receipt. They are added up behind the
-- transactions from what commits say, so pruning changes none. What a workspace has too many of is counted as '(other)'.
CREATE TABLE rollup_minute (
    workspace  TEXT NOT NULL,
    at         TIMESTAMPTZ NOT NULL,                     -- the beginning of the minute
    event_type TEXT NOT NULL,
    status     TEXT NOT NULL,
    error_code TEXT NOT NULL,                            -- may be empty
    host       TEXT NOT NULL,                            -- may be empty
    events     BIGINT NOT NULL,
    bytes      BIGINT NOT NULL,                          -- of their payloads
    latency    TEXT NOT NULL,                            -- a sketch of the milliseconds from receipt to commit
    PRIMARY KEY (workspace, at, event_type, status, error_code, host)
) WITH (fillfactor = 70);                                -- each step of the job updates the latest rows
CREATE TABLE rollup_hour (
    workspace  TEXT NOT NULL,
    at         TIMESTAMPTZ NOT NULL,                     -- the beginning of the hour
    event_type TEXT NOT NULL,
    status     TEXT NOT NULL,
    error_code TEXT NOT NULL,                            -- may be empty
    host       TEXT NOT NULL,                            -- may be empty
    events     BIGINT NOT NULL,
    bytes      BIGINT NOT NULL,                          -- of their payloads
    latency    TEXT NOT NULL,                            -- a sketch of the milliseconds from receipt to commit
    PRIMARY KEY (workspace, at, event_type, status, error_code, host)
) WITH (fillfactor = 70);                                -- each step of the job updates the latest rows
CREATE TABLE rollup_day (
    workspace  TEXT NOT NULL,
    at         TIMESTAMPTZ NOT NULL,                     -- the beginning of the day
    event_type TEXT NOT NULL,
    status     TEXT NOT NULL,
    error_code TEXT NOT NULL,                            -- may be empty
    host       TEXT NOT NULL,                            -- may be empty
    events     BIGINT NOT NULL,
    bytes      BIGINT NOT NULL,                          -- of their payloads
    latency    TEXT NOT NULL,                            -- a sketch of the milliseconds from receipt to commit
    PRIMARY KEY (workspace, at, event_type, status, error_code, host)
) WITH (fillfactor = 70);                                -- each step of the job updates the latest rows
-- What is old is found without its workspace.
CREATE INDEX rollup_minute_at ON rollup_minute (at);
CREATE INDEX rollup_hour_at ON rollup_hour (at);

-- Each message of the API as it is counted, once in whatever conversations it stands. It stays when these are pruned.
CREATE TABLE usage_messages (
    workspace       TEXT NOT NULL,
    api_id          TEXT NOT NULL,                       -- the message's own id where the API gave none
    at              TIMESTAMPTZ NOT NULL,
    conversation_id UUID NOT NULL,                       -- the one that it is counted in
    model           TEXT NOT NULL,
    is_subagent     BOOLEAN NOT NULL,
    is_copied       BOOLEAN NOT NULL,                    -- into that conversation, from one that is not stored
    usage           JSONB NOT NULL,                      -- tokens by kind
    PRIMARY KEY (workspace, api_id)
);

-- What these took, by quarter of an hour.
CREATE TABLE usage_15min (
    workspace       TEXT NOT NULL,
    at              TIMESTAMPTZ NOT NULL,                -- the beginning of the quarter of an hour
    conversation_id UUID NOT NULL,
    model           TEXT NOT NULL,
    is_subagent     BOOLEAN NOT NULL,
    prompt_size     SMALLINT NOT NULL,                   -- of each message's prompt: a price may depend on it
    messages        BIGINT NOT NULL,
    input_tokens    BIGINT NOT NULL,
    output_tokens   BIGINT NOT NULL,
    cache_read_tokens BIGINT NOT NULL,
    cache_creation_tokens BIGINT NOT NULL,
    cache_creation_1h_tokens BIGINT NOT NULL,            -- part of cache_creation_tokens
    thinking_tokens BIGINT NOT NULL,                     -- part of output_tokens
    web_searches    BIGINT NOT NULL,
    PRIMARY KEY (workspace, at, conversation_id, model, is_subagent, prompt_size)
) WITH (fillfactor = 70);

-- How far the commits are added up, as search_position is, and from when on there are minutes and hours.
CREATE TABLE rollup_position (
    only_row     BOOLEAN PRIMARY KEY DEFAULT true CHECK (only_row),
    position     TEXT NOT NULL,
    minutes_from TIMESTAMPTZ NOT NULL,
    hours_from   TIMESTAMPTZ NOT NULL
);
INSERT INTO rollup_position (position, minutes_from, hours_from) VALUES ('1:1:', 'epoch', 'epoch');

-- The words of payloads, written behind the hot path.
CREATE TABLE event_search (
    event_id UUID PRIMARY KEY,
    words    TSVECTOR NOT NULL
) PARTITION BY RANGE (event_id);
CREATE TABLE event_search_rest PARTITION OF event_search FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
CREATE INDEX event_search_words ON event_search USING gin (words);

-- Messages and tool uses are searched together. GIN gives what it finds in no order, and a search wants the
-- newest of perhaps half of all rows. So the rows are parted into buckets in the order of (at, subject_id), each
-- word carries its row's bucket, and a search goes through the buckets, newest first, until it has enough. A
-- bucket that is full is parted in two, so a search reads few rows however many have the same time. Without
-- fastupdate, because each bucket is a scan of its own, which would read the pending list each time; the words of
-- the newest bucket stand beside each other, so that inserts touch few pages.
CREATE TABLE subject_search (
    subject_id      UUID PRIMARY KEY,                    -- in message_rows or tool_uses
    conversation_id UUID NOT NULL,
    is_tool_use     BOOLEAN NOT NULL,
    at              TIMESTAMPTZ NOT NULL,
    bucket          BIGINT NOT NULL,                     -- in subject_buckets
    weight          INTEGER NOT NULL,                    -- how much of its bucket it takes
    bytes           INTEGER NOT NULL,                    -- of its texts, to read few large ones at one time
    words           TSVECTOR NOT NULL
);
CREATE INDEX subject_search_words ON subject_search USING gin (words) WITH (fastupdate = off);
-- The order within a bucket, for finding its middle.
CREATE INDEX subject_search_bucket ON subject_search (bucket, at, subject_id);

-- A bucket has the rows from its first place up to that of the next bucket.
CREATE TABLE subject_buckets (
    bucket  BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_at TIMESTAMPTZ NOT NULL,
    from_id UUID NOT NULL,
    weight  BIGINT NOT NULL,                             -- of its rows, and of rows that have left it
    UNIQUE (from_at, from_id)
);

-- What waits to be indexed anew, in the order of ids: a row goes when its table is done.
CREATE TABLE search_backlog (
    table_name TEXT PRIMARY KEY,                         -- messages (those of message_rows) or tool_uses
    after_id   UUID NOT NULL                             -- up to this one it is done
);

-- Keys as hashes; the secret is nowhere.
CREATE TABLE api_keys (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    scope      TEXT NOT NULL CHECK (scope IN ('ingest', 'read', 'admin')),
    workspace  TEXT NOT NULL,
    hash       BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ                              -- to the minute
);

-- The newest report of each spool, as its drainer gave it: one row a machine and user.
CREATE TABLE spools (
    workspace TEXT NOT NULL,
    spool_id  UUID NOT NULL,
    heard_at  TIMESTAMPTZ NOT NULL,
    report    TEXT NOT NULL,                             -- JSON; read whole, never searched
    PRIMARY KEY (workspace, spool_id)
);

-- The report of each spool that was heard last in each hour. It goes with its spool, or after 90 days.
CREATE TABLE spool_hours (
    workspace TEXT NOT NULL,
    spool_id  UUID NOT NULL,
    hour      TIMESTAMPTZ NOT NULL,
    heard_at  TIMESTAMPTZ NOT NULL,
    report    TEXT NOT NULL,                             -- JSON; read whole, never searched
    PRIMARY KEY (workspace, spool_id, hour)
);

CREATE INDEX spool_hours_hour ON spool_hours (hour);

-- Browsers that are signed in at the dashboard. The secret of the cookie is nowhere.
CREATE TABLE browser_sessions (
    hash       BYTEA PRIMARY KEY,                        -- SHA-256 of the secret
    workspace  TEXT NOT NULL,
    key_id     TEXT NOT NULL,                            -- of api_keys; empty where it was a one-time link
    scope      TEXT NOT NULL CHECK (scope IN ('ingest', 'read', 'admin')),
    browser    TEXT NOT NULL,                            -- how it calls itself
    created_at TIMESTAMPTZ NOT NULL,
    seen_at    TIMESTAMPTZ NOT NULL                      -- to the minute
);

CREATE INDEX browser_sessions_workspace ON browser_sessions (workspace);
