//! Messages whose blocks are many, or large.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::read::index;
use super::transcript::slice;
use super::{Arrivals, EventStoreFixture, hook, record_one};
use crate::base::clock::SystemClock;
use crate::base::limits::{MESSAGE_MAX_BLOCKS, SEARCHED_TEXT_MAX_BYTES};
use crate::record::store::{
    Arrival, DEFAULT_WORKSPACE, EventReader, EventStore, MemoryStore, SearchFilter, Verdict,
};
use crate::session::conversation::{Block, Message, MessageOrigin};

/// A line with these blocks of the model's message `m`.
fn line(name: &str, second: usize, blocks: &[Value]) -> String {
    let at = format!("2026-11-24T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
    json!({"type": "assistant", "uuid": name, "timestamp": at, "message": {"id": "m",
        "role": "assistant", "model": "some-model", "content": blocks}})
    .to_string()
}

fn text(text: impl AsRef<str>) -> Value {
    json!({"type": "text", "text": text.as_ref()})
}

async fn messages(store: &dyn EventReader) -> Vec<Message> {
    let detail = store.conversation(DEFAULT_WORKSPACE, "s").await.expect("read");
    detail.expect("the conversation is there").messages
}

/// Records the same in both stores and compares what they say of the only message.
async fn compare(store: &dyn EventStore, memory: &MemoryStore, batch: Vec<(Arrival, Verdict)>) {
    memory.record(batch.clone()).await.expect("record");
    store.record(batch).await.expect("record");
    let [found] = &messages(store).await[..] else { panic!("one message") };
    let [expected] = &messages(memory).await[..] else { panic!("one message") };
    // What differs would fill the screen.
    assert_eq!(found.blocks.len(), expected.blocks.len());
    for ((key, block), (other, expected)) in found.blocks.iter().zip(expected.blocks.iter()) {
        assert!(key == other && block == expected, "the block at {other:?} differs");
    }
    assert!(found == expected, "the messages differ beside their blocks");
}

/// Blocks of every kind and size, in some order, some of them again and with other words.
pub async fn a_message_of_many_and_large_blocks_is_the_same_in_any_order(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let memory = MemoryStore::new(Arc::new(SystemClock));
    let mut random = StdRng::seed_from_u64(11);
    let mut lines = Vec::new();
    for n in 0..60 {
        let words = format!("block {n} ") + &"a \u{0} b ".repeat([0, 9, 900][n % 3]);
        let block = match n % 7 {
            0 => json!({"type": "thinking", "thinking": words}),
            1 => json!({"type": "tool_use", "id": format!("t{n}"), "name": "Bash", "input": {}}),
            2 => json!({"type": "image", "source": {"media_type": "image/png", "data": "x"}}),
            3 => json!({"type": "image"}),
            4 => json!({"type": "a new kind"}),
            _ => text(&words),
        };
        // Some lines share a second, and some come again with other words.
        lines.push(line(&format!("l{n}"), 100 + n / 2, &[block, text(&words)]));
        if n % 10 == 0 {
            lines.push(line(&format!("l{n}"), 100 + n / 2, &[text("b"), text(words + "more")]));
        }
    }
    lines.push(line("empty", 7, &[]));
    lines.shuffle(&mut random);
    let mut batch = Vec::new();
    for (n, line) in lines.into_iter().enumerate() {
        batch.push(arrivals.next(&format!("e{n}"), slice(&[line])));
        if random.random_range(0..3) == 0 {
            compare(&*store, &memory, std::mem::take(&mut batch)).await;
        }
    }
    batch.push(arrivals.next("last", slice(&[line("l0", 100, &[text("last")])])));
    compare(&*store, &memory, batch).await;
}

/// Many blocks in one line, and more lines before, between and behind them.
pub async fn of_the_blocks_of_a_message_the_first_are_kept(fixture: &impl EventStoreFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let memory = MemoryStore::new(Arc::new(SystemClock));
    let many = |name: &str, second, count: usize| {
        let blocks: Vec<_> = (0..count).map(|n| text(format!("{name} {n}"))).collect();
        line(name, second, &blocks)
    };
    let lines = [
        many("b", 20, 700),
        many("d", 40, 700),
        many("a", 10, 2),
        many("e", 50, 3),
        many("c", 30, 300),
        many("c", 30, 300),
        many("0", 5, 100_000),
        many("a", 10, 9),
    ];
    for (n, line) in lines.into_iter().enumerate() {
        let event = arrivals.next(&format!("e{n}"), slice(&[line]));
        compare(&*store, &memory, vec![event]).await;
    }
    let [message] = &messages(&*store).await[..] else { panic!("one message") };
    assert_eq!(message.blocks.len(), MESSAGE_MAX_BLOCKS);
    let last = Block::Text { text: format!("0 {}", MESSAGE_MAX_BLOCKS - 1) };
    assert_eq!(message.blocks.iter().last().map(|(_, block)| block), Some(&last));
}

/// The last words of a turn, of a size that has rows of its own, and of one of which only the beginning is searched.
pub async fn a_hook_that_says_the_same_as_a_large_message_is_shown_and_found_once(
    fixture: &impl EventStoreFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    for (n, bytes) in [10_000, 2 * SEARCHED_TEXT_MAX_BYTES].into_iter().enumerate() {
        for hook_comes_first in [true, false] {
            let session = format!("s{n}{hook_comes_first}");
            let words = format!("needle {}", "many words ".repeat(bytes / 11));
            let stop = json!(words.trim()).to_string();
            let stop = hook(&session, "Stop", &format!(r#","last_assistant_message":{stop}"#));
            let thinking = json!({"type": "thinking", "thinking": "hm ".repeat(bytes)});
            let said = slice(&[line("l", 9, &[thinking, text("first"), text(&words)])]);
            let said = said.replacen("\"s\"", &json!(session).to_string(), 1);
            let mut events = [stop, said];
            if !hook_comes_first {
                events.reverse();
            }
            for (m, event) in events.into_iter().enumerate() {
                record_one(&*store, arrivals.next(&format!("{session}-{m}"), event)).await;
                index(&*store).await;
            }
            let detail = store.conversation(DEFAULT_WORKSPACE, &session).await.expect("read");
            let shown = detail.expect("the conversation is there").messages;
            let origins: Vec<_> = shown.iter().map(|message| message.origin).collect();
            assert_eq!(origins, [MessageOrigin::Transcript], "{session}");
            let filter = SearchFilter {
                text: Some("needle".to_owned()),
                session_id: Some(session.clone()),
                ..SearchFilter::new(DEFAULT_WORKSPACE)
            };
            let page = store.search(filter, None, 9).await.expect("search");
            let models: Vec<_> = page.hits.iter().map(|hit| hit.model.as_deref()).collect();
            assert_eq!(models, [Some("some-model")], "{session}");
        }
    }
}
