//! Slices of transcripts.
//!
//! What is read from a line is stamped by the line, with its time and id, and depends on nothing that
//! another slice with the same line may not have.

mod attached;
mod content;
mod line;
mod outcome;
mod prompt;
mod system;
mod title;
mod usage;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::content::{Part, notice, parts, spoken};
use self::line::{ApiMessage, Line};
use self::outcome::Outcome;
use self::usage::Call;
use super::{Input, ProjectionError, name, not_an_object, session};
use crate::base::clock::Timestamp;
use crate::base::digest::Digest;
use crate::base::id::{self, RequestId, conversation_id};
use crate::base::limits::{MESSAGE_MAX_BLOCKS, cut};
use crate::session::conversation::{
    Block, BlockKey, Blocks, Changes, Conversation, Json, Message, MessageKey, MessageOrigin,
    Notice, ResultRank, Role, SIDECHAIN, Stamp, Stamped, Standing, Subagent, ToolResult, ToolUse,
};
use crate::session::hook::{Field, object};
use crate::session::transcript::line_type::{CLIENT_RELEASED_MILLIS, LineType};

/// Calls of this kind are those of a model that advises the one that writes.
const ADVISOR: &str = "advisor_message";

/// Stands between the API's id of a message and the kind of a call beside it.
const BESIDE: &str = "#";

#[derive(Deserialize)]
struct Slice<'a> {
    #[serde(borrow, default)]
    transcript_path: Field<'a>,
    #[serde(borrow, default)]
    agent_id: Field<'a>,
    #[serde(borrow, default)]
    agent_type: Field<'a>,
    #[serde(borrow, default)]
    agent_tool_use_id: Field<'a>,
    #[serde(borrow, default)]
    start: Field<'a>,
    #[serde(borrow, default)]
    titles: Field<'a>,
    #[serde(borrow, default)]
    lines: Field<'a>,
    #[serde(borrow, default)]
    copied: Field<'a>,
    #[serde(borrow, default)]
    sidechains: Field<'a>,
    #[serde(borrow, default)]
    answers: Field<'a>,
    #[serde(borrow, default)]
    unreadable: Field<'a>,
}

/// A place of the file that could not be read.
#[derive(Deserialize)]
struct Unreadable<'a> {
    #[serde(borrow, default)]
    digest: Field<'a>,
    #[serde(borrow, default)]
    reason: Field<'a>,
}

pub(super) fn project(input: Input<'_>) -> Result<Changes, ProjectionError> {
    let slice: Slice<'_> = object(input.body).map_err(not_an_object)?;
    let Some(session_id) = session(input, false)? else { return Ok(Changes::default()) };
    let mut reader = Reader {
        workspace: input.workspace,
        session_id,
        conversation_id: conversation_id(input.workspace, session_id),
        agent: slice.agent_id.text().map(|agent_id| Agent {
            id: name(&agent_id),
            agent_type: slice.agent_type.text().map(|text| name(&text)),
            tool_use_id: slice.agent_tool_use_id.text().map(|text| name(&text)),
        }),
        path: slice.transcript_path.text().map(String::from),
        copied: slice.copied.is_set(),
        sidechains: slice.sidechains.read().unwrap_or_default(),
        answers: slice.answers.read().unwrap_or_default(),
        conversation: None,
        messages: BTreeMap::new(),
        tool_uses: BTreeMap::new(),
        subagents: BTreeMap::new(),
        unread: BTreeMap::new(),
        titles: title::Places::new(slice.start.read(), slice.titles.read()),
        captured_at: input.at,
    };
    reader.unreadable(slice.unreadable);
    if reader.copied && reader.agent.is_some() {
        return Ok(reader.finish()); // the main thread has these lines
    }
    for raw in slice.lines.read::<Vec<&RawValue>>().unwrap_or_default() {
        if let Some(line) = Line::read(raw) {
            reader.line(&line);
        }
    }
    Ok(reader.finish())
}

/// How much of a digest tells a place of a file from others, in bytes.
const DIGEST_BYTES: usize = "sha256:".len() + 16;

/// The subagent whose transcript a slice is of.
struct Agent {
    id: String,
    agent_type: Option<String>,
    tool_use_id: Option<String>,
}

/// Collects the changes of lines.
struct Reader<'a> {
    workspace: &'a str,
    session_id: &'a str,
    conversation_id: Uuid,
    agent: Option<Agent>,
    path: Option<String>,
    /// Whether all its lines are copies of those of another session.
    copied: bool,
    /// The first lines of the sidechains by those of their lines that name no subagent.
    sidechains: BTreeMap<String, String>,
    /// Which of several answers with one id lines belong to, by the ids of the lines; the first is not told.
    answers: BTreeMap<String, u32>,
    conversation: Option<Conversation>,
    messages: BTreeMap<Uuid, Message>,
    tool_uses: BTreeMap<Uuid, ToolUse>,
    subagents: BTreeMap<Uuid, Subagent>,
    /// What of the file could not be read: the reason by the digest.
    unread: BTreeMap<String, String>,
    titles: title::Places,
    captured_at: Timestamp,
}

/// Where a line stands: its stamp and its thread.
#[derive(Clone)]
struct Place {
    stamp: Stamp,
    agent_id: Option<String>,
    prompt_id: Option<String>,
    standing: Standing,
    parent: Option<RequestId>,
}

impl Reader<'_> {
    fn line(&mut self, line: &Line<'_>) {
        let named = line.named();
        let line_type = LineType::of(&named);
        if line_type == LineType::CostState {
            return self.cost(line);
        }
        if line_type == LineType::Title {
            return self.title(line);
        }
        let Some(at) = named.written_at() else { return };
        self.titles.is_after_talk = true;
        let place = self.place(line, at);
        match line_type {
            LineType::User => self.user(line, &place),
            LineType::Assistant => self.assistant(line, &place),
            LineType::System => {
                let words = system::sentence(line).map(|text| vec![Part::Text(text.into())]);
                let notice = if words.is_some() { None } else { notice(line.content) };
                let words = words.unwrap_or_else(|| spoken(line.content));
                let blocks = self.blocks(0, words, &place);
                if blocks.is_empty() && place.agent_id.is_none() {
                    let link = self.message_of(Role::System, MessageOrigin::Link, blocks, &place);
                    self.add_message(link);
                } else {
                    self.message(Role::System, MessageOrigin::Transcript, notice, blocks, &place);
                }
                if let Some(prompt) = line.blocked_prompt() {
                    self.blocked(prompt, &place);
                }
            }
            LineType::Attached => self.attached(line, &place),
            LineType::QueuedCommand => return self.queued_command(line, place),
            LineType::Enqueue => self.waiting(line, MessageOrigin::Enqueued, &place),
            LineType::PopAll => self.waiting(line, MessageOrigin::Withdrawn, &place),
            LineType::CostState
            | LineType::Title
            | LineType::Other
            | LineType::Unknown(_)
            | LineType::Incomplete(_) => return,
        }
        self.touch(line, &place);
    }

    fn place(&self, line: &Line<'_>, at: Timestamp) -> Place {
        // Lines of the queue have no id.
        let digest = || id::slice_id(&["line", &Digest::of(line.raw).to_string()]);
        let request_id = line.named().id().unwrap_or_else(digest);
        // A subagent has a transcript of its own; in older ones its lines stand among the others.
        let agent_id = line.agent_id.text().map(|text| name(&text));
        let agent_id = agent_id.or_else(|| self.agent.as_ref().map(|agent| agent.id.clone()));
        let in_sidechain = line.is_sidechain.read() == Some(true);
        let agent_id = agent_id.or_else(|| in_sidechain.then(|| self.sidechain(&request_id)));
        let copied = self.copied || line.is_copied(self.session_id);
        Place {
            standing: Standing { main_thread: agent_id.is_none(), copied },
            stamp: Stamp { at, request_id },
            agent_id,
            prompt_id: line.prompt_id.text().map(String::from),
            parent: line.parent(),
        }
    }

    /// The subagent whose lines have the same first line as this one.
    fn sidechain(&self, line: &RequestId) -> String {
        let first = self.sidechains.get(line.as_str());
        first.map_or_else(
            || SIDECHAIN.to_owned(),
            |first| format!("{SIDECHAIN}-{}", first.split('-').next().unwrap_or_default()),
        )
    }

    /// A conversation of which a line tells. What was copied into it does not tell when it began.
    fn conversation(&self, place: &Place) -> Conversation {
        let conversation = Conversation::new(self.workspace, self.session_id, &place.stamp);
        if place.standing.copied {
            return Conversation { started_at: Timestamp::LAST, ..conversation };
        }
        conversation
    }

    /// Notes what of the file could not be read. It says nothing of when the session was.
    fn unreadable(&mut self, places: Field<'_>) {
        let places: Vec<Unreadable<'_>> = places.read().unwrap_or_default();
        for Unreadable { digest, reason } in places {
            let Some(digest) = digest.text() else { continue };
            let reason = name(&reason.text().unwrap_or_default());
            self.unread.insert(cut(&digest, DIGEST_BYTES).to_owned(), reason);
        }
    }

    /// Notes when something was, and what every line tells of its conversation and thread.
    fn touch(&mut self, line: &Line<'_>, place: &Place) {
        let stamp = &place.stamp;
        let stamped = |text: Option<String>| text.map(|text| Stamped::new(stamp, text));
        let told = |field: Field<'_>| stamped(field.text().map(String::from));
        let mut conversation = self.conversation(place);
        if let Some(agent_id) = &place.agent_id {
            let mut subagent = Subagent::new(self.conversation_id, agent_id, stamp.at);
            subagent.agent_type = line.attribution_agent.text().map(|text| name(&text));
            if let Some(agent) = self.agent.as_ref().filter(|agent| agent.id == *agent_id) {
                subagent.agent_type = agent.agent_type.clone().max(subagent.agent_type);
                subagent.tool_use_id.clone_from(&agent.tool_use_id);
            }
            self.add_subagent(subagent);
        } else {
            conversation.project_path = told(line.cwd);
            conversation.git_branch = told(line.git_branch);
            conversation.version = told(line.version);
        }
        if self.agent.is_none() && place.agent_id.is_none() {
            conversation.transcript_path = stamped(self.path.clone());
        }
        self.add_conversation(conversation);
    }

    /// What the client says that the session costs. The line has neither time nor id.
    fn cost(&mut self, line: &Line<'_>) {
        let Some((at, cost)) = line.named().started_at().zip(line.cost()) else { return };
        // The stamp is not kept: the conversation takes only the time from it.
        let stamp = Stamp { at, request_id: id::slice_id(&["cost"]) };
        let conversation = Conversation::new(self.workspace, self.session_id, &stamp);
        self.add_conversation(Conversation { client_cost: Some(cost), ..conversation });
    }

    fn assistant(&mut self, line: &Line<'_>, place: &Place) {
        let Some(message) = line.message.object::<ApiMessage<'_>>() else { return };
        let parts = parts(message.content);
        let model = message.model.text();
        if model.as_deref() == Some("<synthetic>") || line.is_api_error_message.read() == Some(true)
        {
            // The client itself speaks, of an error of the API.
            let blocks = self.blocks(0, parts, place);
            return self.message(Role::System, MessageOrigin::Transcript, None, blocks, place);
        }
        let model = model.map(|model| name(&model));
        let number = self.answers.get(place.stamp.request_id.as_str());
        let api_id = line.api_id(&message, number.copied());
        let stamp = || MessageKey::Stamp(place.stamp.request_id.clone());
        let key = api_id.clone().map_or_else(stamp, MessageKey::Api);
        for part in &parts {
            if let Part::ToolUse(call) = part {
                let tool_use = ToolUse {
                    parameters: call.input.json().map(|json| Stamped::new(&place.stamp, json)),
                    ..self
                        .tool_use(&call.id, Some(&place.stamp.request_id), place)
                        .asked_by(key.clone())
                };
                let tool = call.name.as_deref().map(str::to_owned);
                let tool_name = tool.unwrap_or_else(|| tool_use.tool_name.clone());
                self.add_tool_use(ToolUse { tool_name, ..tool_use });
            }
        }
        for part in &parts {
            if let Part::ToolResult(result) = part {
                // The API runs some tools itself: their results stand among the model's words.
                self.tool_result(line, result, None, place);
            }
        }
        if let (Some(model), None) = (&model, &place.agent_id) {
            let mut conversation = self.conversation(place);
            conversation.model = Some(Stamped::new(&place.stamp, name(model)));
            self.add_conversation(conversation);
        }
        let model = message.priced_model().map(|model| name(&model));
        let index = line.api_block_index.read().unwrap_or(0);
        if let Some(id) = &api_id {
            self.calls_beside(&message, id, model.as_deref(), (index, &parts), place);
        }
        let block_count = block_count(index, &parts);
        let blocks = self.blocks(index, parts, place);
        if api_id.is_none() && blocks.is_empty() {
            return;
        }
        let content = Stamped::new(&place.stamp, String::new());
        let origin = MessageOrigin::Transcript;
        let empty = Message::new(self.conversation_id, api_id, Role::Assistant, origin, content);
        self.add_message(
            Message {
                model,
                usage: message.usage(),
                stop_reason: message.ended_early_by(),
                block_count,
                client_cost: line.message_cost(),
                agent_id: place.agent_id.clone(),
                prompt_id: place.prompt_id.clone(),
                standing: place.standing,
                parents: place.parent.iter().filter(|_| index == 0).cloned().collect(),
                ..empty
            }
            .with_blocks(blocks),
        );
    }

    /// The calls of models beside the message `id`: a message each, of the same thread. That of an advisor has what it said.
    fn calls_beside(
        &mut self,
        message: &ApiMessage<'_>,
        id: &str,
        own_model: Option<&str>,
        (index, parts): (u32, &[Part<'_>]),
        place: &Place,
    ) {
        let mut advice = self.advice(index, parts, place);
        let mut calls = message.calls_beside();
        if !advice.is_empty() && calls.iter().all(|call| call.kind != ADVISOR) {
            calls.push(Call { kind: ADVISOR.to_owned(), model: None, usage: None });
        }
        for (n, call) in calls.iter().enumerate() {
            let before = calls[..n].iter().filter(|other| other.kind == call.kind).count();
            let number = if before == 0 { String::new() } else { format!("-{}", before + 1) };
            let api_id = name(&[id, BESIDE, &call.kind, &number].concat());
            let content = Stamped::new(&place.stamp, String::new());
            let (of, origin) = (self.conversation_id, MessageOrigin::Transcript);
            let empty = Message::new(of, Some(api_id), Role::Assistant, origin, content);
            let is_advice = call.kind == ADVISOR && before == 0;
            let blocks = if is_advice { std::mem::take(&mut advice) } else { Blocks::default() };
            let own_model = own_model.filter(|_| call.usage.is_some());
            self.add_message(
                Message {
                    model: call.model.as_deref().or(own_model).map(name),
                    usage: call.usage,
                    agent_id: place.agent_id.clone(),
                    prompt_id: place.prompt_id.clone(),
                    ..empty
                }
                .with_blocks(blocks),
            );
        }
    }

    /// What an advisor said, as blocks of its message.
    fn advice(&self, index: u32, parts: &[Part<'_>], place: &Place) -> Blocks {
        let block = |(n, part): (u32, &Part<'_>)| {
            let Part::Advice(text) = part else { return None };
            let Stamp { at, request_id } = place.stamp.clone();
            let key = BlockKey { at, index, line: request_id, n };
            (!text.is_empty()).then(|| (key, Block::Text { text: text.to_string() }))
        };
        (0..).zip(parts).filter_map(block).collect()
    }

    fn tool_result(
        &mut self,
        line: &Line<'_>,
        result: &content::ToolResult<'_>,
        structure: Option<Json>,
        place: &Place,
    ) {
        let started = structure.as_ref().and_then(super::hook::subagent_of);
        if let Some((agent_id, agent_type)) = started {
            let subagent = Subagent::new(self.conversation_id, &agent_id, place.stamp.at);
            let tool_use_id = Some(name(&result.id));
            self.add_subagent(Subagent { agent_type, tool_use_id, ..subagent });
        }
        let Outcome { status, is_by_person, words } = Outcome::of(line, result);
        if !words.is_empty() {
            self.answer(&result.id, words, place);
        }
        let found = ToolResult {
            rank: ResultRank::Transcript,
            stamp: place.stamp.clone(),
            status,
            response: structure.or_else(|| result.response()),
            duration_ms: None,
        };
        let tool_use = self.tool_use(&result.id, line.caller().as_ref(), place);
        let tool_use = ToolUse { is_by_person, ..tool_use };
        self.add_tool_use(ToolUse { result: Some(found), ..tool_use });
    }

    /// What the person said in answer to the tool use of this id.
    fn answer(&mut self, tool_use_id: &str, words: String, place: &Place) {
        let request_id = id::slice_id(&["words", place.stamp.request_id.as_str(), tool_use_id]);
        let parent = Some(place.stamp.request_id.clone());
        let stamp = Stamp { request_id, ..place.stamp.clone() };
        let place = Place { stamp, parent, ..place.clone() };
        let blocks = self.blocks(0, vec![Part::Text(words.into())], &place);
        self.message(Role::User, MessageOrigin::Answer, None, blocks, &place);
    }

    /// A tool use that the transcript names, and the line that asked for it.
    fn tool_use(&self, id: &str, caller: Option<&RequestId>, place: &Place) -> ToolUse {
        let key = Some(id.to_owned());
        let mut tool_use = ToolUse::new(self.conversation_id, key, &place.stamp);
        if let Some(caller) = caller {
            tool_use = tool_use.called_by(caller.clone());
        }
        tool_use.agent_id.clone_from(&place.agent_id);
        tool_use.prompt_id.clone_from(&place.prompt_id);
        tool_use.seen.transcript = true;
        tool_use.standing = place.standing;
        tool_use
    }

    /// The parts of a line that are blocks of its message.
    fn blocks(&self, index: u32, parts: Vec<Part<'_>>, place: &Place) -> Blocks {
        let block = |(n, part): (u32, Part<'_>)| {
            let Stamp { at, request_id } = place.stamp.clone();
            Some((BlockKey { at, index, line: request_id, n }, part.into_block()?))
        };
        (0..).zip(parts).filter_map(block).collect()
    }

    /// A message of these blocks; none where there are none.
    fn message(
        &mut self,
        role: Role,
        origin: MessageOrigin,
        notice: Option<Notice>,
        blocks: Blocks,
        place: &Place,
    ) {
        if !blocks.is_empty() {
            let message = self.message_of(role, origin, blocks, place);
            self.add_message(Message { notice, ..message });
        }
    }

    /// The message that the line is.
    fn message_of(
        &self,
        role: Role,
        origin: MessageOrigin,
        blocks: Blocks,
        place: &Place,
    ) -> Message {
        let content = Stamped::new(&place.stamp, String::new());
        let empty = Message::new(self.conversation_id, None, role, origin, content);
        let (agent_id, prompt_id) = (place.agent_id.clone(), place.prompt_id.clone());
        let standing = place.standing;
        let parents = place.parent.iter().cloned().collect();
        Message { agent_id, prompt_id, standing, parents, ..empty }.with_blocks(blocks)
    }

    fn add_conversation(&mut self, came: Conversation) {
        match &mut self.conversation {
            Some(mine) => mine.merge(came),
            None => self.conversation = Some(came),
        }
    }

    fn add_message(&mut self, came: Message) {
        add(&mut self.messages, came.id, came, Message::merge);
    }

    fn add_tool_use(&mut self, came: ToolUse) {
        add(&mut self.tool_uses, came.id, came, ToolUse::merge);
    }

    fn add_subagent(&mut self, came: Subagent) {
        add(&mut self.subagents, came.id, came, Subagent::merge);
    }

    fn finish(mut self) -> Changes {
        if !self.unread.is_empty() {
            let unreadable = std::mem::take(&mut self.unread);
            // It tells of no time: any other is earlier than the one, and later than the other.
            let stamp = Stamp {
                at: Timestamp::from_millis(CLIENT_RELEASED_MILLIS),
                request_id: id::slice_id(&["unreadable"]),
            };
            let nothing = Conversation::new(self.workspace, self.session_id, &stamp);
            let started_at = Timestamp::LAST;
            self.add_conversation(Conversation { started_at, unreadable, ..nothing });
        }
        let mut changes = Changes {
            conversations: self.conversation.into_iter().collect(),
            messages: self.messages.into_values().collect(),
            tool_uses: self.tool_uses.into_values().collect(),
            subagents: self.subagents.into_values().collect(),
            ..Changes::default()
        };
        changes.answer.conversation_id = Some(self.conversation_id);
        changes
    }
}

/// How many blocks a message has, where those are more than are kept.
fn block_count(index: u32, parts: &[Part<'_>]) -> Option<u32> {
    let count = u32::try_from(parts.len()).ok()?.checked_add(index)?;
    (count as usize > MESSAGE_MAX_BLOCKS).then_some(count)
}

fn add<T>(all: &mut BTreeMap<Uuid, T>, id: Uuid, came: T, merge: fn(&mut T, T)) {
    match all.get_mut(&id) {
        Some(mine) => merge(mine, came),
        None => {
            all.insert(id, came);
        }
    }
}

impl Part<'_> {
    fn into_block(self) -> Option<Block> {
        match self {
            Self::Text(text) | Self::Client(text) => {
                let is_blank = text.trim().is_empty();
                (!is_blank).then(|| Block::Text { text: text.into_owned() })
            }
            Self::Thinking(text) => Some(Block::Thinking { text: text.into_owned() }),
            Self::ToolUse(call) => Some(Block::ToolUse { tool_use_id: call.id.into_owned() }),
            Self::ToolResult(_) | Self::Advice(_) => None,
            Self::Image(media_type) => Some(Block::Image { media_type }),
            Self::Other(kind) => Some(Block::Other { kind: name(&kind) }),
        }
    }
}
