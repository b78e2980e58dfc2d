//! What the programs of Arrakis are composed of: configuration, telemetry, commands. Behaviour lives
//! in the other crates.

pub mod config;
pub mod hook;
pub mod log_file;
pub mod wake;

#[cfg(feature = "full")]
pub mod claude_settings;
#[cfg(feature = "full")]
pub mod cli;
#[cfg(feature = "full")]
pub mod compose;
#[cfg(feature = "full")]
pub mod shutdown;
#[cfg(feature = "full")]
pub mod telemetry;
