//! A bar on standard error for work that takes long; nothing where that is no terminal.

use std::time::Duration;

use arrakis_store_fs::Layout;
use arrakis_store_fs::spool::survey;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

#[derive(Debug)]
pub(in crate::cli) struct Progress(ProgressBar);

impl Progress {
    /// Progress through an unknown number of entries.
    pub(in crate::cli) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
        let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} ({per_sec})");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// Progress through everything that is in these spools. It is counted only if anybody sees it.
    pub(in crate::cli) fn through(what: &'static str, spools: &[Layout]) -> Self {
        let progress = Self::new(what);
        if !progress.0.is_hidden() {
            let surveys = spools.iter().filter_map(|spool| survey(spool).ok());
            let count = |s: arrakis_store_fs::spool::Survey| {
                s.pending + s.processing + s.failed + s.quarantined
            };
            progress.of(surveys.map(count).sum());
        }
        progress
    }

    /// Says how much there is in all.
    pub(in crate::cli) fn of(&self, total: u64) {
        let template = "{msg} {wide_bar} {percent}% of {human_len}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_length(total);
    }

    pub(in crate::cli) fn step(&self, by: u64) {
        self.0.inc(by);
    }

    /// Lets `write` have the terminal.
    pub(in crate::cli) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
}
