-- Messages and tool uses are searched together. GIN gives what it finds in no order, and a search wants the
-- newest of perhaps half of all rows. So each word carries the bucket of its row's time (about a day and a
-- half), and a search goes through the buckets, newest first, until it has enough. Without fastupdate, because
-- each bucket is a scan of its own, which would read the pending list each time; the words of the newest
-- bucket stand beside each other, so that inserts touch few pages.
DROP TABLE message_search;
CREATE TABLE subject_search (
    subject_id      UUID PRIMARY KEY,                    -- in messages or tool_uses
    conversation_id UUID NOT NULL,
    is_tool_use     BOOLEAN NOT NULL,
    at              TIMESTAMPTZ NOT NULL,
    words           TSVECTOR NOT NULL
);
CREATE INDEX subject_search_words ON subject_search USING gin (words) WITH (fastupdate = off);

-- The buckets that rows were ever in.
CREATE TABLE subject_buckets (
    bucket BIGINT PRIMARY KEY                            -- milliseconds since 1970, divided by 2^27
);

ALTER TABLE commits ADD COLUMN tool_uses UUID[] NOT NULL DEFAULT '{}'; -- tool uses written

-- What was stored before this and waits to be indexed, in the order of ids: a row goes when its table is done.
CREATE TABLE search_backlog (
    table_name TEXT PRIMARY KEY,
    after_id   UUID NOT NULL                             -- up to this one it is done
);
INSERT INTO search_backlog (table_name, after_id)
SELECT 'messages', '00000000-0000-0000-0000-000000000000'::uuid WHERE EXISTS (SELECT 1 FROM messages);
INSERT INTO search_backlog (table_name, after_id)
SELECT 'tool_uses', '00000000-0000-0000-0000-000000000000'::uuid WHERE EXISTS (SELECT 1 FROM tool_uses);

-- What belongs to no conversation is read by itself, to keep it elsewhere.
-- query: SELECT id FROM webhook_events WHERE workspace = 'main' AND status <> 'DUPLICATE' AND conversation_id IS NULL AND id > '00000000-0000-0000-0000-000000000000' ORDER BY id LIMIT 50
CREATE INDEX webhook_events_loose ON webhook_events (workspace, id) WHERE conversation_id IS NULL;
