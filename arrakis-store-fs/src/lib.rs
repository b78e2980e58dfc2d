//! The spool directory of Arrakis: the only crate that touches it.
//!
//! [`Spool`] is what the hook links: synchronous, without a runtime. `FsQueue` (feature
//! `queue`) is the drainer's side: the filesystem implementation of
//! `arrakis_core::delivery::queue::Queue`. The format of both is in [`layout`]. People look after a spool with
//! `entry`, `manage`, `verify`, `repair` and `transfer`. What transcripts have gained is put into it by
//! `transcript`.

pub mod spool;

#[cfg(feature = "queue")]
pub mod admin;
#[cfg(feature = "queue")]
pub mod queue;
#[cfg(feature = "queue")]
pub mod source;

#[cfg(feature = "queue")]
pub use queue::{FsQueue, FsQueueConfig};
pub use spool::capacity::SpoolLimits;
pub use spool::dir::SpoolDir;
#[cfg(feature = "queue")]
pub use spool::is_idle;
pub use spool::layout::Layout;
pub use spool::lock::{DrainerLock, is_drainer_running};
pub use spool::{Spool, SpoolError};
