//! HTTP for Arrakis: the only crate that knows it.
//!
//! * [`wire`]: what goes over the wire, shared by both sides;
//! * `client` (feature): the `Transport` of the drainer;
//! * `server` (feature): the receiver.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;
pub mod wire;
