//! What hooks and transcript tell of a session, held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Conversation, Message, MessageOrigin, ToolUse};
use crate::base::clock::Timestamp;
use crate::base::limits::GAP_TOOLS_MAX;
use crate::session::snapshot::SNAPSHOT_EVENT;
use crate::session::transcript::TRANSCRIPT_EVENT;

/// What hooks and transcript have told of a session, and what only one of them has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciliation {
    /// How many events of each type came from hooks.
    pub events: BTreeMap<String, u64>,
    /// How many slices of transcripts came.
    pub slices: u64,
    /// How many tool uses both have told of.
    pub tool_uses_in_both: u64,
    /// Tool uses that stand in the transcript and that no hook has told of, earliest first.
    pub without_hook: Vec<KnownToolUse>,
    /// Tool uses that a hook has told of and that do not stand in the transcript, earliest first.
    pub without_transcript: Vec<KnownToolUse>,
    /// Up to when the transcript is known; none where nothing of it is.
    pub transcript_until: Option<Timestamp>,
    /// What is missing.
    pub gaps: Vec<Gap>,
}

/// How many parts of a conversation came from each side, for lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TwoSides {
    /// Messages from transcripts.
    pub transcript_messages: u64,
    /// Tool uses that no hook has told of.
    pub tool_uses_without_hook: u64,
    /// Tool uses that no transcript has told of.
    pub tool_uses_without_transcript: u64,
}

impl TwoSides {
    /// Whether one side lacks something that the other has, so that it is worth a [`Reconciliation`].
    #[must_use]
    pub fn differ(&self) -> bool {
        let Self { transcript_messages, tool_uses_without_hook, tool_uses_without_transcript } =
            *self;
        transcript_messages == 0 || tool_uses_without_hook + tool_uses_without_transcript > 0
    }
}

/// A tool use of which one side knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownToolUse {
    /// Claude Code's id of it.
    pub tool_use_id: Option<String>,
    /// The tool.
    pub tool_name: String,
    /// When it was first told of.
    pub at: Timestamp,
}

impl KnownToolUse {
    fn of(tool_use: &ToolUse) -> Self {
        Self {
            tool_use_id: tool_use.tool_use_id.clone(),
            tool_name: tool_use.tool_name.clone(),
            at: tool_use.first.at,
        }
    }
}

/// Something that one side should have told of. Its text is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
#[non_exhaustive]
pub enum Gap {
    /// Hooks ran, and nothing of the transcript came: the assistant's words and the tokens are missing.
    NoTranscript,
    /// The transcript has tool uses that no hook has told of, though hooks ran. The conversation has
    /// them from the transcript.
    NoHook {
        /// How many.
        count: u64,
        /// Their tools, without repeats.
        tools: Vec<String>,
    },
    /// Hooks told of tool uses that a transcript read past their time does not have.
    NotInTranscript {
        /// How many.
        count: u64,
        /// Their tools, without repeats.
        tools: Vec<String>,
    },
    /// There are places in the transcript that cannot be read. What else stands there is read.
    Unreadable {
        /// How many are known.
        count: u64,
        /// Why, without repeats: `not_json`, `not_utf8` or `too_long`.
        reasons: Vec<String>,
    },
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let say = |f: &mut fmt::Formatter<'_>, count: u64, tools: &[String], what: &str| {
            let (tool_uses, are) =
                if count == 1 { ("tool use", "is") } else { ("tool uses", "are") };
            write!(f, "{count} {tool_uses} ({}) {are} {what}", tools.join(", "))
        };
        match self {
            Self::NoTranscript => {
                f.write_str("nothing of the transcript has come: answers and tokens are missing")
            }
            Self::NoHook { count, tools } => {
                say(f, *count, tools, "known by the transcript alone: no hook has told of them")
            }
            Self::NotInTranscript { count, tools } => {
                say(f, *count, tools, "known by hooks alone: the transcript does not have them")
            }
            Self::Unreadable { count, reasons } => {
                let places = if *count == 1 { "place" } else { "places" };
                let reasons = reasons.join(", ");
                write!(f, "{count} {places} of the transcript cannot be read ({reasons})")
            }
        }
    }
}

impl Gap {
    /// Whether reading the transcript from its beginning may close it.
    #[must_use]
    pub fn is_for_backfill(&self) -> bool {
        matches!(self, Self::NoTranscript | Self::NotInTranscript { .. })
    }
}

impl Reconciliation {
    /// Holds what is stored of a conversation against each other. `events` are the types of its events.
    #[must_use]
    pub fn of<'a>(
        conversation: &Conversation,
        messages: &[Message],
        tool_uses: &[ToolUse],
        events: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut found = Self::default();
        for event in events {
            match event {
                TRANSCRIPT_EVENT => found.slices += 1,
                SNAPSHOT_EVENT => {} // it brings what others told
                hook => *found.events.entry(hook.to_owned()).or_default() += 1,
            }
        }
        let said = messages.iter().filter(|one| one.origin.is_line());
        let used = tool_uses.iter().filter(|one| one.seen.transcript);
        let said = said.map(|one| one.content.stamp.at);
        found.transcript_until = said.chain(used.map(|one| one.first.at)).max();
        // What was copied belongs to the session that it comes from, and so do its hooks. What the API runs has none.
        let has_hooks = |one: &&ToolUse| !one.standing.copied && !one.is_by_server();
        for tool_use in tool_uses.iter().filter(has_hooks) {
            match (tool_use.seen.hook, tool_use.seen.transcript) {
                (false, true) => found.without_hook.push(KnownToolUse::of(tool_use)),
                (true, false) => found.without_transcript.push(KnownToolUse::of(tool_use)),
                _ => found.tool_uses_in_both += 1,
            }
        }
        found.gaps = found.find_gaps(conversation, messages);
        found
    }

    fn find_gaps(&self, conversation: &Conversation, messages: &[Message]) -> Vec<Gap> {
        let mut gaps = Vec::new();
        // Events may be stored no more; what they told is.
        let in_both = self.tool_uses_in_both > 0;
        let have_hooks_run =
            !self.events.is_empty() || in_both || !self.without_transcript.is_empty();
        // The transcript lags the hooks until a turn is over.
        let is_turn_over = conversation.ended_at().is_some()
            || messages.iter().any(|message| ends_turn(message.origin))
            || ["Stop", "StopFailure"].iter().any(|stop| self.events.contains_key(*stop));
        let has_transcript = self.slices > 0 || self.transcript_until.is_some();
        if have_hooks_run && !has_transcript && is_turn_over {
            gaps.push(Gap::NoTranscript);
        }
        if have_hooks_run && !self.without_hook.is_empty() {
            let (count, tools) = count_of(self.without_hook.iter());
            gaps.push(Gap::NoHook { count, tools });
        }
        if let Some(until) = self.transcript_until {
            let is_past = |one: &&KnownToolUse| one.at < until;
            let (count, tools) = count_of(self.without_transcript.iter().filter(is_past));
            if count > 0 {
                gaps.push(Gap::NotInTranscript { count, tools });
            }
        }
        if !conversation.unreadable.is_empty() {
            let count = conversation.unreadable.len() as u64;
            let reasons: BTreeSet<&String> = conversation.unreadable.values().collect();
            gaps.push(Gap::Unreadable { count, reasons: reasons.into_iter().cloned().collect() });
        }
        gaps
    }
}

/// Whether a message of this origin comes at the end of a turn.
fn ends_turn(origin: MessageOrigin) -> bool {
    matches!(origin, MessageOrigin::Stop | MessageOrigin::Failure)
}

/// How many, and the names of the tools, the first [`GAP_TOOLS_MAX`] of them.
fn count_of<'a>(tool_uses: impl Iterator<Item = &'a KnownToolUse>) -> (u64, Vec<String>) {
    let mut tools: Vec<String> = Vec::new();
    let mut count = 0;
    for tool_use in tool_uses {
        count += 1;
        if tools.len() < GAP_TOOLS_MAX && !tools.contains(&tool_use.tool_name) {
            tools.push(tool_use.tool_name.clone());
        }
    }
    (count, tools)
}
