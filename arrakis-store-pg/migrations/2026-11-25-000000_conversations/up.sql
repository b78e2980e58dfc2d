-- What the transcript adds to a message. What it is made of, in order, is in blocks: of its texts only how
-- long they are, for the content has the words. The tokens are in metadata too, with all their kinds.
ALTER TABLE messages ADD COLUMN blocks JSONB;             -- array of objects
ALTER TABLE messages ADD COLUMN model TEXT;
ALTER TABLE messages ADD COLUMN input_tokens BIGINT;
ALTER TABLE messages ADD COLUMN output_tokens BIGINT;
ALTER TABLE messages ADD COLUMN cache_read_tokens BIGINT;
ALTER TABLE messages ADD COLUMN cache_creation_tokens BIGINT;

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
