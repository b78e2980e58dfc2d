//! Conversations as JSON: the values alone, under names that stay.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::store::{ConversationDetail, ConversationSummary, EventSummary};
use arrakis_core::session::conversation::{
    Blocks, Conversation, ConversationState, Json, Message, MessageOrigin, Notice, Reconciliation,
    Replaced, ResultRank, Role, Seen, Stamped, Subagent, ToolResult, ToolStatus, ToolUse,
    UsageReport,
};
use arrakis_core::session::usage::{ClientCost, Usage};
use serde::Serialize;
use uuid::Uuid;

use crate::cli::usage::sums::Sum;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConversationView<'a> {
    id: Uuid,
    session_id: &'a str,
    workspace: &'a str,
    title: Option<&'a str>,
    project_path: Option<&'a str>,
    model: Option<&'a str>,
    git_branch: Option<&'a str>,
    version: Option<&'a str>,
    host: Option<&'a str>,
    client_cost: Option<&'a ClientCost>,
    transcript_path: Option<&'a str>,
    started_at: Timestamp,
    last_event_at: Timestamp,
    /// `open`, `ended` or `abandoned`.
    state: &'static str,
    ended_at: Option<Timestamp>,
    end_reason: Option<&'a str>,
    duration_ms: u64,
    message_count: u64,
    tool_use_count: u64,
    /// Whether there may be more of either than was counted.
    counts_capped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<&'a Sum>,
}

impl<'a> ConversationView<'a> {
    /// A conversation of a list, and what it took.
    pub(super) fn used(
        summary: &'a ConversationSummary,
        used: Option<&'a Sum>,
        now: Timestamp,
    ) -> Self {
        let counts = (summary.messages, summary.tool_uses);
        Self {
            counts_capped: summary.counts_capped,
            used,
            ..Self::with_counts(&summary.conversation, counts.0, counts.1, now)
        }
    }

    fn with_counts(
        of: &'a Conversation,
        message_count: u64,
        tool_use_count: u64,
        now: Timestamp,
    ) -> Self {
        let ended_at = of.ended_at();
        Self {
            id: of.id,
            session_id: &of.session_id,
            workspace: &of.workspace,
            title: of.title.as_ref().map(|title| title.value.as_str()),
            project_path: value(&of.project_path),
            model: value(&of.model),
            git_branch: value(&of.git_branch),
            version: value(&of.version),
            host: of.host.as_deref(),
            client_cost: of.client_cost.as_ref(),
            transcript_path: value(&of.transcript_path),
            started_at: of.began_at(),
            last_event_at: of.last_event_at,
            state: match of.state(now) {
                ConversationState::Open => "open",
                ConversationState::Ended(_) => "ended",
                ConversationState::Abandoned(_) => "abandoned",
            },
            ended_at,
            end_reason: ended_at.and_then(|_| value(&of.ended)),
            duration_ms: of.duration_ms(),
            message_count,
            tool_use_count,
            counts_capped: false,
            used: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DetailView<'a> {
    #[serde(flatten)]
    conversation: ConversationView<'a>,
    messages: Vec<MessageView<'a>>,
    tool_uses: Vec<ToolUseView<'a>>,
    subagents: &'a [Subagent],
    replaced: &'a [Replaced],
    usage: &'a UsageReport,
    events: &'a [EventSummary],
    reconciliation: Reconciliation,
    stored: &'a Conversation,
}

impl<'a> DetailView<'a> {
    pub(super) fn of(detail: &'a ConversationDetail, now: Timestamp) -> Self {
        let (messages, tool_uses) = (detail.messages.len() as u64, detail.tool_uses.len() as u64);
        Self {
            conversation: ConversationView::with_counts(
                &detail.conversation,
                messages,
                tool_uses,
                now,
            ),
            messages: detail.messages.iter().map(MessageView::of).collect(),
            tool_uses: detail.tool_uses.iter().map(ToolUseView::of).collect(),
            subagents: &detail.subagents,
            replaced: &detail.replaced,
            usage: &detail.usage,
            events: &detail.events,
            reconciliation: detail.reconciliation(),
            stored: &detail.conversation,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageView<'a> {
    id: Uuid,
    role: Role,
    origin: MessageOrigin,
    at: Timestamp,
    content: &'a str,
    blocks: &'a Blocks,
    model: Option<&'a str>,
    usage: Option<Usage>,
    agent_id: Option<&'a str>,
    prompt_id: Option<&'a str>,
    sent_at: Option<Timestamp>,
    /// Whether it was copied from another session, where its usage counts.
    copied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<Notice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_count: Option<u32>,
    request_id: &'a RequestId,
}

impl<'a> MessageView<'a> {
    fn of(message: &'a Message) -> Self {
        Self {
            id: message.id,
            role: message.role,
            origin: message.origin,
            at: message.content.stamp.at,
            content: &message.content.value,
            blocks: &message.blocks,
            model: message.model.as_deref(),
            usage: message.usage,
            agent_id: message.agent_id.as_deref(),
            prompt_id: message.prompt_id.as_deref(),
            sent_at: message.sent_at,
            copied: message.standing.copied,
            notice: message.notice,
            stop_reason: message.stop_reason.as_deref(),
            block_count: message.block_count,
            request_id: &message.content.stamp.request_id,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolUseView<'a> {
    id: Uuid,
    tool_use_id: Option<&'a str>,
    tool_name: &'a str,
    status: ToolStatus,
    at: Timestamp,
    duration_ms: Option<u64>,
    parameters: Option<&'a Json>,
    response: Option<&'a Json>,
    result: Option<ResultView<'a>>,
    message_id: Option<Uuid>,
    agent_id: Option<&'a str>,
    prompt_id: Option<&'a str>,
    is_by_person: bool,
    seen: Seen,
    copied: bool,
    request_id: &'a RequestId,
}

impl<'a> ToolUseView<'a> {
    fn of(tool_use: &'a ToolUse) -> Self {
        let result = tool_use.result.as_ref();
        Self {
            id: tool_use.id,
            tool_use_id: tool_use.tool_use_id.as_deref(),
            tool_name: &tool_use.tool_name,
            status: tool_use.status(),
            at: tool_use.first.at,
            duration_ms: tool_use.duration_ms(),
            parameters: tool_use.parameters.as_ref().map(|parameters| &parameters.value),
            response: result.and_then(|result| result.response.as_ref()),
            result: result.map(ResultView::of),
            message_id: tool_use.message_id,
            agent_id: tool_use.agent_id.as_deref(),
            prompt_id: tool_use.prompt_id.as_deref(),
            is_by_person: tool_use.is_by_person,
            seen: tool_use.seen,
            copied: tool_use.standing.copied,
            request_id: &tool_use.first.request_id,
        }
    }
}

/// Where the result of a tool use comes from.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultView<'a> {
    at: Timestamp,
    rank: ResultRank,
    duration_ms: Option<u64>,
    request_id: &'a RequestId,
}

impl<'a> ResultView<'a> {
    fn of(result: &'a ToolResult) -> Self {
        let ToolResult { stamp, rank, duration_ms, .. } = result;
        Self { at: stamp.at, rank: *rank, duration_ms: *duration_ms, request_id: &stamp.request_id }
    }
}

fn value(said: &Option<Stamped<String>>) -> Option<&str> {
    said.as_ref().map(|said| said.value.as_str())
}
