//! Shipping transcripts: what Claude Code's files have gained becomes events in the spool.
//!
//! ```text
//! an event names a transcript   Follower   registers it before the event is settled, and when to read it
//!   due, or at a start          Shipper    reads what the file has gained: Lines, then core's Slicer
//!   a slice is full                        pushes it like a capture
//! ```
//!
//! How far a file was read is its checkpoint, one file each in `queue/transcripts/`, replaced as a whole and
//! durable when it is ([`Checkpoint`]). A reading
//!
//! 1. saves its intent: up to which byte it will go, and the time that its slices will bear;
//! 2. pushes the slices from the saved offset up to there. Same bytes and bounds make the same slices
//!    with the same ids and names;
//! 3. saves the new offset, also on the way where it is long.
//!
//! A crash in between makes the next reading do the same again, though the file has grown: what is still
//! in the spool is recognized there, what was delivered by the receiver. So one checkpoint a reading is enough,
//! instead of one a slice.
//!
//! One reading of a file at a time: each holds a lock beside the checkpoint. Whoever finds it taken leaves the
//! file to the other, or waits. What is made of a line does not depend on how often it comes.
//!
//! A file that is shorter than the offset, is another one, or whose first line or last bytes before the
//! offset have changed, is read again from its beginning. A last line without its newline is read where it is whole,
//! else left for next time. A file that is not where events say is looked for in the other folders of projects. Only regular files in the allowed folders are read, wherever links lead.

mod access;
mod checkpoint;
mod find;
mod follow;
mod pass;
mod reader;
mod room;
mod ship;

pub use checkpoint::{Checkpoint, Survey, survey};
pub use find::{Found, find_moved, identify};
pub use follow::Follower;
pub use ship::{ReadMode, Reading, ShipConfig, ShipError, Shipper};
