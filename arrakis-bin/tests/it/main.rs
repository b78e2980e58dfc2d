//! The real programs and their commands.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![allow(clippy::disallowed_methods, reason = "real programs and files know the real time only")]
#![cfg(feature = "full")]

mod cli_lists;
#[cfg(target_os = "linux")]
mod configuration;
mod conservation;
mod dashboard;
mod end_to_end;
mod export;
mod export_formats;
mod hook;
mod import;
mod install;
mod logs;
mod postgres;
mod prune;
mod queue;
mod reading;
mod receivers;
mod reconcile;
mod said;
mod search;
#[cfg(target_os = "linux")]
mod spool;
mod support;
mod transcripts;
mod unused;
mod usage;
