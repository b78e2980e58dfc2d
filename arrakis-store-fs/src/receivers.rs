//! What drainers know about their receivers, kept from one to the next in `receivers.json`.
//!
//! The file is worth little: without it an outage is found out about anew. So one that cannot be read
//! is passed over, and of several processes that write it the last one wins.

use std::fs::{self, File};
use std::io::{self, Read};

use arrakis_core::middleware::breaker::BreakerSnapshot;

use crate::durability::{RealFileSystem, write_durably};
use crate::layout::Layout;

/// Longest file that is read: a hundred receivers with long names and long errors.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// What was saved last, or nothing; warns of a file that cannot be read.
#[must_use]
pub fn load(layout: &Layout) -> BreakerSnapshot {
    let path = layout.receivers();
    let read = || {
        let mut text = String::new();
        File::open(&path)?.take(FILE_MAX_BYTES).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    read().unwrap_or_else(|error: io::Error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(target: "arrakis::queue", path = %path.display(), %error,
                "what was known about the receivers cannot be read and is forgotten");
        }
        BreakerSnapshot::default()
    })
}

/// Saves what is known, in place of what was saved before.
///
/// # Errors
///
/// The file cannot be written; it is as it was.
pub fn save(layout: &Layout, snapshot: &BreakerSnapshot) -> io::Result<()> {
    let path = layout.receivers();
    // Not in `tmp/`, where a file that a crash leaves would be taken for an event.
    let temporary = path.with_extension(format!("json.{}", std::process::id()));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_durably(&RealFileSystem, &temporary, &path, &[&serde_json::to_vec(snapshot)?])
}
