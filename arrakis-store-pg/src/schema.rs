//! The tables, as Diesel sees them; the migrations define them.

/// The Postgres types that Diesel does not know.
#[allow(unreachable_pub, reason = "the tables that Diesel's macro makes are public")]
pub(crate) mod sql_types {
    /// The eight states.
    #[derive(Debug, Clone, Copy, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
    #[diesel(postgres_type(name = "event_status"))]
    pub struct EventStatus;
}

diesel::table! {
    use diesel::sql_types::{BigInt, Binary, Jsonb, Nullable, Text, Timestamptz, Uuid};
    use super::sql_types::EventStatus;

    webhook_events (id) {
        id -> Uuid,
        workspace -> Text,
        request_id -> Text,
        digest -> Binary,
        event_type -> Text,
        session_id -> Nullable<Text>,
        received_at -> Timestamptz,
        request_body -> Nullable<Jsonb>,
        raw_body -> Nullable<Binary>,
        request_headers -> Jsonb,
        ip_address -> Nullable<Text>,
        status -> EventStatus,
        processed_at -> Nullable<Timestamptz>,
        processing_time -> Nullable<BigInt>,
        payload_bytes -> BigInt,
        conversation_id -> Nullable<Uuid>,
        message_id -> Nullable<Uuid>,
        tool_use_id -> Nullable<Uuid>,
        error_code -> Nullable<Text>,
        error_message -> Nullable<Text>,
        error_stack -> Nullable<Text>,
        retry_count -> BigInt,
        retry_after -> Nullable<Timestamptz>,
        claim_token -> BigInt,
        claimed_at -> Nullable<Timestamptz>,
        discarded_at -> Nullable<Timestamptz>,
        metadata -> Jsonb,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    request_ids (workspace, request_id) {
        workspace -> Text,
        request_id -> Text,
        digest -> Binary,
        claimed -> Nullable<Binary>,
        event_id -> Uuid,
        answer -> Jsonb,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Text, Timestamptz, Uuid};
    use super::sql_types::EventStatus;

    event_transitions (event_id, id) {
        id -> BigInt,
        event_id -> Uuid,
        from_status -> EventStatus,
        to_status -> EventStatus,
        at -> Timestamptz,
        actor -> Text,
        reason -> Text,
    }
}

diesel::table! {
    conversations (id) {
        id -> Uuid,
        workspace -> Text,
        session_id -> Text,
        project_path -> Nullable<Text>,
        title -> Nullable<Text>,
        description -> Nullable<Text>,
        started_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        last_event_at -> Timestamptz,
        last_event_hour -> Timestamptz,
        metadata -> Jsonb,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    message_rows (id) {
        id -> Uuid,
        workspace -> Text,
        conversation_id -> Uuid,
        role -> Text,
        content -> Nullable<Text>,
        tool_calls -> Nullable<Jsonb>,
        timestamp -> Timestamptz,
        metadata -> Jsonb,
        blocks -> Nullable<Jsonb>,
        model -> Nullable<Text>,
        input_tokens -> Nullable<BigInt>,
        output_tokens -> Nullable<BigInt>,
        cache_read_tokens -> Nullable<BigInt>,
        cache_creation_tokens -> Nullable<BigInt>,
    }
}

diesel::table! {
    message_blocks (message_id, at, block_index, line, n) {
        message_id -> Uuid,
        at -> Timestamptz,
        block_index -> BigInt,
        line -> Text,
        n -> BigInt,
        kind -> Text,
        value -> Nullable<Text>,
        raw_value -> Nullable<Bytea>,
    }
}

diesel::table! {
    tool_uses (id) {
        id -> Uuid,
        workspace -> Text,
        message_id -> Nullable<Uuid>,
        conversation_id -> Uuid,
        tool_name -> Text,
        parameters -> Nullable<Jsonb>,
        response -> Nullable<Jsonb>,
        duration -> Nullable<BigInt>,
        status -> Text,
        timestamp -> Timestamptz,
        metadata -> Jsonb,
    }
}

diesel::table! {
    use diesel::sql_types::{BigInt, Bool, Integer, Timestamptz, Uuid};

    subject_search (subject_id) {
        subject_id -> Uuid,
        conversation_id -> Uuid,
        is_tool_use -> Bool,
        at -> Timestamptz,
        bucket -> BigInt,
        bytes -> Integer,
    }
}

diesel::table! {
    subject_buckets (bucket) {
        bucket -> BigInt,
        from_at -> Timestamptz,
        from_id -> Uuid,
    }
}

diesel::table! {
    search_backlog (table_name) {
        table_name -> Text,
        after_id -> Uuid,
    }
}

diesel::table! {
    spools (workspace, spool_id) {
        workspace -> Text,
        spool_id -> Uuid,
        heard_at -> Timestamptz,
        report -> Text,
    }
}

diesel::table! {
    spool_hours (workspace, spool_id, hour) {
        workspace -> Text,
        spool_id -> Uuid,
        hour -> Timestamptz,
        heard_at -> Timestamptz,
        report -> Text,
    }
}

diesel::table! {
    subagents (id) {
        id -> Uuid,
        workspace -> Text,
        conversation_id -> Uuid,
        agent_id -> Text,
        agent_type -> Nullable<Text>,
        tool_use_id -> Nullable<Text>,
        started_at -> Timestamptz,
        last_event_at -> Timestamptz,
        stopped_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    api_keys (id) {
        id -> Text,
        name -> Text,
        scope -> Text,
        workspace -> Text,
        hash -> Binary,
        created_at -> Timestamptz,
        revoked_at -> Nullable<Timestamptz>,
        last_used_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    browser_sessions (hash) {
        hash -> Binary,
        workspace -> Text,
        key_id -> Text,
        scope -> Text,
        browser -> Text,
        created_at -> Timestamptz,
        seen_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(webhook_events, request_ids);
diesel::allow_tables_to_appear_in_same_query!(tool_uses, message_rows);
