//! Client and server over real sockets.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![allow(clippy::disallowed_methods, reason = "real programs and files know the real time only")]

mod network;
mod server;
mod serving;
