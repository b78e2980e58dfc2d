//! Whole sessions of Claude Code for tests: recorded ones, and generated ones that are nastier.
//!
//! [`Session::shuffled`] gives the events of a session as a bad day may bring them: hooks in any order and
//! twice, transcripts cut anywhere, read twice, with slices that overlap.

mod beside;
mod generated;

pub use beside::record_beside_each_other;
pub use generated::generated;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::envelope::{Envelope, Source};
use crate::base::id::{RequestId, uuid_v7};
use crate::record::ingest::{Reception, admit, judge};
use crate::record::store::{Arrival, ConversationDetail, EventStore, Verdict};
use crate::session::conversation::Changes;
use crate::session::redact::Redactor;
use crate::session::transcript::{
    Answers, Copies, Repeats, Sidechains, Slice, SliceConfig, Slicer, TranscriptAgent,
    TranscriptFile,
};

/// What a session leaves behind.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Claude Code's id of it.
    pub session_id: String,
    /// The payloads of its hooks, in order.
    pub hooks: Vec<Vec<u8>>,
    /// Its own transcript and those of its subagents.
    pub transcripts: Vec<(TranscriptFile, Vec<u8>)>,
}

/// The moment of the first hook of a session.
const START_MILLIS: i64 = 1_795_481_720_000;

impl Session {
    /// A session whose own transcript is `transcript`.
    #[must_use]
    pub fn new(session_id: &str, hooks: Vec<Vec<u8>>, transcript: Vec<u8>) -> Self {
        let mut session =
            Self { session_id: session_id.to_owned(), hooks, transcripts: Vec::new() };
        session.transcripts.push((session.file(None), transcript));
        session
    }

    /// Adds the transcript of a subagent; `meta` is the JSON beside it.
    pub fn add_subagent(&mut self, agent_id: &str, meta: &Value, transcript: Vec<u8>) {
        let text = |name: &str| meta[name].as_str().map(str::to_owned);
        let agent = TranscriptAgent {
            id: agent_id.to_owned(),
            agent_type: text("agentType"),
            tool_use_id: text("toolUseId"),
        };
        self.transcripts.push((self.file(Some(agent)), transcript));
    }

    fn file(&self, agent: Option<TranscriptAgent>) -> TranscriptFile {
        let name = agent.as_ref().map_or(self.session_id.as_str(), |agent| agent.id.as_str());
        TranscriptFile {
            session_id: self.session_id.clone(),
            path: format!("/t/{name}.jsonl"),
            cwd: None,
            identity: name.to_owned(),
            agent,
        }
    }

    /// The same session under another id.
    #[must_use]
    pub fn renamed(&self, session_id: &str) -> Self {
        let hook = |hook: &Vec<u8>| {
            let hook = String::from_utf8_lossy(hook).replace(&self.session_id, session_id);
            hook.into_bytes()
        };
        let hooks = self.hooks.iter().map(hook).collect();
        let mut session =
            Self { session_id: session_id.to_owned(), hooks, transcripts: Vec::new() };
        for (file, text) in &self.transcripts {
            let text = String::from_utf8_lossy(text).replace(&self.session_id, session_id);
            session.transcripts.push((session.file(file.agent.clone()), text.into_bytes()));
        }
        session
    }

    /// Each event once, in order; each transcript in one slice.
    #[must_use]
    pub fn in_order(&self, workspace: &str) -> Vec<Arrival> {
        let slices =
            self.transcripts.iter().flat_map(|(file, text)| self.slices(file, text, 0, text.len()));
        let slices = slices.map(|slice| (slice.request_id, slice.payload));
        let hooks = self.hooks.iter().enumerate().map(|(n, hook)| self.hook_event(n, hook));
        let events = hooks.chain(slices.map(|(id, payload)| {
            let at = Timestamp::from_millis(START_MILLIS + 3_600_000);
            (self.unique(id.as_str()), at, payload)
        }));
        (0..).zip(events).map(|(n, event)| arrival(workspace, n, event)).collect()
    }

    /// The same events in some order that depends on `seed`, some of them twice, the transcripts in slices
    /// that cover them but may overlap.
    #[must_use]
    pub fn shuffled(&self, workspace: &str, seed: u64) -> Vec<Arrival> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut events: Vec<_> =
            self.hooks.iter().enumerate().map(|(n, hook)| self.hook_event(n, hook)).collect();
        for (file, text) in &self.transcripts {
            for slice in self.random_slices(file, text, &mut random) {
                // The moment at which a slice was read must not matter.
                let at = Timestamp::from_millis(START_MILLIS + random.random_range(0..9_000_000));
                events.push((self.unique(slice.request_id.as_str()), at, slice.payload));
            }
        }
        for _ in 0..random.random_range(0..=events.len()) {
            let again = events[random.random_range(0..events.len())].clone();
            events.push(again);
        }
        events.shuffle(&mut random);
        (0..).zip(events).map(|(n, event)| arrival(workspace, n, event)).collect()
    }

    fn hook_event(&self, n: usize, payload: &[u8]) -> Event {
        let millis = i64::try_from(n).unwrap_or(0) * 7;
        let payload = payload.strip_suffix(b"\n").unwrap_or(payload).to_vec();
        let at = Timestamp::from_millis(START_MILLIS + millis);
        (self.unique(&format!("hook-{n:04}")), at, payload)
    }

    /// Request ids are of a workspace, and each has several sessions.
    fn unique(&self, id: &str) -> RequestId {
        format!("{}.{id}", self.session_id).parse().expect("a request id")
    }

    /// What a reader should see of the session, timeline left out.
    #[must_use]
    pub fn expected(&self, workspace: &str) -> ConversationDetail {
        conversation_of(&self.in_order(workspace))
    }
}

/// What arrivals of one session add up to, in the order given; the timeline is left out.
///
/// # Panics
///
/// One of them cannot be applied, or they are not of one session.
#[must_use]
pub fn conversation_of(arrivals: &[Arrival]) -> ConversationDetail {
    let all = changes_of(arrivals);
    let Changes { mut conversations, messages, tool_uses, subagents, .. } = all;
    assert_eq!(conversations.len(), 1, "the arrivals are of one session");
    let conversation = conversations.remove(0);
    ConversationDetail::new(conversation, messages, tool_uses, subagents, Vec::new())
}

/// The values that arrivals add up to.
///
/// # Panics
///
/// One of them cannot be applied.
#[must_use]
pub fn changes_of(arrivals: &[Arrival]) -> Changes {
    let mut all = Changes::default();
    for arrival in arrivals {
        match judge(arrival) {
            Verdict::Apply(changes) => all.absorb(changes),
            other => panic!("{} cannot be applied: {other:?}", arrival.request_id),
        }
    }
    all
}

/// Records a session in some order, in batches of any size, and compares what is read with what it should
/// be. Each seed takes a workspace of its own.
///
/// # Panics
///
/// Something differs.
pub async fn record_shuffled(store: &dyn EventStore, session: &Session, seed: u64) {
    let workspace = format!("w{seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = session.shuffled(&workspace, seed);
    while !left.is_empty() {
        let rest = left.split_off(random.random_range(1..=left.len().min(20)));
        let batch = left.into_iter().map(|arrival| {
            let verdict = judge(&arrival);
            (arrival, verdict)
        });
        store.record(batch.collect()).await.expect("record");
        left = rest;
    }
    let found = store.conversation(&workspace, &session.session_id).await.expect("read");
    let mut found = found.expect("the conversation is there");
    found.events.clear();
    assert_same(&found, &session.expected(&workspace), &format!("seed {seed}"));
}

/// Compares two conversations part by part, so that a failure says where they differ.
///
/// # Panics
///
/// They differ.
pub fn assert_same(found: &ConversationDetail, expected: &ConversationDetail, what: &str) {
    let session = &expected.conversation.session_id;
    assert_eq!(found.conversation, expected.conversation, "{what}, session {session}");
    assert_parts(&found.messages, &expected.messages, what);
    assert_parts(&found.tool_uses, &expected.tool_uses, what);
    assert_parts(&found.subagents, &expected.subagents, what);
    assert_eq!(found.usage, expected.usage, "{what}, session {session}");
}

fn assert_parts<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

type Event = (RequestId, Timestamp, Vec<u8>);

fn arrival(workspace: &str, n: u64, (id, at, payload): Event) -> Arrival {
    let mut random = [0; 10];
    random
        .copy_from_slice(&Digest::of(format!("{workspace} {id} {n}").as_bytes()).as_bytes()[..10]);
    let envelope = Envelope::new(id, at, "http://h/", Source::default(), payload);
    let received_at = at.plus(std::time::Duration::from_secs(n));
    let reception = Reception {
        event_id: uuid_v7(received_at, random),
        received_at,
        workspace: workspace.to_owned(),
        headers: BTreeMap::new(),
        ip_address: None,
    };
    admit(envelope.into(), reception).0
}

impl Session {
    /// What a reader makes of the lines of a transcript between two offsets: one slice, or two where copies end.
    fn slices(&self, file: &TranscriptFile, text: &[u8], start: usize, end: usize) -> Vec<Slice> {
        static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::default);
        let mut sidechains = Sidechains::default();
        let mut answers = Answers::default();
        for line in text[..start].split_inclusive(|byte| *byte == b'\n') {
            sidechains.look(line);
            answers.look(line);
        }
        let copied = self.copied(file, text);
        let mut slicer = Slicer::new(file, start as u64, SliceConfig::default(), &REDACTOR)
            .copied_until(copied)
            .in_sidechains(sidechains)
            .behind_answers(answers);
        let lines = text[start..end].split_inclusive(|byte| *byte == b'\n');
        let mut slices: Vec<Slice> = lines.filter_map(|line| slicer.push(line)).collect();
        slices.extend(slicer.finish());
        assert!(slices.len() <= 2, "the transcript is short");
        slices
    }

    /// Up to where a transcript has copies of lines.
    fn copied(&self, file: &TranscriptFile, text: &[u8]) -> u64 {
        let lines = || text.split_inclusive(|byte| *byte == b'\n');
        if file.agent.is_none() {
            let mut copies = Copies::default();
            for line in lines() {
                if !copies.is_over {
                    copies.look(line, &file.session_id);
                }
            }
            return copies.end;
        }
        let mut repeats = Repeats::default();
        let own = self.transcripts.iter().filter(|(file, _)| file.agent.is_none());
        own.flat_map(|(_, text)| text.split_inclusive(|byte| *byte == b'\n'))
            .for_each(|line| repeats.look(line));
        lines().take_while(|line| repeats.has(line)).map(|line| line.len() as u64).sum()
    }

    /// Slices that cover the text, each of some lines, some of which several have.
    fn random_slices(&self, file: &TranscriptFile, text: &[u8], random: &mut StdRng) -> Vec<Slice> {
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let mut all = Vec::new();
        let mut first = 0;
        while first < lines.len() {
            let next = random.random_range(first + 1..=lines.len());
            let begin = first.saturating_sub(random.random_range(0..4));
            let start: usize = lines[..begin].iter().map(|line| line.len()).sum();
            let end: usize = lines[..next].iter().map(|line| line.len()).sum();
            all.extend(self.slices(file, text, start, end));
            first = next;
        }
        all
    }
}
