DROP TABLE subagents;
ALTER TABLE messages DROP COLUMN cache_creation_tokens;
ALTER TABLE messages DROP COLUMN cache_read_tokens;
ALTER TABLE messages DROP COLUMN output_tokens;
ALTER TABLE messages DROP COLUMN input_tokens;
ALTER TABLE messages DROP COLUMN model;
ALTER TABLE messages DROP COLUMN blocks;
