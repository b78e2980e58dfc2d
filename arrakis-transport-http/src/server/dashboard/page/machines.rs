//! Machines: what each spool's drainer has told of it, and which of them need somebody.

use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::conservation::Balance;
use arrakis_core::base::limits::SPOOLS_MAX;
use arrakis_core::record::store::HeardSpool;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::{Asked, Context, Reader, answer};
use crate::server::ServerState;
use crate::server::dashboard::shell::{Place, Shell};
use crate::server::dashboard::viewer::Viewer;
use crate::server::error::HttpError;

/// How lately a machine that is at work was heard of.
const HEARD: Duration = Duration::from_secs(60);

/// How long an event may wait before its machine is behind.
const BEHIND: Duration = Duration::from_secs(15 * 60);

/// How long a machine where events wait may be silent before it is cut off.
const CUT_OFF: Duration = Duration::from_secs(30 * 60);

/// A machine's spool, and how it is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct Machine {
    pub(super) state: MachineState,
    #[serde(flatten)]
    pub(super) heard: HeardSpool,
}

/// How a machine is, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MachineState {
    /// It refused events, or its counts do not add up.
    Losing,
    /// Events wait there, and it is silent.
    CutOff,
    /// Events have waited for long.
    Behind,
    /// It was heard of just now.
    AtWork,
    /// Nothing waits.
    Quiet,
}

impl MachineState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Losing => "losing",
            Self::CutOff => "cut-off",
            Self::Behind => "behind",
            Self::AtWork => "at-work",
            Self::Quiet => "quiet",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Losing => "losing",
            Self::CutOff => "cut off",
            Self::Behind => "behind",
            Self::AtWork => "at work",
            Self::Quiet => "quiet",
        }
    }

    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Losing | Self::CutOff => "bad",
            Self::Behind => "wait",
            Self::AtWork => "ok",
            Self::Quiet => "idle",
        }
    }
}

impl Machine {
    pub(super) fn of(heard: HeardSpool, now: Timestamp) -> Self {
        let report = &heard.report;
        let silent = now.since(heard.heard_at);
        let waiting = report.present.pending + report.present.processing;
        let oldest = report.oldest_pending_age_ms.map(Duration::from_millis);
        let is_missing = matches!(report.balance, Balance::Missing { .. });
        let state = if is_missing || report.full {
            MachineState::Losing
        } else if waiting > 0 && silent > CUT_OFF {
            MachineState::CutOff
        } else if waiting > 0 && oldest.is_some_and(|oldest| oldest > BEHIND) {
            MachineState::Behind
        } else if silent < HEARD {
            MachineState::AtWork
        } else {
            MachineState::Quiet
        };
        Self { state, heard }
    }

    /// How people call it.
    pub(super) fn name(&self) -> String {
        let report = &self.heard.report;
        report.host.clone().unwrap_or_else(|| format!("spool {}", report.spool_id))
    }

    fn waiting(&self) -> u64 {
        self.heard.report.present.pending + self.heard.report.present.processing
    }

    fn dead(&self) -> u64 {
        self.heard.report.present.failed + self.heard.report.present.quarantined
    }

    fn balance(&self) -> String {
        match self.heard.report.balance {
            Balance::Even => "even".to_owned(),
            Balance::Within { events } => format!("± {events}"),
            Balance::Missing { events } => format!("{events} missing"),
            Balance::Surplus { events } => format!("{events} too many"),
        }
    }

    /// What to run there.
    fn remedy(&self) -> Option<&'static str> {
        match self.state {
            MachineState::Losing => Some("arrakis queue verify"),
            MachineState::CutOff | MachineState::Behind => Some("arrakis doctor"),
            MachineState::AtWork | MachineState::Quiet => {
                (self.dead() > 0).then_some("arrakis queue list --state failed,quarantined")
            }
        }
    }
}

/// What may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server::dashboard) struct Wanted {
    state: Option<MachineState>,
    host: Option<String>,
}

/// What the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::server::dashboard) struct Machines {
    machines: Vec<Machine>,
    /// How many there are without the filter.
    all: u64,
}

/// `GET /machines`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    asked: Asked<Wanted>,
) -> Response {
    let page = |shell, view| MachinesPage { shell, view };
    answer(&state, &viewer, asked, Place::Machines, view, page).await
}

/// `GET /api/v1/machines`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    asked: Asked<Wanted>,
) -> Response {
    super::twin(&state, &reader, asked, view).await
}

async fn view(context: &Context<'_>, wanted: Wanted) -> Result<Machines, HttpError> {
    let reports = &context.inner.spools.reports;
    let spools = context.read(reports.spools(context.workspace, SPOOLS_MAX)).await?;
    let all = spools.len() as u64;
    let machines = spools.into_iter().map(|heard| Machine::of(heard, context.now));
    let mut machines: Vec<Machine> = machines
        .filter(|one| wanted.state.is_none_or(|state| state == one.state))
        .filter(|one| wanted.host.is_none() || one.heard.report.host == wanted.host)
        .collect();
    machines.sort_by_key(|one| (one.state, std::cmp::Reverse(one.heard.heard_at)));
    Ok(Machines { machines, all })
}

#[derive(Template)]
#[template(path = "machines.html")]
struct MachinesPage {
    shell: Shell,
    view: Machines,
}
