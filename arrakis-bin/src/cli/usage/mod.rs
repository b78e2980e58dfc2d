//! `arrakis usage`: what was used, and what that costs, by time, project, model, session or host.
//!
//! As JSON, one object: `by`, `since` and `until` (null where nothing was asked for), `prices` (the day of the price
//! table), `rows` and `total`. A row has its `key` (a day such as `2026-11-24`, the Monday of a week, a month such as `2026-11`,
//! a path, a model's name, a session id, or a host; null where that is not known), of a session also `title`, `projectPath` and
//! `clientCost`, and like the total: `total`, `own` (without subagents) and `models`, an object of the same by model. Each of
//! these has `messages`, `inputTokens`, `outputTokens`, `cacheCreationTokens`, `cacheCreation1hTokens` (part of these),
//! `cacheReadTokens`, `thinkingTokens` (part of the output), `webSearches`, `totalTokens`, `cost` (US dollars) and
//! `hasUnknownPrice`, whether there is something whose price is not known and that `cost` leaves out, and `hasUnverifiedPrice`,
//! whether `cost` depends on a price that nobody has read on a page of the provider.

mod show;
pub(super) mod sums;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{
    ConversationFilter, DEFAULT_WORKSPACE, EventReader, Page, Rollups, UsageGroups, UsageSum,
};
use arrakis_core::session::conversation::Conversation;
use clap::{Args, ValueEnum};
use uuid::Uuid;

use super::Context;
use super::conversations::find;
use super::logs::Since;
use sums::{Sum, fold, read};

/// Conversations read at a time.
const PAGE: usize = 1000;

/// The arguments of `arrakis usage`.
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// What to add up by.
    #[arg(value_name = "BY", value_enum, default_value_t = By::Day)]
    pub by: By,

    /// Only since then: a duration such as 3h or 2days, or a time such as 2026-11-24, 2026-11-24T10:15 or
    /// 2026-11-24T10:15:00Z.
    #[arg(long, value_name = "DURATION|TIME")]
    pub since: Option<Since>,

    /// Only before then.
    #[arg(long, value_name = "DURATION|TIME")]
    pub until: Option<Since>,

    /// Only conversations that were last in this directory or one below it.
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,

    /// Only this session, by its id or how it begins.
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,

    /// Only models whose name has this in it, such as opus.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Write the rows as CSV.
    #[arg(long)]
    pub csv: bool,

    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    pub workspace: String,
}

/// What usage is added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Days of your time zone.
    #[value(alias = "daily")]
    Day,
    /// Weeks of your time zone, from Monday on.
    #[value(alias = "weekly")]
    Week,
    /// Months of your time zone.
    #[value(alias = "monthly")]
    Month,
    /// Projects: where a session was last.
    Project,
    /// Models.
    Model,
    /// Sessions.
    Session,
    /// The hosts that captured the sessions.
    Host,
}

impl By {
    fn is_time(self) -> bool {
        matches!(self, Self::Day | Self::Week | Self::Month)
    }
}

/// What is asked for of a conversation, whether it is still stored or not.
type Conversations = HashMap<Uuid, Conversation>;

/// Runs the command.
///
/// # Errors
///
/// There is no such session, the store cannot be read, or the output cannot be written.
pub async fn run(
    args: &UsageArgs,
    reader: &Arc<dyn EventReader>,
    rollups: &Arc<dyn Rollups>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let now = context.clock.now();
    let since = args.since.map(|since| since.before(now, &context.zone));
    let until = args.until.map(|until| until.before(now, &context.zone));
    if !fold(rollups).await? {
        context.remark(
            "Not everything that is stored is added up yet: ask again, or let `arrakis up` run.",
        )?;
    }
    let is_narrow = args.project.is_some() || args.session.is_some();
    let by_conversation = is_narrow || matches!(args.by, By::Project | By::Session | By::Host);
    let by =
        UsageGroups { bucket: args.by.is_time(), conversation: by_conversation, subagent: true };
    let end = until.unwrap_or(Timestamp::from_micros(i64::MAX));
    let sums = read(rollups, &args.workspace, (since.unwrap_or(Timestamp::EPOCH), end), by).await?;
    let known = match by_conversation {
        true => conversations(reader, &args.workspace).await?,
        false => Conversations::new(),
    };
    let wanted = wanted(args, reader, context).await?;
    let is_wanted = |sum: &&UsageSum| {
        let conversation = sum.conversation_id.and_then(|id| known.get(&id));
        wanted.admits(conversation, &sum.model)
    };
    let rows = rows(args.by, sums.iter().filter(is_wanted), &known, context);
    let report = show::Report { args, since, until, rows: &rows, conversations: &known };
    report.write(context)?;
    Ok(ExitCode::SUCCESS)
}

/// Adds up by key. What is not known comes last.
fn rows<'a>(
    by: By,
    sums: impl Iterator<Item = &'a UsageSum>,
    known: &Conversations,
    context: &Context,
) -> Vec<(Option<String>, Sum)> {
    let mut rows = BTreeMap::<Option<String>, Sum>::new();
    for sum in sums {
        let conversation = sum.conversation_id.and_then(|id| known.get(&id));
        let path = |one: &Conversation| one.project_path.as_ref().map(|path| path.value.clone());
        let key = match by {
            By::Day => sum.at.map(|at| context.zone.day(at).0),
            By::Week => sum.at.map(|at| context.zone.week(at)),
            By::Month => sum.at.map(|at| context.zone.month(at)),
            By::Model => Some(sum.model.clone()),
            By::Project => conversation.and_then(path),
            By::Session => conversation.map(|one| one.session_id.clone()),
            By::Host => conversation.and_then(|one| one.host.clone()),
        };
        rows.entry(key).or_default().add(sum);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    match by {
        By::Day | By::Week | By::Month => {}
        By::Session => {
            let began = |id: &Option<String>| {
                let mut all = known.values();
                let one = all.find(|one| Some(&one.session_id) == id.as_ref());
                one.map(|one| one.started_at)
            };
            rows.sort_by_cached_key(|(id, _)| (id.is_none(), began(id)));
        }
        By::Project | By::Model | By::Host => {
            rows.sort_by_key(|(key, sum)| (key.is_none(), std::cmp::Reverse(sum.total.cost)));
        }
    }
    rows
}

/// Which sums are meant.
struct Wanted {
    project: Option<PathBuf>,
    session: Option<String>,
    model: Option<String>,
}

impl Wanted {
    fn admits(&self, conversation: Option<&Conversation>, model: &str) -> bool {
        let path = conversation.and_then(|one| one.project_path.as_ref());
        let path = path.map(|path| Path::new(&path.value));
        let session = conversation.map(|one| &one.session_id);
        self.project.as_ref().is_none_or(|dir| path.is_some_and(|path| path.starts_with(dir)))
            && self.session.as_ref().is_none_or(|id| session == Some(id))
            && self.model.as_ref().is_none_or(|part| model.to_lowercase().contains(part))
    }
}

async fn wanted(
    args: &UsageArgs,
    reader: &Arc<dyn EventReader>,
    context: &Context,
) -> anyhow::Result<Wanted> {
    let session = match &args.session {
        Some(session) => {
            Some(find::by_prefix(reader, &args.workspace, session, &context.zone).await?)
        }
        None => None,
    };
    let project = args.project.as_ref().map(std::path::absolute).transpose()?;
    Ok(Wanted { project, session, model: args.model.as_ref().map(|name| name.to_lowercase()) })
}

/// All conversations of the workspace.
async fn conversations(
    reader: &Arc<dyn EventReader>,
    workspace: &str,
) -> anyhow::Result<Conversations> {
    let mut known = Conversations::new();
    let mut page = Page::first(PAGE);
    loop {
        let part = reader.conversations(ConversationFilter::new(workspace), page).await?;
        known.extend(
            part.conversations.into_iter().map(|one| one.conversation).map(|one| (one.id, one)),
        );
        let Some(next) = part.next else { return Ok(known) };
        page.after = Some(next);
    }
}
