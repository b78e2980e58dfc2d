//! `arrakis conversations`: lists conversations, or shows one to read.
//!
//! As JSON, a list is one array of objects with `id`, `sessionId`, `workspace`, `title`, `projectPath`,
//! `model`, `gitBranch`, `version`, `host`, `clientCost`, `transcriptPath`, `startedAt`, `lastEventAt`, `endedAt`,
//! `endReason`, `durationMs` (to the last event), `messageCount`, `toolUseCount`, `countsCapped` (whether there may be more of
//! either) and `used`: `total`, `own` and `models` as in `arrakis usage`, without what was copied from another; the one with the
//! latest event first. One conversation is
//! such an object with more fields, each list oldest first:
//!
//! * `messages`: objects with `id`, `role`, `origin`, `at`, `content`, `blocks`, `model`, `usage`, `agentId`,
//!   `promptId`, `sentAt` (when the person sent it, where the transcript says that), `notice` (what words of the client are to a
//!   person: `command`, `output` or `for_model`), `stopReason` (what ended an answer early, such as `refusal` or `max_tokens`),
//!   `blockCount` (where it has more blocks than are kept) and `requestId`, the event or line that has its words. The `origin` is `transcript`; `queued`, which is the transcript too, for a prompt
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
//! * `usage`: tokens in `total`, of `subagents`, and by model in `models`, with `cost`, `hasUnknownPrice` and
//!   `hasUnverifiedPrice`.
//! * `events`: as `arrakis events list` has them.
//! * `reconciliation`: what hooks and transcript have told of, held against each other: how many `events` of
//!   each type and `slices` of the transcript came, `toolUsesInBoth`, the tool uses `withoutHook` and
//!   `withoutTranscript`, `transcriptUntil`, and `gaps`, each with its `kind` (`noTranscript`, `noHook` or
//!   `notInTranscript`).
//! * `stored`: the conversation with the event or line that each of its values comes from.

mod backfill;
pub(super) mod find;
pub(super) mod gaps;
pub mod list;
mod rename;
pub(super) mod show;
pub(super) mod tool;
mod view;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::record::store::{
    ConversationDetail, ConversationFilter, DEFAULT_WORKSPACE, EventReader, Page, Rollups,
};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::output::pager;
use super::output::zone::Zone;
use crate::config::process_env;
use view::DetailView;

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
    List(list::ListArgs),
    /// Read one conversation: its messages and tool uses in time order. With --json: one object.
    Show(ShowArgs),
    /// Read the transcripts once more of conversations that lack something of them.
    Backfill(backfill::BackfillArgs),
    /// Give a conversation a title, which outweighs that of the client. With --json: one object with `sessionId`.
    Rename(rename::RenameArgs),
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

    /// Show what each answer took, in tokens and dollars.
    #[arg(long)]
    pub tokens: bool,

    /// Show everything: tools, thinking, tokens, and all that the client says.
    #[arg(long)]
    pub unfold: bool,

    /// Leave out what a fork has from the session that it comes from.
    #[arg(long)]
    pub own: bool,

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
    rollups: &Arc<dyn Rollups>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    match &args.command {
        ConversationsCommand::List(args) => list::list(args, reader, rollups, context).await?,
        ConversationsCommand::Show(args) => show(args, reader, context).await?,
        ConversationsCommand::Rename(args) => return rename::run(args, reader, context).await,
        ConversationsCommand::Backfill(args) => return backfill::run(args, reader, context).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// How many of the latest sessions `--last` looks at: some are unused.
const LATEST: usize = 20;

/// What is shown whole.
#[derive(Debug, Clone, Copy)]
struct Unfold {
    tools: bool,
    thinking: bool,
    tokens: bool,
    system: bool,
}

async fn show(
    args: &ShowArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<()> {
    let mut found = find(args, reader, &context.zone).await?;
    if args.own {
        found.messages.retain(|one| !one.standing.copied);
        found.tool_uses.retain(|one| !one.standing.copied);
    }
    let now = context.clock.now();
    if context.json {
        return Ok(context.write_json(&DetailView::of(&found, now))?);
    }
    let unfold = Unfold {
        tools: args.tools || args.unfold,
        thinking: args.thinking || args.unfold,
        tokens: args.tokens || args.unfold,
        system: args.unfold,
    };
    let prompts = args.prompts.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let (zone, terminal) = (&context.zone, context.terminal);
    let write =
        |out: &mut dyn Write| show::write(&found, now, unfold, prompts, zone, terminal, out);
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
            let latest = reader.conversations(filter, Page::first(LATEST)).await?.conversations;
            match latest.into_iter().find(|one| !one.is_unused()) {
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
