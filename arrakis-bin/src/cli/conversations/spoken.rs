//! Whose words a text is, and how it reads.

use std::borrow::Cow;

use arrakis_core::record::store::EventSummary;
use arrakis_core::session::conversation::{Message, MessageOrigin, Notice, Role};
use arrakis_core::session::price;

use super::thread::{Item, Thread, is_of_person};
use crate::cli::output;

/// Who says something, as a reader is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Speaker {
    /// The person.
    You,
    /// Whoever has started a subagent.
    Task,
    /// The model.
    Claude,
    /// A model that advises it.
    Advisor,
    /// The person's own shell.
    Shell,
    /// The client.
    System,
}

impl Speaker {
    /// Who says this text of a message. In a thread that the person has begun beside the conversation its prompts are
    /// the person's.
    pub(in crate::cli) fn of(message: &Message, text: &str, in_aside: bool) -> Self {
        match message.role {
            Role::User if in_aside || is_of_person(message) => Self::You,
            Role::User => Self::Task,
            Role::Assistant if message.is_advice() => Self::Advisor,
            Role::Assistant => Self::Claude,
            Role::System if message.notice != Some(Notice::Command) => Self::System,
            Role::System if text.starts_with("$ ") => Self::Shell,
            Role::System => Self::You,
        }
    }

    /// What the reader is told.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::You => "you",
            Self::Task => "task",
            Self::Claude => "claude",
            Self::Advisor => "advisor",
            Self::Shell => "shell",
            Self::System => "system",
        }
    }
}

/// Whether the client wrote a message for the model alone.
pub(in crate::cli) fn is_for_model(message: &Message) -> bool {
    message.role == Role::System && message.notice == Some(Notice::ForModel)
}

/// What ended an answer before its end.
pub(in crate::cli) fn early_end(message: &Message) -> Option<Cow<'_, str>> {
    Some(match message.stop_reason.as_deref()? {
        "refusal" => "refused".into(),
        "max_tokens" => "cut off at the limit".into(),
        "model_context_window_exceeded" => "cut off: the context is full".into(),
        // The client goes on by itself.
        "pause_turn" => return None,
        other => format!("ended early: {other}").into(),
    })
}

/// What an answer took, and what it costs; none where that is not known.
pub(in crate::cli) fn tokens(message: &Message) -> Option<String> {
    let usage = message.usage?;
    let prompt = usage.prompt_tokens();
    let of_cache = match usage.cache_read_tokens {
        0 => String::new(),
        n => format!(" ({n} from the cache)"),
    };
    let model = message.model.as_deref().unwrap_or_default();
    let cost = price::table().cost(model, message.content.stamp.at, &usage);
    let cost = cost.map_or_else(|| "price not known".to_owned(), |cost| cost.to_string());
    let copied = if message.standing.copied { "; counted in another session" } else { "" };
    let what = beside(message).map(|kind| format!("{kind}: ")).unwrap_or_default();
    Some(format!("{what}{prompt} in{of_cache}, {} out, {cost}{copied}", usage.output_tokens))
}

/// What a call of the API beside an answer was for, such as a compaction.
fn beside(message: &Message) -> Option<&str> {
    let (_, kind) = message.api_id.as_deref()?.rsplit_once('#')?;
    (!message.is_advice()).then_some(kind)
}

/// How many blocks of the message are not kept.
pub(in crate::cli) fn blocks_left_out(message: &Message) -> Option<String> {
    let all = usize::try_from(message.block_count?).ok()?;
    let left = all.checked_sub(message.blocks.len()).filter(|left| *left > 0)?;
    let are = if left == 1 { "is" } else { "are" };
    Some(format!("… and {} {are} in the event", output::count(left, "more block")))
}

/// How the client marks what the person has pasted.
const PASTED: &str = "pasted_content";

/// A text with what the person has pasted in one line, or else whole and without the client's tags.
pub(in crate::cli) fn pasted(text: &str, is_whole: bool) -> Cow<'_, str> {
    let mut read = String::new();
    let mut rest = text;
    while let Some((before, words, behind)) = next_pasted(rest) {
        read.push_str(before);
        let lines = words.trim_matches('\n').lines().count();
        match is_whole {
            true => read.push_str(words.trim_matches('\n')),
            false => read.push_str(&named(lines)),
        }
        rest = behind;
    }
    if read.is_empty() && rest.len() == text.len() {
        return placeholders(text);
    }
    read.push_str(rest);
    Cow::Owned(placeholders(read.trim_start()).into_owned())
}

fn named(lines: usize) -> String {
    format!("[pasted text, {}]", output::count(lines, "line"))
}

/// What stands before the next pasted text, that text, and what stands behind it. An end has the id of its beginning.
fn next_pasted(text: &str) -> Option<(&str, &str, &str)> {
    let opening = format!("<{PASTED}");
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find(&opening) {
        let start = from + found;
        from = start + opening.len();
        let (attributes, inside) = text[from..].split_once('>')?;
        let is_tag = attributes.is_empty() || attributes.starts_with(' ');
        if !is_tag || attributes.contains('<') {
            continue;
        }
        let closings = [format!("</{PASTED}{attributes}>"), format!("</{PASTED}>")];
        let parted = closings.iter().find_map(|closing| inside.split_once(closing.as_str()));
        if let Some((words, behind)) = parted {
            return Some((&text[..start], words, behind));
        }
    }
    None
}

/// The marks with which older clients stand for what was pasted, such as `[Pasted text #1 +30 lines]`.
fn placeholders(text: &str) -> Cow<'_, str> {
    const OPENING: &str = "[Pasted text #";
    if !text.contains(OPENING) {
        return Cow::Borrowed(text);
    }
    let mut read = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(OPENING) {
        read.push_str(before);
        let mark = behind.split_once(']').and_then(|(mark, behind)| {
            let (_, lines) = mark.split_once(" +")?;
            let lines: usize = lines.strip_suffix(" lines")?.parse().ok()?;
            Some((lines, behind))
        });
        rest = match mark {
            Some((lines, behind)) => {
                read.push_str(&named(lines));
                behind
            }
            None => {
                read.push_str(OPENING);
                behind
            }
        };
    }
    read.push_str(rest);
    Cow::Owned(read)
}

/// What an event of the timeline is, and what it says.
pub(in crate::cli) fn event(event: &EventSummary) -> (Cow<'_, str>, Cow<'_, str>) {
    let summary = event.metadata.summary.as_str();
    let of_server = summary.split_once(": ");
    match (event.event_type.as_str(), of_server) {
        ("Elicitation", Some((server, question))) => {
            (format!("{server} asks").into(), question.into())
        }
        ("ElicitationResult", Some((server, answer))) => {
            (format!("answer to {server}").into(), answer.into())
        }
        // The summary itself is the client's words for the model.
        (name @ "PostCompact", Some((trigger, _))) => (name.into(), trigger.into()),
        (name, _) => (name.into(), summary.into()),
    }
}

/// Whether a thread is a question that the person asked beside the conversation (`/btw`): no tool use has started it, and
/// it names no type. Of most such questions a hook tells the answer, and nothing else is known.
pub(in crate::cli) fn is_aside(thread: &Thread<'_>) -> bool {
    let is_message = |item: &Item<'_>| matches!(item, Item::Message(..));
    thread.subagent.is_some_and(|subagent| {
        let is_named = subagent.agent_id.contains("aside_question");
        let is_answer = |item: &Item<'_>| match item {
            Item::Message(message, _) => message.origin == MessageOrigin::Stop,
            _ => false,
        };
        let is_answered = !thread.items.is_empty() && thread.items.iter().all(is_answer);
        subagent.tool_use_id.is_none()
            && subagent.agent_type.is_none()
            && (is_answered || (is_named && thread.items.iter().all(is_message)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pasted_is_one_line_or_whole() {
        let text = "\n\n<pasted_content id=\"a\">\none\n</pasted_content>\ntwo\n</pasted_content id=\"a\">\n\n what is it?";
        assert_eq!(pasted(text, false), "[pasted text, 3 lines]\n\n what is it?");
        assert_eq!(pasted(text, true), "one\n</pasted_content>\ntwo\n\n what is it?");
        let two = "a <pasted_content>b</pasted_content> c <pasted_content id=\"x\">d\ne</pasted_content id=\"x\">";
        assert_eq!(pasted(two, false), "a [pasted text, 1 line] c [pasted text, 2 lines]");
        for text in
            ["<pasted_content id=\"a\">open", "<pasted_contents>x</pasted_contents>", "no tag", ""]
        {
            assert_eq!(pasted(text, false), text);
        }
        assert_eq!(pasted("[Pasted text #12 +30 lines] fix", false), "[pasted text, 30 lines] fix");
        assert_eq!(pasted("[Pasted text #12]", false), "[Pasted text #12]");
    }
}
