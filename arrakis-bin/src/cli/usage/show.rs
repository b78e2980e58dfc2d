//! Sums of usage as a table, as CSV and as JSON.

use std::collections::BTreeSet;
use std::io::{self, Write};

use arrakis_core::base::clock::Timestamp;
use arrakis_core::session::conversation::Conversation;
use arrakis_core::session::price;
use arrakis_core::session::usage::Usd;
use serde::Serialize;

use super::sums::{Part, Sum};
use super::{By, Conversations, UsageArgs};
use crate::cli::Context;
use crate::cli::export::guarded;
use crate::cli::output::table::{Cell, Column, Table};
use crate::cli::output::{self, number};

const CSV: [&str; 17] = [
    "key",
    "title",
    "project_path",
    "models",
    "messages",
    "input_tokens",
    "output_tokens",
    "cache_creation_tokens",
    "cache_creation_1h_tokens",
    "cache_read_tokens",
    "thinking_tokens",
    "web_searches",
    "total_tokens",
    "cost",
    "own_cost",
    "cost_is_complete",
    "client_cost",
];

/// What is shown.
pub(super) struct Report<'a> {
    pub(super) args: &'a UsageArgs,
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) rows: &'a [(Option<String>, Sum)],
    pub(super) conversations: &'a Conversations,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    by: String,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    prices: &'a str,
    rows: Vec<RowView<'a>>,
    total: &'a Sum,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RowView<'a> {
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cost: Option<Usd>,
    #[serde(flatten)]
    sum: &'a Sum,
}

impl<'a> RowView<'a> {
    fn of((key, sum): &'a (Option<String>, Sum), session: Option<&'a Conversation>) -> Self {
        let title = session.and_then(|one| one.title.as_ref());
        let path = session.and_then(|one| one.project_path.as_ref());
        Self {
            key: key.as_deref(),
            title: title.map(|title| title.value.as_str()),
            project_path: path.map(|path| path.value.as_str()),
            client_cost: session.and_then(|one| one.client_cost.as_ref()).map(|cost| cost.total),
            sum,
        }
    }

    fn models(&self) -> String {
        let short = |name: &'a String| name.strip_prefix("claude-").unwrap_or(name);
        self.sum.models.keys().map(short).collect::<Vec<_>>().join(", ")
    }
}

impl Report<'_> {
    pub(super) fn write(&self, context: &mut Context) -> anyhow::Result<()> {
        let rows: Vec<RowView<'_>> =
            self.rows.iter().map(|row| RowView::of(row, self.session(row))).collect();
        let mut total = Sum::default();
        self.rows.iter().for_each(|(_, sum)| total.merge(sum));
        if context.json {
            let by = format!("{:?}", self.args.by).to_lowercase();
            let prices = price::table().date();
            let (since, until) = (self.since, self.until);
            let view = View { by, since, until, prices, rows, total: &total };
            return Ok(context.write_json(&view)?);
        }
        if self.args.csv {
            return csv(&rows, context);
        }
        if rows.is_empty() {
            return Ok(context.remark("Nothing was used then, as far as is known.")?);
        }
        self.table(&rows, &total, context).write(&mut context.out, context.terminal)?;
        Ok(remark_unknown(&total, context)?)
    }

    /// The session that a row is of.
    fn session(&self, (key, _): &(Option<String>, Sum)) -> Option<&Conversation> {
        let id = key.as_ref().filter(|_| self.args.by == By::Session)?;
        self.conversations.values().find(|one| one.session_id == *id)
    }

    fn table(&self, rows: &[RowView<'_>], total: &Sum, context: &Context) -> Table {
        let is_piped = context.terminal.width.is_none();
        let number = |n: u64| if is_piped { n.to_string() } else { number(n) };
        let mut table = Table::new(vec![
            Column::new(format!("{:?}", self.args.by).to_uppercase()).shrinks_to(12),
            Column::new("TITLE").shrinks_to(12).optional(),
            Column::new("MODELS").shrinks_to(8).optional(),
            Column::new("INPUT").right(),
            Column::new("OUTPUT").right(),
            Column::new("CACHE CREATE").right(),
            Column::new("CACHE READ").right(),
            Column::new("TOTAL").right(),
            Column::new("COST").right(),
            Column::new("OWN").right().optional(),
            Column::new("BY CLIENT").right().optional(),
        ]);
        let has_subagents = total.own != total.total;
        let mut row = |key: &str, title: &str, models: &str, sum: &Sum, client: Option<Usd>| {
            let Part { usage, total_tokens, .. } = sum.total;
            let own = if has_subagents { sum.own.cost_text() } else { String::new() };
            let client = client.filter(|client| *client != sum.total.cost);
            table.row(vec![
                Cell::new(key).style(output::BOLD),
                Cell::new(title),
                Cell::new(models).style(output::DIM),
                Cell::new(&number(usage.input_tokens)),
                Cell::new(&number(usage.output_tokens)),
                Cell::new(&number(usage.cache_creation_tokens)),
                Cell::new(&number(usage.cache_read_tokens)),
                Cell::new(&number(total_tokens)),
                Cell::new(&sum.total.cost_text()).style(output::GOOD),
                Cell::new(&own),
                Cell::new(&client.map_or_else(String::new, |client| client.to_string())),
            ]);
        };
        let by = self.args.by;
        for view in rows {
            let models = if by == By::Model { String::new() } else { view.models() };
            let key = view.key.unwrap_or("(not known)");
            row(key, view.title.unwrap_or_default(), &models, view.sum, view.client_cost);
        }
        row("Total", "", "", total, None);
        table
    }
}

/// Names the models whose price is not known, and those whose price was not read at the provider.
fn remark_unknown(total: &Sum, context: &mut Context) -> io::Result<()> {
    let named = |is_meant: fn(&Part) -> bool| {
        let models = total.models.iter().filter(|(_, part)| is_meant(part));
        let models: BTreeSet<&str> = models.map(|(name, _)| name.as_str()).collect();
        (!models.is_empty()).then(|| Vec::from_iter(models).join(", "))
    };
    if let Some(names) = named(|part| part.has_unknown_price) {
        context
            .remark(&format!("\nCosts are more than is shown: no price is known of {names}."))?;
    }
    if let Some(names) = named(|part| part.has_unverified_price) {
        context.remark(&format!("\nSome prices are unverified: {names}."))?;
    }
    Ok(())
}

fn csv(rows: &[RowView<'_>], context: &mut Context) -> anyhow::Result<()> {
    let mut out = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::with_capacity(4096));
    out.write_record(CSV)?;
    for row in rows {
        let part = &row.sum.total;
        let usage = &part.usage;
        let text = |text: Option<&str>| guarded(text.unwrap_or_default()).into_owned();
        out.write_record([
            text(row.key),
            text(row.title),
            text(row.project_path),
            text(Some(&row.models())),
            part.messages.to_string(),
            usage.input_tokens.to_string(),
            usage.output_tokens.to_string(),
            usage.cache_creation_tokens.to_string(),
            usage.cache_creation_1h_tokens.to_string(),
            usage.cache_read_tokens.to_string(),
            usage.thinking_tokens.to_string(),
            usage.web_searches.to_string(),
            part.total_tokens.to_string(),
            part.cost.as_dollars().to_string(),
            row.sum.own.cost.as_dollars().to_string(),
            (!part.has_unknown_price).to_string(),
            row.client_cost.map_or_else(String::new, |cost| cost.as_dollars().to_string()),
        ])?;
    }
    let written = out.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(context.out.write_all(&written)?)
}
