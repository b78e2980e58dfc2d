//! `arrakis events`: lists and shows audit rows, and retries or discards them.
//!
//! As JSON, a list is one array of objects with `id`, `requestId`, `eventType`, `sessionId`,
//! `receivedAt`, `status`, `processingTimeMs`, `conversationId`, `messageId`, `toolUseId`, `errorCode`,
//! `errorMessage`, `retryCount`, `retryAfter`, `discardedAt` and `metadata`, newest first. One event is such an object
//! with `headers`, `ipAddress`, `transitions` and its body besides: `body` where it is JSON, else
//! `bodyText`, else `bodyBase64`.

mod change;
mod filter;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arrakis_core::base::id::RequestId;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{
    DEFAULT_WORKSPACE, EventDetail, EventFilter, EventKey, EventPage, EventReader, EventStore,
    EventSummary, Page, Transition,
};
use base64::Engine as _;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

pub use change::{DiscardArgs, RetryArgs, Selection};
pub use filter::Filters;

use super::Context;
use super::output::table::{Cell, Column, Table};
use super::output::zone::Zone;
use super::output::{self, Terminal, text};

/// Rows of a list unless told otherwise: about what a screen holds.
const DEFAULT_LIMIT: u64 = 50;

/// Most rows of one list; `--after` continues it.
const MAX_LIMIT: u64 = 10_000;

/// On a terminal narrower than this, times come without the year.
const NARROW_COLUMNS: usize = 100;

/// The arguments of `arrakis events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: EventsCommand,
}

/// What to do with events.
#[derive(Debug, Clone, Subcommand)]
pub enum EventsCommand {
    /// List events, newest first. With --json: one array of objects.
    List(ListArgs),
    /// Show one event with its payload, headers and changes of state. With --json: one object.
    Show(ShowArgs),
    /// Have events tried again: those that have failed, and with their ids or --status those that are INVALID.
    Retry(RetryArgs),
    /// Give FAILED events up for good.
    Discard(DiscardArgs),
}

/// The arguments of `arrakis events list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Only events in this state, such as SUCCESS or failed.
    #[arg(long, value_name = "STATUS")]
    pub status: Option<EventStatus>,

    /// What else is asked for.
    #[command(flatten)]
    pub filters: Filters,

    /// Only events that were given up for good.
    #[arg(long, conflicts_with = "not_discarded")]
    pub discarded: bool,

    /// Only events that were not given up.
    #[arg(long)]
    pub not_discarded: bool,

    /// Only events of this request id, duplicates included; in the workspace main unless --workspace names another.
    #[arg(long, value_name = "ID")]
    pub request: Option<RequestId>,

    /// Only events of this workspace.
    #[arg(long, value_name = "NAME")]
    pub workspace: Option<String>,

    /// Only events whose payload holds all of these words. A word that ends with * is a beginning.
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,

    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT,
          value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    pub limit: u64,

    /// Continue after this event, named by row id or request id; in the workspace main unless --workspace names
    /// another.
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
}

impl Default for ListArgs {
    fn default() -> Self {
        Self {
            status: None,
            filters: Filters::default(),
            discarded: false,
            not_discarded: false,
            request: None,
            workspace: None,
            search: None,
            limit: DEFAULT_LIMIT,
            after: None,
        }
    }
}

/// The arguments of `arrakis events show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The event's row id or request id.
    #[arg(value_name = "ID")]
    pub id: String,

    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    pub workspace: String,
}

/// Runs the command.
///
/// # Errors
///
/// There is no such event, the store cannot be read or written, nobody confirms, or the output cannot be written.
pub async fn run(
    args: &EventsArgs,
    store: &Arc<dyn EventStore>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let reader: &Arc<dyn EventReader> = &(Arc::clone(store) as _);
    match &args.command {
        EventsCommand::List(args) => list(args, reader, context).await?,
        EventsCommand::Show(args) => show(args, reader, context).await?,
        EventsCommand::Retry(args) => return change::retry(args, store, context).await,
        EventsCommand::Discard(args) => return change::discard(args, store, context).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(
    args: &ListArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<()> {
    // An id names an event inside one workspace.
    let one = args.workspace.as_deref().unwrap_or(DEFAULT_WORKSPACE);
    let filter = EventFilter {
        workspace: args.workspace.clone().or_else(|| args.request.as_ref().map(|_| one.to_owned())),
        status: args.status,
        request_id: args.request.clone(),
        text: args.search.clone(),
        discarded: (args.discarded || args.not_discarded).then_some(args.discarded),
        ..args.filters.filter(reader, one, context).await?
    };
    filter.query()?;
    let after = match &args.after {
        Some(id) => Some(find(one, id, reader).await?.summary.id),
        None => None,
    };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let is_filtered = filter != EventFilter::default() || after.is_some();
    let EventPage { events, next } = pages(reader, &filter, after, limit).await?;
    if context.json {
        context.write_json(&events)?;
        return Ok(());
    }
    if events.is_empty() {
        context.remark(if is_filtered {
            "No events match."
        } else {
            "No events yet. Register the hook with `arrakis install` and start a Claude Code session."
        })?;
        return Ok(());
    }
    table(&events, context).write(&mut context.out, context.terminal)?;
    if let Some(next) = next {
        context.remark(&format!("\nThere may be more: add --after {next}"))?;
    }
    Ok(())
}

/// As many pages as it takes to find `limit` events.
async fn pages(
    reader: &Arc<dyn EventReader>,
    filter: &EventFilter,
    after: Option<Uuid>,
    limit: usize,
) -> anyhow::Result<EventPage> {
    let mut page = Page { after, ..Page::first(limit) };
    let mut all = EventPage::default();
    loop {
        page.limit = limit - all.events.len();
        let part = reader.events(filter.clone(), page).await?;
        all.events.extend(part.events);
        (all.next, page.after) = (part.next, part.next);
        if all.next.is_none() || all.events.len() >= limit {
            return Ok(all);
        }
    }
}

async fn show(
    args: &ShowArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<()> {
    let event = find(&args.workspace, &args.id, reader).await?;
    if context.json {
        context.write_json(&EventView::of(&event))?;
    } else {
        write_event(&event, &context.zone, context.terminal, &mut context.out)?;
    }
    Ok(())
}

async fn find(
    workspace: &str,
    id: &str,
    reader: &Arc<dyn EventReader>,
) -> anyhow::Result<EventDetail> {
    if let Ok(row) = id.parse::<Uuid>()
        && let Some(event) = reader.event(workspace, EventKey::Id(row)).await?
    {
        return Ok(event);
    }
    let request: RequestId = id.parse().with_context(|| format!("{id:?} names no event"))?;
    match reader.event(workspace, EventKey::Request(request)).await? {
        Some(event) => Ok(event),
        None => bail!(
            "there is no event {id} in the workspace {workspace}; \
             `arrakis events list` shows those that are stored"
        ),
    }
}

fn table(events: &[EventSummary], context: &Context) -> Table {
    let zone = &context.zone;
    let narrow = context.terminal.width.is_some_and(|columns| columns < NARROW_COLUMNS);
    let mut table = Table::new(vec![
        Column::new(zone.heading("RECEIVED", events.iter().map(|event| event.received_at))),
        Column::new("STATUS"),
        Column::new("EVENT").shrinks_to(10),
        Column::new("REQUEST ID"),
        Column::new("SESSION").shrinks_to(9).optional(),
        Column::new("NOTE").shrinks_to(16).optional(),
    ]);
    for event in events {
        table.row(vec![
            Cell::new(&zone.moment(event.received_at, narrow)),
            Cell::new(event.status.as_str()).style(output::status_style(event.status)),
            Cell::new(&event.event_type),
            Cell::new(event.request_id.as_str()).style(output::DIM),
            Cell::new(event.session_id.as_deref().unwrap_or_default()),
            Cell::new(&note(event, zone)).style(output::DIM),
        ]);
    }
    table
}

/// What a list says about an event beyond its columns: what is amiss, else what the event says.
fn note(event: &EventSummary, zone: &Zone) -> String {
    let mut notes = Vec::new();
    if let Some(first) = event.metadata.duplicate_of {
        notes.push(format!("repeats {first}"));
    }
    if event.discarded_at.is_some() {
        notes.push("discarded".to_owned());
    }
    if event.retry_count > 0 {
        notes.push(format!("retried {} times", event.retry_count));
    }
    if let Some(due) = event.retry_after {
        notes.push(format!("next try {}", zone.time_of_day(due)));
    }
    if let Some(message) = event.error_message.as_ref().or(event.error_code.as_ref()) {
        notes.push(message.clone());
    }
    if notes.is_empty() { event.metadata.summary.clone() } else { notes.join("; ") }
}

fn write_event(
    event: &EventDetail,
    zone: &Zone,
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    let summary = &event.summary;
    let status = terminal.paint(output::status_style(summary.status), summary.status.as_str());
    let title = terminal.paint(output::BOLD, &text::one_line(&summary.event_type));
    writeln!(out, "{title}  {status}")?;
    let mut line = |label: &str, value: Option<String>| match value {
        Some(value) => {
            let label = terminal.paint(output::DIM, &format!("  {label:<14}"));
            writeln!(out, "{label}{}", text::one_line(&value))
        }
        None => Ok(()),
    };
    let answer = &summary.answer;
    let id = |id: Option<Uuid>| id.map(|id| id.to_string());
    line("request id", Some(summary.request_id.to_string()))?;
    line("row id", Some(summary.id.to_string()))?;
    line("received", Some(zone.whole_moment(summary.received_at)))?;
    line("stored after", summary.processing_time_ms.map(output::duration))?;
    line("session", summary.session_id.clone())?;
    line("conversation", id(answer.conversation_id))?;
    line("message", id(answer.message_id))?;
    line("tool use", id(answer.tool_use_id))?;
    line("error", summary.error_code.clone())?;
    line("", summary.error_message.clone())?;
    line("retried", (summary.retry_count > 0).then(|| format!("{} times", summary.retry_count)))?;
    line("next try", summary.retry_after.map(|at| zone.whole_moment(at)))?;
    line("discarded", summary.discarded_at.map(|at| zone.whole_moment(at)))?;
    line("client", event.ip_address.map(|ip| ip.to_string()))?;
    let mut section = |heading: &str, lines: Vec<String>| -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{}", terminal.paint(output::DIM, heading))?;
        lines.iter().try_for_each(|line| writeln!(out, "  {}", text::one_line(line)))
    };
    let transitions = event.transitions.iter().map(|change| transition(change, zone));
    section("Changes of state", transitions.collect())?;
    let headers = event.headers.iter().map(|(name, value)| format!("{name}: {value}"));
    section("Headers", headers.collect())?;
    let metadata = serde_json::to_value(&summary.metadata)?;
    let metadata = metadata.as_object().into_iter().flatten();
    let metadata = metadata.map(|(name, value)| format!("{name}: {value}"));
    section("Metadata", metadata.collect())?;
    match &event.body {
        Some(body) => output::write_payload("Payload", body, terminal, out),
        None if summary.status == EventStatus::Duplicate => {
            writeln!(out, "\nIts body is that of the first event of this request id.")
        }
        None => Ok(()),
    }
}

fn transition(change: &Transition, zone: &Zone) -> String {
    let at = zone.moment(change.at, false);
    format!("{at}  {} to {} by {}: {}", change.from, change.to, change.actor, change.reason)
}

/// One event, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView<'a> {
    #[serde(flatten)]
    summary: &'a EventSummary,
    headers: &'a BTreeMap<String, String>,
    ip_address: Option<IpAddr>,
    transitions: &'a [Transition],
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl<'a> EventView<'a> {
    fn of(event: &'a EventDetail) -> Self {
        let bytes = event.body.as_deref();
        let body = bytes.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let body_text = match body {
            Some(_) => None,
            None => bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()),
        };
        let neither = bytes.filter(|_| body.is_none() && body_text.is_none());
        Self {
            summary: &event.summary,
            headers: &event.headers,
            ip_address: event.ip_address,
            transitions: &event.transitions,
            body,
            body_text,
            body_base64: neither.map(|b| base64::engine::general_purpose::STANDARD.encode(b)),
        }
    }
}
