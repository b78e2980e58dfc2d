//! The pieces that an event passes through: `cargo bench -p arrakis-benches`.

#![allow(missing_docs, reason = "criterion's macros make public items without documentation")]

use std::sync::Arc;

use arrakis_bin::config::LogLimits;
use arrakis_bin::log_file::LogFile;
use arrakis_core::base::clock::{SystemClock, Timestamp};
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::record::ingest::{Ingest, Request};
use arrakis_core::record::store::MemoryStore;
use arrakis_core::session::redact::{Redactor, default_rules};
use arrakis_store_fs::{Layout, Spool};
use arrakis_transport_http::wire::{decode_envelope, encode_envelope};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// A payload of about this many bytes.
fn payload(bytes: usize) -> Vec<u8> {
    let text = "the quick brown fox jumps over the lazy dog ".repeat(bytes / 44 + 1);
    let text = &text[..bytes];
    format!(
        r#"{{"session_id":"06cbac0f-1500-4dcb-9802-eff884472760","cwd":"/p","hook_event_name":"PostToolUse","tool_name":"Bash","tool_use_id":"t","tool_response":"{text}"}}"#
    )
    .into_bytes()
}

fn envelope(payload: &[u8]) -> Envelope {
    let id = "019abcde-0000-7000-8000-000000000000".parse().expect("a valid id");
    Envelope::new(
        id,
        Timestamp::EPOCH,
        "http://127.0.0.1:3000/",
        Source::default(),
        payload.to_vec(),
    )
}

fn pieces(criterion: &mut Criterion) {
    for (name, bytes) in [("1 KiB", 1 << 10), ("1 MiB", 1 << 20)] {
        let payload = payload(bytes);
        let sent = envelope(&payload);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function("redact", |b| {
            let redactor = Redactor::default();
            b.iter(|| redactor.redact(&payload).text.len());
        });
        group.bench_function("digest", |b| b.iter(|| Digest::of(&payload)));
        group.bench_function("envelope", |b| b.iter(|| envelope(&payload)));
        group.bench_function("encode", |b| b.iter(|| encode_envelope(&sent)));
        let json = bytes::Bytes::from(encode_envelope(&sent));
        group.bench_function("decode", |b| b.iter(|| decode_envelope(&json)));
        group.bench_function("judge", |b| {
            let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
            let ingest = Ingest::new(store, Redactor::default(), Arc::new(SystemClock));
            let request = Request::new("main", Timestamp::EPOCH);
            b.iter(|| ingest.judge(&request, sent.clone()));
        });
        group.bench_function("spool", |b| {
            let home = tempfile::TempDir::new().expect("a temporary directory");
            let spool = Spool::new(Layout::new(home.path()));
            b.iter(|| spool.capture(&sent));
        });
        group.finish();
    }
    redaction(criterion);
    criterion.bench_function("redactor from nothing", |b| b.iter(Redactor::default));
    criterion.bench_function("log line", |b| {
        let home = tempfile::TempDir::new().expect("a temporary directory");
        let log = LogFile::new(home.path(), "webhook-queue", LogLimits::default());
        let line = serde_json::json!({
            "timestamp": Timestamp::EPOCH, "level": "info", "component": "drainer",
            "requestId": "019abcde-0000-7000-8000-000000000000", "message": "delivered", "attempt": 1,
        });
        b.iter(|| log.append(&line));
    });
}

/// A payload of about this many bytes that is one secret after another.
fn secrets(bytes: usize) -> Vec<u8> {
    let samples = default_rules().flat_map(|rule| rule.secrets);
    let text: String = samples.map(|sample| sample.replace(['|', '¦'], "") + "\n").collect();
    let text: String = text.chars().cycle().take(bytes).collect();
    serde_json::json!({ "tool_response": { "stdout": text } }).to_string().into_bytes()
}

/// What redaction costs: a hook makes a redactor for each event, so that is part of it.
fn redaction(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("redaction");
    let redactor = Redactor::default();
    for (name, payload) in [("harmless", payload(1 << 10)), ("secrets", secrets(1 << 10))] {
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(format!("new and 1 KiB, {name}"), |b| {
            b.iter(|| Redactor::default().redact(&payload).text.len());
        });
    }
    for (name, payload) in [("harmless", payload(1 << 20)), ("secrets", secrets(1 << 20))] {
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(format!("1 MiB, {name}"), |b| {
            b.iter(|| redactor.redact(&payload).text.len());
        });
    }
    group.finish();
}

criterion_group!(benches, pieces);
criterion_main!(benches);
