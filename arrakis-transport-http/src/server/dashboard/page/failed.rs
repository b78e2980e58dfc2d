//! Failed events: groups of one cause, what they have in common, and what can be done about them.

use std::collections::BTreeMap;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::ingest::DryRun;
use arrakis_core::record::store::{EventFilter, EventSummary, Page};
use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::events::{class, words};
use super::{Asked, Context, Reader, answer, link};
use crate::server::ServerState;
use crate::server::dashboard::shell::{Place, Shell};
use crate::server::dashboard::viewer::{Failure, Viewer, see_other};
use crate::server::error::HttpError;

/// Rows that are looked at in each state, newest first.
const LOOKED_AT: usize = 2_000;

/// Rows of a group that are shown.
const SHOWN: usize = 50;

/// Rows that one request changes: each is a transaction of its own.
const CHANGED_MAX: usize = 500;

/// Rows of a group that a dry run judges.
const SAMPLE: usize = 200;

/// Longest reason that is kept.
const REASON_MAX_BYTES: usize = 500;

/// The states in which an event needs somebody.
const STATES: [EventStatus; 3] = [EventStatus::Failed, EventStatus::Invalid, EventStatus::Error];

/// What may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server::dashboard) struct Wanted {
    /// The group that is shown with its rows.
    group: String,
    /// Whether to say what would come of the open group if it were tried again.
    dry: bool,
    /// What was just done, to how many.
    done: String,
    count: u64,
    left: u64,
}

/// What the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct Failed {
    groups: Vec<Group>,
    /// Whether there are more rows than were looked at.
    has_more: bool,
    /// The group that is open.
    open: Option<String>,
    /// What would come of a sample of the open group, where that is asked for.
    dry_run: Option<DryRun>,
    #[serde(skip)]
    done: Option<String>,
}

/// Events that failed for one reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    /// Names it: the state, the error code and the cause.
    name: String,
    status: EventStatus,
    error_code: String,
    /// The message, without what differs from event to event.
    cause: String,
    count: u64,
    first: Timestamp,
    last: Timestamp,
    hosts: Vec<String>,
    sessions: u64,
    /// Some of its rows, newest first.
    events: Vec<EventSummary>,
}

/// `GET /failed`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    asked: Asked<Wanted>,
) -> Response {
    let page = |shell, view| FailedPage { shell, view };
    answer(&state, &viewer, asked, Place::Failed, view, page).await
}

/// `GET /api/v1/failed`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    asked: Asked<Wanted>,
) -> Response {
    super::twin(&state, &reader, asked, view).await
}

async fn view(context: &Context<'_>, wanted: Wanted) -> Result<Failed, HttpError> {
    let (rows, has_more) = rows(context, None).await?;
    let dry_run = match wanted.dry {
        true => Some(dry_run(context, &rows, &wanted.group).await?),
        false => None,
    };
    let mut groups = BTreeMap::<String, Vec<EventSummary>>::new();
    for row in rows {
        groups.entry(name(&row)).or_default().push(row);
    }
    let mut groups: Vec<_> = groups.into_iter().map(|(name, rows)| group(name, rows)).collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then(b.last.cmp(&a.last)));
    let done = match (wanted.done.as_str(), wanted.left) {
        ("retry", 0) => Some(format!("{} will be tried again within seconds.", wanted.count)),
        ("retry", left) => {
            Some(format!("{} will be tried again within seconds; {left} are left.", wanted.count))
        }
        ("discard", 0) => Some(format!("{} given up.", wanted.count)),
        ("discard", left) => Some(format!("{} given up; {left} are left.", wanted.count)),
        _ => None,
    };
    let open = Some(wanted.group).filter(|name| !name.is_empty());
    Ok(Failed { groups, has_more, open, dry_run, done })
}

/// Judges a sample of a group anew. Nothing is changed.
async fn dry_run(
    context: &Context<'_>,
    rows: &[EventSummary],
    group: &str,
) -> Result<DryRun, HttpError> {
    let mut meant: Vec<_> = rows.iter().filter(|row| name(row) == group).collect();
    // Not the newest alone: these may have something in common.
    meant.shuffle(&mut rand::rng());
    let mut dry_run = DryRun::default();
    for row in meant.into_iter().take(SAMPLE) {
        let inner = context.inner;
        let store = inner.store.as_ref();
        context.read(dry_run.add(store, &inner.heavy, context.workspace, row.id)).await?;
    }
    Ok(dry_run)
}

/// The rows that need somebody, and whether there are more.
async fn rows(
    context: &Context<'_>,
    until: Option<Timestamp>,
) -> Result<(Vec<EventSummary>, bool), HttpError> {
    let (mut rows, mut has_more) = (Vec::new(), false);
    for status in STATES {
        let filter = EventFilter {
            workspace: Some(context.workspace.to_owned()),
            status: Some(status),
            discarded: Some(false),
            until,
            ..EventFilter::default()
        };
        let page = context.inner.store.events(filter, Page::first(LOOKED_AT));
        let page = context.read(page).await?;
        has_more |= page.next.is_some();
        rows.extend(page.events);
    }
    Ok((rows, has_more))
}

fn group(name: String, rows: Vec<EventSummary>) -> Group {
    let host = |row: &EventSummary| row.metadata.capture.as_ref()?.source.host.clone();
    let mut hosts: Vec<_> = rows.iter().filter_map(host).collect();
    hosts.sort();
    hosts.dedup();
    let mut sessions: Vec<_> = rows.iter().filter_map(|row| row.session_id.as_deref()).collect();
    sessions.sort_unstable();
    sessions.dedup();
    let times = rows.iter().map(|row| row.received_at);
    let (first, last) = (times.clone().min(), times.max());
    Group {
        name,
        status: rows[0].status,
        error_code: rows[0].error_code.clone().unwrap_or_default(),
        cause: cause(rows[0].error_message.as_deref().unwrap_or_default()),
        count: rows.len() as u64,
        first: first.unwrap_or(Timestamp::EPOCH),
        last: last.unwrap_or(Timestamp::EPOCH),
        hosts,
        sessions: sessions.len() as u64,
        events: rows.into_iter().take(SHOWN).collect(),
    }
}

fn name(row: &EventSummary) -> String {
    let code = row.error_code.as_deref().unwrap_or_default();
    let cause = cause(row.error_message.as_deref().unwrap_or_default());
    let digest = arrakis_core::base::digest::Digest::of(cause.as_bytes());
    format!("{}.{code}.{}", row.status.as_str(), hex::encode(&digest.as_bytes()[..4]))
}

/// A message without what differs from event to event: what stands in quotes, ids, numbers and paths.
fn cause(message: &str) -> String {
    let mut words = Vec::new();
    let mut quoted = None;
    for word in message.split_whitespace() {
        if let Some(end) = quoted {
            if word.trim_end_matches([',', '.', ';', ':']).ends_with(end) {
                quoted = None;
            }
            continue;
        }
        let quote = word.chars().next().filter(|first| matches!(first, '"' | '\'' | '`'));
        if let Some(quote) = quote {
            words.push("…".to_owned());
            let rest = &word[1..];
            if !rest.trim_end_matches([',', '.', ';', ':']).ends_with(quote) {
                quoted = Some(quote);
            }
            continue;
        }
        let bare = word.trim_matches(|character: char| !character.is_alphanumeric());
        let is_id = bare.len() >= 8
            && bare.chars().any(|character| character.is_ascii_digit())
            && bare.chars().all(|character| character.is_ascii_hexdigit() || character == '-');
        let is_path = word.contains('/') && word.len() > 1;
        if is_id || is_path {
            words.push("…".to_owned());
        } else {
            let mut plain = String::with_capacity(word.len());
            for character in word.chars() {
                match character.is_ascii_digit() {
                    true if plain.ends_with('#') => {}
                    true => plain.push('#'),
                    false => plain.push(character),
                }
            }
            words.push(plain);
        }
    }
    words.join(" ")
}

/// What the forms of the page say.
#[derive(Debug, Deserialize)]
pub(in crate::server::dashboard) struct Asking {
    token: String,
    /// What to do: `retry` or `discard`.
    action: String,
    /// The group. All that failed where it is empty.
    #[serde(default)]
    group: String,
    #[serde(default)]
    reason: String,
    /// The page was read then; what failed later is not meant.
    until: Timestamp,
}

/// `POST /failed`: has the events of a group tried again, or gives them up.
pub(in crate::server::dashboard) async fn change(
    State(state): State<ServerState>,
    viewer: Viewer,
    Form(asking): Form<Asking>,
) -> Response {
    let now = state.0.clock.now();
    match changed(&state, &viewer, &asking).await {
        Ok((count, left)) => {
            let (count, left) = (count.to_string(), left.to_string());
            let done = [("done", asking.action.as_str()), ("count", &count), ("left", &left)];
            see_other(&link("/failed", &done))
        }
        Err(error) => Failure::seen_by(error, &viewer, now).into_response(),
    }
}

/// How many were changed, and how many are left.
async fn changed(
    state: &ServerState,
    viewer: &Viewer,
    asking: &Asking,
) -> Result<(u64, u64), HttpError> {
    viewer.check(&asking.token)?;
    viewer.check_admin()?;
    let is_discard = match asking.action.as_str() {
        "retry" => false,
        "discard" => true,
        _ => {
            let message = "an event can be tried again (retry) or given up (discard)";
            return Err(HttpError::new(StatusCode::BAD_REQUEST, "invalid_action", message));
        }
    };
    let reason = arrakis_core::base::limits::cut(asking.reason.trim(), REASON_MAX_BYTES);
    if is_discard && reason.is_empty() {
        let message = "say why these events are given up: whoever looks later will want to know";
        return Err(HttpError::new(StatusCode::BAD_REQUEST, "no_reason", message));
    }
    let inner = &*state.0;
    let context = Context {
        inner,
        workspace: &viewer.principal.workspace,
        zone: viewer.zone(),
        now: inner.clock.now(),
    };
    let actor = inner.authenticator.name(&viewer.principal).await?;
    let (rows, _) = rows(&context, Some(asking.until)).await?;
    let mut meant: Vec<_> = rows
        .into_iter()
        .filter(|row| asking.group.is_empty() || name(row) == asking.group)
        .filter(|row| !is_discard || row.status == EventStatus::Failed)
        .collect();
    let left = meant.len().saturating_sub(CHANGED_MAX);
    meant.truncate(CHANGED_MAX);
    let mut count = 0;
    for row in meant {
        let reason = if reason.is_empty() { "asked for on the dashboard" } else { reason };
        let changing = async {
            match is_discard {
                true => inner.store.give_up(row.id, &actor, reason).await,
                false => inner.store.transition(row.id, EventStatus::Pending, &actor, reason).await,
            }
        };
        match inner.in_time(changing).await? {
            Ok(()) => count += 1,
            // Somebody else was faster.
            Err(arrakis_core::record::store::StoreError::IllegalTransition { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((count, left as u64))
}

#[derive(Template)]
#[template(path = "failed.html")]
struct FailedPage {
    shell: Shell,
    view: Failed,
}

impl FailedPage {
    fn is_open(&self, group: &Group) -> bool {
        self.view.open.as_ref() == Some(&group.name)
    }

    fn ask(&self, group: &Group) -> String {
        link("/failed", &[("group", &group.name), ("dry", "true")])
    }

    fn class(&self, group: &Group) -> &'static str {
        if group.status == EventStatus::Failed { class(group.status) } else { "wait" }
    }

    fn words(&self, group: &Group) -> &'static str {
        words(group.status)
    }

    fn may_discard(&self, group: &Group) -> bool {
        group.status == EventStatus::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::cause;

    #[test]
    fn one_cause_has_one_name() {
        let one = cause("column 12 of \"the long name\" is missing in /a/b.rs, row 019a-77ff0000");
        let other = cause("column 7 of \"x\" is missing in /c, row 88b1-0000aaaa");
        assert_eq!(one, other);
        assert_eq!(one, "column # of … is missing in … row …");
        assert_eq!(cause("no session"), "no session");
    }
}
