//! A conversation to read: its prompts, and what became of each, a page of turns at a time.

mod node;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::reading::thread::{Item, Thread, is_prompt};
use arrakis_core::record::reading::words;
use arrakis_core::record::store::ConversationDetail;
use arrakis_core::session::conversation::{
    Conversation, ConversationState, Message, Role, ToolStatus, UsageReport,
};
use arrakis_core::session::price;
use arrakis_core::session::usage::Usd;
use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Asked, Context, Reader, answer, link};
use crate::server::ServerState;
use crate::server::dashboard::chart;
use crate::server::dashboard::shell::{Html, Place, Shell, money, short};
use crate::server::dashboard::viewer::{Failure, Viewer, see_other};
use crate::server::dashboard::zone;
use crate::server::error::HttpError;
use node::{Node, Nodes};

/// Turns of a page.
const TURNS: usize = 30;

/// Characters of a prompt in the outline.
const OUTLINE_CHARS: usize = 90;

/// What may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server::dashboard) struct Wanted {
    /// The first turn that is shown; the last page where none is named.
    turn: Option<usize>,
    view: Mode,
}

/// How much of each turn is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Everything.
    #[default]
    Full,
    /// Prompts and answers.
    Focus,
    /// Prompts, and how much became of them.
    Skim,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Full, Self::Focus, Self::Skim];

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Focus => "focus",
            Self::Skim => "skim",
        }
    }
}

/// What the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct Reading {
    conversation: Conversation,
    state: String,
    began_at: Timestamp,
    duration_ms: u64,
    usage: UsageReport,
    /// Whether hooks have told of the session: then what they have not told of is marked.
    has_hooks: bool,
    /// What hooks or transcript lack.
    gaps: Vec<String>,
    messages: u64,
    tool_uses: u64,
    /// Every prompt.
    outline: Vec<Prompt>,
    /// The number of the first turn that is shown.
    first: usize,
    turns: Vec<Turn>,
    mode: Mode,
    /// Tokens of the prompt of each answer of the main thread: how full the context was.
    context: Vec<u64>,
}

/// A prompt, in the outline.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Prompt {
    /// The number of its turn.
    turn: usize,
    at: Timestamp,
    /// How it begins.
    words: String,
    tool_uses: u64,
    failed: u64,
    /// What its turn cost in the main thread.
    cost: Usd,
    /// Whether a later prompt has replaced it.
    replaced: bool,
}

/// A prompt, and what came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Turn {
    number: usize,
    prompt: Prompt,
    nodes: Vec<Node>,
}

/// `GET /c/{session}`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    Path(session): Path<String>,
    asked: Asked<Wanted>,
) -> Response {
    let view = async |context: &Context<'_>, wanted| view(context, &session, wanted).await;
    let page = |shell, view| ReadingPage { shell, view };
    answer(&state, &viewer, asked, Place::Conversations, view, page).await
}

/// `GET /api/v1/c/{session}`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    Path(session): Path<String>,
    asked: Asked<Wanted>,
) -> Response {
    let view = async |context: &Context<'_>, wanted| view(context, &session, wanted).await;
    super::twin(&state, &reader, asked, view).await
}

/// `GET /c/{session}/m/{id}`: leads to the page and the place of a message or a tool use.
pub(in crate::server::dashboard) async fn place(
    State(state): State<ServerState>,
    viewer: Viewer,
    Path((session, id)): Path<(String, Uuid)>,
) -> Response {
    let inner = &*state.0;
    let now = inner.clock.now();
    let context =
        Context { inner, workspace: &viewer.principal.workspace, zone: viewer.zone(), now };
    let found = async {
        let detail = found(&context, &session).await?;
        let main = Thread::of(&detail);
        let turns = turns(&main);
        let at = turns.iter().position(|items| items.iter().any(|item| node::holds(item, id)));
        at.ok_or_else(|| {
            let message = "this message is not in the conversation any more, or not shown in it";
            HttpError::new(StatusCode::NOT_FOUND, "not_found", message)
        })
    };
    match found.await {
        Ok(turn) => {
            let first = (turn / TURNS * TURNS).to_string();
            see_other(&format!("{}#m-{id}", link(&path(&session), &[("turn", &first)])))
        }
        Err(error) => Failure::seen_by(error, &viewer, now).into_response(),
    }
}

/// The path of a session's page.
fn path(session: &str) -> String {
    let session: String = url::form_urlencoded::byte_serialize(session.as_bytes()).collect();
    // In a path a space is not a plus.
    format!("/c/{}", session.replace('+', "%20"))
}

async fn found(context: &Context<'_>, session: &str) -> Result<ConversationDetail, HttpError> {
    let found = context.read(context.inner.store.conversation(context.workspace, session)).await?;
    found.ok_or_else(|| {
        let message = "there is no such conversation in this workspace; it may have been pruned, as the retention says";
        HttpError::new(StatusCode::NOT_FOUND, "not_found", message)
    })
}

/// The items of the main thread by turn: what stands before the first prompt belongs to it.
fn turns<'a, 'b>(main: &'b Thread<'a>) -> Vec<&'b [Item<'a>]> {
    let begins = |item: &Item<'_>| matches!(item, Item::Message(message, _) if is_prompt(message));
    let mut starts: Vec<usize> =
        (0..main.items.len()).filter(|at| begins(&main.items[*at])).collect();
    match starts.first_mut() {
        Some(first) => *first = 0,
        None if main.items.is_empty() => {}
        None => starts.push(0),
    }
    let ends = starts.iter().skip(1).copied().chain([main.items.len()]);
    starts.iter().zip(ends).map(|(start, end)| &main.items[*start..end]).collect()
}

async fn view(context: &Context<'_>, session: &str, wanted: Wanted) -> Result<Reading, HttpError> {
    let detail = found(context, session).await?;
    let main = Thread::of(&detail);
    let all = turns(&main);
    let last_page = all.len().saturating_sub(1) / TURNS * TURNS;
    let first = wanted.turn.map_or(last_page, |turn| turn.min(all.len().saturating_sub(1)));
    let outline: Vec<Prompt> =
        all.iter().enumerate().map(|(turn, items)| prompt(turn, items, &detail)).collect();
    let shown = all.iter().enumerate().skip(first).take(TURNS);
    let turns = shown.map(|(number, items)| Turn {
        number,
        prompt: outline[number].clone(),
        nodes: items.iter().flat_map(|item| node::nodes(item, wanted.view)).collect(),
    });
    let answers = detail.messages.iter().filter(|one| one.agent_id.is_none());
    let conversation = &detail.conversation;
    let state = match conversation.state(context.now) {
        ConversationState::Open => "open",
        ConversationState::Ended(_) => "ended",
        ConversationState::Abandoned(_) => "abandoned",
    };
    Ok(Reading {
        state: state.to_owned(),
        began_at: conversation.began_at(),
        duration_ms: conversation.duration_ms(),
        has_hooks: detail.events.iter().any(|event| event.event_type != "Transcript"),
        gaps: detail.reconciliation().gaps.iter().map(ToString::to_string).collect(),
        messages: detail.messages.len() as u64,
        tool_uses: detail.tool_uses.len() as u64,
        first,
        turns: turns.collect(),
        mode: wanted.view,
        context: answers.filter_map(|one| one.usage).map(|usage| usage.prompt_tokens()).collect(),
        outline,
        usage: detail.usage.clone(),
        conversation: detail.conversation,
    })
}

fn prompt(turn: usize, items: &[Item<'_>], detail: &ConversationDetail) -> Prompt {
    let said = items.iter().find_map(|item| match item {
        Item::Message(message, _) if is_prompt(message) => Some(*message),
        _ => None,
    });
    let words = said.map_or("", |message| message.content.value.as_str());
    let words = words::fit(&words::one_line(words), OUTLINE_CHARS);
    let tools: Vec<_> = items.iter().flat_map(node::tool_uses).collect();
    let failed = tools.iter().filter(|one| one.status() == ToolStatus::Failed).count();
    let cost = items.iter().filter_map(|item| match item {
        Item::Message(message, _) => cost(message),
        _ => None,
    });
    Prompt {
        turn,
        at: items.first().map_or(Timestamp::EPOCH, Item::at),
        words,
        tool_uses: tools.len() as u64,
        failed: failed as u64,
        cost: cost.fold(Usd::default(), |sum, one| sum + one),
        replaced: said
            .is_some_and(|message| detail.replaced.iter().any(|part| part.prompt_id == message.id)),
    }
}

/// What an answer cost, where its price is known and it counts here.
fn cost(message: &Message) -> Option<Usd> {
    let usage = message.usage.filter(|_| !message.standing.copied)?;
    if message.role != Role::Assistant {
        return None;
    }
    let model = message.model.as_deref().unwrap_or_default();
    price::table().cost(model, message.content.stamp.at, &usage)
}

#[derive(Template)]
#[template(path = "reading.html")]
struct ReadingPage {
    shell: Shell,
    view: Reading,
}

impl ReadingPage {
    fn title(&self) -> &str {
        let title = self.view.conversation.title.as_ref();
        title.map_or("(no prompt yet)", |title| title.value.as_str())
    }

    fn modes(&self) -> [Mode; 3] {
        Mode::ALL
    }

    /// This page, in another mode or from another turn on.
    fn to(&self, mode: &Mode, turn: &usize) -> String {
        let turn = turn.to_string();
        let mode = if *mode == Mode::Full { "" } else { mode.name() };
        link(&path(&self.view.conversation.session_id), &[("turn", &turn), ("view", mode)])
    }

    /// The place of a turn: on this page, or on another.
    fn turn(&self, number: &usize) -> String {
        let shown = self.view.first..self.view.first + self.view.turns.len();
        if shown.contains(number) {
            return format!("#t-{number}");
        }
        format!("{}#t-{number}", self.to(&self.view.mode, &(number / TURNS * TURNS)))
    }

    fn earlier(&self) -> Option<String> {
        let first = self.view.first;
        (first > 0).then(|| self.to(&self.view.mode, &first.saturating_sub(TURNS)))
    }

    fn later(&self) -> Option<String> {
        let next = self.view.first + self.view.turns.len();
        (next < self.view.outline.len()).then(|| self.to(&self.view.mode, &next))
    }

    /// Whether a turn is the first of its day on this page.
    fn is_new_day(&self, turn: &Turn) -> bool {
        let zone = &self.shell.zone;
        let before = turn.number.checked_sub(self.view.first + 1);
        let before = before.and_then(|at| self.view.turns.get(at));
        before.is_none_or(|before| zone.day(before.prompt.at) != zone.day(turn.prompt.at))
    }

    fn day(&self, turn: &Turn) -> String {
        self.shell.zone.long_day(turn.prompt.at)
    }

    fn nodes<'a>(&'a self, nodes: &'a [Node]) -> Html {
        Nodes { shell: &self.shell, nodes, has_hooks: self.view.has_hooks }.html()
    }

    fn cost(&self) -> String {
        let more = if self.view.usage.has_unknown_price { "more than " } else { "" };
        format!("{more}{}", money(self.view.usage.cost))
    }

    fn spent(&self, cost: &Usd) -> String {
        if cost.as_nanos() == 0 { String::new() } else { money(*cost) }
    }

    fn tokens(&self, n: &u64) -> String {
        short(*n)
    }

    fn lasted(&self) -> String {
        zone::duration(self.view.duration_ms)
    }

    fn client_cost(&self) -> Option<String> {
        self.view.conversation.client_cost.as_ref().map(|cost| money(cost.total))
    }

    fn context(&self) -> Option<Html> {
        (self.view.context.len() > 1)
            .then(|| chart::line(&self.view.context, "Tokens of each prompt"))
    }

    fn fullest(&self) -> String {
        short(self.view.context.iter().copied().max().unwrap_or(0))
    }
}
