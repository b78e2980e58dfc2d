//! The spool directory of Arrakis: the only crate that touches it.
//!
//! [`Spool`] is what the hook links: synchronous, without a runtime. `FsQueue` (feature
//! `queue`) is the drainer's side: the filesystem implementation of
//! `arrakis_core::queue::Queue`. The format of both is in [`layout`]. People look after a spool with
//! `entry`, `manage`, `verify`, `repair` and `transfer`. What transcripts have gained is put into it by
//! `transcript`.

pub mod counters;
pub mod durability;
pub mod layout;
pub mod lock;
pub mod spool;

#[cfg(feature = "queue")]
mod census;
#[cfg(feature = "queue")]
mod claim;
#[cfg(feature = "queue")]
mod dead_letter;
#[cfg(feature = "queue")]
pub mod entry;
#[cfg(feature = "queue")]
mod fresh;
#[cfg(feature = "queue")]
mod history;
#[cfg(feature = "queue")]
mod ids;
#[cfg(feature = "queue")]
mod lease;
#[cfg(feature = "queue")]
pub mod look;
#[cfg(feature = "queue")]
pub mod manage;
#[cfg(feature = "queue")]
mod owner;
#[cfg(feature = "queue")]
mod put_off;
#[cfg(feature = "queue")]
mod quarantine;
#[cfg(feature = "queue")]
mod queue;
#[cfg(feature = "queue")]
pub mod receivers;
#[cfg(feature = "queue")]
pub mod repair;
#[cfg(feature = "queue")]
pub mod transcript;
#[cfg(feature = "queue")]
pub mod transfer;
#[cfg(feature = "queue")]
pub mod verify;

pub use layout::Layout;
pub use lock::{DrainerLock, is_drainer_running};
#[cfg(feature = "queue")]
pub use queue::{FsQueue, FsQueueConfig, is_idle};
pub use spool::{Spool, SpoolError};
