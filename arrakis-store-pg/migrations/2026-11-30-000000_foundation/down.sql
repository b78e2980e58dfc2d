DROP VIEW messages;
DROP TABLE spools, api_keys, search_backlog, subject_buckets, subject_search, event_search, search_position, commits,
    subagents, tool_uses, message_blocks, message_rows, conversations, event_transitions, request_ids, webhook_events;
DROP FUNCTION refuse_transition();
DROP TYPE event_status;
