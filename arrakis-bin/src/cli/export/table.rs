//! Tables as CSV (RFC 4180), the first row with the names of the columns.
//!
//! Times are RFC 3339 in UTC, durations are milliseconds, costs are dollars. A text that a spreadsheet would take for
//! a formula has an apostrophe before it, which the spreadsheet takes for "this is text".

use std::borrow::Cow;
use std::collections::HashMap;

use arrakis_core::record::store::{ConversationDetail, EventFilter, EventSummary, Page};
use arrakis_core::session::conversation::{Json, Stamped};

use super::select::Selected;
use super::sink::Sink;
use super::{Source, Summary, Table};

/// Events read at a time.
const PAGE: usize = 1000;

const MESSAGES: [&str; 14] = [
    "session_id",
    "project_path",
    "message_id",
    "timestamp",
    "role",
    "agent_id",
    "model",
    "content",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "thinking_tokens",
    "tool_uses",
];

const TOOLS: [&str; 12] = [
    "session_id",
    "project_path",
    "tool_use_id",
    "message_id",
    "timestamp",
    "tool_name",
    "status",
    "duration",
    "agent_id",
    "agent_type",
    "parameters",
    "response",
];

const CONVERSATIONS: [&str; 20] = [
    "session_id",
    "title",
    "project_path",
    "git_branch",
    "model",
    "version",
    "started_at",
    "last_event_at",
    "ended_at",
    "end_reason",
    "messages",
    "tool_uses",
    "subagents",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "cost",
    "cost_is_complete",
    "client_cost",
];

const EVENTS: [&str; 11] = [
    "received_at",
    "captured_at",
    "event_type",
    "status",
    "session_id",
    "request_id",
    "event_id",
    "processing_time",
    "summary",
    "error_code",
    "error_message",
];

pub(super) async fn write(
    table: Table,
    source: &Source<'_>,
    selected: &Selected,
    sink: &mut Sink<'_>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let workspace = &source.selection.workspace;
    let mut rows = Rows { sink, written: 0 };
    rows.put(match table {
        Table::Messages => &MESSAGES,
        Table::Tools => &TOOLS,
        Table::Conversations => &CONVERSATIONS,
        Table::Events => &EVENTS,
    })?;
    if table == Table::Events && selected.rest {
        rows.events(source, None).await?;
    }
    for session in &selected.sessions {
        if table == Table::Events {
            if !selected.rest {
                rows.events(source, Some(session)).await?;
            }
        } else if let Some(detail) = source.reader.conversation(workspace, session).await? {
            match table {
                Table::Messages => rows.messages(&detail)?,
                Table::Tools => rows.tools(&detail)?,
                Table::Conversations => rows.conversation(&detail)?,
                Table::Events => {}
            }
        }
        summary.counts.conversations += 1;
        source.progress.step(1);
    }
    summary.rows = rows.written - 1;
    Ok(())
}

/// Writes rows.
struct Rows<'a, 'b> {
    sink: &'a mut Sink<'b>,
    written: u64,
}

impl Rows<'_, '_> {
    fn put<T: AsRef<str>>(&mut self, cells: &[T]) -> anyhow::Result<()> {
        let mut row = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(Vec::with_capacity(256));
        row.write_record(cells.iter().map(|cell| guarded(cell.as_ref()).into_owned()))?;
        self.sink.put(&row.into_inner().map_err(csv::IntoInnerError::into_error)?)?;
        self.written += 1;
        Ok(())
    }

    fn messages(&mut self, detail: &ConversationDetail) -> anyhow::Result<()> {
        let of = &detail.conversation;
        let mut wishes: HashMap<_, u64> = HashMap::new();
        for message_id in detail.tool_uses.iter().filter_map(|one| one.message_id) {
            *wishes.entry(message_id).or_default() += 1;
        }
        for message in &detail.messages {
            let tokens = |n: fn(&arrakis_core::session::usage::Usage) -> u64| {
                shown(message.usage.as_ref().map(n))
            };
            self.put(&[
                of.session_id.clone(),
                said(&of.project_path),
                message.id.to_string(),
                message.content.stamp.at.to_string(),
                message.role.as_str().to_owned(),
                shown(message.agent_id.as_ref()),
                shown(message.model.as_ref()),
                message.content.value.clone(),
                tokens(|usage| usage.input_tokens),
                tokens(|usage| usage.output_tokens),
                tokens(|usage| usage.cache_read_tokens),
                tokens(|usage| usage.cache_creation_tokens),
                tokens(|usage| usage.thinking_tokens),
                wishes.get(&message.id).copied().unwrap_or(0).to_string(),
            ])?;
        }
        Ok(())
    }

    fn tools(&mut self, detail: &ConversationDetail) -> anyhow::Result<()> {
        let of = &detail.conversation;
        for tool_use in &detail.tool_uses {
            let agent = detail
                .subagents
                .iter()
                .find(|agent| Some(&agent.agent_id) == tool_use.agent_id.as_ref());
            let response = tool_use.result.as_ref().and_then(|result| result.response.as_ref());
            self.put(&[
                of.session_id.clone(),
                said(&of.project_path),
                shown(tool_use.tool_use_id.as_ref()),
                shown(tool_use.message_id),
                tool_use.first.at.to_string(),
                tool_use.tool_name.clone(),
                tool_use.status().as_str().to_owned(),
                shown(tool_use.duration_ms()),
                shown(tool_use.agent_id.as_ref()),
                shown(agent.and_then(|agent| agent.agent_type.as_ref())),
                shown(tool_use.parameters.as_ref().map(|json| json.value.as_str())),
                shown(response.map(Json::as_str)),
            ])?;
        }
        Ok(())
    }

    fn conversation(&mut self, detail: &ConversationDetail) -> anyhow::Result<()> {
        let (of, usage) = (&detail.conversation, &detail.usage);
        let ended_at = of.ended_at();
        let dollars = |cost: arrakis_core::session::usage::Usd| cost.as_dollars().to_string();
        self.put(&[
            of.session_id.clone(),
            of.title.as_ref().map(|title| title.value.clone()).unwrap_or_default(),
            said(&of.project_path),
            said(&of.git_branch),
            said(&of.model),
            said(&of.version),
            of.began_at().to_string(),
            of.last_event_at.to_string(),
            shown(ended_at),
            ended_at.map(|_| said(&of.ended)).unwrap_or_default(),
            detail.messages.len().to_string(),
            detail.tool_uses.len().to_string(),
            detail.subagents.len().to_string(),
            usage.total.input_tokens.to_string(),
            usage.total.output_tokens.to_string(),
            usage.total.cache_read_tokens.to_string(),
            usage.total.cache_creation_tokens.to_string(),
            dollars(usage.cost),
            (!usage.has_unknown_price).to_string(),
            shown(of.client_cost.as_ref().map(|cost| dollars(cost.total))),
        ])
    }

    /// Audit rows, newest first; of all sessions or of one.
    async fn events(
        &mut self,
        source: &Source<'_>,
        session: Option<&String>,
    ) -> anyhow::Result<()> {
        let selection = source.selection;
        let filter = EventFilter {
            workspace: Some(selection.workspace.clone()),
            session_id: session.cloned(),
            event_type: selection.event_type.clone(),
            status: selection.status,
            ..EventFilter::default()
        };
        let mut page = Page::first(PAGE);
        loop {
            let part = source.reader.events(filter.clone(), page).await?;
            part.events.iter().try_for_each(|event| self.event(event))?;
            let Some(next) = part.next else { return Ok(()) };
            page.after = Some(next);
        }
    }

    fn event(&mut self, event: &EventSummary) -> anyhow::Result<()> {
        self.put(&[
            event.received_at.to_string(),
            event.captured_at().to_string(),
            event.event_type.clone(),
            event.status.to_string(),
            shown(event.session_id.as_ref()),
            event.request_id.to_string(),
            event.id.to_string(),
            shown(event.processing_time_ms),
            event.metadata.summary.clone(),
            shown(event.error_code.as_ref()),
            shown(event.error_message.as_ref()),
        ])
    }
}

/// A cell that no spreadsheet takes for a formula.
pub(in crate::cli) fn guarded(cell: &str) -> Cow<'_, str> {
    // Also where there is an apostrophe already, so that taking one off always gives the text back.
    let text = cell.trim_start_matches('\'');
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        Cow::Owned(format!("'{cell}"))
    } else {
        Cow::Borrowed(cell)
    }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn said(said: &Option<Stamped<String>>) -> String {
    said.as_ref().map(|said| said.value.clone()).unwrap_or_default()
}
