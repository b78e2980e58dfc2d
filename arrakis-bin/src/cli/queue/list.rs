//! `arrakis queue list`.
//!
//! As JSON, an array of objects with `state`, `id`, `requestId`, `eventType`, `sessionId`, `destination`,
//! `capturedAt`, `ageMs`, `rounds`, `nextDue`, `lastFailure`, `problem` and `path`. `nextDue` is null where
//! an event is due or does not wait; `problem` says why an entry cannot be read.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::dead_letter::Failure;
use arrakis_store_fs::Layout;
use arrakis_store_fs::admin::entry::{Entry, Found, State, entries};
use clap::Args;
use serde::Serialize;

use super::super::Context;
use super::super::output::table::{Cell, Column, Table};
use super::super::output::{self, text};
use super::{Selection, spools};

/// Rows of a list unless told otherwise: about what a screen holds.
const DEFAULT_LIMIT: u64 = 50;

/// Most rows of a list that is in order, and so held in memory; `--all` has no limit.
const MAX_LIMIT: u64 = 10_000;

/// Rows of a table that are held in memory to find the widths of its columns.
const TABLE_ROWS: usize = 1000;

/// The arguments of `arrakis queue list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    #[command(flatten)]
    selection: Selection,

    /// At most this many, by state and due time; --all lists all, in no order.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT, conflicts_with = "all",
          value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    limit: u64,
}

/// What an entry's name, header and history tell.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    pub(super) state: State,
    /// What other commands take: the request id, or the file name of what is in quarantine.
    pub(super) id: String,
    pub(super) request_id: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) destination: Option<String>,
    pub(super) captured_at: Option<Timestamp>,
    pub(super) age_ms: Option<u64>,
    pub(super) rounds: Option<u32>,
    pub(super) next_due: Option<Timestamp>,
    pub(super) last_failure: Option<Failure>,
    pub(super) problem: Option<String>,
    pub(super) path: String,
}

impl View {
    /// Looks at an entry; `None` if it is gone.
    pub(super) fn of(entry: &Entry, layout: &Layout, now: Timestamp) -> Option<Self> {
        let (header, unreadable) = match entry.header() {
            Ok(Found::Whole(header)) => (Some(header), None),
            Ok(Found::Unreadable(reason)) => (None, Some(reason.to_string())),
            Ok(Found::Gone) => return None,
            Err(error) => (None, Some(error.to_string())),
        };
        let reason = (entry.state == State::Quarantined).then(|| entry.reason()).flatten();
        let named = entry.named.as_ref();
        let waits = named.filter(|name| entry.state == State::Pending && !name.is_due(now));
        let age = |at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        let captured_at = header.as_ref().map(|header| header.captured_at);
        Some(Self {
            state: entry.state,
            id: entry.id(),
            request_id: named.map(|name| name.request_id.to_string()),
            event_type: header.as_ref().and_then(|header| header.event_type.clone()),
            session_id: header.as_ref().and_then(|header| header.session_id.clone()),
            destination: header.map(|header| header.destination),
            captured_at,
            age_ms: captured_at.map(age),
            rounds: named.map(|name| name.rounds),
            next_due: waits.map(|name| name.due),
            last_failure: entry.history(layout).pop(),
            problem: reason.or(unreadable),
            path: entry.path.display().to_string(),
        })
    }
}

pub(super) fn run(args: &ListArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    if args.selection.all { list_all(args, context) } else { list_first(args, context) }
}

/// Lists the first entries by state and due time; they alone are held in memory.
fn list_first(args: &ListArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let now = context.clock.now();
    let filter = args.selection.filter(now);
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let (spools, mut first, mut matching) = (spools(context), BTreeMap::new(), 0_u64);
    for (n, spool) in spools.iter().enumerate() {
        for entry in entries(spool, &filter) {
            let entry = entry?;
            matching += 1;
            let due = entry.named.as_ref().map(|name| name.due);
            let key = (entry.state, due, entry.path.clone());
            if first.len() < limit {
                first.insert(key, (n, entry));
            } else if first.last_key_value().is_some_and(|(last, _)| key < *last) {
                first.pop_last();
                first.insert(key, (n, entry));
            }
        }
    }
    let views = first.values().filter_map(|(n, entry)| View::of(entry, &spools[*n], now));
    let views: Vec<View> = views.collect();
    if context.json {
        context.write_json(&views)?;
    } else if views.is_empty() {
        let remark =
            if filter.is_everything() { "The spool is empty." } else { "Nothing matches." };
        context.remark(remark)?;
    } else {
        table(&views, context).write(&mut context.out, context.terminal)?;
    }
    if matching > args.limit {
        let limit = args.limit;
        let more = format!("The first {limit} of {matching}; --limit or --all shows more.");
        context.remark(&more)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists everything as it is met, holding next to nothing in memory.
fn list_all(args: &ListArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let now = context.clock.now();
    let filter = args.selection.filter(now);
    let mut rows = Vec::new();
    let mut between = "[\n";
    for spool in spools(context) {
        for entry in entries(&spool, &filter) {
            let Some(view) = View::of(&entry?, &spool, now) else { continue };
            if context.json {
                let json = serde_json::to_string(&view)?;
                write!(context.out, "{between}  {}", text::safe_json(&json))?;
                between = ",\n";
                continue;
            }
            rows.push(view);
            if rows.len() == TABLE_ROWS {
                write_rows(&mut rows, context)?;
            }
        }
    }
    match (context.json, between) {
        (true, "[\n") => writeln!(context.out, "[]")?,
        (true, _) => writeln!(context.out, "\n]")?,
        (false, _) if rows.is_empty() => {}
        (false, _) => write_rows(&mut rows, context)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_rows(rows: &mut Vec<View>, context: &mut Context) -> io::Result<()> {
    table(rows, context).write(&mut context.out, context.terminal)?;
    rows.clear();
    Ok(())
}

fn table(views: &[View], context: &Context) -> Table {
    let zone = &context.zone;
    let mut table = Table::new(vec![
        Column::new("STATE"),
        Column::new("ID").shrinks_to(16),
        Column::new("EVENT").shrinks_to(10).optional(),
        Column::new("AGE").right(),
        Column::new("LOST").right(),
        Column::new(zone.heading("NEXT TRY", views.iter().filter_map(|view| view.next_due)))
            .optional(),
        Column::new("SESSION").shrinks_to(9).optional(),
        Column::new("NOTE").shrinks_to(16).optional(),
    ]);
    let narrow = context.terminal.width.is_some();
    for view in views {
        let last = view.last_failure.as_ref();
        let failure = last.map(|last| format!("{}: {}", last.code, last.message));
        let note = view.problem.clone().or(failure).unwrap_or_default();
        let next = view.next_due.map(|due| zone.moment(due, narrow)).unwrap_or_default();
        table.row(vec![
            Cell::new(view.state.as_str()).style(style(view.state)),
            Cell::new(&view.id),
            Cell::new(view.event_type.as_deref().unwrap_or_default()),
            Cell::new(&view.age_ms.map(output::duration).unwrap_or_default()),
            Cell::new(&view.rounds.map(|rounds| rounds.to_string()).unwrap_or_default()),
            Cell::new(&next),
            Cell::new(view.session_id.as_deref().unwrap_or_default()),
            Cell::new(&note).style(output::DIM),
        ]);
    }
    table
}

/// The colour of a state.
pub(super) fn style(state: State) -> anstyle::Style {
    match state {
        State::Pending | State::Processing => output::WARN,
        State::Failed | State::Quarantined => output::BAD,
    }
}
