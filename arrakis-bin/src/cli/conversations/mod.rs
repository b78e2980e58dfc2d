//! `arrakis conversations`: lists conversations, or shows one to read.
//!
//! As JSON, a list is one array of objects with `id`, `sessionId`, `workspace`, `title`, `projectPath`,
//! `model`, `gitBranch`, `version`, `clientCost`, `transcriptPath`, `startedAt`, `lastEventAt`, `endedAt`,
//! `endReason`, `messageCount`, `toolUseCount` and `countsCapped` (whether there may be more of either), the one with the latest event first. One conversation is
//! such an object with more fields, each list oldest first:
//!
//! * `messages`: objects with `id`, `role`, `origin`, `at`, `content`, `blocks`, `model`, `usage`, `agentId`,
//!   `promptId`, `sentAt` (when the person sent it, where the transcript says that) and `requestId`, the event or
//!   line that has its words. The `origin` is `transcript`; `queued`, which is the transcript too, for a prompt
//!   that was sent while the model worked; `answer`, for what was said to a question or a rejection; or, where the transcript does not have it yet, `prompt`, `stop` or
//!   `failure`, told by a hook, or `enqueued`, told by the queue. What was withdrawn from the queue is not there. A block has its `type` (`text`, `thinking`, `tool_use`, `image` or `other`), what belongs to that
//!   (`text`, `tool_use_id`, `media_type`, `kind`), and its place: `at`, `index`, `line` and `n`. What an event
//!   says and the transcript says again is there once.
//! * `toolUses`: objects with `id`, `toolUseId`, `toolName`, `status`, `at`, `durationMs`, `parameters`, `response`,
//!   `result` (where that comes from: `at`, `rank`, `durationMs`, `requestId`), `messageId`, `agentId`, `promptId`,
//!   `isByPerson` (whether the person was asked for permission, and decided), `seen` (by `hook`, by `transcript`) and `requestId`, the earliest event or line about it.
//! * `subagents`: objects with `id`, `conversationId`, `agentId`, `agentType`, `toolUseId` (what started it),
//!   `startedAt`, `lastEventAt` and `stoppedAt`.
//! * `replaced`: parts of the main thread that a later prompt has replaced, each with the ids of both prompts
//!   (`promptId`, `by`), `from` and `until` when, and `isAnswered` (else it was withdrawn before its answer).
//! * `usage`: tokens in `total`, of `subagents`, and by model in `models`, with `cost` and `hasUnknownPrice`.
//! * `events`: as `arrakis events list` has them.
//! * `reconciliation`: what hooks and transcript have told of, held against each other: how many `events` of
//!   each type and `slices` of the transcript came, `toolUsesInBoth`, the tool uses `withoutHook` and
//!   `withoutTranscript`, `transcriptUntil`, and `gaps`, each with its `kind` (`noTranscript`, `noHook` or
//!   `notInTranscript`).
//! * `stored`: the conversation with the event or line that each of its values comes from.

mod backfill;
pub(super) mod find;
pub(super) mod gaps;
mod rename;
pub(super) mod show;
pub(super) mod thread;
pub(super) mod tool;
mod view;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::record::store::{
    ConversationCursor, ConversationDetail, ConversationFilter, ConversationPage,
    ConversationSummary, DEFAULT_WORKSPACE, EventReader, Page,
};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::logs::Since;
use super::output::table::{Cell, Column, Table};
use super::output::zone::Zone;
use super::output::{self, pager};
use crate::config::process_env;
use view::{ConversationView, DetailView};

/// Rows of a list unless told otherwise.
const DEFAULT_LIMIT: u64 = 20;

/// Most rows of one list.
const MAX_LIMIT: u64 = 10_000;

/// The arguments of `arrakis conversations`.
#[derive(Debug, Clone, Args)]
pub struct ConversationsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConversationsCommand,
}

/// What to do with conversations.
#[derive(Debug, Clone, Subcommand)]
pub enum ConversationsCommand {
    /// List conversations, latest first. With --json: one array of objects.
    List(ListArgs),
    /// Read one conversation: its messages and tool uses in time order. With --json: one object.
    Show(ShowArgs),
    /// Read the transcripts once more of conversations that lack something of them.
    Backfill(backfill::BackfillArgs),
    /// Give a conversation a title, which outweighs that of the client. With --json: one object with `sessionId`.
    Rename(rename::RenameArgs),
}

/// The arguments of `arrakis conversations list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT,
          value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    pub limit: u64,

    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    pub workspace: String,

    /// Only conversations that were last in this directory or one below it.
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,

    /// Only those whose last event was since then: a duration such as 3h or 2days, or a time such as 2026-11-24,
    /// 2026-11-24T10:15 or 2026-11-24T10:15:00Z.
    #[arg(long, value_name = "DURATION|TIME")]
    pub since: Option<Since>,

    /// Only those whose last event was before then.
    #[arg(long, value_name = "DURATION|TIME")]
    pub until: Option<Since>,

    /// Continue a list where it says that there is more.
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<ConversationCursor>,
}

/// The arguments of `arrakis conversations show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The session id or the conversation's own, or how it begins.
    #[arg(value_name = "SESSION", required_unless_present = "last")]
    pub session: Option<String>,

    /// The conversation with the latest event.
    #[arg(long, conflicts_with = "session")]
    pub last: bool,

    /// Only your last N prompts, and what came after them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub prompts: Option<u64>,

    /// Show what tools were given and gave back.
    #[arg(long)]
    pub tools: bool,

    /// Show what the model thought, where the transcript has it.
    #[arg(long)]
    pub thinking: bool,

    /// Show everything: tools, thinking, and all that the client says.
    #[arg(long)]
    pub unfold: bool,

    /// Write all at once, also to a terminal.
    #[arg(long)]
    pub no_pager: bool,

    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    pub workspace: String,
}

/// Runs the command.
///
/// # Errors
///
/// There is no such conversation, the store cannot be read, or the output cannot be written.
pub async fn run(
    args: &ConversationsArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    match &args.command {
        ConversationsCommand::List(args) => list(args, reader, context).await?,
        ConversationsCommand::Show(args) => show(args, reader, context).await?,
        ConversationsCommand::Rename(args) => return rename::run(args, reader, context).await,
        ConversationsCommand::Backfill(args) => return backfill::run(args, reader, context).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(
    args: &ListArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<()> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let all = pages(args, reader, context, limit).await?;
    if context.json {
        let all = all.conversations.iter();
        let all: Vec<ConversationView<'_>> = all.map(ConversationView::of).collect();
        context.write_json(&all)?;
    } else if all.conversations.is_empty() {
        let is_narrow = args.project.is_some() || args.since.is_some() || args.until.is_some();
        context.remark(match is_narrow || args.after.is_some() {
            true => "No conversations match.",
            false => "No conversations yet.",
        })?;
    } else {
        table(&all.conversations, context).write(&mut context.out, context.terminal)?;
        if let Some(next) = all.next {
            context.remark(&format!("\nThere is more: add --after {next}"))?;
        }
    }
    Ok(())
}

/// As many pages as it takes to find `limit` conversations.
async fn pages(
    args: &ListArgs,
    reader: &Arc<dyn EventReader>,
    context: &Context,
    limit: usize,
) -> anyhow::Result<ConversationPage> {
    let now = context.clock.now();
    let project = args.project.as_ref().map(std::path::absolute).transpose()?;
    let filter = ConversationFilter {
        project: project.map(|path| path.to_string_lossy().into_owned()),
        since: args.since.map(|since| since.before(now, &context.zone)),
        until: args.until.map(|until| until.before(now, &context.zone)),
        ..ConversationFilter::new(&args.workspace)
    };
    let mut page = Page { after: args.after, ..Page::first(limit) };
    let mut all = ConversationPage::default();
    loop {
        page.limit = limit - all.conversations.len();
        let part = reader.conversations(filter.clone(), page).await?;
        all.conversations.extend(part.conversations);
        (all.next, page.after) = (part.next, part.next);
        if all.next.is_none() || all.conversations.len() >= limit {
            return Ok(all);
        }
    }
}

/// What is shown whole.
#[derive(Debug, Clone, Copy)]
struct Unfold {
    tools: bool,
    thinking: bool,
    system: bool,
}

async fn show(
    args: &ShowArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<()> {
    let found = find(args, reader, &context.zone).await?;
    if context.json {
        return Ok(context.write_json(&DetailView::of(&found))?);
    }
    let unfold = Unfold {
        tools: args.tools || args.unfold,
        thinking: args.thinking || args.unfold,
        system: args.unfold,
    };
    let prompts = args.prompts.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let (zone, terminal) = (&context.zone, context.terminal);
    let write = |out: &mut dyn Write| show::write(&found, unfold, prompts, zone, terminal, out);
    match pager::command(&process_env).filter(|_| !args.no_pager) {
        Some(command) => {
            // From now on an interrupt is the pager's business.
            let _interrupts = signal(SignalKind::interrupt())?;
            pager::page(&command, &mut context.out, &write)?;
        }
        None => write(&mut context.out)?,
    }
    Ok(())
}

async fn find(
    args: &ShowArgs,
    reader: &Arc<dyn EventReader>,
    zone: &Zone,
) -> anyhow::Result<ConversationDetail> {
    let workspace = &args.workspace;
    let session = match &args.session {
        Some(session) => session.clone(),
        None => {
            let filter = ConversationFilter::new(workspace);
            match reader.conversations(filter, Page::first(1)).await?.conversations.pop() {
                Some(latest) => latest.conversation.session_id,
                None => bail!("there are no conversations in the workspace {workspace} yet"),
            }
        }
    };
    if let Some(found) = reader.conversation(workspace, &session).await? {
        return Ok(found);
    }
    let session = find::by_prefix(reader, workspace, &session, zone).await?;
    match reader.conversation(workspace, &session).await? {
        Some(found) => Ok(found),
        None => bail!("the conversation {session} is gone"),
    }
}

fn table(all: &[ConversationSummary], context: &Context) -> Table {
    let zone = &context.zone;
    let narrow = context.terminal.width.is_some_and(|columns| columns < 100);
    let mut table = Table::new(vec![
        Column::new(zone.heading("STARTED", all.iter().map(|one| one.conversation.started_at))),
        Column::new("SESSION"),
        Column::new("TITLE").shrinks_to(20),
        Column::new("MESSAGES").right().optional(),
        Column::new("TOOLS").right().optional(),
        Column::new("STATE").optional(),
        Column::new("PROJECT").shrinks_to(12).optional(),
    ]);
    for ConversationSummary { conversation, messages, tool_uses, counts_capped, .. } in all {
        let more = if *counts_capped { "+" } else { "" };
        let said = |said: &Option<arrakis_core::session::conversation::Stamped<String>>| {
            said.as_ref().map_or_else(String::new, |said| said.value.clone())
        };
        let title = conversation.title.as_ref().map_or("", |title| &title.value);
        let (state, style) = match conversation.ended_at() {
            Some(_) => ("ended", output::DIM),
            None => ("open", output::GOOD),
        };
        table.row(vec![
            Cell::new(&zone.moment(conversation.started_at, narrow)),
            Cell::new(&conversation.session_id),
            Cell::new(title).style(output::BOLD),
            Cell::new(&format!("{messages}{more}")),
            Cell::new(&format!("{tool_uses}{more}")),
            Cell::new(state).style(style),
            Cell::new(&said(&conversation.project_path)).style(output::DIM),
        ]);
    }
    table
}
