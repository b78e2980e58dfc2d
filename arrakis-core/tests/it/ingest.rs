//! What is stored of what senders submit, whatever transport brought it.

use std::sync::Arc;

use arrakis_core::base::clock::{ManualClock, Timestamp};
use arrakis_core::base::digest::Digest;
use arrakis_core::base::envelope::{Envelope, Form, Source, encode_envelope};
use arrakis_core::base::limits::PAYLOAD_MAX_BYTES;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::ingest::{Ingest, Received, Refusal, Request, Submission};
use arrakis_core::record::store::{
    AdmissionKind, Archive, Arrival, ArrivalFilter, DEFAULT_WORKSPACE, EventDetail, EventKey,
    EventReader, MemoryStore, Page,
};
use arrakis_core::session::redact::{RedactConfig, Redactor, UserRule};

const SECRET: &str =
    r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"password=hunter2"}"#;
const REDACTED: &str = r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"password=[REDACTED:password]"}"#;

struct World {
    store: Arc<MemoryStore>,
    ingest: Ingest,
}

fn world() -> World {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
    let store = Arc::new(MemoryStore::new(Arc::<ManualClock>::clone(&clock)));
    let ingest = Ingest::new(Arc::<MemoryStore>::clone(&store), Redactor::default(), clock);
    World { store, ingest }
}

impl World {
    async fn receive(&self, event: impl Into<Submission>) -> Received {
        self.ingest.receive(DEFAULT_WORKSPACE, event).await.unwrap()
    }

    async fn row(&self, received: &Received) -> EventDetail {
        let key = EventKey::Id(received.admission.event_id);
        self.store.event(DEFAULT_WORKSPACE, key).await.unwrap().unwrap()
    }

    async fn arrivals(&self) -> Vec<Arrival> {
        let workspace = DEFAULT_WORKSPACE.to_owned();
        let all = ArrivalFilter { workspace, ..ArrivalFilter::default() };
        self.store.arrivals(all, Page::first(10)).await.unwrap()
    }
}

fn envelope(id: &str, payload: impl Into<Vec<u8>>) -> Envelope {
    let source = Source::default();
    Envelope::new(id.parse().unwrap(), Timestamp::EPOCH, "http://h/", source, payload.into())
}

#[tokio::test]
async fn every_form_is_stored_without_secrets() {
    let world = world();
    let original = r#"{"event":"Stop","sessionId":"s","message":"password=hunter2"}"#.to_owned();
    let sent = encode_envelope(&envelope("json", SECRET));
    for (event, form) in [
        (Submission::from(SECRET.to_owned()), Form::Raw),
        (original.into(), Form::Original),
        (bytes::Bytes::from(sent).into(), Form::Envelope),
        (envelope("e", SECRET).into(), Form::Envelope),
    ] {
        let received = world.receive(event).await;
        assert_eq!(received.admission.status, EventStatus::Success);
        let row = world.row(&received).await;
        let body = String::from_utf8(row.body.unwrap().to_vec()).unwrap();
        assert!(body.contains("[REDACTED:password]") && !body.contains("hunter2"), "{body}");
        assert_eq!(row.summary.metadata.form, Some(form));
        assert_eq!(row.summary.metadata.redacted.total(), 1);
    }
    let detail = world.store.conversation(DEFAULT_WORKSPACE, "s").await.unwrap().unwrap();
    assert!(!format!("{detail:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_envelope_keeps_the_digest_that_it_names() {
    let world = world();
    let sent = envelope("e", SECRET);
    let first = world.receive(sent.clone()).await;
    assert_eq!(first.admission.digest, Digest::of(SECRET.as_bytes()));
    let again = world.receive(sent).await;
    assert_eq!((again.admission.kind, again.refusal), (AdmissionKind::Duplicate, None));
    // What its sender redacted later is still the same event where it says so, as a drainer does.
    let late = Redactor::default().redact_envelope(envelope("e", SECRET));
    assert_eq!(world.receive(late).await.admission.kind, AdmissionKind::Duplicate);

    let back = world.arrivals().await.remove(0).into_envelope();
    assert!(back.is_intact());
    assert_eq!(
        (back.header.digest, &back.payload[..]),
        (first.admission.digest, REDACTED.as_bytes())
    );
    assert_eq!(back.header.redacted.total(), 1);
    let elsewhere = self::world();
    assert_eq!(elsewhere.receive(back).await.admission.digest, first.admission.digest);
}

#[tokio::test]
async fn what_a_drainer_redacts_again_stays_the_same_event_whatever_its_rules_are() {
    let redacted = |name: &str| {
        let rule = UserRule {
            name: name.to_owned(),
            pattern: "hello-[0-9]+".to_owned(),
            literals: Vec::new(),
        };
        let redactor = Redactor::new(RedactConfig { enabled: true, rules: vec![rule] }).0;
        let hook = r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"hello-1"}"#;
        redactor.redact_envelope(envelope("e", hook))
    };
    let (one, other) = (redacted("one"), redacted("other"));
    assert_eq!(one.header.digest, other.header.digest);
    assert_ne!(one.payload, other.payload);
    let world = world();
    for (event, kind) in [
        (one.clone(), AdmissionKind::New),
        (one.clone(), AdmissionKind::Duplicate),
        (other, AdmissionKind::Duplicate),
    ] {
        let received = world.receive(event).await;
        assert_eq!((received.admission.kind, received.refusal), (kind, None));
        assert_eq!(received.admission.digest, one.header.digest, "the receipt that it waits for");
    }
}

#[tokio::test]
async fn only_who_may_take_events_back_in_says_under_which_digest_they_came() {
    let real = envelope("e", REDACTED);
    let said = r#"{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt":"said before"}"#;
    let mut before = envelope("e", said);
    before.header.payload_digest = Some(before.header.digest);
    before.header.digest = real.header.digest;
    for restores in [false, true] {
        let world = world();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let request = Request { restores, ..Request::new(DEFAULT_WORKSPACE, now) };
        let judged = world.ingest.judge(&request, before.clone());
        let first = world.ingest.record(vec![judged]).await.unwrap().remove(0);
        assert_eq!(first.admission.kind, AdmissionKind::New);
        // Taken in twice, by either kind of key, it is there once.
        let again = world.receive(before.clone()).await;
        assert_eq!(again.admission.kind, AdmissionKind::Duplicate);
        let request = Request { restores: true, ..request };
        let again = world.ingest.record(vec![world.ingest.judge(&request, before.clone())]).await;
        assert_eq!(again.unwrap()[0].admission.kind, AdmissionKind::Duplicate);
        let known_as = world.arrivals().await.remove(0).into_envelope().header.digest;
        let received = world.receive(real.clone()).await;
        if restores {
            assert_eq!(known_as, real.header.digest);
            assert_eq!(received.admission.kind, AdmissionKind::Duplicate);
        } else {
            assert_eq!(known_as, Digest::of(said.as_bytes()), "an export passes no claim on");
            assert_eq!(received.refusal, Some(Refusal::Conflict), "nothing hides it in silence");
            let rows = world.arrivals().await;
            let kept = |row: &Arrival| !row.in_ledger && row.body == real.payload;
            assert!(rows.iter().any(kept), "it is kept");
        }
    }
}

#[tokio::test]
async fn what_its_sender_has_redacted_stays_as_it_is() {
    let world = world();
    let mut sent = envelope("e", REDACTED);
    sent.header.redacted.count("password", 1);
    let received = world.receive(sent.clone()).await;
    assert_eq!(received.admission.digest, Digest::of(REDACTED.as_bytes()));
    assert_eq!(world.arrivals().await.remove(0).into_envelope(), sent);
}

#[tokio::test]
async fn what_is_not_taken_is_kept_without_secrets_and_its_sender_told() {
    let world = world();
    let mut changed = envelope("changed", SECRET);
    changed.header.digest = Digest::of(b"other");
    let long = envelope("long", format!("password=hunter2 {}", "-".repeat(PAYLOAD_MAX_BYTES)));
    for (event, code) in [
        (Submission::from("password=hunter2".to_owned()), "malformed_json"),
        (r#"{"x":"password=hunter2"}"#.to_owned().into(), "not_an_event"),
        (
            r#"{"hook_event_name":"Stop","x":"password=hunter2"}"#.to_owned().into(),
            "missing_session",
        ),
        (changed.into(), "digest_mismatch"),
        (long.into(), "too_long"),
    ] {
        let received = world.receive(event).await;
        assert_eq!(received.refusal.as_ref().map(Refusal::code), Some(code));
        let row = world.row(&received).await;
        assert_eq!(row.summary.status, EventStatus::Invalid);
        let body = row.body.unwrap();
        assert!(body.len() <= PAYLOAD_MAX_BYTES);
        assert!(!String::from_utf8_lossy(&body).contains("hunter2"), "{code}");
    }
    world.receive(envelope("taken", SECRET)).await;
    let other = world.receive(envelope("taken", REDACTED)).await;
    assert_eq!(other.refusal, Some(Refusal::Conflict));
}

#[tokio::test]
async fn a_batch_has_one_result_for_each_event_in_order() {
    let world = world();
    let events =
        vec![envelope("a", SECRET).into(), "{".to_owned().into(), SECRET.to_owned().into()];
    let received = world.ingest.receive_batch(DEFAULT_WORKSPACE, events).await.unwrap();
    assert_eq!(
        received.iter().map(|one| one.refusal.is_some()).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert_eq!(received[0].request_id.as_str(), "a");
    assert_ne!(received[1].request_id, received[2].request_id, "each has an id of its own");
    assert_eq!(world.ingest.receive_batch(DEFAULT_WORKSPACE, Vec::new()).await.unwrap(), []);
}
