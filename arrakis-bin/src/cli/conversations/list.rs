//! A list of conversations.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{
    ConversationCursor, ConversationFilter, ConversationPage, ConversationSummary,
    DEFAULT_WORKSPACE, EventReader, Page, Rollups, UsageGroups,
};
use arrakis_core::session::conversation::{ConversationState, Stamped};
use clap::{Args, ValueEnum};
use uuid::Uuid;

use super::view::ConversationView;
use crate::cli::Context;
use crate::cli::logs::Since;
use crate::cli::output::table::{Cell, Column, Table};
use crate::cli::output::{self, number};
use crate::cli::usage::sums::{Sum, fold, read};

/// Rows of a list unless told otherwise.
const DEFAULT_LIMIT: u64 = 20;

/// Most rows of one list.
const MAX_LIMIT: u64 = 10_000;

/// Conversations read at a time where they are sorted or chosen here.
const PAGE: usize = 1000;

/// Characters of a session id that a terminal shows: enough to tell the sessions of one person apart.
const SHORT_ID: usize = 8;

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

    /// Only those that used a model whose name has this in it, such as opus.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Also sessions in which nothing was said or done, as the client makes one for its picker.
    #[arg(long)]
    pub all: bool,

    /// What comes first.
    #[arg(long, value_name = "BY", value_enum, default_value_t = Sort::Latest)]
    pub sort: Sort,

    /// Continue a list where it says that there is more.
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<ConversationCursor>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The one with the latest event.
    Latest,
    /// The one that began last.
    Started,
    /// The one that cost most.
    Cost,
    /// The one that took most tokens.
    Tokens,
    /// The one that lasted longest.
    Duration,
    /// The one with most messages.
    Messages,
}

/// What each conversation took. What was copied from another is counted there.
type Used = HashMap<Uuid, Sum>;

pub(super) async fn list(
    args: &ListArgs,
    reader: &Arc<dyn EventReader>,
    rollups: &Arc<dyn Rollups>,
    context: &mut Context,
) -> anyhow::Result<()> {
    fold(rollups).await?;
    let by = UsageGroups { conversation: true, subagent: true, ..UsageGroups::default() };
    let ever = (Timestamp::EPOCH, Timestamp::from_micros(i64::MAX));
    let mut used = Used::new();
    for sum in read(rollups, &args.workspace, ever, by).await? {
        used.entry(sum.conversation_id.unwrap_or_default()).or_default().add(&sum);
    }
    let all = found(args, reader, &used, context).await?;
    if context.json {
        let now = context.clock.now();
        let view = |one| ConversationView::used(one, used.get(&one.conversation.id), now);
        let all: Vec<ConversationView<'_>> = all.conversations.iter().map(view).collect();
        context.write_json(&all)?;
    } else if all.conversations.is_empty() {
        let ListArgs { project, since, until, model, after, .. } = args;
        let is_narrow = project.is_some() || since.is_some() || until.is_some() || model.is_some();
        context.remark(match is_narrow || after.is_some() {
            true => "No conversations match.",
            false => "No conversations yet.",
        })?;
    } else {
        table(&all.conversations, &used, context).write(&mut context.out, context.terminal)?;
        if let Some(next) = all.next {
            context.remark(&format!("\nThere is more: add --after {next}"))?;
        }
    }
    Ok(())
}

/// As many conversations as asked for, in the order asked for.
async fn found(
    args: &ListArgs,
    reader: &Arc<dyn EventReader>,
    used: &Used,
    context: &Context,
) -> anyhow::Result<ConversationPage> {
    let now = context.clock.now();
    let project = args.project.as_ref().map(std::path::absolute).transpose()?;
    let filter = ConversationFilter {
        project: project.map(|path| path.to_string_lossy().into_owned()),
        since: args.since.map(|since| since.before(now, &context.zone)),
        until: args.until.map(|until| until.before(now, &context.zone)),
        ..ConversationFilter::new(&args.workspace)
    };
    let model = args.model.as_ref().map(|name| name.to_lowercase());
    let is_wanted = |one: &ConversationSummary| {
        let has = |name: &str, part: &str| name.to_lowercase().contains(part);
        let id = &one.conversation.id;
        let is_shown = args.all || !one.is_unused();
        is_shown
            && model.as_ref().is_none_or(|part| {
                let last =
                    one.conversation.model.as_ref().is_some_and(|name| has(&name.value, part));
                last || used
                    .get(id)
                    .is_some_and(|sum| sum.models.keys().any(|name| has(name, part)))
            })
    };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    // A list in the order of the store ends where it is long enough; any other is read whole first.
    let is_whole = args.sort != Sort::Latest || model.is_some();
    let mut page = Page { after: args.after, ..Page::first(if is_whole { PAGE } else { limit }) };
    let mut all = ConversationPage::default();
    loop {
        if !is_whole {
            page.limit = limit - all.conversations.len();
        }
        let part = reader.conversations(filter.clone(), page).await?;
        all.conversations.extend(part.conversations.into_iter().filter(|one| is_wanted(one)));
        (all.next, page.after) = (part.next, part.next);
        if all.next.is_none() || (!is_whole && all.conversations.len() >= limit) {
            break;
        }
    }
    sort(&mut all.conversations, args.sort, used);
    all.conversations.truncate(limit);
    Ok(all)
}

fn sort(all: &mut [ConversationSummary], by: Sort, used: &Used) {
    let total = |one: &ConversationSummary| used.get(&one.conversation.id).map(|sum| sum.total);
    // Stable: what is equal stays in the order of the latest event.
    match by {
        Sort::Latest => {}
        Sort::Started => all.sort_by_key(|one| Reverse(one.conversation.began_at())),
        Sort::Cost => all.sort_by_key(|one| Reverse(total(one).map(|part| part.cost))),
        Sort::Tokens => all.sort_by_key(|one| Reverse(total(one).map(|part| part.total_tokens))),
        Sort::Duration => all.sort_by_key(|one| Reverse(one.conversation.duration_ms())),
        Sort::Messages => all.sort_by_key(|one| Reverse(one.messages)),
    }
}

fn table(all: &[ConversationSummary], used: &Used, context: &Context) -> Table {
    let zone = &context.zone;
    let is_piped = context.terminal.width.is_none();
    let narrow = context.terminal.width.is_some_and(|columns| columns < 100);
    let mut table = Table::new(vec![
        Column::new(zone.heading("STARTED", all.iter().map(|one| one.conversation.began_at()))),
        Column::new("SESSION"),
        Column::new("TITLE").shrinks_to(20),
        Column::new("COST").right(),
        Column::new("TOKENS").right().optional(),
        Column::new("DURATION").right().optional(),
        Column::new("MESSAGES").right().optional(),
        Column::new("TOOLS").right().optional(),
        Column::new("STATE").optional(),
        Column::new("MODEL").shrinks_to(8).optional(),
        Column::new("PROJECT").shrinks_to(12).optional(),
    ]);
    for ConversationSummary { conversation, messages, tool_uses, counts_capped, .. } in all {
        let more = if *counts_capped { "+" } else { "" };
        let said = |said: &Option<Stamped<String>>| {
            said.as_ref().map_or_else(String::new, |said| said.value.clone())
        };
        let (state, style) = match conversation.state(context.clock.now()) {
            ConversationState::Ended(_) => ("ended", output::DIM),
            ConversationState::Abandoned(_) => ("abandoned", output::DIM),
            ConversationState::Open => ("open", output::GOOD),
        };
        let total = used.get(&conversation.id).map(|sum| sum.total);
        let tokens = total.map(|part| part.total_tokens);
        let tokens = tokens.map(|n| if is_piped { n.to_string() } else { number(n) });
        let id = &conversation.session_id;
        let short: String = id.chars().take(if is_piped { usize::MAX } else { SHORT_ID }).collect();
        let model = said(&conversation.model);
        table.row(vec![
            Cell::new(&zone.moment(conversation.began_at(), narrow)),
            Cell::new(&short),
            Cell::new(conversation.title.as_ref().map_or("", |title| &title.value))
                .style(output::BOLD),
            Cell::new(&total.map_or_else(String::new, |part| part.cost_text())),
            Cell::new(&tokens.unwrap_or_default()),
            Cell::new(&output::duration(conversation.duration_ms())),
            Cell::new(&format!("{messages}{more}")),
            Cell::new(&format!("{tool_uses}{more}")),
            Cell::new(state).style(style),
            Cell::new(model.strip_prefix("claude-").unwrap_or(&model)),
            Cell::new(&said(&conversation.project_path)).style(output::DIM),
        ]);
    }
    table
}
