//! The conformance suite of [`EventStore`] and [`EventReader`](crate::record::store::EventReader).

mod blocks;
mod feed;
mod list;
mod read;
mod record;
mod search;
mod sides;
mod transcript;
mod work;
mod workspaces;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

pub use blocks::{
    a_hook_that_says_the_same_as_a_large_message_is_shown_and_found_once,
    a_message_of_many_and_large_blocks_is_the_same_in_any_order,
    of_the_blocks_of_a_message_the_first_are_kept,
};
pub use feed::{
    the_feed_continues_where_it_was_left, the_feed_shows_every_commit_and_every_change_of_state,
};
pub use list::{
    a_list_of_conversations_goes_on_from_its_cursor,
    a_page_looks_at_a_bounded_number_of_rows_and_says_where_to_go_on,
    lists_are_newest_first_and_continue_without_gap, lists_can_be_filtered,
    of_a_conversation_a_bounded_number_of_messages_and_tool_uses_is_counted,
};
pub use read::{
    a_conversation_is_read_whole, counts_are_by_state, payloads_are_found_by_their_words,
};
pub use record::{
    a_body_that_is_json_is_kept_as_that_json, a_body_that_is_not_json_is_kept_byte_for_byte,
    a_repeat_gets_the_first_answer_and_leaves_a_duplicate_row,
    a_repeat_with_another_digest_is_told_and_changes_nothing,
    an_arrival_outside_the_ledger_leaves_its_id_free, changes_merge_in_any_order,
    every_text_is_kept_as_it_is, many_senders_of_one_id_have_one_first,
    repeats_inside_one_batch_are_treated_as_repeats_across_batches,
    the_first_arrival_is_admitted_with_its_changes,
};
pub use search::{
    a_page_of_a_search_is_small_however_large_what_it_finds_is,
    a_project_is_found_however_many_conversations_it_has, a_search_can_be_filtered,
    a_search_finds_phrases_and_beginnings_of_words, a_search_finds_the_same_in_every_store,
    a_search_finds_words_in_every_script_however_they_are_written,
    a_search_goes_on_from_its_cursor_whatever_is_stored_meanwhile,
    messages_and_tool_uses_are_found_by_their_words,
    what_an_event_and_the_transcript_say_is_found_once, what_changed_is_found_by_what_it_is_now,
    what_shares_a_time_is_found_page_by_page,
};
pub use sides::what_only_one_side_has_told_of_is_counted;
pub use transcript::{
    a_message_grows_by_its_blocks_and_its_usage_counts_once, a_session_is_the_same_in_any_order,
    hooks_and_transcript_tell_of_the_same_messages_and_tools,
    prompts_are_shown_counted_and_found_once, subagents_are_kept_with_what_started_them,
};
pub use work::{
    a_claim_can_be_rescued_and_its_row_run_out_of_retries, a_claim_that_was_lost_changes_nothing,
    a_row_that_failed_is_claimed_once_when_it_is_due,
    only_legal_transitions_happen_and_each_leaves_a_trail, what_was_discarded_stays_as_it_is,
};
pub use workspaces::{
    a_named_digest_finds_repeats_and_hides_nothing,
    a_snapshot_says_in_another_workspace_what_it_says_at_home,
    a_snapshot_touches_its_own_session_only, each_workspace_sees_what_it_would_see_alone,
    workspaces_do_not_know_of_each_other,
};

use crate::base::clock::{Clock, ManualClock, Timestamp};
use crate::base::envelope::{Envelope, Source};
use crate::base::id::uuid_v7;
use crate::record::audit::EventStatus;
use crate::record::ingest::{Reception, admit};
use crate::record::store::{
    Admission, Arrival, ConversationFilter, ConversationSummary, DEFAULT_WORKSPACE, EventFilter,
    EventKey, EventStore, Page, Verdict,
};

/// An empty store, and the clock that it reads.
pub trait EventStoreFixture: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn EventStore>;

    /// The clock.
    fn clock(&self) -> Arc<ManualClock>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`EventStoreFixture`].
#[macro_export]
macro_rules! event_store_conformance {
    ($make:path) => {
        $crate::event_store_conformance!(@cases $make:
            the_first_arrival_is_admitted_with_its_changes,
            a_repeat_gets_the_first_answer_and_leaves_a_duplicate_row,
            a_repeat_with_another_digest_is_told_and_changes_nothing,
            repeats_inside_one_batch_are_treated_as_repeats_across_batches,
            many_senders_of_one_id_have_one_first,
            an_arrival_outside_the_ledger_leaves_its_id_free,
            workspaces_do_not_know_of_each_other,
            each_workspace_sees_what_it_would_see_alone,
            a_snapshot_says_in_another_workspace_what_it_says_at_home,
            a_snapshot_touches_its_own_session_only,
            a_named_digest_finds_repeats_and_hides_nothing,
            changes_merge_in_any_order,
            a_message_grows_by_its_blocks_and_its_usage_counts_once,
            a_message_of_many_and_large_blocks_is_the_same_in_any_order,
            of_the_blocks_of_a_message_the_first_are_kept,
            a_hook_that_says_the_same_as_a_large_message_is_shown_and_found_once,
            hooks_and_transcript_tell_of_the_same_messages_and_tools,
            prompts_are_shown_counted_and_found_once,
            subagents_are_kept_with_what_started_them,
            a_session_is_the_same_in_any_order,
            a_body_that_is_not_json_is_kept_byte_for_byte,
            a_body_that_is_json_is_kept_as_that_json,
            every_text_is_kept_as_it_is,
            a_row_that_failed_is_claimed_once_when_it_is_due,
            a_claim_that_was_lost_changes_nothing,
            a_claim_can_be_rescued_and_its_row_run_out_of_retries,
            only_legal_transitions_happen_and_each_leaves_a_trail,
            what_was_discarded_stays_as_it_is,
            lists_are_newest_first_and_continue_without_gap,
            lists_can_be_filtered,
            a_page_looks_at_a_bounded_number_of_rows_and_says_where_to_go_on,
            a_list_of_conversations_goes_on_from_its_cursor,
            of_a_conversation_a_bounded_number_of_messages_and_tool_uses_is_counted,
            a_conversation_is_read_whole,
            what_only_one_side_has_told_of_is_counted,
            counts_are_by_state,
            payloads_are_found_by_their_words,
            messages_and_tool_uses_are_found_by_their_words,
            a_search_finds_words_in_every_script_however_they_are_written,
            a_search_finds_phrases_and_beginnings_of_words,
            a_search_can_be_filtered,
            a_page_of_a_search_is_small_however_large_what_it_finds_is,
            what_shares_a_time_is_found_page_by_page,
            a_search_goes_on_from_its_cursor_whatever_is_stored_meanwhile,
            what_changed_is_found_by_what_it_is_now,
            what_an_event_and_the_transcript_say_is_found_once,
            a_project_is_found_however_many_conversations_it_has,
            a_search_finds_the_same_in_every_store,
            the_feed_shows_every_commit_and_every_change_of_state,
            the_feed_continues_where_it_was_left,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::event_store::$case(&$make().await).await;
            }
        )*
    };
}

const START: Timestamp = Timestamp::EPOCH;

/// Makes arrivals one after the other, as a server would.
#[derive(Debug)]
pub struct Arrivals {
    clock: Arc<ManualClock>,
    count: u64,
    workspace: String,
}

impl Arrivals {
    /// Arrivals that are received when `clock` says.
    #[must_use]
    pub fn new(clock: Arc<ManualClock>) -> Self {
        Self { clock, count: 0, workspace: DEFAULT_WORKSPACE.to_owned() }
    }

    /// The next arrivals are of this workspace.
    pub fn go_on_in(&mut self, workspace: &str) {
        workspace.clone_into(&mut self.workspace);
    }

    /// An envelope with this id and payload, judged.
    pub fn next(&mut self, id: &str, payload: impl Into<Bytes>) -> (Arrival, Verdict) {
        self.next_from(Source::default(), id, payload)
    }

    /// The same, captured there.
    pub fn next_from(
        &mut self,
        source: Source,
        id: &str,
        payload: impl Into<Bytes>,
    ) -> (Arrival, Verdict) {
        self.count += 1;
        self.clock.advance(Duration::from_millis(1));
        let now = self.clock.now();
        let id = id.parse().expect("a valid request id");
        let envelope = Envelope::new(id, now, "http://h/", source, payload);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.count.to_be_bytes());
        let reception = Reception {
            event_id: uuid_v7(now, random),
            received_at: now,
            workspace: self.workspace.clone(),
            headers: [("user-agent".to_owned(), "test/1 \"quoted\"".to_owned())].into(),
            ip_address: Some([192, 0, 2, 7].into()),
        };
        admit(envelope.into(), reception)
    }

    /// The id of one more row.
    pub fn event_id(&mut self) -> Uuid {
        self.next("unused", "").0.event_id
    }

    /// A prompt of a session.
    pub fn prompt(&mut self, id: &str, session: &str) -> (Arrival, Verdict) {
        self.next(id, hook(session, "UserPromptSubmit", &format!(r#","prompt":"prompt {id}""#)))
    }
}

/// A hook payload with the common fields and `more`.
#[must_use]
pub fn hook(session: &str, event: &str, more: &str) -> String {
    let session = serde_json::to_string(session).expect("text");
    format!(r#"{{"session_id":{session},"cwd":"/p","hook_event_name":"{event}"{more}}}"#)
}

fn failed(arrival: Arrival) -> (Arrival, Verdict) {
    let (code, message) = ("too_deep".to_owned(), "it nests too deep".to_owned());
    (arrival, Verdict::Failed { code, message })
}

async fn record_one(store: &dyn EventStore, one: (Arrival, Verdict)) -> Admission {
    let mut admissions = store.record(vec![one]).await.expect("record");
    assert_eq!(admissions.len(), 1);
    admissions.remove(0)
}

async fn status_of(store: &dyn EventStore, id: Uuid) -> EventStatus {
    let event = store.event(DEFAULT_WORKSPACE, EventKey::Id(id)).await.expect("event");
    event.expect("the row is there").summary.status
}

async fn all(store: &dyn EventStore, filter: EventFilter) -> Vec<(String, EventStatus)> {
    let rows = store.events(filter, Page::first(1000)).await.expect("events");
    rows.events.into_iter().map(|row| (row.request_id.to_string(), row.status)).collect()
}

/// The first conversations of a workspace's list.
async fn conversations(store: &dyn EventStore, workspace: &str) -> Vec<ConversationSummary> {
    let filter = ConversationFilter::new(workspace);
    store.conversations(filter, Page::first(100)).await.expect("conversations").conversations
}

/// JSON without what its spacing and the order of its keys add; anything else as it is.
fn normalized(body: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |json| json.to_string())
}
