//! What messages took: how each message of the API is counted once, and what that changes of the sums.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::limits::COUNTED_TOKENS_MAX;
use crate::record::store::rollups::rounded_down;
use crate::record::store::{USAGE_BUCKET, UsageSum, UsageSums};
use crate::session::conversation::Message;
use crate::session::price::{self, PromptSize};
use crate::session::usage::{UNKNOWN_MODEL, Usage};

/// A message of the API as it is counted. The same message stands in each conversation that was forked behind it, with
/// the same time: it is counted in the one that it was not copied into, else in the earliest, else in the one with the
/// smallest id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedMessage {
    /// The workspace.
    pub workspace: String,
    /// The API's id; the message's own where it has none.
    pub api_id: String,
    /// Its time in that conversation.
    pub at: Timestamp,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The model; [`UNKNOWN_MODEL`] where none is named.
    pub model: String,
    /// Whether it is of a subagent's thread.
    pub is_subagent: bool,
    /// Whether that conversation has it from another one.
    pub is_copied: bool,
    /// What it took, as far as is known.
    pub usage: Usage,
}

/// The parts of a message that are counted.
#[derive(Debug)]
pub struct MessageParts<'a> {
    /// Its id.
    pub id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The API's id.
    pub api_id: Option<&'a str>,
    /// Its time.
    pub at: Timestamp,
    /// The model.
    pub model: Option<&'a str>,
    /// Whether it is of a subagent's thread.
    pub is_subagent: bool,
    /// Whether its conversation has it from another one.
    pub is_copied: bool,
    /// What it took.
    pub usage: Option<Usage>,
}

impl<'a> From<&'a Message> for MessageParts<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            id: message.id,
            conversation_id: message.conversation_id,
            api_id: message.api_id.as_deref(),
            at: message.content.stamp.at,
            model: message.model.as_deref(),
            is_subagent: message.agent_id.is_some(),
            is_copied: message.standing.copied,
            usage: message.usage,
        }
    }
}

impl CountedMessage {
    /// A message of a workspace as it is counted; nothing where it has no usage.
    #[must_use]
    pub fn of(workspace: &str, parts: MessageParts<'_>) -> Option<Self> {
        let usage = parts.usage?;
        Some(Self {
            workspace: workspace.to_owned(),
            api_id: parts.api_id.map_or_else(|| parts.id.to_string(), str::to_owned),
            at: parts.at,
            conversation_id: parts.conversation_id,
            model: parts.model.unwrap_or(UNKNOWN_MODEL).to_owned(),
            is_subagent: parts.is_subagent,
            is_copied: parts.is_copied,
            usage: bounded(usage),
        })
    }

    /// What this message is counted as from now on, where `stored` is what it was counted as.
    fn joined(self, stored: Option<&Self>) -> Self {
        let Some(stored) = stored else { return self };
        let usage = self.usage.max(stored.usage);
        // What is read of the same conversation later is what is known now.
        let is_newer = self.conversation_id == stored.conversation_id;
        let place = |one: &Self| (one.is_copied, one.at, one.conversation_id);
        let comes_first = place(&self) < place(stored);
        let owner = if is_newer || comes_first { self } else { stored.clone() };
        Self { usage, ..owner }
    }

    fn key(&self) -> UsageKey {
        UsageKey {
            workspace: self.workspace.clone(),
            at: rounded_down(self.at, USAGE_BUCKET),
            conversation_id: self.conversation_id,
            model: self.model.clone(),
            is_subagent: self.is_subagent,
            prompt_size: PromptSize::of(&self.usage),
        }
    }
}

fn bounded(usage: Usage) -> Usage {
    let most = COUNTED_TOKENS_MAX;
    let mut bounded = Usage {
        input_tokens: usage.input_tokens.min(most),
        output_tokens: usage.output_tokens.min(most),
        cache_read_tokens: usage.cache_read_tokens.min(most),
        cache_creation_tokens: usage.cache_creation_tokens.min(most),
        thinking_tokens: usage.thinking_tokens.min(most),
        web_searches: usage.web_searches.min(most),
        ..usage
    };
    bounded.cache_creation_1h_tokens =
        usage.cache_creation_1h_tokens.min(bounded.cache_creation_tokens);
    bounded
}

/// What usage is summed up under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageKey {
    /// The workspace.
    pub workspace: String,
    /// The beginning of the bucket.
    pub at: Timestamp,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The model.
    pub model: String,
    /// Whether a subagent took it.
    pub is_subagent: bool,
    /// The size of the prompts, which the price may depend on.
    pub prompt_size: PromptSize,
}

/// How a sum changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageChange {
    /// Messages.
    pub messages: i64,
    /// What they took, in the order of [`Usage`]'s fields.
    pub tokens: [i64; 7],
}

impl UsageChange {
    /// Adds a message, or takes it out where `times` is -1.
    fn put(&mut self, usage: Usage, times: i64) {
        self.messages += times;
        for (sum, tokens) in self.tokens.iter_mut().zip(tokens_of(usage)) {
            let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
            *sum = sum.saturating_add(tokens.saturating_mul(times));
        }
    }

    fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another change.
    pub fn merge(&mut self, other: &Self) {
        self.messages += other.messages;
        for (sum, tokens) in self.tokens.iter_mut().zip(other.tokens) {
            *sum = sum.saturating_add(tokens);
        }
    }

    /// What the messages took, where this is a sum.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let [input, output, cache_read, cache_creation, cache_creation_1h, thinking, searches] =
            self.tokens.map(|tokens| u64::try_from(tokens).unwrap_or(0));
        Usage {
            input_tokens: input,
            output_tokens: output,
            cache_read_tokens: cache_read,
            cache_creation_tokens: cache_creation,
            cache_creation_1h_tokens: cache_creation_1h,
            thinking_tokens: thinking,
            web_searches: searches,
        }
    }
}

fn tokens_of(usage: Usage) -> [u64; 7] {
    [
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_creation_tokens,
        usage.cache_creation_1h_tokens,
        usage.thinking_tokens,
        usage.web_searches,
    ]
}

/// How sums of usage change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageChanges(BTreeMap<UsageKey, UsageChange>);

impl UsageChanges {
    /// A message is counted as `now`, and was as `before`.
    fn replace(&mut self, before: Option<&CountedMessage>, now: &CountedMessage) {
        if let Some(before) = before {
            self.0.entry(before.key()).or_default().put(before.usage, -1);
        }
        self.0.entry(now.key()).or_default().put(now.usage, 1);
    }

    /// Counts messages, where `known` is what the ones of the same API ids were counted as; returns what each is counted
    /// as now, where that has changed, and how sums change.
    #[must_use]
    pub fn of(
        known: Vec<CountedMessage>,
        came: Vec<CountedMessage>,
    ) -> (Vec<CountedMessage>, Self) {
        let name = |one: &CountedMessage| (one.workspace.clone(), one.api_id.clone());
        let known: BTreeMap<_, _> = known.into_iter().map(|one| (name(&one), one)).collect();
        let mut joined = BTreeMap::<(String, String), CountedMessage>::new();
        for message in came {
            let name = name(&message);
            let before = joined.get(&name).or_else(|| known.get(&name));
            let now = message.joined(before);
            joined.insert(name, now);
        }
        joined.retain(|name, now| known.get(name) != Some(now));
        let mut changes = Self::default();
        for (name, now) in &joined {
            changes.replace(known.get(name), now);
        }
        (joined.into_values().collect(), changes)
    }

    /// The sums that change.
    pub fn iter(&self) -> impl Iterator<Item = (&UsageKey, &UsageChange)> {
        self.0.iter().filter(|(_, change)| !change.is_zero())
    }
}

/// Groups stored sums as asked; for stores that cannot do it themselves.
#[must_use]
pub fn usage_sums<'a>(
    query: &UsageSums,
    rows: impl Iterator<Item = (&'a UsageKey, &'a UsageChange)>,
) -> Vec<UsageSum> {
    let mut sums = Vec::<UsageSum>::new();
    let mut places = BTreeMap::new();
    for (key, sum) in rows {
        let by = query.by;
        let new = UsageSum {
            at: by.bucket.then_some(key.at),
            conversation_id: by.conversation.then_some(key.conversation_id),
            is_subagent: by.subagent.then_some(key.is_subagent),
            model: key.model.clone(),
            prompt_size: key.prompt_size,
            period: price::table().period(key.at),
            ..UsageSum::default()
        };
        let place = *places.entry(new.group()).or_insert(sums.len());
        if place == sums.len() {
            sums.push(new);
        }
        sums[place].messages += u64::try_from(sum.messages).unwrap_or(0);
        sums[place].usage += sum.usage();
    }
    sums
}
