//! The domain of Arrakis, without any I/O.
//!
//! An [`Envelope`](envelope::Envelope) is one captured hook event. It travels through three traits,
//! each with several implementations and a public conformance suite:
//!
//! * [`Queue`](queue::Queue) keeps it durably until it is delivered,
//! * [`Transport`](transport::Transport) makes one attempt to deliver it,
//! * [`EventStore`](store::EventStore) stores it exactly once and projects it into conversations.
//!
//! What stands between them is here too: the retry policies ([`retry`]), the tower middleware
//! ([`middleware`]), the drain loop ([`drain`]), ingest ([`ingest`]) and the projection
//! ([`projection`]). Everything that touches a disk, a socket or a database lives in an adapter
//! crate that depends on this one.
//!
//! # Features
//!
//! * `runtime` (default): the asynchronous half. Without it only plain types remain, which is what
//!   the hook links.
//! * `testkit`: conformance suites and fakes.

pub mod audit;
pub mod clock;
pub mod conservation;
pub mod conversation;
pub mod digest;
pub mod envelope;
pub mod event;
pub mod id;
pub mod limits;
pub mod redact;
pub mod snapshot;

#[cfg(feature = "runtime")]
pub mod drain;
#[cfg(feature = "runtime")]
pub mod error;
#[cfg(feature = "runtime")]
pub mod ingest;
#[cfg(feature = "runtime")]
pub mod job;
#[cfg(feature = "runtime")]
pub mod key;
#[cfg(feature = "runtime")]
pub mod middleware;
#[cfg(feature = "runtime")]
pub mod price;
#[cfg(feature = "runtime")]
pub mod projection;
#[cfg(feature = "runtime")]
pub mod queue;
#[cfg(feature = "runtime")]
pub mod retry;
#[cfg(feature = "runtime")]
pub mod search;
#[cfg(feature = "runtime")]
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod transcript;
#[cfg(feature = "runtime")]
pub mod transport;
pub mod usage;
