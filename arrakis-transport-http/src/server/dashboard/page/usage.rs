//! Usage and cost: what was used in a time, and what that costs, by day, project, model and machine.

use std::collections::{BTreeMap, HashMap};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::{
    ConversationFilter, Page, UsageGroups, UsageSum, UsageTotal, UsageTotals, read_usage,
};
use arrakis_core::session::conversation::Conversation;
use arrakis_core::session::price;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Asked, Context, Reader, answer, link};
use crate::server::ServerState;
use crate::server::dashboard::chart::{Column, Columns, meter};
use crate::server::dashboard::shell::{Html, Place, Shell, money, short};
use crate::server::dashboard::viewer::Viewer;
use crate::server::error::HttpError;

/// Models that have a colour of their own; the others share one.
const COLOURS: usize = 5;

/// Rows of each table.
const LISTED: usize = 12;

/// Conversations that are read at a time.
const PAGE: usize = 1000;

/// What may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server::dashboard) struct Wanted {
    #[serde(default)]
    w: Window,
}

/// The time that is looked at, by days of the reader's zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Window {
    #[serde(rename = "today")]
    Today,
    #[serde(rename = "7d")]
    Week,
    #[default]
    #[serde(rename = "30d")]
    Days,
    #[serde(rename = "month")]
    Month,
    #[serde(rename = "90d")]
    Quarter,
}

impl Window {
    const ALL: [Self; 5] = [Self::Today, Self::Week, Self::Days, Self::Month, Self::Quarter];

    fn name(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::Week => "7d",
            Self::Days => "30d",
            Self::Month => "month",
            Self::Quarter => "90d",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::Week => "in the last 7 days",
            Self::Days => "in the last 30 days",
            Self::Month => "this month",
            Self::Quarter => "in the last 90 days",
        }
    }

    fn from(self, context: &Context<'_>) -> Timestamp {
        let day = |before| context.zone.start_of_day(context.now, before);
        match self {
            Self::Today => day(0),
            Self::Week => day(6),
            Self::Days => day(29),
            Self::Month => context.zone.start_of_month(context.now),
            Self::Quarter => day(89),
        }
    }
}

/// What the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct UsageView {
    window: Window,
    from: Timestamp,
    /// The date of the prices.
    prices: String,
    totals: UsageTotals,
    /// Days of the reader's zone, each with what each model took.
    days: Vec<Day>,
    /// By cost, dearest first.
    models: Vec<Named>,
    projects: Vec<Named>,
    hosts: Vec<Named>,
    sessions: Vec<Named>,
}

#[derive(Debug, Serialize)]
struct Day {
    day: String,
    models: BTreeMap<String, UsageTotal>,
}

/// What something took.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    /// A model, a path, a host or a session id; empty where that is not known.
    name: String,
    /// What people call it, where that is something else.
    label: Option<String>,
    #[serde(flatten)]
    used: UsageTotal,
}

/// `GET /usage`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    asked: Asked<Wanted>,
) -> Response {
    let page = |shell, view| UsagePage { shell, view };
    answer(&state, &viewer, asked, Place::Usage, view, page).await
}

/// `GET /api/v1/usage`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    asked: Asked<Wanted>,
) -> Response {
    super::twin(&state, &reader, asked, view).await
}

async fn view(context: &Context<'_>, wanted: Wanted) -> Result<UsageView, HttpError> {
    let from = wanted.w.from(context);
    let by = UsageGroups { bucket: true, conversation: true, subagent: true };
    let time = (from, Timestamp::from_micros(i64::MAX));
    let sums = context.read(read_usage(context.rollups()?, context.workspace, time, by)).await?;
    let known = conversations(context, from).await?;
    let of = |sum: &UsageSum| sum.conversation_id.and_then(|id| known.get(&id));
    let mut totals = UsageTotals::default();
    let mut days = BTreeMap::<String, BTreeMap<String, UsageTotal>>::new();
    let mut at = from;
    while at <= context.now {
        days.entry(context.zone.day(at)).or_default();
        at = at.plus(std::time::Duration::from_secs(12 * 3600));
    }
    for sum in &sums {
        totals.add(sum);
        let day = sum.at.map(|at| context.zone.day(at)).unwrap_or_default();
        days.entry(day).or_default().entry(sum.model.clone()).or_default().add(sum);
    }
    let path = |one: &Conversation| one.project_path.as_ref().map(|path| path.value.clone());
    let title = |id: &str| {
        let one = known.values().find(|one| one.session_id == id)?;
        one.title.as_ref().map(|title| title.value.clone())
    };
    let mut sessions = named(&sums, |sum| of(sum).map(|one| one.session_id.clone()));
    for session in &mut sessions {
        session.label = title(&session.name);
    }
    Ok(UsageView {
        window: wanted.w,
        from,
        prices: price::table().date().to_owned(),
        models: named(&sums, |sum| Some(sum.model.clone())),
        projects: named(&sums, |sum| of(sum).and_then(path)),
        hosts: named(&sums, |sum| of(sum).and_then(|one| one.host.clone())),
        sessions,
        totals,
        days: days.into_iter().map(|(day, models)| Day { day, models }).collect(),
    })
}

/// The conversations that anything happened in since.
async fn conversations(
    context: &Context<'_>,
    since: Timestamp,
) -> Result<HashMap<Uuid, Conversation>, HttpError> {
    let filter =
        ConversationFilter { since: Some(since), ..ConversationFilter::new(context.workspace) };
    let mut known = HashMap::new();
    let mut page = Page::first(PAGE);
    loop {
        let store = &context.inner.store;
        let part = context.read(store.conversations(filter.clone(), page)).await?;
        let all = part.conversations.into_iter().map(|one| one.conversation);
        known.extend(all.map(|one| (one.id, one)));
        let Some(next) = part.next else { return Ok(known) };
        page.after = Some(next);
    }
}

fn named(sums: &[UsageSum], name: impl Fn(&UsageSum) -> Option<String>) -> Vec<Named> {
    let mut by_name = BTreeMap::<String, UsageTotal>::new();
    for sum in sums {
        by_name.entry(name(sum).unwrap_or_default()).or_default().add(sum);
    }
    let all = by_name.into_iter().filter(|(_, used)| used.total_tokens > 0);
    let mut all: Vec<_> = all.map(|(name, used)| Named { name, label: None, used }).collect();
    all.sort_by_key(|one| std::cmp::Reverse((one.used.cost, one.used.total_tokens)));
    all.truncate(LISTED);
    all
}

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    shell: Shell,
    view: UsageView,
}

impl UsagePage {
    fn windows(&self) -> [Window; 5] {
        Window::ALL
    }

    /// The class of a model's colour.
    fn colour(&self, model: &str) -> &'static str {
        let at = self.view.models.iter().position(|one| one.name == model);
        const CLASSES: [&str; COLOURS] = ["c1", "c2", "c3", "c4", "c5"];
        at.and_then(|at| CLASSES.get(at)).copied().unwrap_or("c0")
    }

    fn chart(&self) -> Html {
        let column = |day: &Day| Column {
            name: day.day.clone(),
            parts: self
                .view
                .models
                .iter()
                .filter_map(|model| {
                    let used = day.models.get(&model.name)?;
                    // Charts have whole numbers: hundredths of a cent.
                    let value = used.cost.as_nanos() / 100_000;
                    Some((self.colour(&model.name), plain(&model.name).to_owned(), value))
                })
                .collect(),
            before: None,
            link: None,
        };
        let days = &self.view.days;
        let axis = |at: usize| days.get(at).map_or_else(String::new, |day| day.day.clone());
        let columns = Columns {
            label: format!("Cost {}", self.view.window.words()),
            columns: days.iter().map(column).collect(),
            axis: [axis(0), axis(days.len() / 2), "today".to_owned()],
            show: |value| {
                money(arrakis_core::session::usage::Usd::from_nanos(value.saturating_mul(100_000)))
            },
        };
        columns.svg()
    }

    fn share(&self, one: &Named) -> Html {
        let whole = self.view.totals.total.cost.as_nanos();
        meter(one.used.cost.as_nanos(), whole, "accent")
    }

    fn cost(&self, used: &UsageTotal) -> Html {
        let more = if used.has_unknown_price { "&gt;" } else { "" };
        askama::filters::Safe(format!("{more}{}", money(used.cost)))
    }

    fn tokens(&self, n: &u64) -> String {
        short(*n)
    }

    /// The part of prompts that came from the cache.
    fn cached(&self) -> String {
        let usage = &self.view.totals.total.usage;
        let prompts = usage.prompt_tokens();
        if prompts == 0 {
            return "–".to_owned();
        }
        format!("{} %", usage.cache_read_tokens.saturating_mul(100) / prompts)
    }

    /// The part of the cost that subagents have.
    fn subagents(&self) -> String {
        let (total, own) = (self.view.totals.total.cost, self.view.totals.own.cost);
        if total.as_nanos() == 0 {
            return "–".to_owned();
        }
        let part = total.as_nanos().saturating_sub(own.as_nanos());
        format!("{} %", part.saturating_mul(100) / total.as_nanos())
    }

    fn plain<'a>(&self, model: &'a str) -> &'a str {
        plain(model)
    }

    fn of_project(&self, path: &str) -> String {
        link("/conversations", &[("project", path)])
    }

    fn of_session(&self, id: &str) -> String {
        format!("/c/{}", url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>())
    }
}

/// A model without what all of them begin with.
fn plain(model: &str) -> &str {
    model.strip_prefix("claude-").unwrap_or(model)
}
