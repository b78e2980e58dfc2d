//! The tables, as Diesel sees them; the migrations define them.

diesel::table! {
    webhook_events (id) {
        id -> Text,
        workspace -> Text,
        request_id -> Text,
        digest -> Binary,
        event_type -> Text,
        session_id -> Nullable<Text>,
        received_at -> Text,
        request_headers -> Text,
        ip_address -> Nullable<Text>,
        status -> Text,
        processed_at -> Nullable<Text>,
        processing_time -> Nullable<BigInt>,
        conversation_id -> Nullable<Text>,
        message_id -> Nullable<Text>,
        tool_use_id -> Nullable<Text>,
        error_code -> Nullable<Text>,
        error_message -> Nullable<Text>,
        error_stack -> Nullable<Text>,
        retry_count -> BigInt,
        retry_after -> Nullable<Text>,
        claim_token -> BigInt,
        claimed_at -> Nullable<Text>,
        discarded_at -> Nullable<Text>,
        metadata -> Text,
        created_at -> Text,
        updated_at -> Text,
        payload_bytes -> BigInt,
        request_body -> Nullable<Text>,
        raw_body -> Nullable<Binary>,
    }
}

diesel::table! {
    request_ids (workspace, request_id) {
        workspace -> Text,
        request_id -> Text,
        digest -> Binary,
        claimed -> Nullable<Binary>,
        event_id -> Text,
        answer -> Text,
        created_at -> Text,
    }
}

diesel::table! {
    event_transitions (id) {
        id -> BigInt,
        event_id -> Text,
        from_status -> Text,
        to_status -> Text,
        at -> Text,
        actor -> Text,
        reason -> Text,
    }
}

diesel::table! {
    conversations (id) {
        id -> Text,
        workspace -> Text,
        session_id -> Text,
        project_path -> Nullable<Text>,
        title -> Nullable<Text>,
        description -> Nullable<Text>,
        started_at -> Text,
        ended_at -> Nullable<Text>,
        last_event_at -> Text,
        metadata -> Text,
        created_at -> Text,
        updated_at -> Text,
    }
}

diesel::table! {
    message_rows (conversation_id, id) {
        id -> Text,
        workspace -> Text,
        conversation_id -> Text,
        role -> Text,
        content -> Nullable<Text>,
        tool_calls -> Nullable<Text>,
        timestamp -> Text,
        metadata -> Text,
        blocks -> Nullable<Text>,
        model -> Nullable<Text>,
        input_tokens -> Nullable<BigInt>,
        output_tokens -> Nullable<BigInt>,
        cache_read_tokens -> Nullable<BigInt>,
        cache_creation_tokens -> Nullable<BigInt>,
    }
}

diesel::table! {
    message_blocks (conversation_id, message_id, at, block_index, line, n) {
        conversation_id -> Text,
        message_id -> Text,
        at -> Text,
        block_index -> BigInt,
        line -> Text,
        n -> BigInt,
        kind -> Text,
        value -> Nullable<Text>,
    }
}

diesel::table! {
    tool_uses (conversation_id, id) {
        id -> Text,
        workspace -> Text,
        message_id -> Nullable<Text>,
        conversation_id -> Text,
        tool_name -> Text,
        parameters -> Nullable<Text>,
        response -> Nullable<Text>,
        duration -> Nullable<BigInt>,
        status -> Text,
        timestamp -> Text,
        metadata -> Text,
    }
}

diesel::table! {
    spools (workspace, spool_id) {
        workspace -> Text,
        spool_id -> Text,
        heard_at -> Text,
        report -> Text,
    }
}

diesel::table! {
    spool_hours (workspace, spool_id, hour) {
        workspace -> Text,
        spool_id -> Text,
        hour -> Text,
        heard_at -> Text,
        report -> Text,
    }
}

diesel::table! {
    subagents (id) {
        id -> Text,
        workspace -> Text,
        conversation_id -> Text,
        agent_id -> Text,
        agent_type -> Nullable<Text>,
        tool_use_id -> Nullable<Text>,
        started_at -> Text,
        last_event_at -> Text,
        stopped_at -> Nullable<Text>,
    }
}

diesel::table! {
    api_keys (id) {
        id -> Text,
        name -> Text,
        scope -> Text,
        workspace -> Text,
        hash -> Binary,
        created_at -> Text,
        revoked_at -> Nullable<Text>,
        last_used_at -> Nullable<Text>,
    }
}

diesel::table! {
    browser_sessions (hash) {
        hash -> Binary,
        workspace -> Text,
        key_id -> Text,
        scope -> Text,
        browser -> Text,
        created_at -> Text,
        seen_at -> Text,
    }
}

diesel::table! {
    commits (id) {
        id -> BigInt,
        workspace -> Text,
        at -> Text,
        events -> Text,
        messages -> Text,
        tool_uses -> Text,
        counts -> Text,
    }
}

diesel::table! {
    rollup_position (only_row) {
        only_row -> BigInt,
        commit_id -> BigInt,
        done -> BigInt,
        minutes_from -> Text,
        hours_from -> Text,
    }
}

diesel::table! {
    identity (id) {
        id -> Text,
    }
}

// From here on: the tables of the search index, which is a file of its own.

diesel::table! {
    index_state (only_row) {
        only_row -> Integer,
        database_id -> Text,
        from_commit -> BigInt,
        writes -> BigInt,
    }
}

diesel::table! {
    event_words (rowid) {
        rowid -> BigInt,
        words -> Text,
    }
}

diesel::table! {
    subject_words (rowid) {
        rowid -> BigInt,
        words -> Text,
    }
}

diesel::table! {
    event_keys (key) {
        key -> BigInt,
        event_id -> Text,
    }
}

diesel::table! {
    subject_keys (key) {
        key -> BigInt,
        subject_id -> Text,
        conversation_id -> Text,
        is_tool_use -> Bool,
    }
}

diesel::table! {
    index_position (workspace) {
        workspace -> Text,
        commit_id -> BigInt,
        done -> BigInt,
    }
}

diesel::table! {
    index_backlog (table_name) {
        table_name -> Text,
        after_id -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(webhook_events, request_ids);
diesel::allow_tables_to_appear_in_same_query!(commits, index_position);
diesel::allow_tables_to_appear_in_same_query!(event_words, event_keys, webhook_events);
diesel::allow_tables_to_appear_in_same_query!(subject_words, subject_keys, conversations);
