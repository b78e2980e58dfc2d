//! Conversations: what runs, what ran last, and what each took.

use std::collections::HashMap;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{
    ConversationCursor, ConversationFilter, ConversationSummary, Page, UsageGroups, UsageTotal,
    UsageTotals, read_usage,
};
use arrakis_core::session::conversation::ConversationState;
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Asked, Context, Reader, answer, link};
use crate::server::ServerState;
use crate::server::dashboard::shell::{Html, Place, Shell, money, short};
use crate::server::dashboard::viewer::Viewer;
use crate::server::dashboard::zone;
use crate::server::error::HttpError;

/// Rows of a page.
const LIMIT: usize = 50;

/// What may be asked. A field that is left empty in the form asks for nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server::dashboard) struct Wanted {
    project: String,
    since: String,
    until: String,
    after: String,
}

/// What the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct Conversations {
    /// What was asked for, without what was left empty.
    filter: Vec<(&'static str, String)>,
    conversations: Vec<Row>,
    next: Option<ConversationCursor>,
}

/// A conversation of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    #[serde(flatten)]
    summary: ConversationSummary,
    began_at: Timestamp,
    duration_ms: u64,
    state: &'static str,
    /// What it took with its subagents.
    used: UsageTotal,
    /// What it took without them.
    own: UsageTotal,
}

/// `GET /conversations`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    asked: Asked<Wanted>,
) -> Response {
    let page = |shell, view| ConversationsPage { shell, view };
    answer(&state, &viewer, asked, Place::Conversations, view, page).await
}

/// `GET /api/v1/conversations`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    asked: Asked<Wanted>,
) -> Response {
    super::twin(&state, &reader, asked, view).await
}

async fn view(context: &Context<'_>, wanted: Wanted) -> Result<Conversations, HttpError> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let filter = ConversationFilter {
        project: given(&wanted.project),
        since: context.moment("since", &wanted.since)?,
        until: context.moment("until", &wanted.until)?,
        ..ConversationFilter::new(context.workspace)
    };
    let after = given(&wanted.after).map(|after| after.parse()).transpose();
    let after: Option<ConversationCursor> = after.map_err(|error| {
        HttpError::new(StatusCode::BAD_REQUEST, "invalid_filter", format!("after: {error}"))
    })?;
    let page = Page { after, ..Page::first(LIMIT) };
    let found = context.read(context.inner.store.conversations(filter, page)).await?;
    let used = used(context, &found.conversations).await?;
    let row = |summary: ConversationSummary| {
        let conversation = &summary.conversation;
        let totals = used.get(&conversation.id).cloned().unwrap_or_default();
        let state = match conversation.state(context.now) {
            ConversationState::Open => "open",
            ConversationState::Ended(_) => "ended",
            ConversationState::Abandoned(_) => "abandoned",
        };
        Row {
            began_at: conversation.began_at(),
            duration_ms: conversation.duration_ms(),
            state,
            used: totals.total,
            own: totals.own,
            summary,
        }
    };
    let filter = [("project", wanted.project), ("since", wanted.since), ("until", wanted.until)];
    let filter = filter.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
    let conversations = found.conversations.into_iter().map(row).collect();
    Ok(Conversations { filter, conversations, next: found.next })
}

/// What each of these conversations took.
async fn used(
    context: &Context<'_>,
    all: &[ConversationSummary],
) -> Result<HashMap<Uuid, UsageTotals>, HttpError> {
    let first = all.iter().map(|one| one.conversation.began_at()).min();
    let Some(first) = first else { return Ok(HashMap::new()) };
    let by = UsageGroups { conversation: true, subagent: true, ..UsageGroups::default() };
    let ever = (first, Timestamp::from_micros(i64::MAX));
    let sums = read_usage(context.rollups()?, context.workspace, ever, by);
    let mut used = HashMap::<Uuid, UsageTotals>::new();
    for sum in context.read(sums).await? {
        used.entry(sum.conversation_id.unwrap_or_default()).or_default().add(&sum);
    }
    Ok(used)
}

#[derive(Template)]
#[template(path = "conversations.html")]
struct ConversationsPage {
    shell: Shell,
    view: Conversations,
}

impl ConversationsPage {
    fn of(&self, name: &str) -> &str {
        let found = self.view.filter.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value)
    }

    fn older(&self) -> Option<String> {
        let next = self.view.next?.to_string();
        let filter = self.view.filter.iter().map(|(name, value)| (*name, value.as_str()));
        Some(link("/conversations", &filter.chain([("after", next.as_str())]).collect::<Vec<_>>()))
    }

    fn only(&self, project: &str) -> String {
        link("/conversations", &[("project", project)])
    }
}

impl Row {
    fn class(&self) -> &'static str {
        match self.state {
            "open" => "ok",
            _ => "idle",
        }
    }

    fn title(&self) -> &str {
        let title = self.summary.conversation.title.as_ref();
        title.map_or("(no prompt yet)", |title| title.value.as_str())
    }

    fn project(&self) -> &str {
        self.summary.conversation.project_path.as_ref().map_or("", |path| path.value.as_str())
    }

    /// The last part of the project's path.
    fn folder(&self) -> &str {
        let path = self.project().trim_end_matches(['/', '\\']);
        path.rsplit(['/', '\\']).next().unwrap_or(path)
    }

    fn model(&self) -> &str {
        let model = self.summary.conversation.model.as_ref();
        let model = model.map_or("", |model| model.value.as_str());
        model.strip_prefix("claude-").unwrap_or(model)
    }

    fn cost(&self) -> Html {
        let more = if self.used.has_unknown_price { "&gt;" } else { "" };
        askama::filters::Safe(match self.used.total_tokens {
            0 => String::new(),
            _ => format!("{more}{}", money(self.used.cost)),
        })
    }

    fn tokens(&self) -> String {
        match self.used.total_tokens {
            0 => String::new(),
            n => short(n),
        }
    }

    fn lasted(&self) -> String {
        match self.duration_ms {
            0 => String::new(),
            ms => zone::duration(ms),
        }
    }
}
