//! Conformance suites: what every implementation of a trait must do, one named test per line of the
//! trait's `# Behavior`. An implementation runs its suite with one macro, here or in a third party's
//! crate.

pub mod archive;
pub mod browser_sessions;
pub mod dead_letters;
pub mod event_store;
pub mod fakes;
pub mod key_store;
pub mod queue;
pub mod receiver;
pub mod recorded;
pub mod retention;
pub mod retry_policy;
pub mod rollups;
pub mod sessions;
pub mod spool_reports;
pub mod store;
pub mod transport;
