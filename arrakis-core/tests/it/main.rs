//! The domain through its public interface, with queues and stores in memory and paused time.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod attached;
mod breaker;
mod drain;
mod events;
mod herd;
mod ingest;
mod lines;
mod money;
mod outage;
mod poison;
mod projection;
mod prompts;
mod redact;
mod redact_labelled;
mod redact_rules;
mod retry;
mod server_tools;
mod sessions;
mod snapshot;
mod threads;
mod transcript;
mod words;
mod workspaces;
