DROP INDEX webhook_events_loose;
DROP TABLE search_backlog;
ALTER TABLE commits DROP COLUMN tool_uses;
DROP TABLE subject_buckets;
DROP TABLE subject_search;
CREATE TABLE message_search (
    message_id UUID PRIMARY KEY,
    words      TSVECTOR NOT NULL
);
CREATE INDEX message_search_words ON message_search USING gin (words);
