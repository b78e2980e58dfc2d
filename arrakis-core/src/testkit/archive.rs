//! The conformance suite of [`Archive`].

use std::sync::Arc;

use bytes::Bytes;

use super::event_store::{Arrivals, EventStoreFixture, hook};
use super::sessions::generated;
use crate::base::envelope::{Form, Removed};
use crate::base::limits::ARCHIVE_PAGE_BYTES;
use crate::record::audit::EventStatus;
use crate::record::ingest::{Incoming, Reception, admit, judge};
use crate::record::store::{
    Archive, Arrival, ArrivalFilter, ConversationDetail, DEFAULT_WORKSPACE, Page, Verdict,
};

/// An empty store, and the clock that it reads.
pub trait ArchiveFixture: EventStoreFixture {
    /// The same store.
    fn archive(&self) -> Arc<dyn Archive>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`ArchiveFixture`].
#[macro_export]
macro_rules! archive_conformance {
    ($make:path) => {
        $crate::archive_conformance!(@cases $make:
            what_arrived_comes_back_oldest_first_without_a_gap,
            arrivals_can_be_filtered_and_say_whether_they_took_their_request_id,
            a_page_ends_where_its_bodies_add_up_to_much,
            the_values_of_a_conversation_come_back_whole,
            what_comes_back_is_the_same_event_elsewhere,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::archive::$case(&$make().await).await;
            }
        )*
    };
}

/// A list read in parts is the list, without repeats.
pub async fn what_arrived_comes_back_oldest_first_without_a_gap(fixture: &impl ArchiveFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let batch: Vec<_> = (0..25).map(|n| arrivals.prompt(&format!("e{n:02}"), "s")).collect();
    let again = arrivals.prompt("e07", "s");
    store.record(batch.clone()).await.expect("record");
    store.record(vec![again]).await.expect("record");
    let mut found = Vec::new();
    let mut page = Page::first(10);
    loop {
        let part = fixture.archive().arrivals(everything(), page).await.expect("arrivals");
        let Some(last) = part.last() else { break };
        page.after = Some(last.event_id);
        found.extend(part);
    }
    let expected: Vec<Arrival> = batch.into_iter().map(|(arrival, _)| arrival).collect();
    let plain = |all: &[Arrival]| all.iter().map(without_spacing).collect::<Vec<_>>();
    assert_eq!(plain(&found), plain(&expected));
}

/// Each filter, and what the ledger has.
pub async fn arrivals_can_be_filtered_and_say_whether_they_took_their_request_id(
    fixture: &impl ArchiveFixture,
) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let refused =
        |(arrival, verdict): (Arrival, Verdict)| (Arrival { in_ledger: false, ..arrival }, verdict);
    let batch = vec![
        arrivals.prompt("a", "one"),
        arrivals.prompt("b", "two"),
        arrivals.next("c", hook("one", "Stop", "")),
        arrivals.next("d", "not json"),
        refused(arrivals.next("e", "not json")),
        arrivals.next("a", hook("one", "Stop", r#","conflicts":true"#)),
    ];
    store.record(batch).await.expect("record");
    let find = async |filter: ArrivalFilter| {
        let found = fixture.archive().arrivals(filter, Page::first(10)).await.expect("arrivals");
        let one = |a: Arrival| format!("{}{}", a.request_id, if a.in_ledger { "" } else { "!" });
        found.into_iter().map(one).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(find(everything()).await, "a b c d e! a!");
    let one = ArrivalFilter { session_id: Some("one".to_owned()), ..everything() };
    assert_eq!(find(one.clone()).await, "a c a!");
    assert_eq!(find(ArrivalFilter { in_conversation: Some(true), ..one.clone() }).await, "a c");
    assert_eq!(find(ArrivalFilter { event_type: Some("Stop".to_owned()), ..one }).await, "c a!");
    let of_none = ArrivalFilter { in_conversation: Some(false), ..everything() };
    assert_eq!(find(of_none).await, "d e! a!");
    let good = ArrivalFilter { status: Some(EventStatus::Success), ..everything() };
    assert_eq!(find(good).await, "a b c");
    let other = ArrivalFilter { workspace: "other".to_owned(), ..ArrivalFilter::default() };
    assert_eq!(find(other).await, "");
}

/// Whatever page is asked for.
pub async fn a_page_ends_where_its_bodies_add_up_to_much(fixture: &impl ArchiveFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let mut random = 7_u64;
    let mut noise = |bytes: usize| {
        // Bytes that no store can compress.
        std::iter::repeat_with(|| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random.to_be_bytes()[0] | 0x80
        })
        .take(bytes)
        .collect::<Bytes>()
    };
    let third = usize::try_from(ARCHIVE_PAGE_BYTES / 3).expect("fits");
    for n in 0..5 {
        let one = arrivals.next(&format!("e{n}"), noise(third));
        store.record(vec![one]).await.expect("record");
    }
    let first = fixture.archive().arrivals(everything(), Page::first(10)).await.expect("arrivals");
    assert!((2..=3).contains(&first.len()), "{}", first.len());
    let page = Page { after: first.last().map(|last| last.event_id), ..Page::first(10) };
    let rest = fixture.archive().arrivals(everything(), page).await.expect("arrivals");
    assert_eq!(
        rest.first().map(|one| one.request_id.to_string()),
        Some(format!("e{}", first.len()))
    );
}

/// What a reader sees is made of them.
pub async fn the_values_of_a_conversation_come_back_whole(fixture: &impl ArchiveFixture) {
    let store = fixture.store();
    let session = generated(11);
    for arrival in session.in_order(DEFAULT_WORKSPACE) {
        let verdict = judge(&arrival);
        store.record(vec![(arrival, verdict)]).await.expect("record");
    }
    let found = fixture.archive().values(DEFAULT_WORKSPACE, &session.session_id).await;
    let found = found.expect("values").expect("there");
    let detail = store.conversation(DEFAULT_WORKSPACE, &session.session_id).await;
    let detail = detail.expect("read").expect("there");
    assert!(found.messages.len() >= detail.messages.len());
    let conversation = found.conversations.into_iter().next().expect("one");
    let seen = ConversationDetail::new(
        conversation,
        found.messages,
        found.tool_uses,
        found.subagents,
        detail.events.clone(),
    );
    assert_eq!(seen, detail);
    assert_eq!(fixture.archive().values("other", &session.session_id).await.expect("read"), None);
    assert_eq!(fixture.archive().values(DEFAULT_WORKSPACE, "other").await.expect("read"), None);
}

/// Events of every form, brought again by the envelope that is made of what comes back: the same verdicts,
/// under the same request ids and digests.
pub async fn what_comes_back_is_the_same_event_elsewhere(fixture: &impl ArchiveFixture) {
    let (store, mut arrivals) = (fixture.store(), Arrivals::new(fixture.clock()));
    let mut batch = vec![
        arrivals.next("json", hook("s", "UserPromptSubmit", r#" ,"prompt":"a b", "n": 1.50"#)),
        arrivals.next("nul", hook("s", "UserPromptSubmit", r#","prompt":"a\u0000b""#)),
        arrivals.next("text", "no json"),
        arrivals.next("bytes", &b"\xff\x00"[..]),
    ];
    let original = r#"{"event":"PreToolUse","sessionId":"s","toolName":"Bash","parameters":{}}"#;
    let raw = hook("s", "UserPromptSubmit", r#","prompt":"raw""#);
    for (id, form, body) in
        [("original", Form::Original, original.to_owned()), ("raw", Form::Raw, raw)]
    {
        let (like, _) = arrivals.next(id, "");
        // The digest is of what came before secrets were taken out.
        let digest = crate::base::digest::Digest::of(b"before");
        let request_id = like.request_id.clone();
        let (body, redacted) = (body.into(), Removed::default());
        let incoming = Incoming { form, request_id, digest, body, header: None, redacted };
        batch.push(admit(incoming, reception(&like)));
    }
    store.record(batch.clone()).await.expect("record");
    let found = fixture.archive().arrivals(everything(), Page::first(10)).await.expect("arrivals");
    assert_eq!(found.len(), batch.len());
    for (stored, (first, verdict)) in found.into_iter().zip(batch) {
        let reception = Reception {
            received_at: first.received_at.plus(std::time::Duration::from_secs(3600)),
            ..reception(&first)
        };
        let envelope = stored.into_envelope();
        assert!(envelope.is_intact(), "{}", first.request_id);
        let (again, judged) = admit(Incoming::restored(envelope), reception);
        assert_eq!(
            (
                &again.request_id,
                again.digest,
                again.in_ledger,
                &again.event_type,
                &again.session_id
            ),
            (&first.request_id, first.digest, true, &first.event_type, &first.session_id)
        );
        assert_eq!(judged, verdict, "{}", first.request_id);
    }
}

fn everything() -> ArrivalFilter {
    ArrivalFilter { workspace: DEFAULT_WORKSPACE.to_owned(), ..ArrivalFilter::default() }
}

fn reception(of: &Arrival) -> Reception {
    Reception {
        event_id: of.event_id,
        received_at: of.received_at,
        workspace: of.workspace.clone(),
        headers: of.headers.clone(),
        ip_address: of.ip_address,
    }
}

/// An arrival whose body, where it is JSON, has neither the spacing nor the order of keys that it came with.
fn without_spacing(arrival: &Arrival) -> Arrival {
    let body = match serde_json::from_slice::<serde_json::Value>(&arrival.body) {
        Ok(json) => json.to_string().into(),
        Err(_) => arrival.body.clone(),
    };
    Arrival { body, ..arrival.clone() }
}
