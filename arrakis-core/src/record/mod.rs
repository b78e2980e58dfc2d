//! From a received event to what is stored of it: arrivals, the states of an audit row, the stores' traits, and
//! the jobs that work on stored events.

#[cfg(feature = "runtime")]
pub mod arrival;
pub mod audit;
#[cfg(feature = "runtime")]
pub mod ingest;
#[cfg(feature = "runtime")]
pub mod job;
#[cfg(feature = "runtime")]
pub mod key;
#[cfg(feature = "runtime")]
pub mod reading;
pub mod retention;
#[cfg(feature = "runtime")]
pub mod sketch;
#[cfg(feature = "runtime")]
pub mod store;
