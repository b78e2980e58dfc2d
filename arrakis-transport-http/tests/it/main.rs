//! Client and server over real sockets.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod network;
mod server;
mod serving;
