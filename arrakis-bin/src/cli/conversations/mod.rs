//! `arrakis conversations`: lists conversations, or shows one to read.
//!
//! As JSON, a list is one array of objects with `id`, `sessionId`, `workspace`, `title`, `projectPath`,
//! `model`, `gitBranch`, `version`, `clientCost`, `transcriptPath`, `startedAt`, `lastEventAt`, `endedAt`,
//! `endReason`, `messageCount` and `toolUseCount`, the one with the latest event first. One conversation is
//! such an object with `messages`, `toolUses`, `subagents`, `usage` and `events` besides, each list oldest
//! first.

pub(super) mod find;
mod show;
mod view;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::store::{ConversationSummary, DEFAULT_WORKSPACE, EventReader, Page};
use clap::{Args, Subcommand};

use super::Context;
use super::output::table::{Cell, Column, Table};
use super::output::{self, Terminal};
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
}

/// The arguments of `arrakis conversations show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The session id, or the conversation's own id.
    #[arg(value_name = "SESSION")]
    pub session: String,

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
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(
    args: &ListArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<()> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let all = reader.conversations(&args.workspace, Page::first(limit)).await?;
    if context.json {
        let all: Vec<ConversationView<'_>> = all.iter().map(ConversationView::of).collect();
        context.write_json(&all)?;
    } else if all.is_empty() {
        context.remark("No conversations yet.")?;
    } else {
        table(&all, context.terminal).write(&mut context.out, context.terminal)?;
        if all.len() == limit {
            context.remark("\nThere may be more: raise --limit")?;
        }
    }
    Ok(())
}

async fn show(
    args: &ShowArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<()> {
    let Some(found) = reader.conversation(&args.workspace, &args.session).await? else {
        bail!(
            "there is no conversation {} in the workspace {}; \
             `arrakis conversations list` shows those that are stored",
            args.session,
            args.workspace
        );
    };
    if context.json {
        context.write_json(&DetailView::of(&found))?;
    } else {
        show::write(&found, context.terminal, &mut context.out)?;
    }
    Ok(())
}

fn table(all: &[ConversationSummary], terminal: Terminal) -> Table {
    let narrow = terminal.width.is_some_and(|columns| columns < 100);
    let mut table = Table::new(vec![
        Column::new("STARTED (UTC)"),
        Column::new("SESSION"),
        Column::new("TITLE").shrinks_to(20),
        Column::new("MESSAGES").right().optional(),
        Column::new("TOOLS").right().optional(),
        Column::new("STATE").optional(),
        Column::new("PROJECT").shrinks_to(12).optional(),
    ]);
    for ConversationSummary { conversation, messages, tool_uses } in all {
        let said = |said: &Option<arrakis_core::conversation::Stamped<String>>| {
            said.as_ref().map_or_else(String::new, |said| said.value.clone())
        };
        let (state, style) = match conversation.ended_at() {
            Some(_) => ("ended", output::DIM),
            None => ("open", output::GOOD),
        };
        table.row(vec![
            Cell::new(&output::moment(conversation.started_at, narrow)),
            Cell::new(&conversation.session_id),
            Cell::new(&said(&conversation.title)).style(output::BOLD),
            Cell::new(&messages.to_string()),
            Cell::new(&tool_uses.to_string()),
            Cell::new(state).style(style),
            Cell::new(&said(&conversation.project_path)).style(output::DIM),
        ]);
    }
    table
}
