//! A line of a transcript.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::clock::Timestamp;
use crate::base::id::RequestId;
use crate::base::limits::CLIENT_COST_MAX_MODELS;
use crate::session::hook::{Field, object};
use crate::session::transcript::copies::Owners;
use crate::session::transcript::line_type::{Named, is_possible};
use crate::session::usage::{ClientCost, ClientModelCost, Usage, Usd};

/// The fields of a line that are read; of another type than expected they count as absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'a> {
    #[serde(skip)]
    pub(super) raw: &'a [u8],
    #[serde(borrow, default, rename = "type")]
    line_type: Field<'a>,
    #[serde(borrow, default)]
    subtype: Field<'a>,
    #[serde(borrow, default)]
    operation: Field<'a>,
    #[serde(borrow, default)]
    pub(super) attachment: Field<'a>,
    #[serde(borrow, default)]
    uuid: Field<'a>,
    #[serde(borrow, default)]
    parent_uuid: Field<'a>,
    #[serde(borrow, default)]
    request_id: Field<'a>,
    #[serde(borrow, default, rename = "sourceToolAssistantUUID")]
    source_tool_assistant: Field<'a>,
    #[serde(borrow, default)]
    turn_position: Field<'a>,
    #[serde(borrow, default)]
    timestamp: Field<'a>,
    #[serde(borrow, default)]
    pub(super) prompt_id: Field<'a>,
    #[serde(borrow, default)]
    pub(super) agent_id: Field<'a>,
    #[serde(borrow, default)]
    pub(super) attribution_agent: Field<'a>,
    #[serde(borrow, default)]
    pub(super) is_sidechain: Field<'a>,
    #[serde(borrow, default)]
    session_id: Field<'a>,
    #[serde(borrow, default)]
    request_session_id: Field<'a>,
    #[serde(borrow, default)]
    forked_from: Field<'a>,
    #[serde(borrow, default)]
    origin: Field<'a>,
    #[serde(borrow, default)]
    pub(super) prompt_source: Field<'a>,
    #[serde(borrow, default)]
    prompt_submit_ending: Field<'a>,
    #[serde(borrow, default)]
    turn_origin: Field<'a>,
    #[serde(borrow, default)]
    row_source: Field<'a>,
    #[serde(borrow, default)]
    sent_at_ms: Field<'a>,
    #[serde(borrow, default)]
    pub(super) is_meta: Field<'a>,
    #[serde(borrow, default)]
    pub(super) is_compact_summary: Field<'a>,
    #[serde(borrow, default)]
    is_visible_in_transcript_only: Field<'a>,
    #[serde(borrow, default)]
    pub(super) summarize_metadata: Field<'a>,
    #[serde(borrow, default)]
    turn_companion: Field<'a>,
    #[serde(borrow, default)]
    pub(super) own_note: Field<'a>,
    #[serde(borrow, default)]
    pub(super) scheduled_task_id: Field<'a>,
    #[serde(borrow, default)]
    pub(super) wakeup_source: Field<'a>,
    #[serde(borrow, default)]
    interrupted_message_id: Field<'a>,
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
    /// What the message cost; of old clients.
    #[serde(borrow, default, rename = "costUSD")]
    message_cost: Field<'a>,
    #[serde(borrow, default)]
    pub(super) content: Field<'a>,
    #[serde(borrow, default)]
    pub(super) tool_use_result: Field<'a>,
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
    pub(super) model: Field<'a>,
    #[serde(borrow, default)]
    pub(super) content: Field<'a>,
    #[serde(borrow, default)]
    pub(super) usage: Field<'a>,
    #[serde(borrow, default)]
    stop_reason: Field<'a>,
}

/// Why a model stops that has said what it wanted.
const ORDINARY_ENDS: &[&str] = &["end_turn", "stop_sequence", "tool_use"];

impl ApiMessage<'_> {
    /// What ended the message early, as the API names it.
    pub(super) fn ended_early_by(&self) -> Option<String> {
        let reason = self.stop_reason.text()?;
        (!ORDINARY_ENDS.contains(&&*reason)).then(|| super::name(&reason))
    }
}

impl<'a> Line<'a> {
    /// Reads a line; none where it is no object.
    pub(super) fn read(raw: &'a RawValue) -> Option<Self> {
        let raw = raw.get().as_bytes();
        object(raw).ok().map(|line: Self| Self { raw, ..line })
    }

    /// Whether it says that it is a copy of a line of a session other than this one.
    pub(super) fn is_copied(&self, session_id: &str) -> bool {
        Owners {
            session_id: self.session_id,
            request_session_id: self.request_session_id,
            forked_from: self.forked_from,
        }
        .is_other(session_id)
    }

    /// The fields that say what it is.
    pub(super) fn named(&self) -> Named<'a> {
        Named {
            line_type: self.line_type,
            subtype: self.subtype,
            operation: self.operation,
            attachment: self.attachment,
            uuid: self.uuid,
            timestamp: self.timestamp,
            start_time: self.start_time,
        }
    }

    /// The API's id of the message of this line, together with that of the request, since gateways repeat the former, and
    /// with the `number` of the answer where they repeat both.
    pub(super) fn api_id(&self, message: &ApiMessage<'_>, number: Option<u32>) -> Option<String> {
        let id = message.id.text()?;
        let request = self.request_id.text().map(|request| format!(" {request}"));
        let number = number.map(|number| format!(" ({number})"));
        Some(super::name(
            &[&id, &*request.unwrap_or_default(), &*number.unwrap_or_default()].concat(),
        ))
    }

    /// The line that asked for the tool uses whose results it has.
    pub(super) fn caller(&self) -> Option<RequestId> {
        let told = self.source_tool_assistant.text().and_then(|text| text.parse().ok());
        told.or_else(|| self.parent())
    }

    /// The line that it follows.
    pub(super) fn parent(&self) -> Option<RequestId> {
        self.parent_uuid.text()?.parse().ok()
    }

    /// Which prompt of the session it is, or belongs to.
    pub(super) fn prompt_index(&self) -> Option<u32> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Position<'a> {
            #[serde(borrow, default)]
            prompt_index: Field<'a>,
        }
        self.turn_position.object::<Position<'_>>()?.prompt_index.read()
    }

    /// What the client says that the session costs.
    pub(super) fn cost(&self) -> Option<ClientCost> {
        let number = |field: Field<'_>| field.read().unwrap_or(0);
        let models: BTreeMap<String, &RawValue> = self.model_usage.read().unwrap_or_default();
        Some(ClientCost {
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
        })
    }

    /// The prompt that a hook has kept from the model, where the client tells of one.
    pub(super) fn blocked_prompt(&self) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Ending<'a> {
            #[serde(borrow, default)]
            prompt_kept: Field<'a>,
        }
        let ending = self.prompt_submit_ending.object::<Ending<'_>>();
        if ending.is_some_and(|ending| ending.prompt_kept.read() == Some(true)) {
            return None;
        }
        let told = self.content.text()?;
        let told = told.strip_prefix("UserPromptSubmit operation blocked by hook:")?;
        Some(told.split_once("\n\nOriginal prompt: ")?.1.to_owned())
    }

    /// Who or what has caused it, if that is not the person.
    pub(super) fn origin_kind(&self) -> Option<Cow<'_, str>> {
        origin_kind(self.origin).filter(|kind| kind != "human")
    }

    /// What the client says that the message cost.
    pub(super) fn message_cost(&self) -> Option<Usd> {
        dollars(self.message_cost)
    }

    /// When the person sent it.
    pub(super) fn sent_at(&self) -> Option<Timestamp> {
        self.sent_at_ms.read().map(Timestamp::from_millis).filter(is_possible)
    }

    /// Whether the words of a `user` line in the person's name are the person's, or, in the thread of a
    /// subagent, the task that it was given. `speakers` says of each text whether it is the client's.
    pub(super) fn is_of_person(
        &self,
        mut speakers: impl Iterator<Item = bool>,
        is_main_thread: bool,
    ) -> bool {
        let marks = [
            self.is_meta,
            self.is_compact_summary,
            self.is_visible_in_transcript_only,
            self.summarize_metadata,
            self.turn_companion,
            self.own_note,
            self.scheduled_task_id,
            self.wakeup_source,
            self.interrupted_message_id,
        ];
        if marks.into_iter().any(Field::is_set) {
            return false;
        }
        let is_human = match origin_kind(self.origin).as_deref() {
            Some("human") => true,
            Some(_) => return false,
            None => false,
        };
        let is_sent = match self.prompt_source.text().as_deref() {
            Some("typed" | "queued" | "sdk") => true,
            Some(_) if !is_human => return false,
            _ => false,
        };
        if is_human && is_sent {
            return true; // whatever it begins with
        }
        if !matches!(self.turn_origin.text().as_deref(), None | Some("human" | "sdk")) {
            return false;
        }
        // What is recorded for the model is the task of a subagent, and in the main thread the client's.
        let is_local = matches!(self.row_source.text().as_deref(), None | Some("local"));
        if is_main_thread && !is_local && !is_human {
            return false;
        }
        let first = speakers.next();
        first.is_none_or(|is_client| !is_client || !speakers.all(|is_client| is_client))
    }
}

/// A prompt that was handed over within a turn.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueuedCommand<'a> {
    #[serde(borrow, default)]
    pub(super) prompt: Field<'a>,
    #[serde(borrow, default)]
    command_mode: Field<'a>,
    #[serde(borrow, default)]
    origin: Field<'a>,
    #[serde(borrow, default)]
    is_meta: Field<'a>,
    #[serde(borrow, default)]
    timestamp: Field<'a>,
}

impl QueuedCommand<'_> {
    /// When it was put into the queue.
    pub(super) fn sent_at(&self) -> Option<Timestamp> {
        self.timestamp.text()?.parse().ok().filter(is_possible)
    }

    /// Whether the words are the person's.
    pub(super) fn is_of_person(&self, mut speakers: impl Iterator<Item = bool>) -> bool {
        let is_prompt = self.command_mode.text().as_deref() == Some("prompt");
        let is_human = matches!(origin_kind(self.origin).as_deref(), None | Some("human"));
        is_prompt && is_human && !self.is_meta.is_set() && !speakers.any(|is_client| is_client)
    }
}

/// Who or what has caused a prompt.
fn origin_kind(origin: Field<'_>) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Origin<'a> {
        #[serde(borrow, default)]
        kind: Field<'a>,
    }
    origin.object::<Origin<'_>>()?.kind.text()
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
