//! Embeds the reading side: takes a transcript of Claude Code into a store, and reads the conversation through
//! the traits, as the dashboard and the command line do.
//!
//! `cargo run -p arrakis-examples --bin read-conversation [TRANSCRIPT.jsonl]`

#![allow(clippy::print_stdout, reason = "it shows what it read")]

use std::error::Error;
use std::sync::Arc;

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::envelope::Source;
use arrakis_core::record::ingest::Ingest;
use arrakis_core::record::store::{
    ConversationFilter, DEFAULT_WORKSPACE, EventReader, EventStore, MemoryStore, Page,
};
use arrakis_core::session::price;
use arrakis_core::session::redact::Redactor;
use arrakis_core::session::transcript::{SliceConfig, Slicer, TranscriptFile};

/// What is read where no file is named.
const SAMPLE: &str = concat!(
    r#"{"type":"user","uuid":"1","promptId":"p","timestamp":"2026-11-24T10:00:00Z","message":{"content":"What is spice?"}}"#,
    "\n",
    r#"{"type":"assistant","uuid":"2","timestamp":"2026-11-24T10:00:02Z","message":{"id":"m1","model":"claude-opus-5-5","content":[{"type":"text","text":"I look it up."}],"usage":{"input_tokens":900,"output_tokens":60}}}"#,
    "\n",
    r#"{"type":"assistant","uuid":"3","timestamp":"2026-11-24T10:00:03Z","message":{"id":"m1","model":"claude-opus-5-5","content":[{"type":"tool_use","id":"t1","name":"Grep","input":{"pattern":"spice"}}],"usage":{"input_tokens":900,"output_tokens":60}}}"#,
    "\n",
    r#"{"type":"user","uuid":"4","timestamp":"2026-11-24T10:00:04Z","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":"It must flow."}]}}"#,
    "\n",
    r#"{"type":"assistant","uuid":"5","timestamp":"2026-11-24T10:00:06Z","message":{"id":"m2","model":"claude-opus-5-5","content":[{"type":"text","text":"It must flow."}],"usage":{"input_tokens":1000,"output_tokens":20}}}"#,
);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (path, text) = match std::env::args().nth(1) {
        Some(path) => (path.clone(), std::fs::read(path)?),
        None => ("sample.jsonl".to_owned(), SAMPLE.into()),
    };
    let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let ingest = Ingest::new(Arc::clone(&store), Redactor::default(), Arc::new(SystemClock));
    take_in(&ingest, path, &text).await?;
    show(&*store).await
}

/// Sends the lines through the same steps as the events of hooks: slices, envelopes, ingest.
async fn take_in(ingest: &Ingest, path: String, text: &[u8]) -> Result<(), Box<dyn Error>> {
    let file = TranscriptFile {
        session_id: "demo".to_owned(),
        identity: path.clone(),
        path,
        cwd: None,
        agent: None,
    };
    let redactor = Redactor::default();
    let mut slicer = Slicer::new(&file, 0, SliceConfig::default(), &redactor);
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let mut slices: Vec<_> = lines.filter_map(|line| slicer.push(line)).collect();
    slices.extend(slicer.finish());
    for slice in slices.into_iter().filter(|slice| !slice.is_empty()) {
        let now = SystemClock.now();
        let envelope = slice.into_envelope(now, "demo", Source::default());
        ingest.receive(DEFAULT_WORKSPACE, envelope).await?;
    }
    Ok(())
}

async fn show(reader: &dyn EventReader) -> Result<(), Box<dyn Error>> {
    let all = ConversationFilter::new(DEFAULT_WORKSPACE);
    for summary in reader.conversations(all, Page::first(10)).await?.conversations {
        let session = &summary.conversation.session_id;
        let Some(found) = reader.conversation(DEFAULT_WORKSPACE, session).await? else { continue };
        let title = found.conversation.title.as_ref().map_or("", |title| &title.value);
        println!("{session}: {title}");
        for message in found.messages.iter().filter(|one| !one.content.value.is_empty()) {
            println!("{:>9}: {}", message.role.as_str(), message.content.value);
        }
        for tool in &found.tool_uses {
            let ms = tool.duration_ms().unwrap_or_default();
            println!("{:>9}  {} {} in {ms} ms", "", tool.tool_name, tool.status().as_str());
        }
        let usage = &found.usage;
        let (tokens, date) = (usage.total.output_tokens, price::table().date());
        println!("{tokens} tokens of output; {} by the prices of {date}", usage.cost);
    }
    Ok(())
}
