//! Every event, as the envelope that brings it again; and snapshots of what a conversation has from events that
//! are gone.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::Envelope;
use arrakis_core::record::ingest;
use arrakis_core::record::store::{ArrivalFilter, Page, Verdict};
use arrakis_core::session::conversation::Changes;
use arrakis_core::session::snapshot::snapshots;
use arrakis_transport_http::wire::encode_envelope;
use serde::Serialize;

use super::format::{Head, Tail, VERSION};
use super::select::Selected;
use super::sink::Sink;
use super::{Source, Summary};

/// Events read at a time; a page of large ones ends earlier.
const PAGE: usize = 500;

pub(super) async fn write(
    source: &Source<'_>,
    selected: &Selected,
    now: Timestamp,
    sink: &mut Sink<'_>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let selection = source.selection;
    let all = ArrivalFilter {
        workspace: selection.workspace.clone(),
        event_type: selection.event_type.clone(),
        status: selection.status,
        ..ArrivalFilter::default()
    };
    let head = Head {
        arrakis_export: VERSION,
        workspace: selection.workspace.clone(),
        exported_at: now,
        program: concat!("arrakis ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    put(&head, sink)?;
    // What failed in a session belongs to no conversation yet: with all, it comes with the rest.
    let in_conversation = selected.rest.then_some(true);
    let is_whole = all.event_type.is_none() && all.status.is_none();
    for session in &selected.sessions {
        let session_id = Some(session.clone());
        let filter = ArrivalFilter { session_id, in_conversation, ..all.clone() };
        let mut said = Changes::default();
        events(source, filter, &mut said, sink, summary).await?;
        if is_whole {
            rest_of(session, source, &said, sink, summary).await?;
        }
        summary.counts.conversations += 1;
        source.progress.step(1);
    }
    if selected.rest {
        let filter = ArrivalFilter { in_conversation: Some(false), ..all };
        events(source, filter, &mut Changes::default(), sink, summary).await?;
    }
    put(&Tail { arrakis_export_end: summary.counts }, sink)
}

/// Writes the events that pass a filter, and adds what they say to `said`.
async fn events(
    source: &Source<'_>,
    filter: ArrivalFilter,
    said: &mut Changes,
    sink: &mut Sink<'_>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut page = Page::first(PAGE);
    loop {
        let part = source.archive.arrivals(filter.clone(), page).await?;
        let Some(last) = part.last() else { return Ok(()) };
        page.after = Some(last.event_id);
        let mut of_part = Changes::default();
        for arrival in part {
            if !arrival.in_ledger {
                summary.refused += 1;
                continue;
            }
            if let Verdict::Apply(changes) = ingest::judge(&arrival) {
                of_part.absorb(changes);
            }
            event(&arrival.into_envelope(), sink)?;
            summary.counts.events += 1;
        }
        said.absorb(of_part);
    }
}

/// Writes snapshots of what is stored of a conversation and no event says any more.
async fn rest_of(
    session: &str,
    source: &Source<'_>,
    said: &Changes,
    sink: &mut Sink<'_>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let workspace = &source.selection.workspace;
    let Some(stored) = source.archive.values(workspace, session).await? else { return Ok(()) };
    let made = snapshots(&stored, said)?;
    summary.too_large += made.left_out as u64;
    for envelope in &made.envelopes {
        event(envelope, sink)?;
        summary.counts.events += 1;
    }
    summary.snapshots += made.envelopes.len() as u64;
    Ok(())
}

fn event(envelope: &Envelope, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    let mut line = encode_envelope(envelope);
    line.push(b'\n');
    sink.put(&line)
}

fn put(line: &impl Serialize, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    sink.put(&line)
}
