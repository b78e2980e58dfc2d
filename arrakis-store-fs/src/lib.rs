//! The spool directory of Arrakis: the only crate that touches it.
//!
//! * [`spool`]: the directory, its format and its parts. [`Spool`] captures events into it, synchronously and without
//!   a runtime: it is what the hook links.
//! * `queue`: the drainer's side. `FsQueue` is the filesystem implementation of
//!   `arrakis_core::delivery::queue::Queue`.
//! * `admin`: what people do to a spool.
//! * `source`: reads transcripts, and pushes what they have gained like captures.
//!
//! `queue`, `admin` and `source` use `spool`. `queue` also lets dead letters be retried and discarded by `admin`; else
//! none of the three uses another.

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
