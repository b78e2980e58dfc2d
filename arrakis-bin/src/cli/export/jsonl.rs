//! Every event, as the envelope that brings it again.

use arrakis_core::clock::Timestamp;
use arrakis_core::ingest;
use arrakis_core::store::{ArrivalFilter, Page};
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
    for session in &selected.sessions {
        let session_id = Some(session.clone());
        let filter = ArrivalFilter { session_id, in_conversation, ..all.clone() };
        events(source, filter, sink, summary).await?;
        summary.counts.conversations += 1;
        source.progress.step(1);
    }
    if selected.rest {
        let filter = ArrivalFilter { in_conversation: Some(false), ..all };
        events(source, filter, sink, summary).await?;
    }
    put(&Tail { arrakis_export_end: summary.counts }, sink)
}

/// Writes the events that pass a filter.
async fn events(
    source: &Source<'_>,
    filter: ArrivalFilter,
    sink: &mut Sink<'_>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut page = Page::first(PAGE);
    loop {
        let part = source.archive.arrivals(filter.clone(), page).await?;
        let Some(last) = part.last() else { return Ok(()) };
        page.after = Some(last.event_id);
        for arrival in part {
            if !arrival.in_ledger {
                summary.refused += 1;
                continue;
            }
            let mut line = encode_envelope(&ingest::envelope(arrival));
            line.push(b'\n');
            sink.put(&line)?;
            summary.counts.events += 1;
        }
    }
}

fn put(line: &impl Serialize, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    sink.put(&line)
}
