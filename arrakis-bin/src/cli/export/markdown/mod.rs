//! Conversations as documents to read, one each, in Markdown.
//!
//! Prompts and answers are as they were written, as far as that is safe ([`sanitize`]). What was folded on a
//! terminal is in `<details>`: tool uses with input and output, thinking, what the client itself says, and the
//! threads of subagents. Times are in UTC, for a document is read elsewhere too.

mod files;
mod sanitize;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::record::store::{ConversationDetail, EventSummary};
use arrakis_core::session::conversation::{Message, Notice, Replaced, Role};
use arrakis_core::session::price;

use self::files::{Files, Folder, Place};
use self::sanitize::{code, fenced, html, markdown, plain};
use super::select::Selected;
use super::sink::{NewFile, Sink};
use super::{ExportArgs, Source, Summary};
use crate::cli::conversations::show::queued;
use crate::cli::conversations::tool::{self, Body, Input, Line, Mark, Row};
use crate::cli::output::zone::Zone;
use crate::cli::output::{self, ansi, text};
use arrakis_core::record::reading::spoken::{self, Speaker};
use arrakis_core::record::reading::thread::{Call, Item, Part, Thread, What};

/// Most characters of what names a tool use, in its summary.
const SUMMARY_COLUMNS: usize = 100;

/// Writes the documents one behind the other, and what they show into a folder beside `output`.
pub(super) async fn write(
    output: Option<&Path>,
    overwrite: bool,
    source: &Source<'_>,
    selected: &Selected,
    sink: &mut Sink<'_>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let workspace = &source.selection.workspace;
    let folder = output.map(|path| Folder::beside(path, overwrite));
    for session in &selected.sessions {
        if let Some(detail) = source.reader.conversation(workspace, session).await? {
            if summary.counts.conversations > 0 {
                sink.put(b"\n---\n\n")?;
            }
            let files = Files::of(&detail, source, folder.as_ref()).await?;
            sink.put(document(&detail, &files).as_bytes())?;
            summary.counts.conversations += 1;
            summary.files += files.written;
        }
        source.progress.step(1);
    }
    Ok(())
}

/// Writes each document into a file of its own in `directory`.
pub(super) async fn write_files(
    directory: &Path,
    args: &ExportArgs,
    source: &Source<'_>,
    selected: &Selected,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let workspace = &source.selection.workspace;
    let named = || format!("cannot write into {}", directory.display());
    std::fs::create_dir_all(directory).with_context(named)?;
    for session in &selected.sessions {
        if let Some(detail) = source.reader.conversation(workspace, session).await? {
            let path = directory.join(file_name(&detail));
            let mut sink = Sink::File(NewFile::create(&path, args.overwrite)?);
            let folder = Folder::beside(&path, args.overwrite);
            let files = Files::of(&detail, source, Some(&folder)).await?;
            sink.put(document(&detail, &files).as_bytes())?;
            sink.finish()?;
            summary.counts.conversations += 1;
            summary.files += 1 + files.written;
        }
        source.progress.step(1);
    }
    Ok(())
}

/// The name of a document: the day on which the conversation began, and its session. What is no letter for a
/// file's name is left out, and told apart by a digest.
fn file_name(detail: &ConversationDetail) -> String {
    let session = &detail.conversation.session_id;
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    let mut name: String = session.chars().filter(|letter| is_fit(*letter)).take(100).collect();
    if name != *session {
        let digest = Digest::of(session.as_bytes());
        name.push('-');
        name.extend(digest.as_bytes()[..6].iter().map(|byte| format!("{byte:02x}")));
    }
    let (day, _) = Zone::UTC.day(detail.conversation.began_at());
    format!("{day}-{name}.md")
}

/// A conversation as a document.
fn document(detail: &ConversationDetail, files: &Files) -> String {
    let mut document = Document { text: String::new(), replaced: &detail.replaced, files };
    document.front(detail);
    document.items(&Thread::of(detail).items);
    document.text
}

/// A document that is written. Writing to it cannot fail.
struct Document<'a> {
    text: String,
    replaced: &'a [Replaced],
    files: &'a Files,
}

impl Document<'_> {
    fn front(&mut self, detail: &ConversationDetail) {
        let of = &detail.conversation;
        let title = of.title.as_ref().map_or("(no prompt yet)", |title| &title.value);
        writeln!(self.text, "# {}\n", plain(title)).ok();
        let mut line = |label: &str, value: String| {
            writeln!(self.text, "- **{label}:** {value}").ok();
        };
        line("Session", code(&of.session_id));
        for (label, said) in
            [("Project", &of.project_path), ("Branch", &of.git_branch), ("Model", &of.model)]
        {
            if let Some(said) = said {
                line(label, code(&said.value));
            }
        }
        let moment = |at: Timestamp| Zone::UTC.whole_moment(at);
        line("Started", moment(of.began_at()));
        match (of.ended_at(), &of.ended) {
            (Some(at), Some(reason)) => {
                line("Ended", format!("{} ({})", moment(at), plain(&reason.value)));
            }
            _ => line("Last event", moment(of.last_event_at)),
        }
        let usage = &detail.usage;
        if !usage.models.is_empty() {
            let total = usage.total;
            line(
                "Tokens",
                format!(
                    "{} in ({} from the cache), {} out",
                    total.prompt_tokens(),
                    total.cache_read_tokens,
                    total.output_tokens
                ),
            );
            let more = if usage.has_unknown_price { "more than " } else { "" };
            let mut cost =
                format!("{more}\\{} by the prices of {}", usage.cost, price::table().date());
            if let Some(client) = &of.client_cost {
                cost += &format!(", \\{} by the client", client.total);
            }
            line("Cost", cost);
        }
        self.text.push('\n');
    }

    fn items(&mut self, items: &[Item<'_>]) {
        for item in items {
            match item {
                Item::Message(message, parts) => self.message(message, parts),
                Item::Tool(call) => self.tool(call),
                Item::Event(event) => self.event(event),
                Item::Subagent(thread) => self.subagent(thread),
            }
        }
    }

    fn message(&mut self, message: &Message, parts: &[Part<'_>]) {
        for part in parts {
            match &part.what {
                What::Text(words) => self.words(message, part.at, words),
                What::Thinking("") => {
                    writeln!(self.text, "*thinking, not in the transcript*\n").ok();
                }
                What::Redacted => {
                    writeln!(self.text, "*thinking, redacted*\n").ok();
                }
                What::Thinking(words) => self.folded("thinking", &markdown(words)),
                What::Tool(call) => self.tool(call),
                What::Attached(what) => {
                    writeln!(self.text, "*{}*\n", plain(what)).ok();
                }
                What::Named(what) => {
                    let place = part.key.and_then(|key| self.files.of_block(key));
                    self.file(what, place);
                }
            }
        }
        let left = spoken::blocks_left_out(message);
        let told = left.map(Cow::from).into_iter().chain(spoken::early_end(message));
        for told in told {
            writeln!(self.text, "*{}*\n", plain(&told)).ok();
        }
    }

    /// An image or a document, and where it is.
    fn file(&mut self, what: &str, place: Option<&Place>) {
        let what = plain(what);
        match place {
            Some(Place::File(link)) => writeln!(self.text, "[{what}]({link})\n"),
            Some(Place::Event(event)) => {
                writeln!(self.text, "*{what}, in the event* {}\n", code(event.as_str()))
            }
            Some(Place::Result) => {
                writeln!(self.text, "*{what}, in the result as `--json` shows it*\n")
            }
            None => writeln!(self.text, "*{what}*\n"),
        }
        .ok();
    }

    fn words(&mut self, message: &Message, at: Timestamp, words: &str) {
        let is_command = message.notice == Some(Notice::Command);
        if message.role == Role::System && !is_command {
            let speaker = if spoken::is_for_model(message) { "for the model" } else { "system" };
            let words = markdown(&ansi::without_colours(words));
            return self.folded(&format!("{speaker} · {}", time(at)), &words);
        }
        let speaker = match Speaker::of(message, words, false) {
            Speaker::You => "You",
            Speaker::Task => "Task",
            Speaker::Shell => "Shell",
            Speaker::Advisor => "Advisor",
            Speaker::Claude | Speaker::System => "Claude",
        };
        let waited = message.role == Role::User && message.origin.has_waited();
        let waited = waited.then(|| format!(" · {}", queued(message, &Zone::UTC)));
        let replaced = self.replaced.iter().find(|part| part.prompt_id == message.id);
        let replaced = replaced.map(|part| match part.is_answered {
            true => " · rewound",
            false => " · withdrawn",
        });
        let (at, waited) = (time(at), waited.unwrap_or_default());
        let replaced = replaced.unwrap_or_default();
        let words = match message.role {
            Role::User => spoken::pasted(words, true),
            _ => Cow::Borrowed(words),
        };
        writeln!(self.text, "**{speaker}** · {at}{waited}{replaced}\n").ok();
        writeln!(self.text, "{}", markdown(&words)).ok();
    }

    fn tool(&mut self, call: &Call<'_>) {
        let tool_use = call.tool_use;
        let duration = call.duration_ms().map(|ms| format!(", {}", output::duration(ms)));
        let amount = tool::amount(tool_use).map(|amount| format!(", {amount}"));
        let summary = format!(
            "<b>{}</b> {} · {}{}{}",
            html(&tool::name(tool_use)),
            html(&text::fit(&tool::argument(tool_use), SUMMARY_COLUMNS)),
            tool::outcome(tool_use),
            duration.unwrap_or_default(),
            amount.unwrap_or_default()
        );
        let mut body = String::new();
        for input in tool::input(tool_use) {
            match input {
                Input::Short(name, value) => {
                    writeln!(body, "- {}: {}", plain(&name), code(&value)).ok();
                }
                Input::Long(name, value) => {
                    writeln!(body, "\n{}:\n\n{}", plain(&name), fenced(&value, "")).ok();
                }
                Input::Change(lines) => {
                    let lines: Vec<String> = lines.iter().map(Line::signed).collect();
                    writeln!(body, "\n{}", fenced(&lines.join("\n"), "diff")).ok();
                }
            }
        }
        let given_back = tool::output(tool_use);
        if !given_back.trim().is_empty() {
            writeln!(body, "\nOutput:\n\n{}", fenced(&given_back, "")).ok();
        }
        if let Some(elsewhere) = tool::kept_elsewhere(tool_use) {
            writeln!(body, "\nCut by the client: {}", code(&elsewhere)).ok();
        }
        self.folded(&summary, body.trim_start_matches('\n'));
        match tool::body(tool_use) {
            Some(Body::Markdown(plan)) => {
                writeln!(self.text, "{}", markdown(&plan)).ok();
            }
            Some(Body::Rows(rows)) => self.rows(&rows),
            None => {}
        }
        for place in self.files.of_tool(tool_use) {
            self.file("file", Some(place));
        }
        call.subagents.iter().for_each(|thread| self.subagent(thread));
    }

    /// A list of tasks or options.
    fn rows(&mut self, rows: &[Row]) {
        for row in rows {
            match row {
                Row::Text(text) => writeln!(self.text, "{}\n", plain(text)),
                Row::Item(Mark::Open, text) => writeln!(self.text, "- [ ] {}", plain(text)),
                Row::Item(Mark::Active, text) => {
                    writeln!(self.text, "- [ ] {} (in progress)", plain(text))
                }
                Row::Item(Mark::Done, text) => writeln!(self.text, "- [x] {}", plain(text)),
            }
            .ok();
        }
        self.text.push('\n');
    }

    fn subagent(&mut self, thread: &Thread<'_>) {
        let Some(subagent) = thread.subagent else { return };
        let kind = subagent.agent_type.as_deref().unwrap_or_default();
        let label = match spoken::is_aside(thread) {
            true => "beside the conversation (/btw)".to_owned(),
            false => html(&format!("subagent {kind} {}", subagent.agent_id)),
        };
        writeln!(self.text, "<details>\n<summary>{label}</summary>\n").ok();
        self.items(&thread.items);
        self.text.push_str("</details>\n\n");
    }

    fn event(&mut self, event: &EventSummary) {
        let (name, told) = spoken::event(event);
        let line = format!("{name} {told}");
        writeln!(self.text, "*{}* · {}\n", plain(&line), time(event.captured_at())).ok();
    }

    /// Something below a line that opens it. `summary` is HTML, `body` Markdown of ours.
    fn folded(&mut self, summary: &str, body: &str) {
        let body = body.trim_end();
        writeln!(self.text, "<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>\n")
            .ok();
    }
}

fn time(at: Timestamp) -> String {
    Zone::UTC.moment(at, false)
}
