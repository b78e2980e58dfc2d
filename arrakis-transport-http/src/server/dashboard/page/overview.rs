//! The overview: whether everything is captured, what needs somebody, what runs now, and how it went.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::limits::SPOOLS_MAX;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::sketch::Sketch;
use arrakis_core::record::store::{
    ConversationFilter, EventFilter, EventGroups, EventSum, EventSummary, EventSums, Page,
    RollupStep, Rollups,
};
use arrakis_core::session::conversation::{Conversation, ConversationState};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::machines::{Machine, MachineState};
use super::{Asked, Context, Reader, answer, link};
use crate::server::ServerState;
use crate::server::dashboard::chart::{Column, Columns};
use crate::server::dashboard::shell::{Html, Place, Shell, grouped};
use crate::server::dashboard::viewer::Viewer;
use crate::server::error::HttpError;

/// How long a session counts as running after its last event.
const RUNNING: Duration = Duration::from_secs(30 * 60);

/// How long a session that works may be silent before it looks stale.
const STALE: Duration = Duration::from_secs(5 * 60);

/// Sessions that are shown as running.
const RUNNING_MAX: usize = 8;

/// Events that are looked at for what each running session did last.
const LATEST: usize = 300;

/// Types and error codes that are listed.
const LISTED: usize = 8;

/// What may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server::dashboard) struct Wanted {
    #[serde(default)]
    w: Window,
}

/// The time that is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Window {
    #[serde(rename = "15m")]
    QuarterHour,
    #[serde(rename = "1h")]
    Hour,
    #[default]
    #[serde(rename = "24h")]
    Day,
    #[serde(rename = "7d")]
    Week,
    #[serde(rename = "30d")]
    Month,
}

impl Window {
    const ALL: [Self; 5] = [Self::QuarterHour, Self::Hour, Self::Day, Self::Week, Self::Month];

    fn name(self) -> &'static str {
        match self {
            Self::QuarterHour => "15m",
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    /// How long it is, and the buckets that it is read in, each made of so many steps.
    fn shape(self) -> (Duration, RollupStep, u32) {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        match self {
            Self::QuarterHour => (minutes(15), RollupStep::Minute, 1),
            Self::Hour => (minutes(60), RollupStep::Minute, 1),
            Self::Day => (minutes(24 * 60), RollupStep::Minute, 30),
            Self::Week => (minutes(7 * 24 * 60), RollupStep::Hour, 3),
            Self::Month => (minutes(30 * 24 * 60), RollupStep::Hour, 12),
        }
    }
}

/// What the overview shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct Overview {
    window: Window,
    conservation: Conservation,
    attention: Vec<Attention>,
    running: Vec<Running>,
    machines: Vec<Machine>,
    /// Events received in the window.
    events: u64,
    /// Of these, those that are applied or repeats, in parts per 10,000.
    success: Option<u64>,
    per_minute: f64,
    p50_ms: Option<u64>,
    p95_ms: Option<u64>,
    p99_ms: Option<u64>,
    buckets: Vec<Bucket>,
    by_type: Vec<Named>,
    by_error: Vec<Named>,
    last_event_at: Option<Timestamp>,
}

/// Whether every event is accounted for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Conservation {
    verdict: Verdict,
    captured: u64,
    delivered: u64,
    duplicate: u64,
    discarded: u64,
    waiting: u64,
    failed: u64,
    refused: u64,
    machines: u64,
    /// Of how many events it is not sure, or how many are missing or too many.
    events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// No machine has told anything yet.
    Unknown,
    Even,
    Within,
    Surplus,
    Missing,
}

/// Something that needs somebody.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Attention {
    urgent: bool,
    what: String,
    why: String,
    link: String,
    action: &'static str,
}

/// A session that runs now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    session_id: String,
    title: Option<String>,
    project: Option<String>,
    host: Option<String>,
    model: Option<String>,
    state: Activity,
    since: Timestamp,
    /// What it did last.
    last: String,
}

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Activity {
    /// The person is asked for something, or the model has answered.
    Waits,
    Works,
    /// Nothing has come for a while, though it should.
    Stale,
}

impl Activity {
    fn words(self) -> &'static str {
        match self {
            Self::Waits => "waits for you",
            Self::Works => "works",
            Self::Stale => "silent",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Waits => "wait",
            Self::Works => "ok",
            Self::Stale => "idle",
        }
    }
}

/// Events of one time.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bucket {
    at: Option<Timestamp>,
    stored: u64,
    duplicate: u64,
    waiting: u64,
    failed: u64,
    /// All events of the same time a week before.
    before: u64,
}

#[derive(Debug, Serialize)]
struct Named {
    name: String,
    events: u64,
}

/// `GET /`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    asked: Asked<Wanted>,
) -> Response {
    let page = |shell, view| OverviewPage { shell, view };
    answer(&state, &viewer, asked, Place::Overview, view, page).await
}

/// `GET /api/v1/overview`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    asked: Asked<Wanted>,
) -> Response {
    super::twin(&state, &reader, asked, view).await
}

async fn view(context: &Context<'_>, wanted: Wanted) -> Result<Overview, HttpError> {
    let now = context.now;
    let reports = &context.inner.spools.reports;
    let spools = context.read(reports.spools(context.workspace, SPOOLS_MAX)).await?;
    let machines: Vec<Machine> = spools.into_iter().map(|heard| Machine::of(heard, now)).collect();
    let rollups = context.rollups()?;
    let (length, step, _) = wanted.w.shape();
    let since = now.minus(length);
    let groups = EventGroups { bucket: true, status: true, ..EventGroups::default() };
    let week = Duration::from_secs(7 * 24 * 3600);
    let sums = |from: Timestamp, to: Timestamp, by, latency| EventSums {
        workspace: context.workspace.to_owned(),
        step,
        from,
        to,
        by,
        latency,
    };
    let present = context.read(rollups.event_sums(sums(since, now, groups, false))).await?;
    let by = EventGroups { bucket: true, ..EventGroups::default() };
    let earlier = sums(since.minus(week), now.minus(week), by, false);
    let earlier = context.read(rollups.event_sums(earlier)).await?;
    let whole = EventGroups { event_type: true, error_code: true, ..EventGroups::default() };
    let named = context.read(rollups.event_sums(sums(since, now, whole, true))).await?;
    let standing = standing(context, rollups).await?;

    let latest =
        EventFilter { workspace: Some(context.workspace.to_owned()), ..EventFilter::default() };
    let latest = context.read(context.inner.store.events(latest, Page::first(LATEST))).await?;
    let recent = ConversationFilter {
        since: Some(now.minus(RUNNING)),
        ..ConversationFilter::new(context.workspace)
    };
    let store = &context.inner.store;
    let recent = context.read(store.conversations(recent, Page::first(4 * RUNNING_MAX))).await?;
    let last = last_of_each(&latest.events);
    let open = recent.conversations.into_iter().map(|one| one.conversation);
    let running = open.filter_map(|one| running(one, &last, now)).take(RUNNING_MAX).collect();

    let mut latency = Sketch::default();
    named.iter().for_each(|sum| latency.merge(&sum.latency));
    let events = present.iter().map(|sum| sum.events).sum::<u64>();
    let good = present.iter().filter(|sum| sum.status.is_some_and(is_good));
    let good: u64 = good.map(|sum| sum.events).sum();
    Ok(Overview {
        window: wanted.w,
        conservation: Conservation::of(&machines),
        attention: attention(&machines, &standing),
        running,
        machines,
        events,
        success: (events > 0).then(|| good * 10_000 / events),
        per_minute: events as f64 / (length.as_secs() as f64 / 60.0),
        p50_ms: latency.quantile(0.5),
        p95_ms: latency.quantile(0.95),
        p99_ms: latency.quantile(0.99),
        buckets: buckets(wanted.w, now, &present, &earlier),
        by_type: most(&named, |sum| sum.event_type.clone()),
        by_error: most(&named, |sum| sum.error_code.clone()),
        last_event_at: latest.events.first().map(|event| event.received_at),
    })
}

/// How many events are in each state now, by error code.
async fn standing(
    context: &Context<'_>,
    rollups: &dyn Rollups,
) -> Result<Vec<EventSum>, HttpError> {
    let query = EventSums {
        workspace: context.workspace.to_owned(),
        step: RollupStep::Day,
        from: Timestamp::EPOCH,
        to: context.now.plus(Duration::from_secs(24 * 3600)),
        by: EventGroups { status: true, error_code: true, ..EventGroups::default() },
        latency: false,
    };
    context.read(rollups.event_sums(query)).await
}

fn is_good(status: EventStatus) -> bool {
    matches!(status, EventStatus::Success | EventStatus::Duplicate)
}

impl Conservation {
    fn of(machines: &[Machine]) -> Self {
        let mut sum = Self {
            verdict: Verdict::Unknown,
            captured: 0,
            delivered: 0,
            duplicate: 0,
            discarded: 0,
            waiting: 0,
            failed: 0,
            refused: 0,
            machines: machines.len() as u64,
            events: 0,
        };
        for machine in machines {
            use arrakis_core::base::conservation::Balance;
            let (counters, present) =
                (&machine.heard.report.counters, &machine.heard.report.present);
            sum.captured += counters.captured + counters.found;
            sum.delivered += counters.delivered;
            sum.duplicate += counters.duplicate;
            sum.discarded += counters.discarded + counters.lost;
            sum.waiting += present.pending + present.processing;
            sum.failed += present.failed + present.quarantined;
            sum.refused += counters.refused;
            let (verdict, events) = match machine.heard.report.balance {
                Balance::Even => (Verdict::Even, 0),
                Balance::Within { events } => (Verdict::Within, events),
                Balance::Surplus { events } => (Verdict::Surplus, events),
                Balance::Missing { events } => (Verdict::Missing, events),
            };
            match verdict.cmp(&sum.verdict) {
                std::cmp::Ordering::Greater => (sum.verdict, sum.events) = (verdict, events),
                std::cmp::Ordering::Equal => sum.events += events,
                std::cmp::Ordering::Less => {}
            }
        }
        sum
    }

    fn class(&self) -> &'static str {
        match self.verdict {
            Verdict::Unknown => "idle",
            Verdict::Even | Verdict::Within => "ok",
            Verdict::Surplus => "wait",
            Verdict::Missing => "bad",
        }
    }

    /// The sentence that heads the page.
    fn sentence(&self) -> String {
        let captured = grouped(self.captured);
        let events = |n: u64| format!("{} {}", grouped(n), if n == 1 { "event" } else { "events" });
        match self.verdict {
            Verdict::Unknown => "No machine has told of its events yet.".to_owned(),
            Verdict::Even => format!("All {captured} captured events are accounted for."),
            Verdict::Within => format!(
                "All {captured} captured events are accounted for, to within {}.",
                events(self.events)
            ),
            Verdict::Surplus => {
                format!("{} more are stored than were counted as captured.", events(self.events))
            }
            Verdict::Missing => {
                format!("{} of {captured} captured are missing.", events(self.events))
            }
        }
    }
}

/// What needs somebody, worst first.
fn attention(machines: &[Machine], standing: &[EventSum]) -> Vec<Attention> {
    let mut all = Vec::new();
    for machine in machines {
        let (urgent, what, why) = match machine.state {
            MachineState::AtWork | MachineState::Quiet => continue,
            MachineState::Losing => {
                (true, "is losing events", "its spool is full, or counts do not add up")
            }
            MachineState::CutOff => {
                (true, "is cut off", "events wait there, and nothing was heard for 30 minutes")
            }
            MachineState::Behind => {
                (false, "is behind", "its oldest event waits for more than 15 minutes")
            }
        };
        all.push(Attention {
            urgent,
            what: format!("{} {what}", machine.name()),
            why: why.to_owned(),
            link: link("/machines", &[("state", machine.state.name())]),
            action: "See the machine",
        });
    }
    let mut stuck = BTreeMap::<EventStatus, (u64, Option<(u64, String)>)>::new();
    for sum in standing {
        let Some(status) = sum.status.filter(|status| {
            matches!(status, EventStatus::Failed | EventStatus::Invalid | EventStatus::Error)
        }) else {
            continue;
        };
        let entry = stuck.entry(status).or_default();
        entry.0 += sum.events;
        let code = sum.error_code.clone().filter(|code| !code.is_empty());
        if let Some(code) = code.filter(|_| entry.1.as_ref().is_none_or(|(n, _)| *n < sum.events)) {
            entry.1 = Some((sum.events, code));
        }
    }
    for (status, (events, code)) in stuck {
        if events == 0 {
            continue;
        }
        let (urgent, what) = match status {
            EventStatus::Failed => (true, "failed for good"),
            EventStatus::Invalid => (false, "could not be understood"),
            _ => (false, "failed and will be tried again"),
        };
        let noun = if events == 1 { "event" } else { "events" };
        all.push(Attention {
            urgent,
            what: format!("{} {noun} {what}", grouped(events)),
            why: code.map_or_else(String::new, |(_, code)| format!("mostly {code}")),
            link: link("/events", &[("status", status.as_str()), ("discarded", "false")]),
            action: "Show them",
        });
    }
    all.sort_by_key(|one| !one.urgent);
    all
}

/// The latest event of each session.
fn last_of_each(events: &[EventSummary]) -> HashMap<&str, &EventSummary> {
    let mut last = HashMap::new();
    for event in events.iter().filter(|event| event.status != EventStatus::Duplicate) {
        let Some(session) = event.session_id.as_deref() else { continue };
        // A slice of a transcript comes late, and says nothing of what the session does.
        if event.event_type == "Transcript" || event.event_type == "Snapshot" {
            continue;
        }
        last.entry(session).or_insert(event);
    }
    last
}

fn running(
    conversation: Conversation,
    last: &HashMap<&str, &EventSummary>,
    now: Timestamp,
) -> Option<Running> {
    if !matches!(conversation.state(now), ConversationState::Open) {
        return None;
    }
    let event = last.get(conversation.session_id.as_str());
    let since = event.map_or(conversation.last_event_at, |event| event.captured_at());
    let waits = event.is_some_and(|event| {
        matches!(
            event.event_type.as_str(),
            "Stop" | "StopFailure" | "PermissionRequest" | "Notification" | "Elicitation"
        )
    });
    let state = match waits {
        true => Activity::Waits,
        false if now.since(since) > STALE => Activity::Stale,
        false => Activity::Works,
    };
    let said = |event: &&EventSummary| {
        let summary = &event.metadata.summary;
        if summary.is_empty() {
            event.event_type.clone()
        } else {
            format!("{} {summary}", event.event_type)
        }
    };
    Some(Running {
        last: event.map(said).unwrap_or_default(),
        session_id: conversation.session_id,
        title: conversation.title.map(|title| title.value),
        project: conversation.project_path.map(|path| path.value),
        host: conversation.host,
        model: conversation.model.map(|model| model.value),
        state,
        since,
    })
}

fn buckets(window: Window, now: Timestamp, sums: &[EventSum], earlier: &[EventSum]) -> Vec<Bucket> {
    let (length, step, times) = window.shape();
    let width = step.length() * times;
    let count = (length.as_secs() / width.as_secs()).max(1);
    let end = step.bucket(now).plus(step.length());
    let begin = end.minus(width * u32::try_from(count).unwrap_or(u32::MAX));
    let mut all: Vec<Bucket> = (0..count)
        .map(|n| {
            let at = begin.plus(width * u32::try_from(n).unwrap_or(u32::MAX));
            Bucket { at: Some(at), ..Bucket::default() }
        })
        .collect();
    let index = |at: Timestamp| {
        let past = at.as_micros().checked_sub(begin.as_micros())?;
        usize::try_from(past / i64::try_from(width.as_micros()).ok()?).ok()
    };
    for sum in sums {
        let Some(bucket) = sum.at.and_then(index).and_then(|at| all.get_mut(at)) else { continue };
        let place = match sum.status {
            Some(EventStatus::Success) => &mut bucket.stored,
            Some(EventStatus::Duplicate) => &mut bucket.duplicate,
            Some(EventStatus::Pending | EventStatus::Processing | EventStatus::PendingRetry) => {
                &mut bucket.waiting
            }
            _ => &mut bucket.failed,
        };
        *place += sum.events;
    }
    let week = Duration::from_secs(7 * 24 * 3600);
    for sum in earlier {
        let at = sum.at.map(|at| at.plus(week)).and_then(index);
        if let Some(bucket) = at.and_then(|at| all.get_mut(at)) {
            bucket.before += sum.events;
        }
    }
    all
}

/// The names with the most events.
fn most(sums: &[EventSum], name: impl Fn(&EventSum) -> Option<String>) -> Vec<Named> {
    let mut by_name = BTreeMap::<String, u64>::new();
    for sum in sums {
        if let Some(name) = name(sum).filter(|name| !name.is_empty()) {
            *by_name.entry(name).or_default() += sum.events;
        }
    }
    let mut all: Vec<_> =
        by_name.into_iter().map(|(name, events)| Named { name, events }).collect();
    all.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.name.cmp(&b.name)));
    all.truncate(LISTED);
    all
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    view: Overview,
}

impl OverviewPage {
    fn windows(&self) -> [Window; 5] {
        Window::ALL
    }

    fn chart(&self) -> Html {
        let zone = &self.shell.zone;
        let view = &self.view;
        let when = |at: Timestamp| match view.window {
            Window::QuarterHour | Window::Hour => zone.time(at),
            _ => zone.short(at),
        };
        let column = |bucket: &Bucket| Column {
            name: bucket.at.map(when).unwrap_or_default(),
            parts: vec![
                ("ok", "stored".to_owned(), bucket.stored),
                ("again", "repeats".to_owned(), bucket.duplicate),
                ("wait", "waiting".to_owned(), bucket.waiting),
                ("bad", "failed".to_owned(), bucket.failed),
            ],
            before: view.buckets.iter().any(|bucket| bucket.before > 0).then_some(bucket.before),
            link: None,
        };
        let axis = |at: usize| {
            let bucket = view.buckets.get(at).and_then(|bucket| bucket.at);
            bucket.map(when).unwrap_or_default()
        };
        let columns = Columns {
            label: format!("Events of the last {}", view.window.name()),
            columns: view.buckets.iter().map(column).collect(),
            axis: [axis(0), axis(view.buckets.len() / 2), "now".to_owned()],
            show: crate::server::dashboard::shell::short,
        };
        columns.svg()
    }

    /// `99.98 %`.
    fn success(&self) -> String {
        self.view
            .success
            .map_or("–".to_owned(), |share| format!("{}.{:02} %", share / 100, share % 100))
    }

    fn rate(&self) -> String {
        match self.view.per_minute {
            rate if rate >= 100.0 => format!("{rate:.0}"),
            rate => format!("{rate:.1}"),
        }
    }

    fn share(&self, named: &Named, of: &[Named]) -> Html {
        let whole = of.iter().map(|one| one.events).max().unwrap_or(0);
        crate::server::dashboard::chart::meter(named.events, whole, "accent")
    }
}
