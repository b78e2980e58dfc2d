//! What a message of the API took.
//!
//! The counts of a message are those of the model that wrote it. Where the API called models beside that, such as an
//! advisor, or called it for something else first, such as to compact the prompt, `iterations` lists all calls, and the
//! counts of the message leave those others out: they are messages of their own.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::line::ApiMessage;
use crate::session::hook::{Field, object};
use crate::session::price::priced_name;
use crate::session::usage::Usage;

/// How many models beside the message's own are told apart.
const MAX_OTHERS: usize = 8;

/// What the API's call of one model took.
pub(super) struct Call {
    /// What it was for, as the API names it: `advisor_message`, `compaction`.
    pub(super) kind: String,
    /// The model; the message's own where none is named.
    pub(super) model: Option<String>,
    /// What it took; none where only its words are known.
    pub(super) usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Field<'a>,
    #[serde(borrow, default)]
    model: Field<'a>,
    #[serde(borrow, default)]
    input_tokens: Field<'a>,
    #[serde(borrow, default)]
    output_tokens: Field<'a>,
    #[serde(borrow, default)]
    cache_read_input_tokens: Field<'a>,
    #[serde(borrow, default)]
    cache_creation_input_tokens: Field<'a>,
    #[serde(borrow, default)]
    cache_creation: Field<'a>,
    #[serde(borrow, default)]
    output_tokens_details: Field<'a>,
    #[serde(borrow, default)]
    server_tool_use: Field<'a>,
    #[serde(borrow, default)]
    iterations: Field<'a>,
    #[serde(borrow, default)]
    speed: Field<'a>,
    #[serde(borrow, default)]
    inference_geo: Field<'a>,
}

#[derive(Deserialize, Default)]
struct Details<'a> {
    #[serde(borrow, default)]
    ephemeral_5m_input_tokens: Field<'a>,
    #[serde(borrow, default)]
    ephemeral_1h_input_tokens: Field<'a>,
    #[serde(borrow, default)]
    thinking_tokens: Field<'a>,
    #[serde(borrow, default)]
    web_search_requests: Field<'a>,
}

impl Raw<'_> {
    fn usage(&self) -> Usage {
        let number = |field: Field<'_>| field.read::<u64>().unwrap_or(0);
        let written = self.cache_creation.object::<Details<'_>>().unwrap_or_default();
        let (written_5m, written_1h) =
            (number(written.ephemeral_5m_input_tokens), number(written.ephemeral_1h_input_tokens));
        let thinking = self.output_tokens_details.object::<Details<'_>>().unwrap_or_default();
        let searches = self.server_tool_use.object::<Details<'_>>().unwrap_or_default();
        Usage {
            input_tokens: number(self.input_tokens),
            output_tokens: number(self.output_tokens),
            cache_read_tokens: number(self.cache_read_input_tokens),
            cache_creation_tokens: number(self.cache_creation_input_tokens)
                .max(written_5m.saturating_add(written_1h)),
            cache_creation_1h_tokens: written_1h,
            thinking_tokens: number(thinking.thinking_tokens),
            web_searches: number(searches.web_search_requests),
        }
    }

    /// The name under which `model` is priced.
    fn priced_name(&self, model: &str) -> String {
        let is_fast = self.speed.text().as_deref() == Some("fast");
        let is_us = self.inference_geo.text().as_deref() == Some("us");
        priced_name(model, is_fast, is_us)
    }
}

impl ApiMessage<'_> {
    fn raw_usage(&self) -> Option<Raw<'_>> {
        self.usage.object()
    }

    /// What the message took, without the calls beside it.
    pub(super) fn usage(&self) -> Option<Usage> {
        Some(self.raw_usage()?.usage())
    }

    /// The model that wrote it, under the name by which it is priced.
    pub(super) fn priced_model(&self) -> Option<String> {
        let model = self.model.text()?;
        Some(match self.raw_usage() {
            Some(raw) => raw.priced_name(&model),
            None => model.into_owned(),
        })
    }

    /// The calls beside the message: one for each kind and model, in the order in which the API lists them.
    pub(super) fn calls_beside(&self) -> Vec<Call> {
        let Some(whole) = self.raw_usage() else { return Vec::new() };
        let mut calls: Vec<Call> = Vec::new();
        for raw in whole.iterations.read::<Vec<&RawValue>>().unwrap_or_default() {
            let Ok(raw) = object::<Raw<'_>>(raw.get().as_bytes()) else { continue };
            let Some(kind) = raw.kind.text().filter(|kind| kind != "message") else { continue };
            let model = raw.model.text().map(|model| raw.priced_name(&model));
            let known = calls.iter().position(|call| call.kind == kind && call.model == model);
            if let Some(n) = known {
                *calls[n].usage.get_or_insert_default() += raw.usage();
            } else if calls.len() < MAX_OTHERS {
                calls.push(Call { kind: kind.into_owned(), model, usage: Some(raw.usage()) });
            }
        }
        calls
    }
}
