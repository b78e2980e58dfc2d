//! The domain of Arrakis, without any I/O.
//!
//! An [`Envelope`] is one captured hook event. It travels through three traits,
//! each with several implementations and a public conformance suite:
//!
//! * [`Queue`] keeps it durably until it is delivered,
//! * [`Transport`] makes one attempt to deliver it,
//! * [`EventStore`] stores it exactly once and projects it into conversations.
//!
//! A [`RetryPolicy`] says when to try again. Everything that touches a disk, a socket or a database lives in an
//! adapter crate that depends on this one.
//!
//! # Rooms
//!
//! * [`base`]: what every room may use, and what uses nothing of ours.
//! * [`delivery`]: from a queue to a receiver. It never looks into a payload.
//! * [`session`]: what Claude Code's events mean.
//! * [`record`]: from a received event to what is stored of it.
//!
//! `record` uses `session` and `base`, `session` and `delivery` use `base`, and none uses another.
//!
//! # Features
//!
//! * `runtime` (default): the asynchronous half. Without it only plain types remain, which is what
//!   the hook links.
//! * `testkit`: conformance suites and fakes.

pub mod base;
#[cfg(feature = "runtime")]
pub mod delivery;
pub mod record;
pub mod session;
#[cfg(feature = "testkit")]
pub mod testkit;

/// The crates whose types stand in this crate's public signatures, in the versions that it uses.
pub mod external {
    #[cfg(feature = "runtime")]
    pub use {async_trait, rand, secrecy, tokio_util, tower};
    pub use {bytes, serde_json, uuid};
}

pub use base::clock::Timestamp;
pub use base::digest::Digest;
pub use base::envelope::Envelope;
pub use base::id::RequestId;
#[cfg(feature = "runtime")]
pub use base::retry::RetryPolicy;
#[cfg(feature = "runtime")]
pub use delivery::queue::Queue;
#[cfg(feature = "runtime")]
pub use delivery::transport::Transport;
#[cfg(feature = "runtime")]
pub use record::store::EventStore;
