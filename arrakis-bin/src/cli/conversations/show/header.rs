//! What stands above a conversation: its title, and what it is as a whole.

use std::io::{self, Write};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::store::ConversationDetail;
use arrakis_core::session::conversation::ConversationState;
use arrakis_core::session::price;

use crate::cli::conversations::Unfold;
use crate::cli::output::zone::Zone;
use crate::cli::output::{self, Terminal, text};
use arrakis_core::record::reading::spoken;

/// Writes the title and the facts, a line each.
pub(super) fn write(
    detail: &ConversationDetail,
    now: Timestamp,
    unfold: Unfold,
    zone: &Zone,
    terminal: Terminal,
    out: &mut dyn Write,
) -> io::Result<()> {
    let conversation = &detail.conversation;
    let title = conversation.title.as_ref().map_or("(no prompt yet)", |title| &title.value);
    let title = text::one_line(title);
    let title = text::fit(&title, terminal.text_columns());
    writeln!(out, "{}", terminal.paint(output::BOLD, &title))?;
    let mut line = |label: &str, value: &str| {
        let label = terminal.paint(output::DIM, &format!("  {label:<9}"));
        writeln!(out, "{label}{}", text::one_line(value))
    };
    line("session", &conversation.session_id)?;
    if let Some(path) = &conversation.project_path {
        line("project", &path.value)?;
    }
    if let Some(model) = &conversation.model {
        line("model", &model.value)?;
    }
    let moment = |at: Timestamp| zone.whole_moment(at);
    line("started", &moment(conversation.began_at()))?;
    match (conversation.ended_at(), &conversation.ended) {
        (Some(at), Some(reason)) => {
            let lasted = at.since(conversation.began_at()).as_millis();
            let lasted = output::duration(u64::try_from(lasted).unwrap_or(u64::MAX));
            line("ended", &format!("{}, after {lasted} ({})", moment(at), reason.value))?;
        }
        _ => match conversation.state(now) {
            ConversationState::Abandoned(since) => {
                line("state", &format!("abandoned since {}", moment(since)))?;
            }
            _ => line("open", &format!("last event {}", moment(conversation.last_event_at)))?,
        },
    }
    let count = |n: usize, what: &str| output::count(n, what);
    line(
        "has",
        &format!(
            "{}, {}, {}",
            count(detail.messages.len(), "message"),
            count(detail.tool_uses.len(), "tool use"),
            count(detail.events.len(), "event")
        ),
    )?;
    let folded = detail.messages.iter().filter(|one| spoken::is_for_model(one)).count();
    if folded > 0 && !unfold.system {
        let folded = count(folded, "message");
        line("folded", &format!("{folded} of the client for the model; --unfold shows them"))?;
    }
    for gap in detail.reconciliation().gaps {
        line("missing", &gap.to_string())?;
    }
    let usage = &detail.usage;
    if usage.models.is_empty() {
        return Ok(());
    }
    let tokens = |n: u64| format!("{n} token{}", if n == 1 { "" } else { "s" });
    let total = usage.total;
    line(
        "used",
        &format!(
            "{} in ({} from the cache), {} out",
            tokens(total.prompt_tokens()),
            total.cache_read_tokens,
            tokens(total.output_tokens)
        ),
    )?;
    let mut costs = Vec::new();
    if usage.has_unknown_price {
        costs.push(format!("more than {}: not every model's price is known", usage.cost));
    } else {
        costs.push(format!("{} by the prices of {}", usage.cost, price::table().date()));
    }
    if usage.has_unverified_price {
        costs.push("some prices are unverified".to_owned());
    }
    let client = conversation.client_cost.as_ref().map(|client| client.total);
    if let Some(client) = client.or(usage.client_cost).filter(|client| *client != usage.cost) {
        costs.push(format!("{client} by the client"));
    }
    line("cost", &costs.join("; "))
}
