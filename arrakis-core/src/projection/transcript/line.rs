//! A line of a transcript.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::event::{Field, object};
use crate::limits::CLIENT_COST_MAX_MODELS;
use crate::usage::{ClientCost, ClientModelCost, Usage, Usd};

/// The fields of a line that are read; of another type than expected they count as absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'a> {
    #[serde(skip)]
    pub(super) raw: &'a [u8],
    #[serde(borrow, default, rename = "type")]
    pub(super) line_type: Field<'a>,
    #[serde(borrow, default)]
    pub(super) uuid: Field<'a>,
    #[serde(borrow, default)]
    pub(super) timestamp: Field<'a>,
    #[serde(borrow, default)]
    pub(super) prompt_id: Field<'a>,
    #[serde(borrow, default)]
    pub(super) agent_id: Field<'a>,
    #[serde(borrow, default)]
    pub(super) attribution_agent: Field<'a>,
    #[serde(borrow, default)]
    pub(super) is_sidechain: Field<'a>,
    #[serde(borrow, default)]
    pub(super) is_meta: Field<'a>,
    #[serde(borrow, default)]
    pub(super) is_compact_summary: Field<'a>,
    #[serde(borrow, default)]
    pub(super) is_api_error_message: Field<'a>,
    #[serde(borrow, default)]
    pub(super) cwd: Field<'a>,
    #[serde(borrow, default)]
    pub(super) git_branch: Field<'a>,
    #[serde(borrow, default)]
    pub(super) version: Field<'a>,
    #[serde(borrow, default)]
    pub(super) api_block_index: Field<'a>,
    #[serde(borrow, default)]
    pub(super) message: Field<'a>,
    #[serde(borrow, default)]
    pub(super) content: Field<'a>,
    #[serde(borrow, default)]
    pub(super) tool_use_result: Field<'a>,
    #[serde(borrow, default)]
    tool_denial_kind: Field<'a>,
    #[serde(borrow, default)]
    permission_decision: Field<'a>,
    #[serde(borrow, default, rename = "totalCostUSD")]
    total_cost: Field<'a>,
    #[serde(borrow, default)]
    total_duration: Field<'a>,
    #[serde(borrow, default, rename = "totalAPIDuration")]
    total_api_duration: Field<'a>,
    #[serde(borrow, default)]
    total_tool_duration: Field<'a>,
    #[serde(borrow, default)]
    total_lines_added: Field<'a>,
    #[serde(borrow, default)]
    total_lines_removed: Field<'a>,
    #[serde(borrow, default)]
    has_unknown_model_cost: Field<'a>,
    #[serde(borrow, default)]
    start_time: Field<'a>,
    #[serde(borrow, default)]
    model_usage: Field<'a>,
}

/// A message as the API has it.
#[derive(Deserialize)]
pub(super) struct ApiMessage<'a> {
    #[serde(borrow, default)]
    pub(super) id: Field<'a>,
    #[serde(borrow, default)]
    pub(super) role: Field<'a>,
    #[serde(borrow, default)]
    pub(super) model: Field<'a>,
    #[serde(borrow, default)]
    pub(super) content: Field<'a>,
    #[serde(borrow, default)]
    usage: Field<'a>,
}

impl<'a> Line<'a> {
    /// Reads a line; none where it is no object.
    pub(super) fn read(raw: &'a RawValue) -> Option<Self> {
        let raw = raw.get().as_bytes();
        object(raw).ok().map(|line: Self| Self { raw, ..line })
    }

    /// Whether the tool whose result the line has was not permitted.
    pub(super) fn denies(&self) -> bool {
        #[derive(Deserialize)]
        struct Decision<'a> {
            #[serde(borrow, default)]
            decision: Field<'a>,
        }
        let decision = self.permission_decision.object::<Decision<'_>>();
        let decision = decision.and_then(|decision| decision.decision.text());
        self.tool_denial_kind.text().is_some() || decision.as_deref() == Some("reject")
    }

    /// What the client says that the session costs, and when the session was started.
    pub(super) fn cost(&self) -> Option<(Timestamp, ClientCost)> {
        let millis: i64 = self.start_time.read()?;
        let number = |field: Field<'_>| field.read().unwrap_or(0);
        let models: BTreeMap<String, &RawValue> = self.model_usage.read().unwrap_or_default();
        let cost = ClientCost {
            duration_ms: number(self.total_duration),
            total: dollars(self.total_cost)?,
            api_duration_ms: number(self.total_api_duration),
            tool_duration_ms: number(self.total_tool_duration),
            lines_added: number(self.total_lines_added),
            lines_removed: number(self.total_lines_removed),
            has_unknown_model_cost: self.has_unknown_model_cost.read().unwrap_or(false),
            models: models
                .into_iter()
                .take(CLIENT_COST_MAX_MODELS)
                .filter_map(|(name, raw)| Some((super::name(&name), model(raw)?)))
                .collect(),
        };
        Some((Timestamp::from_millis(millis), cost))
    }
}

impl ApiMessage<'_> {
    /// What the message took.
    pub(super) fn usage(&self) -> Option<Usage> {
        #[derive(Deserialize)]
        struct Raw<'a> {
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
        let raw: Raw<'_> = self.usage.object()?;
        let number = |field: Field<'_>| field.read::<u64>().unwrap_or(0);
        let written = raw.cache_creation.object::<Details<'_>>().unwrap_or_default();
        let (written_5m, written_1h) =
            (number(written.ephemeral_5m_input_tokens), number(written.ephemeral_1h_input_tokens));
        let thinking = raw.output_tokens_details.object::<Details<'_>>().unwrap_or_default();
        let searches = raw.server_tool_use.object::<Details<'_>>().unwrap_or_default();
        Some(Usage {
            input_tokens: number(raw.input_tokens),
            output_tokens: number(raw.output_tokens),
            cache_read_tokens: number(raw.cache_read_input_tokens),
            cache_creation_tokens: number(raw.cache_creation_input_tokens)
                .max(written_5m.saturating_add(written_1h)),
            cache_creation_1h_tokens: written_1h,
            thinking_tokens: number(thinking.thinking_tokens),
            web_searches: number(searches.web_search_requests),
        })
    }
}

fn model(raw: &RawValue) -> Option<ClientModelCost> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw<'a> {
        #[serde(borrow, default)]
        input_tokens: Field<'a>,
        #[serde(borrow, default)]
        output_tokens: Field<'a>,
        #[serde(borrow, default)]
        thinking_tokens: Field<'a>,
        #[serde(borrow, default)]
        cache_read_input_tokens: Field<'a>,
        #[serde(borrow, default)]
        cache_creation_input_tokens: Field<'a>,
        #[serde(borrow, default)]
        cache_creation_ephemeral1h_input_tokens: Field<'a>,
        #[serde(borrow, default)]
        web_search_requests: Field<'a>,
        #[serde(borrow, default, rename = "costUSD")]
        cost: Field<'a>,
    }
    let raw: Raw<'_> = object(raw.get().as_bytes()).ok()?;
    let number = |field: Field<'_>| field.read().unwrap_or(0);
    Some(ClientModelCost {
        usage: Usage {
            input_tokens: number(raw.input_tokens),
            output_tokens: number(raw.output_tokens),
            cache_read_tokens: number(raw.cache_read_input_tokens),
            cache_creation_tokens: number(raw.cache_creation_input_tokens),
            cache_creation_1h_tokens: number(raw.cache_creation_ephemeral1h_input_tokens),
            thinking_tokens: number(raw.thinking_tokens),
            web_searches: number(raw.web_search_requests),
        },
        cost: dollars(raw.cost).unwrap_or_default(),
    })
}

fn dollars(field: Field<'_>) -> Option<Usd> {
    field.read().and_then(Usd::from_dollars)
}
