DROP TABLE api_keys;
DROP TABLE tool_uses;
DROP TABLE messages;
DROP TABLE conversations;
DROP TABLE event_transitions;
DROP TABLE request_ids;
DROP TABLE webhook_events;
