//! Doing something to each entry that is meant, and keeping account of it.

use std::collections::BTreeSet;
use std::io;

use arrakis_store_fs::Layout;
use arrakis_store_fs::admin::action::Action;
use arrakis_store_fs::admin::entry::{Entry, Filter, entries};
use serde::Serialize;

use super::super::Context;
use super::events;
use super::progress::Progress;

/// How many problems are told one by one; the others are counted.
pub(in crate::cli) const TOLD_PROBLEMS: usize = 100;

/// What came of an action on many entries. As JSON, these names beside the command's own count.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Totals {
    #[serde(skip)]
    pub(super) done: u64,
    /// Entries that were not there any more when it was their turn.
    pub(super) gone: u64,
    /// Events that a drainer has, and keeps.
    pub(super) leased: u64,
    /// Entries that were left as they are.
    pub(super) kept: u64,
    /// Why, for the first hundred of them.
    pub(super) problems: Vec<String>,
    /// What was named and is in no spool.
    pub(super) unknown: BTreeSet<String>,
}

impl Totals {
    pub(super) fn of(filter: &Filter) -> Self {
        Self { unknown: filter.names.clone(), ..Self::default() }
    }

    /// Does `work` for every entry of a spool that matches, failures or not.
    pub(super) fn each(
        &mut self,
        filter: &Filter,
        spool: &Layout,
        progress: &Progress,
        mut work: impl FnMut(&Entry) -> io::Result<Action>,
    ) {
        for entry in entries(spool, filter) {
            progress.step(1);
            match entry {
                Ok(entry) => self.count(&entry, work(&entry)),
                Err(error) => self.keep(error.to_string()),
            }
        }
    }

    pub(super) fn count(&mut self, entry: &Entry, action: io::Result<Action>) {
        if !self.unknown.is_empty() {
            self.unknown.remove(&entry.file_name());
            if let Some(name) = &entry.named {
                self.unknown.remove(name.request_id.as_str());
            }
        }
        match action {
            Ok(Action::Done) => self.done += 1,
            Ok(Action::Gone) => self.gone += 1,
            Ok(Action::Leased) => self.leased += 1,
            Ok(Action::Kept(why)) => self.keep(format!("{}: {why}", entry.file_name())),
            Err(error) => self.keep(error.to_string()),
        }
    }

    pub(super) fn keep(&mut self, problem: String) {
        self.kept += 1;
        if self.problems.len() < TOLD_PROBLEMS {
            self.problems.push(problem);
        }
    }

    /// Tells people what was not done, and why.
    pub(super) fn remark(&self, context: &mut Context) -> io::Result<()> {
        for problem in &self.problems {
            context.remark(problem)?;
        }
        let rest = self.kept - self.problems.len() as u64;
        if rest > 0 {
            context.remark(&format!("{rest} more were left as they are."))?;
        }
        if self.leased > 0 {
            context.remark(&format!("{} left to the drainer that has it.", events(self.leased)))?;
        }
        if self.gone > 0 {
            let gone = events(self.gone);
            context.remark(&format!("{gone} passed over: delivered or moved on meanwhile."))?;
        }
        for id in &self.unknown {
            context.remark(&format!("{id} is not in the spool; it may have been delivered."))?;
        }
        Ok(())
    }
}
