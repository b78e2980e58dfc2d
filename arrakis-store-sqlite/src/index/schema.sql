-- The search index: a file of its own beside the store, made from what is stored, and made anew where it is missing
-- or of another version.

-- Full text search, for SQLite 3.43 or later. The words are computed by the program and stored joined by
-- spaces; values to narrow a search by are among them. The tokenizer ascii keeps each of them whole,
-- because it parts text only at ASCII characters that are neither letters nor digits. Where a word
-- stands does not matter and nobody asks for the text back, so neither is kept.
CREATE VIRTUAL TABLE event_words USING fts5(
    words, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
INSERT INTO event_words (event_words, rank) VALUES ('hashsize', 16777216);
-- What the rows of event_words are about. A key is a time in milliseconds times 2^20
-- and a number that tells apart what has the same: so the newest are found first without sorting.
CREATE TABLE event_keys (
    key      INTEGER PRIMARY KEY,                        -- the rowid in event_words
    event_id TEXT NOT NULL UNIQUE
) STRICT;

-- Messages and tool uses are searched together, so one index holds both. It is built as event_words is.
CREATE VIRTUAL TABLE subject_words USING fts5(
    words, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
INSERT INTO subject_words (subject_words, rank) VALUES ('hashsize', 16777216);
CREATE TABLE subject_keys (
    key             INTEGER PRIMARY KEY,                 -- the rowid in subject_words
    subject_id      TEXT NOT NULL UNIQUE,                -- in message_rows or tool_uses
    conversation_id TEXT NOT NULL,
    is_tool_use     INTEGER NOT NULL
) STRICT;

-- Whose index it is, and how often it was written: a step that was read before another write is read again.
CREATE TABLE index_state (
    only_row    INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    database_id TEXT NOT NULL,                           -- the store's identity
    from_commit INTEGER NOT NULL,                        -- what was committed before it waits in index_backlog
    writes      INTEGER NOT NULL
) STRICT;

-- How far the commits of a workspace are searchable: the commit to go on with, and how much of it is done.
CREATE TABLE index_position (
    workspace TEXT NOT NULL PRIMARY KEY,
    commit_id INTEGER NOT NULL,
    done      INTEGER NOT NULL
) STRICT;

-- What waits to be indexed anew, in the order of ids: a row goes when its table is done.
CREATE TABLE index_backlog (
    table_name TEXT NOT NULL PRIMARY KEY,                -- messages (those of message_rows), tool_uses or webhook_events
    after_id   TEXT NOT NULL                             -- up to this one it is done; conversation_id, a space, id
) STRICT;
