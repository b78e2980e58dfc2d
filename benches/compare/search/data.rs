//! What is searched: conversations whose words are as common as those of a language (Zipf's law).

use std::sync::LazyLock;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::base::id::{RequestId, uuid_v7};
use arrakis_core::record::store::{Arrival, DEFAULT_WORKSPACE, EventMetadata, Verdict};
use arrakis_core::session::conversation::{
    Changes, Conversation, Json, Message, MessageOrigin, ResultRank, Role, Stamp, Stamped, Title,
    TitleSource, ToolResult, ToolStatus, ToolUse,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How many messages there are for each tool use.
pub(crate) const MESSAGES_A_TOOL_USE: u64 = 4;

/// Messages of one conversation.
const CONVERSATION: u64 = 100;

/// Conversations that are recorded at one time.
const BATCH: u64 = 5;

/// The last moment of the year that the messages are of.
const END_MILLIS: i64 = 1_795_000_000_000;
const YEAR_MILLIS: i64 = 365 * 24 * 3600 * 1000;

/// Different words; the n-th is a share of 1 / (n + 2) of all.
const WORDS: usize = 40_000;

/// Each of so many messages has a word that no other has.
pub(crate) const RARE_EVERY: u64 = 10_000;

/// How much of the year is the first month.
const OLD_PART: f64 = 0.08;

/// The project of which there is nothing since then.
pub(crate) const OLD_PROJECT: &str = "/home/me/old";

pub(crate) const TOOLS: [&str; 6] = ["Bash", "Read", "Edit", "Grep", "Write", "WebFetch"];

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Data {
    pub(crate) messages: u64,
}

/// The n-th commonest word.
pub(crate) fn word(n: usize) -> String {
    const COMMON: [&str; 8] = ["the", "a", "to", "of", "and", "in", "is", "it"];
    COMMON.get(n).map_or_else(|| format!("word{n}"), |word| (*word).to_owned())
}

/// The project of a conversation: a few have most of them, the last has one in a thousand.
pub(crate) fn project(conversation: u64) -> String {
    let n = match conversation % 1000 {
        0 => 9,
        1..=9 => 8,
        other => other % 8,
    };
    format!("/home/me/project{n}")
}

impl Data {
    pub(crate) fn conversations(self) -> u64 {
        self.messages / CONVERSATION
    }

    /// A moment of the year, after this share of it.
    pub(crate) fn at(self, part: f64) -> Timestamp {
        Timestamp::from_millis(END_MILLIS - YEAR_MILLIS + (YEAR_MILLIS as f64 * part) as i64)
    }

    /// Everything, oldest first.
    pub(crate) fn batches(self) -> impl Iterator<Item = Vec<(Arrival, Verdict)>> {
        (0..self.conversations()).step_by(BATCH as usize).map(move |first| {
            let last = (first + BATCH).min(self.conversations());
            (first..last).map(|n| self.conversation(n)).collect()
        })
    }

    /// A conversation as one event tells it.
    fn conversation(self, n: u64) -> (Arrival, Verdict) {
        let mut random = StdRng::seed_from_u64(n);
        let session = format!("session-{n}");
        let part = n as f64 / self.conversations() as f64;
        let start = self.at(part);
        let stamp = |k: u64| Stamp {
            at: start.plus(std::time::Duration::from_millis(k * 30_011)),
            request_id: request_id(&format!("{n}-{k}")),
        };
        let mut conversation = Conversation::new(DEFAULT_WORKSPACE, &session, &stamp(0));
        conversation.last_event_at = stamp(CONVERSATION).at;
        let is_old = part < OLD_PART && n.is_multiple_of(3);
        let project = if is_old { OLD_PROJECT.to_owned() } else { project(n) };
        conversation.project_path = Some(Stamped::new(&stamp(0), project));
        conversation.title = Some(Title::new(TitleSource::Prompt, &stamp(0), text(&mut random, 8)));
        let mut changes = Changes::default();
        // The first model was used for the first month only.
        let model = if part < OLD_PART { "claude-first-1" } else { "claude-second-2" };
        for k in 0..CONVERSATION {
            let (role, words) =
                if k.is_multiple_of(10) { (Role::User, 20) } else { (Role::Assistant, 40) };
            let length = random.random_range(5..2 * words);
            let mut said = text(&mut random, length);
            let number = n * CONVERSATION + k;
            if number.is_multiple_of(RARE_EVERY) {
                said.push_str(&format!(" needle{}", number / RARE_EVERY));
            }
            let key = k.to_string();
            let content = Stamped::new(&stamp(k), said);
            let origin = MessageOrigin::Transcript;
            let mut message = Message::new(conversation.id, None, role, origin, content);
            let asked_by = message.key();
            message.model = (role == Role::Assistant).then(|| model.to_owned());
            changes.messages.push(message);
            if k.is_multiple_of(MESSAGES_A_TOOL_USE) {
                let tool_use = ToolUse::new(conversation.id, Some(key), &stamp(k));
                let mut tool_use = tool_use.asked_by(asked_by);
                tool_use.tool_name = TOOLS[random.random_range(0..TOOLS.len())].to_owned();
                tool_use.parameters =
                    json(&[text(&mut random, 10)]).map(|value| Stamped::new(&stamp(k), value));
                tool_use.result = Some(ToolResult {
                    rank: ResultRank::Own,
                    stamp: stamp(k),
                    status: match random.random_range(0..100) {
                        0 => ToolStatus::Denied,
                        1..10 => ToolStatus::Failed,
                        _ => ToolStatus::Succeeded,
                    },
                    response: json(&[text(&mut random, 60)]),
                    duration_ms: Some(12),
                });
                changes.tool_uses.push(tool_use);
            }
        }
        changes.conversations.push(conversation);
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&Digest::of(session.as_bytes()).as_bytes()[..10]);
        let body = format!(r#"{{"session_id":"{session}"}}"#);
        let arrival = Arrival {
            event_id: uuid_v7(start, bytes),
            request_id: request_id(&session),
            digest: Digest::of(body.as_bytes()),
            in_ledger: true,
            workspace: DEFAULT_WORKSPACE.to_owned(),
            event_type: "Transcript".to_owned(),
            session_id: Some(session),
            received_at: start,
            body: body.into(),
            headers: std::collections::BTreeMap::new(),
            ip_address: None,
            metadata: EventMetadata::default(),
        };
        (arrival, Verdict::Apply(changes))
    }
}

fn json(texts: &[String]) -> Option<Json> {
    Json::of(&texts).ok()
}

#[allow(clippy::expect_used, reason = "the ids of this bench are valid")]
fn request_id(text: &str) -> RequestId {
    text.parse().expect("a request id")
}

fn text(random: &mut StdRng, words: usize) -> String {
    static SHARES: LazyLock<Vec<f64>> = LazyLock::new(|| {
        let mut sum = 0.0;
        let sums = (0..WORDS).map(|n| {
            sum += 1.0 / (n as f64 + 2.0);
            sum
        });
        sums.collect()
    });
    let all = SHARES.last().copied().unwrap_or(1.0);
    let mut text = String::new();
    for n in 0..words {
        if n > 0 {
            text.push(' ');
        }
        let place = random.random_range(0.0..all);
        text.push_str(&word(SHARES.partition_point(|sum| *sum < place)));
    }
    text
}
