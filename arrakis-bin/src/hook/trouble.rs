//! What went wrong in a hook: lines in `webhook-error.log`, which `arrakis status` shows.

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::id::RequestId;
use arrakis_store_fs::Layout;
use serde_json::json;

use crate::config::LogLimits;
use crate::log_file::LogFile;

/// The component that a hook's lines name.
pub(super) const COMPONENT: &str = "hook";

/// The troubles of one run. Most runs have none, and write nothing.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    request_id: Option<RequestId>,
    list: Vec<Trouble>,
    refused: bool,
}

#[derive(Debug)]
struct Trouble {
    code: &'static str,
    message: &'static str,
    details: String,
}

impl Troubles {
    /// Names the event that the troubles are about.
    pub(super) fn about(&mut self, request_id: &RequestId) {
        self.request_id = Some(request_id.clone());
    }

    pub(super) fn add(&mut self, code: &'static str, message: &'static str, details: String) {
        self.list.push(Trouble { code, message, details });
    }

    /// The event was not captured.
    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    /// Writes the troubles into the log of the home, else into that of the fallback home.
    pub(super) fn write(self, home: &Layout, fallback: &Layout, limits: LogLimits) {
        for trouble in &self.list {
            let line = json!({
                "timestamp": SystemClock.now(),
                "level": if self.refused { "error" } else { "warn" },
                "component": COMPONENT,
                "requestId": self.request_id,
                "code": trouble.code,
                "message": trouble.message,
                "details": trouble.details,
                "captured": !self.refused,
            });
            let log = |layout: &Layout| LogFile::new(&layout.logs(), "webhook-error", limits);
            // Where neither can be written there is nobody left to tell.
            let written = log(home).append(&line).or_else(|_| log(fallback).append(&line));
            written.ok();
        }
    }
}
