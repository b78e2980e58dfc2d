//! The event store of Arrakis for teams: a Postgres database that several servers share.
//!
//! [`PgStore`] implements [`EventStore`](arrakis_core::record::store::EventStore),
//! [`EventReader`](arrakis_core::record::store::EventReader), [`KeyStore`](arrakis_core::record::store::KeyStore) and
//! [`DeadLetters`](arrakis_core::base::dead_letter::DeadLetters). This is the only crate that knows Postgres; it
//! needs no libpq. Postgres 13 or newer serves.
//!
//! # How it is durable, and quick at it
//!
//! An event is answered after the commit that holds it, with `synchronous_commit` on. Calls that arrive
//! while a commit is under way share the next one, and a transaction has the same few statements for one
//! event as for hundreds, so the cost of reaching the server and its disk is divided among all who wait.
//!
//! Nothing is stored twice whichever server is asked: the ledger's primary key decides, inside the
//! transaction that stores the event.
//!
//! # Files
//!
//! * `connect`, `pool`, `migrate`: connections, transactions, and the schema
//! * `writer`: group commit
//! * `write`, `apply`, `body`: recording events, applying their changes, keeping their bodies
//! * `messages`: messages and their blocks
//! * `work`: claims, completion, changes of state
//! * `retention`: pruning
//! * `months`: the parts of the audit log, by month
//! * `feed`: what follows the commits
//! * `rollups`: counts of events and sums of usage, added up behind the lanes
//! * `index`: texts, made searchable
//! * `search`, `documents`: what a search asks for; messages and tool uses, searched
//! * `read`, `dead_letter`, `keys`, `spools`, `browser_sessions`: everything else the traits ask for
//! * `row`, `schema`, `statement`: columns and what they mean, and statements of many rows

mod apply;
mod archive;
mod body;
mod browser_sessions;
mod config;
mod connect;
mod dead_letter;
mod documents;
mod error;
mod feed;
mod index;
mod keys;
mod list;
mod messages;
mod migrate;
mod months;
mod pool;
mod read;
mod retention;
mod rollups;
mod row;
mod schema;
mod search;
mod spools;
mod statement;
mod store;
mod work;
mod write;
mod writer;

pub use config::PgConfig;
pub use migrate::{migrate, pending_migrations};
pub use store::PgStore;
