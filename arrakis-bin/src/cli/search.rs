//! `arrakis search`: finds words in conversations.
//!
//! As JSON, one object: `hits`, newest first, and `next`, the cursor of the page after it or null. A hit
//! has `kind` (`message` with its `role`, or `tool_use` with `toolName` and `outcome`), `id`, `at`,
//! `conversationId`, `sessionId`, `title`, `projectPath`, `agentId`, `model` and `snippet`: a list of parts,
//! each with its `text` and whether that is a `match`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::record::store::{
    DEFAULT_WORKSPACE, EventReader, EventStore, HitKind, SearchCursor, SearchFilter, SearchHit,
    SearchPage,
};
use arrakis_core::session::conversation::{Role, ToolStatus};
use clap::Args;

use super::Context;
use super::conversations::find;
use super::logs::Since;
use super::output::zone::Zone;
use super::output::{self, Terminal, text};

/// Hits unless told otherwise: about two screens.
const DEFAULT_LIMIT: u64 = 20;

/// Most hits of one page; `--after` continues it.
const MAX_LIMIT: u64 = 1000;

/// Commits that are made searchable before a search: a second's work where no server runs, and none where one
/// does.
const INDEXED_COMMITS: usize = 100;

/// The arguments of `arrakis search`.
#[derive(Debug, Clone, Args)]
pub struct SearchArgs {
    /// Words to find, whole ones, in any order: all of them must be there. In double quotes they stand one behind
    /// another: '"fix the build"'. With a * at its end a word is a beginning: 'serial*'. None with a filter
    /// finds everything that it lets through.
    #[arg(value_name = "TEXT")]
    pub text: Vec<String>,

    /// Only conversations in this directory or one below it.
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,

    /// Only since then: a duration such as 3h or 2days, or a time such as 2026-11-24,
    /// 2026-11-24T10:15 or 2026-11-24T10:15:00Z.
    #[arg(long, value_name = "DURATION|TIME")]
    pub since: Option<Since>,

    /// Only before then.
    #[arg(long, value_name = "DURATION|TIME")]
    pub until: Option<Since>,

    /// Only uses of this tool, such as Bash.
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,

    /// Only what a model of this name wrote or asked for; words of the name are enough, such as opus.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Only tool uses that came this far: running, denied, failed or succeeded.
    #[arg(long, value_name = "OUTCOME", value_parser = outcome)]
    pub outcome: Option<ToolStatus>,

    /// Only this session, by its id or how it begins.
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,

    /// Only messages of this speaker: user, assistant or system.
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub role: Option<Role>,

    /// Only the threads of subagents.
    #[arg(long, conflicts_with = "no_subagents")]
    pub subagents: bool,

    /// Only the main threads.
    #[arg(long)]
    pub no_subagents: bool,

    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT,
          value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    pub limit: u64,

    /// Continue where another search ended.
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<SearchCursor>,

    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    pub workspace: String,
}

/// Runs the command.
///
/// # Errors
///
/// Nothing was asked for, or nothing that can be searched for; the store cannot be read, or the output cannot be written.
pub async fn run(
    args: &SearchArgs,
    store: &Arc<dyn EventStore>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let mut filter = filter(args, context)?;
    if let Some(session) = &args.session {
        let reader: &Arc<dyn EventReader> = &(Arc::clone(store) as _);
        let session = find::session(reader, &args.workspace, session, &context.zone).await?;
        filter.session_id = Some(session);
    }
    if filter == SearchFilter::new(&args.workspace) {
        bail!("give words to search for, or a filter such as --tool");
    }
    filter.query()?;
    match store.index(INDEXED_COMMITS).await {
        Ok(INDEXED_COMMITS) => context.remark(
            "Not everything that is stored can be found yet: search again, or let `arrakis up` run.",
        )?,
        Ok(_) => {}
        Err(error) => {
            context.remark(&format!("What was stored lately may not be found: {error}"))?;
        }
    }
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let page = store.search(filter, args.after, limit).await?;
    if context.json {
        context.write_json(&page)?;
    } else if page.hits.is_empty() {
        context.remark(
            "Nothing is found. All words must be there, as whole words (a * at the end of one finds what begins so); events that wait to be delivered \
             are not searched (`arrakis status` shows them).",
        )?;
    } else {
        write(&page, &args.workspace, &context.zone, context.terminal, &mut context.out)?;
        if let Some(next) = page.next {
            context.remark(&format!("\nThere is more: add --after {next}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(args: &SearchArgs, context: &Context) -> anyhow::Result<SearchFilter> {
    let now = context.clock.now();
    let project = args.project.as_ref().map(std::path::absolute).transpose()?;
    let text = args.text.join(" ");
    Ok(SearchFilter {
        workspace: args.workspace.clone(),
        text: Some(text).filter(|_| !args.text.is_empty()),
        session_id: args.session.clone(),
        project: project.map(|path| path.to_string_lossy().into_owned()),
        since: args.since.map(|since| since.before(now, &context.zone)),
        until: args.until.map(|until| until.before(now, &context.zone)),
        role: args.role,
        tool_name: args.tool.clone(),
        outcome: args.outcome,
        model: args.model.clone(),
        is_subagent: (args.subagents || args.no_subagents).then_some(args.subagents),
    })
}

fn outcome(text: &str) -> Result<ToolStatus, String> {
    use ToolStatus::{Denied, Failed, Interrupted, Running, Succeeded};
    let all = [Running, Denied, Interrupted, Failed, Succeeded];
    let found = all.into_iter().find(|outcome| outcome.as_str() == text);
    found.ok_or_else(|| "it is running, denied, interrupted, failed or succeeded".to_owned())
}

fn role(text: &str) -> Result<Role, String> {
    let all = [Role::User, Role::Assistant, Role::System];
    let found = all.into_iter().find(|role| role.as_str() == text);
    found.ok_or_else(|| "it is user, assistant or system".to_owned())
}

/// ```text
/// Fix the build  /home/me/project
/// arrakis conversations show 1f9b…
///   2026-11-24 10:15:03  Bash failed
///     error: a semicolon is missing
/// ```
fn write(
    page: &SearchPage,
    workspace: &str,
    zone: &Zone,
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (n, hits) in page.hits.chunk_by(|a, b| a.conversation_id == b.conversation_id).enumerate() {
        let first = &hits[0];
        if n > 0 {
            writeln!(out)?;
        }
        let title = text::one_line(first.title.as_deref().unwrap_or("(no prompt yet)"));
        let title = text::fit(&title, terminal.text_columns());
        write!(out, "{}", terminal.paint(output::BOLD, &title))?;
        if let Some(path) = &first.project_path {
            write!(out, "  {}", terminal.paint(output::DIM, &text::one_line(path)))?;
        }
        writeln!(out, "\n{}", terminal.paint(output::DIM, &opening(first, workspace)))?;
        hits.iter().try_for_each(|hit| write_hit(hit, zone, terminal, out))?;
    }
    Ok(())
}

fn write_hit(
    hit: &SearchHit,
    zone: &Zone,
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    let at = terminal.paint(output::DIM, &zone.moment(hit.at, false));
    let (name, outcome) = match &hit.what {
        HitKind::Message { role: Role::User } => ("you", None),
        HitKind::Message { role: Role::Assistant } => ("claude", None),
        HitKind::Message { role: Role::System } => ("system", None),
        HitKind::ToolUse { tool_name, outcome } => (tool_name.as_str(), Some(*outcome)),
    };
    write!(out, "  {at}  {}", terminal.paint(output::NAME, &text::one_line(name)))?;
    if let Some(outcome) = outcome {
        let style = match outcome {
            ToolStatus::Running => output::DIM,
            ToolStatus::Denied | ToolStatus::Interrupted => output::WARN,
            ToolStatus::Failed => output::BAD,
            ToolStatus::Succeeded => output::GOOD,
        };
        write!(out, " {}", terminal.paint(style, outcome.as_str()))?;
    }
    if hit.agent_id.is_some() {
        write!(out, "{}", terminal.paint(output::DIM, " in a subagent"))?;
    }
    write!(out, "\n    ")?;
    for part in &hit.snippet.0 {
        let style = if part.is_match { output::MATCH } else { anstyle::Style::new() };
        write!(out, "{}", terminal.paint(style, &text::safe(&part.text)))?;
    }
    writeln!(out)
}

/// The command that shows the conversation of a hit. It may be pasted into a shell, so a session that has
/// chosen an odd name is named by its conversation's id.
fn opening(hit: &SearchHit, workspace: &str) -> String {
    let is_plain = |text: &str| {
        !text.starts_with('-')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let id = hit.conversation_id.to_string();
    let session = if is_plain(&hit.session_id) { &hit.session_id } else { &id };
    let mut command = format!("arrakis conversations show {session}");
    if workspace != DEFAULT_WORKSPACE && is_plain(workspace) {
        command.push_str(&format!(" --workspace {workspace}"));
    }
    command
}
