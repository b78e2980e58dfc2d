//! `arrakis events retry` and `arrakis events discard`.
//!
//! As JSON, an object with the counts `retried` or `discarded`, `gone` and `kept`, with `problems` and `unknown`
//! ids. Of a dry run it has `wouldApply`, `wouldFail`, `reasons` (counts by error code), `gone` and `unknown`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::base::heavy::HeavyPool;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::ingest::DryRun;
use arrakis_core::record::store::{
    DEFAULT_WORKSPACE, EventFilter, EventKey, EventPage, EventStore, EventSummary, Page, StoreError,
};
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::super::Context;
use super::super::confirm::confirmed;
use super::super::output;
use super::super::queue::act::TOLD_PROBLEMS;
use super::super::queue::progress::Progress;
use super::filter::Filters;
use crate::config::{machine, process_env};

/// Events that are read at one time.
const PAGE: usize = 500;

/// Which events are meant.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which events")]
pub struct Selection {
    /// Row ids or request ids.
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,

    /// All of them.
    #[arg(long)]
    pub all: bool,

    /// Only those in this state. May be repeated.
    #[arg(long = "status", value_name = "STATUS", value_delimiter = ',')]
    pub statuses: Vec<EventStatus>,

    /// What else is asked for.
    #[command(flatten)]
    pub filters: Filters,

    /// Only events of this workspace; ids are those of the workspace main unless another is named.
    #[arg(long, value_name = "NAME")]
    pub workspace: Option<String>,
}

/// The arguments of `arrakis events retry`.
///
/// Without ids and states, what has failed is meant: FAILED and ERROR. An event that is INVALID fails the same way
/// again, unless a later version reads it; so it is to be named.
#[derive(Debug, Clone, Args)]
pub struct RetryArgs {
    #[command(flatten)]
    selection: Selection,

    /// Change nothing, and say how many of them would be applied now.
    #[arg(long)]
    dry_run: bool,
}

/// The arguments of `arrakis events discard`.
#[derive(Debug, Clone, Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    selection: Selection,

    /// Do not ask.
    #[arg(long, short = 'y')]
    yes: bool,
}

pub(super) async fn retry(
    args: &RetryArgs,
    store: &Arc<dyn EventStore>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    use EventStatus::{Error, Failed, Invalid};
    let possible = [Failed, Error, Invalid];
    let chosen = Chosen::of(&args.selection, &[Failed, Error], &possible, store, context).await?;
    if args.dry_run {
        return dry_run(&chosen, store, context).await;
    }
    let actor = actor();
    let progress = Progress::new("Retrying");
    let mut totals = Totals::default();
    chosen
        .each(store, async |event| {
            progress.step(1);
            let to = EventStatus::Pending;
            let done = store.transition(event.id, to, &actor, "retried by hand").await;
            totals.count(&event, done)
        })
        .await?;
    drop(progress);
    totals.unknown = chosen.unknown(store).await?;
    if context.json {
        context.write_json(&Retried { retried: totals.done, totals: &totals })?;
    } else {
        let when =
            if totals.done > 0 { "; a running server applies them within a minute" } else { "" };
        writeln!(context.out, "{} due now{when}.", events(totals.done))?;
    }
    totals.remark(context)
}

/// Judges the events anew, and says what would come of them.
async fn dry_run(
    chosen: &Chosen<'_>,
    store: &Arc<dyn EventStore>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let heavy = HeavyPool::default();
    let progress = Progress::new("Judging");
    let mut dry_run = DryRun::default();
    chosen
        .each(store, async |event| {
            progress.step(1);
            Ok(dry_run.add(&**store, &heavy, &event.workspace, event.id).await?)
        })
        .await?;
    drop(progress);
    let unknown = chosen.unknown(store).await?;
    let has_unknown = !unknown.is_empty();
    if context.json {
        context.write_json(&Foreseen { dry_run: &dry_run, unknown: &unknown })?;
    } else {
        let (apply, fail) = (dry_run.would_apply, dry_run.would_fail);
        writeln!(context.out, "{} would be applied, {fail} would fail again.", events(apply))?;
        for (code, count) in &dry_run.reasons {
            writeln!(context.out, "  {count} {}", output::text::one_line(code))?;
        }
        for id in &unknown {
            context.remark(&format!("{} is not stored", output::text::one_line(id)))?;
        }
    }
    Ok(if has_unknown { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(super) async fn discard(
    args: &DiscardArgs,
    store: &Arc<dyn EventStore>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let failed = [EventStatus::Failed];
    let chosen = Chosen::of(&args.selection, &failed, &failed, store, context).await?;
    if !args.yes {
        let mut count = 0;
        chosen
            .each(store, async |_| {
                count += 1;
                Ok(())
            })
            .await?;
        let question = format!("Discard {} for good? [y/N] ", events(count));
        let must = "discarding is for good; add --yes to confirm it";
        if !confirmed(must, |_| Ok(question), context)? {
            context.remark("Nothing was discarded.")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    let actor = actor();
    let progress = Progress::new("Discarding");
    let mut totals = Totals::default();
    chosen
        .each(store, async |event| {
            progress.step(1);
            let done = store.give_up(event.id, &actor, "discarded by hand").await;
            totals.count(&event, done)
        })
        .await?;
    drop(progress);
    totals.unknown = chosen.unknown(store).await?;
    if context.json {
        context.write_json(&Discarded { discarded: totals.done, totals: &totals })?;
    } else {
        writeln!(context.out, "{} discarded.", events(totals.done))?;
    }
    totals.remark(context)
}

/// Who is named in the trail: the user, where the environment says who that is.
fn actor() -> String {
    machine(&process_env).user.unwrap_or_else(|| "person".to_owned())
}

fn events(n: u64) -> String {
    output::count(usize::try_from(n).unwrap_or(usize::MAX), "event")
}

/// The selection of a command, with what holds where it says nothing.
struct Chosen<'a> {
    selection: &'a Selection,
    /// In which states.
    statuses: BTreeSet<EventStatus>,
    /// What else is asked for.
    filter: EventFilter,
}

impl<'a> Chosen<'a> {
    /// What is meant: where no state is named those of `default`, and of events that are named by their ids those
    /// of `possible`.
    ///
    /// # Errors
    ///
    /// Nothing is said, or a state is named that is not possible.
    async fn of(
        selection: &'a Selection,
        default: &[EventStatus],
        possible: &[EventStatus],
        store: &Arc<dyn EventStore>,
        context: &Context,
    ) -> anyhow::Result<Self> {
        let Selection { ids, all, statuses, filters, workspace } = selection;
        let is_filtered = !statuses.is_empty() || !filters.is_empty() || workspace.is_some();
        if ids.is_empty() && !is_filtered && !all {
            bail!("say which: ids, a filter such as --status failed, or --all");
        }
        if let Some(wrong) = statuses.iter().find(|status| !possible.contains(status)) {
            let possible: Vec<_> = possible.iter().map(|status| status.as_str()).collect();
            bail!("this is for events in {}, not in {wrong}", possible.join(" or "));
        }
        let meant = match (statuses.is_empty(), ids.is_empty()) {
            (false, _) => statuses,
            (true, true) => default,
            (true, false) => possible,
        };
        let one = workspace.as_deref().unwrap_or(DEFAULT_WORKSPACE);
        let filter = EventFilter {
            workspace: workspace.clone(),
            discarded: Some(false),
            ..filters.filter(&(Arc::clone(store) as _), one, context).await?
        };
        Ok(Self { selection, statuses: meant.iter().copied().collect(), filter })
    }

    /// Does `work` for each event that is meant, newest first in each state; those that are discarded are not.
    async fn each(
        &self,
        store: &Arc<dyn EventStore>,
        mut work: impl AsyncFnMut(EventSummary) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !self.selection.ids.is_empty() {
            for id in &self.selection.ids {
                for event in self.rows_of(id, store).await? {
                    if self.fits(&event) {
                        work(event).await?;
                    }
                }
            }
            return Ok(());
        }
        for status in &self.statuses {
            let filter = EventFilter { status: Some(*status), ..self.filter.clone() };
            let mut page = Page::first(PAGE);
            loop {
                let EventPage { events, next } = store.events(filter.clone(), page).await?;
                for event in events {
                    work(event).await?;
                }
                if next.is_none() {
                    break;
                }
                page.after = next;
            }
        }
        Ok(())
    }

    fn fits(&self, event: &EventSummary) -> bool {
        self.statuses.contains(&event.status) && self.filter.admits(event)
    }

    /// The row of this id, or else the rows of this request id that are no repeats: an id names an event inside one
    /// workspace.
    async fn rows_of(
        &self,
        id: &str,
        store: &Arc<dyn EventStore>,
    ) -> anyhow::Result<Vec<EventSummary>> {
        let workspace = self.selection.workspace.as_deref().unwrap_or(DEFAULT_WORKSPACE);
        if let Ok(row) = id.parse::<Uuid>()
            && let Some(event) = store.event(workspace, EventKey::Id(row)).await?
        {
            return Ok(vec![event.summary]);
        }
        let Ok(request_id) = id.parse() else { return Ok(Vec::new()) };
        let filter = EventFilter {
            workspace: Some(workspace.to_owned()),
            request_id: Some(request_id),
            ..EventFilter::default()
        };
        let mut rows = store.events(filter, Page::first(PAGE)).await?.events;
        rows.retain(|row| row.status != EventStatus::Duplicate);
        Ok(rows)
    }

    /// The ids that name no event.
    async fn unknown(&self, store: &Arc<dyn EventStore>) -> anyhow::Result<BTreeSet<String>> {
        let mut unknown = BTreeSet::new();
        for id in &self.selection.ids {
            if self.rows_of(id, store).await?.is_empty() {
                unknown.insert(id.clone());
            }
        }
        Ok(unknown)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Retried<'a> {
    retried: u64,
    #[serde(flatten)]
    totals: &'a Totals,
}

#[derive(Serialize)]
struct Foreseen<'a> {
    #[serde(flatten)]
    dry_run: &'a DryRun,
    unknown: &'a BTreeSet<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Discarded<'a> {
    discarded: u64,
    #[serde(flatten)]
    totals: &'a Totals,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    #[serde(skip)]
    done: u64,
    /// Events that were in another state, or pruned, when it was their turn.
    gone: u64,
    /// Events that were left as they are.
    kept: u64,
    /// Why, for the first hundred of them.
    problems: Vec<String>,
    /// What was named and is not stored.
    unknown: BTreeSet<String>,
}

impl Totals {
    /// Counts what came of one event.
    ///
    /// # Errors
    ///
    /// The store is away: the rest would fail as well.
    fn count(&mut self, event: &EventSummary, done: Result<(), StoreError>) -> anyhow::Result<()> {
        match done {
            Ok(()) => self.done += 1,
            Err(StoreError::NotFound(_) | StoreError::IllegalTransition { .. }) => self.gone += 1,
            Err(error @ StoreError::Unavailable { .. }) => return Err(error.into()),
            Err(error) => {
                self.kept += 1;
                if self.problems.len() < TOLD_PROBLEMS {
                    self.problems.push(format!("{}: {error}", event.request_id));
                }
            }
        }
        Ok(())
    }

    /// Tells people what was not done, and why.
    fn remark(&self, context: &mut Context) -> anyhow::Result<ExitCode> {
        for problem in &self.problems {
            context.remark(problem)?;
        }
        let rest = self.kept - self.problems.len() as u64;
        if rest > 0 {
            context.remark(&format!("{rest} more were left as they are."))?;
        }
        if self.gone > 0 {
            let gone = events(self.gone);
            context.remark(&format!("{gone} passed over: changed meanwhile."))?;
        }
        for id in &self.unknown {
            context.remark(&format!("{id} is not stored; `arrakis events list` shows what is."))?;
        }
        Ok(if self.kept == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
