DROP INDEX webhook_events_loose;
DROP TABLE index_backlog;
ALTER TABLE commits DROP COLUMN tool_uses;
DROP TABLE subject_keys;
DROP TABLE subject_words;
CREATE VIRTUAL TABLE message_words USING fts5(
    words, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
CREATE TABLE message_keys (
    key        INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE
) STRICT;
