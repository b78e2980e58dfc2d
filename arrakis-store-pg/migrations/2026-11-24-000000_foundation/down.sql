DROP TABLE api_keys, message_search, event_search, search_position, commits, tool_uses, messages,
    conversations, event_transitions, request_ids, webhook_events;
DROP FUNCTION refuse_transition();
DROP TYPE event_status;
