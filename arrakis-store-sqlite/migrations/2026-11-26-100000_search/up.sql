-- Messages and tool uses are searched together, so one index holds both. It is built as event_words is.
DROP TABLE message_words;
DROP TABLE message_keys;
CREATE VIRTUAL TABLE subject_words USING fts5(
    words, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
CREATE TABLE subject_keys (
    key             INTEGER PRIMARY KEY,                 -- the rowid in subject_words
    subject_id      TEXT NOT NULL UNIQUE,                -- in messages or tool_uses
    conversation_id TEXT NOT NULL,
    is_tool_use     INTEGER NOT NULL
) STRICT;

ALTER TABLE commits ADD COLUMN tool_uses TEXT NOT NULL DEFAULT '[]'; -- JSON array of ids in tool_uses

-- What was stored before this and waits to be indexed, in the order of ids: a row goes when its table is done.
CREATE TABLE index_backlog (
    table_name TEXT NOT NULL PRIMARY KEY,
    after_id   TEXT NOT NULL                             -- up to this one it is done
) STRICT;
INSERT INTO index_backlog (table_name, after_id) SELECT 'messages', '' WHERE EXISTS (SELECT 1 FROM messages);
INSERT INTO index_backlog (table_name, after_id) SELECT 'tool_uses', '' WHERE EXISTS (SELECT 1 FROM tool_uses);

-- What belongs to no conversation is read by itself, to keep it elsewhere.
-- query: SELECT id FROM webhook_events WHERE workspace = 'main' AND status <> 'DUPLICATE' AND conversation_id IS NULL AND id > '0' ORDER BY id LIMIT 50
CREATE INDEX webhook_events_loose ON webhook_events (workspace, id) WHERE conversation_id IS NULL;
