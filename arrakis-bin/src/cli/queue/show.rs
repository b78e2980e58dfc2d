//! `arrakis queue show`.
//!
//! As JSON, the object of a list with `header`, `history` and the payload besides: `payload` where it is
//! JSON, else `payloadText`, else `payloadBase64`. What is no event has its bytes in `fileText` or
//! `fileBase64`, unless it is no regular file or longer than an event may be.

use std::io;
use std::process::ExitCode;

use anyhow::bail;
use arrakis_core::base::dead_letter::Failure;
use arrakis_core::base::envelope::Header;
use arrakis_store_fs::Layout;
use arrakis_store_fs::admin::entry::{Entry, Filter, Found, entries};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::Context;
use super::super::output::{self, text};
use super::list::{View, style};
use super::spools;

/// The arguments of `arrakis queue show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The request id; for what is in quarantine, its file name.
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    #[serde(flatten)]
    view: &'a View,
    header: Option<&'a Header>,
    history: &'a [Failure],
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_base64: Option<String>,
}

pub(super) fn run(args: &ShowArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let filter = Filter { names: [args.id.clone()].into(), ..Filter::default() };
    for spool in spools(context) {
        for entry in entries(&spool, &filter) {
            // One that is gone now was delivered, or is met again where it has moved to.
            if show(&entry?, &spool, context)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    bail!("{} is not in the spool; `arrakis queue list` shows what is", text::one_line(&args.id))
}

/// Shows an entry; false if it is gone.
fn show(entry: &Entry, layout: &Layout, context: &mut Context) -> anyhow::Result<bool> {
    let Some(mut view) = View::of(entry, layout, context.clock.now()) else { return Ok(false) };
    let history = entry.history(layout);
    let (envelope, file) = match entry.read()? {
        Found::Whole(envelope) => (Some(envelope), None),
        Found::Gone => return Ok(false),
        Found::Unreadable(reason) => {
            view.problem.get_or_insert_with(|| reason.to_string());
            let read = if context.json {
                entry.bytes()?
            } else {
                entry.head(output::SHOWN_PAYLOAD_BYTES as u64)?
            };
            (None, read.whole())
        }
    };
    let bytes = envelope.as_ref().map(|envelope| &envelope.payload).or(file.as_ref());
    let bytes: Option<&[u8]> = bytes.map(|bytes| &bytes[..]);
    if !context.json {
        let header = envelope.as_ref().map(|envelope| &envelope.header);
        write_human(&view, header, &history, context)?;
        if let Some(bytes) = bytes {
            let what = if envelope.is_some() { "Payload" } else { "File" };
            output::write_payload(what, bytes, context.terminal, &mut context.out)?;
        }
        return Ok(true);
    }
    let payload = bytes.filter(|_| envelope.is_some());
    let file = bytes.filter(|_| envelope.is_none());
    let json = payload.and_then(|bytes| serde_json::from_slice(bytes).ok());
    let as_base64 = |bytes: &[u8]| as_text(bytes).is_none().then(|| BASE64.encode(bytes));
    context.write_json(&Detail {
        view: &view,
        header: envelope.as_ref().map(|envelope| &envelope.header),
        history: &history,
        payload: json,
        payload_text: payload.filter(|_| json.is_none()).and_then(as_text),
        payload_base64: payload.and_then(as_base64),
        file_text: file.and_then(as_text),
        file_base64: file.and_then(as_base64),
    })?;
    Ok(true)
}

fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn write_human(
    view: &View,
    header: Option<&Header>,
    history: &[Failure],
    context: &mut Context,
) -> io::Result<()> {
    let (zone, terminal, out) = (&context.zone, context.terminal, &mut context.out);
    let title = text::one_line(view.event_type.as_deref().unwrap_or("unknown event"));
    let state = terminal.paint(style(view.state), view.state.as_str());
    writeln!(out, "{}  {state}", terminal.paint(output::BOLD, &title))?;
    let mut line = |label: &str, value: Option<String>| match value {
        Some(value) => {
            let label = terminal.paint(output::DIM, &format!("  {label:<14}"));
            writeln!(out, "{label}{}", text::one_line(&value))
        }
        None => Ok(()),
    };
    let source = |part: fn(&Header) -> &Option<String>| header.and_then(|h| part(h).clone());
    let truncated = header.and_then(|header| header.truncated.as_ref());
    line("request id", view.request_id.clone())?;
    line("problem", view.problem.clone())?;
    line("captured", view.captured_at.map(|at| zone.whole_moment(at)))?;
    line("age", view.age_ms.map(output::duration))?;
    line("session", view.session_id.clone())?;
    line("destination", view.destination.clone())?;
    line("failed rounds", view.rounds.map(|rounds| rounds.to_string()))?;
    line("next try", view.next_due.map(|due| zone.whole_moment(due)))?;
    line("project", source(|header| &header.source.project_dir))?;
    line("host", source(|header| &header.source.host))?;
    line("user", source(|header| &header.source.user))?;
    line("client", source(|header| &header.source.cli_version))?;
    line("trace", header.map(|header| header.trace.trace_id.clone()))?;
    line("digest", header.map(|header| header.digest.to_string()))?;
    let removed = header.map(|header| &header.redacted).filter(|removed| !removed.is_empty());
    let rules = removed.map(|removed| {
        removed.iter().map(|(rule, count)| format!("{count} {rule}")).collect::<Vec<_>>().join(", ")
    });
    line("redacted", rules)?;
    line("truncated", truncated.map(|cut| format!("of {} bytes", cut.original_bytes)))?;
    line("file", Some(view.path.clone()))?;
    if !history.is_empty() {
        writeln!(out, "\n{}", terminal.paint(output::DIM, "Failed rounds"))?;
    }
    for Failure { at, round, code, message } in history {
        let at = zone.moment(*at, false);
        writeln!(out, "  {at}  {round}  {}", text::one_line(&format!("{code}: {message}")))?;
    }
    Ok(())
}
