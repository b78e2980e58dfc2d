//! The embedded event store of Arrakis: one SQLite file.
//!
//! [`SqliteStore`] implements [`EventStore`](arrakis_core::record::store::EventStore),
//! [`EventReader`](arrakis_core::record::store::EventReader), [`KeyStore`](arrakis_core::record::store::KeyStore) and
//! [`DeadLetters`](arrakis_core::base::dead_letter::DeadLetters). This is the only crate that knows SQLite.
//!
//! # How it is durable, and quick at it
//!
//! The file is in WAL mode with `synchronous = FULL`: a commit is on the disk before it is answered.
//! One thread writes. Calls that arrive while a commit is under way share the next one, so the cost
//! of reaching the disk is divided among all who wait. A few other connections read; they only see
//! what is committed and never hold the writer up.
//!
//! Several processes may have the file open. Whoever finds it locked waits for
//! [`SqliteConfig::busy_timeout`], then fails as unavailable, which the sender may retry.
//!
//! # Files
//!
//! * `file`: where the database may be, and its permissions
//! * `pool`, `migrate`: connections, and the schema
//! * `writer`, `checkpoint`: the thread that writes, group commit, and the thread that copies the log
//! * `write`, `apply`, `body`: recording events, applying their changes, keeping their bodies
//! * `messages`: messages and their blocks
//! * `work`: claims, completion, changes of state
//! * `retention`: pruning, and giving space back
//! * `feed`: which rows each commit touched
//! * `rollups`: counts of events and sums of usage, added up behind the writer
//! * `index`, `search`: making texts searchable, and finding them
//! * `read`, `dead_letter`, `keys`, `spools`, `browser_sessions`: everything else the traits ask for
//! * `row`, `schema`: columns and what they mean

mod apply;
mod archive;
mod body;
mod browser_sessions;
mod checkpoint;
mod config;
mod dead_letter;
mod documents;
mod error;
mod feed;
mod file;
mod index;
mod keys;
mod list;
mod messages;
mod migrate;
mod pool;
mod read;
mod retention;
mod rollups;
mod row;
mod schema;
mod search;
mod spools;
mod store;
mod work;
mod write;
mod writer;

pub use config::SqliteConfig;
pub use store::SqliteStore;
