DROP VIEW messages;
DROP TABLE browser_sessions, spool_hours, spools, api_keys, search_backlog, subject_buckets, subject_search, event_search, search_position, rollup_position,
    usage_15min, usage_messages, rollup_day, rollup_hour, rollup_minute, commits,
    subagents, tool_uses, message_blocks, message_rows, conversations, event_transitions, request_ids, webhook_events;
DROP FUNCTION refuse_transition();
DROP TYPE event_status;
