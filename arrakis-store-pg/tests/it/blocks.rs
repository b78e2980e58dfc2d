//! Messages and their blocks: what adding one writes, and what SQL sees of them.

use std::time::Duration;

use crate::common::Home;
use arrakis_core::base::clock::Clock;
use arrakis_core::base::limits::MESSAGE_MAX_BLOCKS;
use arrakis_core::record::store::{
    Ages, Archive, Arrival, DEFAULT_WORKSPACE, EventReader, EventStore, PrunePosition, Retention,
    RetentionPolicy, Verdict,
};
use arrakis_core::session::conversation::{
    Block, BlockKey, Blocks, Message, MessageOrigin, Role, Stamp, Stamped,
};
use arrakis_core::testkit::sessions::{generated, record_shuffled};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;

const MIB: usize = 1024 * 1024;

/// An event that brings these texts of the message `m`, the first of them in place `n`.
fn brings(home: &mut Home, n: u32, texts: Vec<String>) -> (Arrival, Verdict) {
    let (event, verdict) = home.arrivals.prompt(&format!("r{n}"), "s");
    let Verdict::Apply(mut changes) = verdict else { panic!("it applies") };
    let stamp = Stamp { at: event.received_at, request_id: event.request_id.clone() };
    let block = |(text, n): (String, u32)| {
        let key = BlockKey { at: stamp.at, index: 0, line: stamp.request_id.clone(), n };
        (key, Block::Text { text })
    };
    let blocks: Blocks = texts.into_iter().zip(0..).map(block).collect();
    let words = Stamped::new(&stamp, String::new());
    let of = changes.conversations[0].id;
    let message =
        Message::new(of, Some("m".into()), Role::Assistant, MessageOrigin::Transcript, words);
    changes.messages = vec![message.with_blocks(blocks)];
    (event, Verdict::Apply(changes))
}

#[derive(QueryableByName)]
struct Bytes {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// However much a message has, another block writes no more than itself and a few pages.
#[tokio::test]
async fn a_further_block_writes_few_pages() {
    // Texts that do not become small where the database compresses them.
    let noise = |n: usize, bytes: usize| {
        let digest = |m| arrakis_core::base::digest::Digest::of(format!("{n} {m}").as_bytes());
        (0..bytes / 64).map(|m| digest(m).to_string()).collect::<String>()
    };
    let many = (0..MESSAGE_MAX_BLOCKS - 30).map(|n| noise(n, 640));
    for texts in [vec!["small".to_owned()], many.collect(), vec![noise(0, 16 * MIB)]] {
        let mut home = Home::new().await;
        let first = brings(&mut home, 0, texts.clone());
        home.store.record(vec![first]).await.unwrap();
        let mut conn = home.database.connect().await;
        let mut written = Vec::new();
        for n in 1..20 {
            let place = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint AS bytes";
            let before: Bytes = diesel::sql_query(place).get_result(&mut conn).await.unwrap();
            let event = brings(&mut home, n, vec![noise(n as usize, 640)]);
            home.store.record(vec![event]).await.unwrap();
            let after: Bytes = diesel::sql_query(place).get_result(&mut conn).await.unwrap();
            written.push(after.bytes - before.bytes);
        }
        // Other tests write to the same server: only the least of them says what one event takes.
        assert!(written.iter().min().is_some_and(|bytes| *bytes < 32 * 1024), "{written:?}");
        let detail = home.store.conversation(DEFAULT_WORKSPACE, "s").await.unwrap().unwrap();
        assert_eq!(detail.messages[0].blocks.len(), texts.len() + 19);
    }
}

/// A message of many blocks goes in small steps, the last blocks first, and what is left of it can be read.
#[tokio::test]
async fn the_blocks_of_a_message_are_pruned_in_steps() {
    let mut home = Home::new().await;
    let texts = (0..50).map(|n| format!("{n} {}", "x".repeat(600))).collect();
    let event = brings(&mut home, 0, texts);
    home.store.record(vec![event]).await.unwrap();
    home.clock.advance(Duration::from_secs(2 * 24 * 3600));
    let default = Ages { conversations: Some(Duration::from_secs(24 * 3600)), events: None };
    let cutoffs = RetentionPolicy { default, ..RetentionPolicy::default() }.at(home.clock.now());
    let (mut next, mut seen) = (Some(PrunePosition::START), Vec::new());
    while let Some(from) = next {
        next = home.store.prune(&cutoffs, from, 3).await.unwrap().next;
        let found = home.store.conversation(DEFAULT_WORKSPACE, "s").await.unwrap();
        let messages = found.map(|detail| detail.messages).unwrap_or_default();
        let blocks = messages.as_slice().first().map_or(0, |message| {
            assert!(message.content.value.starts_with("0 x"));
            message.blocks.len()
        });
        seen.push(blocks);
    }
    assert!(seen.is_sorted_by(|a, b| a >= b && a - b <= 3) && seen.len() > 16, "{seen:?}");
    let mut conn = home.database.connect().await;
    for table in ["conversations", "message_rows", "message_blocks"] {
        let sql = format!("SELECT count(*) AS bytes FROM {table}");
        let left: Bytes = diesel::sql_query(sql).get_result(&mut conn).await.unwrap();
        assert_eq!(left.bytes, 0, "{table}");
    }
}

#[derive(QueryableByName)]
struct Shown {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    content: String,
    #[diesel(sql_type = Nullable<Text>)]
    blocks: Option<String>,
}

/// The view has the words of each message and its blocks, of each text how long it is.
#[tokio::test]
async fn sql_sees_the_words_and_blocks_of_each_message() {
    let home = Home::new().await;
    let mut conn = home.database.connect().await;
    let shown = |text: &str| text.replace('\0', "\u{2400}");
    for seed in 0..6 {
        let session = generated(seed);
        record_shuffled(&*home.store, &session, seed).await;
        let workspace = format!("w{seed}");
        let values = home.store.values(&workspace, &session.session_id).await.unwrap().unwrap();
        let sql = format!(
            "SELECT id::text, content, blocks::text FROM messages WHERE workspace = '{workspace}'
             ORDER BY messages.id"
        );
        let rows: Vec<Shown> = diesel::sql_query(sql).load(&mut conn).await.unwrap();
        let mut messages = values.messages;
        messages.sort_by_key(|message| message.id);
        assert_eq!(rows.len(), messages.len());
        for (row, message) in rows.into_iter().zip(messages) {
            assert_eq!(row.id, message.id.to_string());
            assert_eq!(row.content, shown(&message.content.value));
            let blocks: serde_json::Value = row
                .blocks
                .map_or_else(|| serde_json::json!([]), |json| serde_json::from_str(&json).unwrap());
            // What JSONB cannot hold stands in a wrapper in the row of a small message.
            let Some(blocks) = blocks.as_array() else { continue };
            assert_eq!(blocks.len(), message.blocks.len());
            for (row, (key, block)) in blocks.iter().zip(message.blocks.iter()) {
                let mut expected = serde_json::to_value(key).unwrap();
                let more = match block {
                    Block::Text { text } => serde_json::json!({ "bytes": text.len() }),
                    Block::Thinking { text } => {
                        serde_json::json!({ "type": "thinking", "text": shown(text) })
                    }
                    other => serde_json::to_value(other).unwrap(),
                };
                expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                assert_eq!(row, &expected);
            }
        }
    }
    let rows =
        "SELECT DISTINCT message_id::text AS id, '' AS content, NULL AS blocks FROM message_blocks";
    let of_rows = diesel::sql_query(rows).load::<Shown>(&mut conn).await.unwrap().len();
    assert!(of_rows > 3, "some have rows of their own: {of_rows}");
}
