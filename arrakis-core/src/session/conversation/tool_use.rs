//! Tool uses and their results.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Json, MessageKey, Stamp, Stamped, Standing, keep_first};
use crate::base::id::{RequestId, tool_use_id};

/// How far a tool use has come. Each later one outranks `Running`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolStatus {
    /// No result is known.
    Running,
    /// It was not permitted.
    Denied,
    /// The person stopped it while it ran.
    Interrupted,
    /// It failed.
    Failed,
    /// It succeeded.
    Succeeded,
}

impl ToolStatus {
    /// The name in lower case, as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Denied => "denied",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
        }
    }
}

/// How much a tool result is worth; the highest rank wins, then the earliest stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultRank {
    /// From a `PostToolBatch`, which repeats results as plain text.
    Batch,
    /// From the transcript, which does not say how long it took.
    Transcript,
    /// From the tool's own event.
    Own,
}

/// The result of a tool use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    /// How much it is worth against another result of the same tool use.
    pub rank: ResultRank,
    /// The event or the line that carries it.
    pub stamp: Stamp,
    /// How the tool use ended.
    pub status: ToolStatus,
    /// What it gave back; the error's text where it failed.
    pub response: Option<Json>,
    /// How long it took, in milliseconds, where that is said; [`ToolUse::duration_ms`] tells more.
    pub duration_ms: Option<u64>,
}

impl ToolResult {
    fn is_better_than(&self, other: &Self) -> bool {
        match self.rank.cmp(&other.rank) {
            Ordering::Equal => self < other, // the earliest; of two that one stamp says, the lesser
            order => order.is_gt(),
        }
    }
}

/// The name of a tool that is not known.
pub const UNKNOWN_TOOL: &str = "unknown";

/// Who has told of a tool use. What only one of them knows was missed by the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// An event of a hook.
    pub hook: bool,
    /// The transcript.
    pub transcript: bool,
}

impl Seen {
    /// Only hooks have.
    pub const BY_HOOK: Self = Self { hook: true, transcript: false };
}

/// One use of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolUse {
    /// Derived from the conversation and Claude Code's tool use id; where there is none, from the event of `first`.
    pub id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The assistant message that asked for it, where one is known: derived from `message_key`.
    pub message_id: Option<Uuid>,
    /// What makes that message one ([`asked_by`](Self::asked_by) sets both).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_key: Option<MessageKey>,
    /// Claude Code's tool use id.
    pub tool_use_id: Option<String>,
    /// What tells it from others of the same id, where that is one that comes again: the line that asked for it, or what
    /// its hooks have in common ([`called_by`](Self::called_by)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<RequestId>,
    /// The tool; [`UNKNOWN_TOOL`] while only its result is known.
    pub tool_name: String,
    /// What it was called with, as the earliest event or line says.
    pub parameters: Option<Stamped<Json>>,
    /// The earliest event or line about it.
    pub first: Stamp,
    /// Its result, where one is known.
    pub result: Option<ToolResult>,
    /// The subagent whose thread it belongs to; none is the main thread.
    pub agent_id: Option<String>,
    /// The prompt that it belongs to.
    pub prompt_id: Option<String>,
    /// Whether the person was asked for permission, and allowed or denied it.
    #[serde(default)]
    pub is_by_person: bool,
    /// Who has told of it.
    pub seen: Seen,
    /// What the lines that tell of it tell of its place.
    #[serde(default, skip_serializing_if = "Standing::is_unknown")]
    pub standing: Standing,
}

impl ToolUse {
    /// A tool use of which nothing is known but that `first` is about it. Without a `tool_use_id` the event of `first`
    /// names it.
    #[must_use]
    pub fn new(conversation_id: Uuid, tool_use_id: Option<String>, first: &Stamp) -> Self {
        let tool_use = Self {
            id: Uuid::nil(),
            conversation_id,
            message_id: None,
            message_key: None,
            tool_use_id,
            caller: None,
            tool_name: UNKNOWN_TOOL.to_owned(),
            parameters: None,
            first: first.clone(),
            result: None,
            agent_id: None,
            prompt_id: None,
            is_by_person: false,
            seen: Seen::default(),
            standing: Standing::default(),
        };
        tool_use.taken_into(conversation_id)
    }

    /// The tool use for which the assistant message of this key has asked.
    #[must_use]
    pub fn asked_by(self, message: MessageKey) -> Self {
        let message_id = Some(message.id(self.conversation_id));
        Self { message_id, message_key: Some(message), ..self }
    }

    /// The tool use of this caller. It matters only where the tool use's id is a mere number, as gateways give them: then
    /// the id comes again for other tool uses of the session.
    #[must_use]
    pub fn called_by(self, caller: RequestId) -> Self {
        if !self.comes_again() {
            return self;
        }
        let conversation_id = self.conversation_id;
        Self { caller: Some(caller), ..self }.taken_into(conversation_id)
    }

    /// Whether other tool uses of the session may have its id.
    pub(crate) fn comes_again(&self) -> bool {
        self.tool_use_id.as_deref().is_some_and(comes_again)
    }

    /// Whether the API ran the tool, such as a web search: no hook tells of it.
    #[must_use]
    pub fn is_by_server(&self) -> bool {
        self.tool_use_id.as_deref().is_some_and(is_by_server)
    }

    /// The same tool use in this conversation: its names are limited, and its ids are derived again.
    pub(crate) fn taken_into(mut self, conversation_id: Uuid) -> Self {
        self.limit();
        let key = self.tool_use_id.as_deref().unwrap_or(self.first.request_id.as_str());
        let key = match &self.caller {
            Some(caller) => Cow::Owned(format!("{key} {caller}")),
            None => Cow::Borrowed(key),
        };
        Self {
            id: tool_use_id(conversation_id, &key),
            conversation_id,
            message_id: self.message_key.as_ref().map(|key| key.id(conversation_id)),
            ..self
        }
    }

    /// Joins what `other` knows of the same tool use into this.
    pub fn merge(&mut self, other: Self) {
        if other.conversation_id != self.conversation_id {
            return; // an id belongs to one conversation: this one was made up
        }
        if self.tool_name == UNKNOWN_TOOL
            || (other.tool_name != UNKNOWN_TOOL && other.tool_name > self.tool_name)
        {
            self.tool_name = other.tool_name;
        }
        if other.first < self.first {
            self.first = other.first;
        }
        keep_first(&mut self.parameters, other.parameters);
        if other.message_key > self.message_key {
            (self.message_key, self.message_id) = (other.message_key, other.message_id);
        }
        self.tool_use_id = self.tool_use_id.take().max(other.tool_use_id);
        self.caller = self.caller.take().max(other.caller);
        self.standing.merge(other.standing, &mut self.agent_id, other.agent_id);
        self.prompt_id = self.prompt_id.take().max(other.prompt_id);
        self.is_by_person |= other.is_by_person;
        self.seen.hook |= other.seen.hook;
        self.seen.transcript |= other.seen.transcript;
        self.result = match (self.result.take(), other.result) {
            (Some(a), Some(b)) => Some(if b.is_better_than(&a) { b } else { a }),
            (a, b) => a.or(b),
        };
    }

    /// How long it took, in milliseconds: as its result says, else, where both stand in the transcript,
    /// from the wish to the result, in lines of their own. What was denied took no time.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        let result = self.result.as_ref()?;
        let told = result.rank == ResultRank::Transcript
            && result.status != ToolStatus::Denied
            && result.stamp != self.first;
        let passed = || u64::try_from(result.stamp.at.since(self.first.at).as_millis()).ok();
        result.duration_ms.or_else(|| passed().filter(|_| told && self.message_id.is_some()))
    }

    /// How far it has come.
    #[must_use]
    pub fn status(&self) -> ToolStatus {
        self.result.as_ref().map_or(ToolStatus::Running, |result| result.status)
    }
}

/// Whether the API itself gave the id to a tool use that it ran.
fn is_by_server(id: &str) -> bool {
    ["srvtoolu_", "mcptoolu_"].iter().any(|beginning| id.starts_with(beginning))
}

/// Whether a tool use's id is a number, maybe behind a word, such as `call_0` or `functions.Bash:1`: no client counts so
/// over a whole session.
fn comes_again(id: &str) -> bool {
    let number = id.rsplit(['_', ':']).next().unwrap_or_default();
    !is_by_server(id)
        && (1..=4).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The tool uses that a reader sees, in order: what hooks told of a tool use whose id comes again is joined to what the
/// transcript has of one with the same tool and input, one for one in their order.
#[cfg(feature = "runtime")]
pub(crate) fn joined(mut tool_uses: Vec<ToolUse>) -> Vec<ToolUse> {
    tool_uses.sort_by(|a, b| (&a.first, a.id).cmp(&(&b.first, b.id)));
    let is_hook = |one: &ToolUse| one.caller.is_some() && !one.seen.transcript;
    let (hooks, mut lines): (Vec<_>, Vec<_>) = tool_uses.into_iter().partition(is_hook);
    let mut left = Vec::new();
    for hook in hooks {
        let input = |one: &ToolUse| one.parameters.as_ref().map(|input| input.value.clone());
        let is_same = |one: &&mut ToolUse| {
            one.caller.is_some()
                && !one.seen.hook
                && (&one.tool_use_id, &one.tool_name) == (&hook.tool_use_id, &hook.tool_name)
                && input(one) == input(&hook)
        };
        match lines.iter_mut().find(is_same) {
            Some(line) => {
                let caller = line.caller.clone();
                line.merge(ToolUse { caller: None, ..hook });
                line.caller = caller;
            }
            None => left.push(hook),
        }
    }
    lines.append(&mut left);
    lines.sort_by(|a, b| (&a.first, a.id).cmp(&(&b.first, b.id)));
    lines
}
