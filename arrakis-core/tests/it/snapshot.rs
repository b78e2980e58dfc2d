//! A conversation whose events are gone, taken elsewhere.

use std::sync::Arc;

use arrakis_core::base::clock::{Clock, ManualClock, Timestamp};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::uuid_v7;
use arrakis_core::base::limits::SNAPSHOT_MAX_BYTES;
use arrakis_core::record::ingest::{Reception, admit, judge};
use arrakis_core::record::store::{
    Archive, Arrival, EventReader, EventStore, MemoryStore, Verdict,
};
use arrakis_core::session::conversation::Changes;
use arrakis_core::session::snapshot::snapshots;
use arrakis_core::testkit::recorded::recorded;
use arrakis_core::testkit::sessions::{Session, assert_same, changes_of, generated};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

fn store() -> MemoryStore {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_millis(1)));
    MemoryStore::new(clock)
}

async fn record(store: &MemoryStore, arrivals: &[Arrival]) {
    for arrival in arrivals {
        store.record(vec![(arrival.clone(), judge(arrival))]).await.unwrap();
    }
}

/// A snapshot as it arrives in a workspace.
fn arrival(envelope: &Envelope, workspace: &str, n: u8) -> (Arrival, Verdict) {
    let reception = Reception {
        event_id: uuid_v7(Timestamp::EPOCH, [n; 10]),
        received_at: Timestamp::EPOCH,
        workspace: workspace.to_owned(),
        headers: [].into(),
        ip_address: None,
    };
    admit(envelope.clone().into(), reception)
}

/// Takes a session elsewhere after some of its events are gone.
async fn survives(session: &Session, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let all = session.in_order("main");
    let kept = random.random_range(0.0..1.0);
    let mut left: Vec<Arrival> = all.iter().filter(|_| random.random_bool(kept)).cloned().collect();
    let first = store();
    record(&first, &all).await;
    let stored = first.values("main", &session.session_id).await.unwrap().unwrap();
    let mut known = Changes::default();
    for arrival in &left {
        let Verdict::Apply(changes) = judge(arrival) else { panic!("{}", arrival.request_id) };
        known.absorb(changes);
    }
    let made = snapshots(&stored, &known).unwrap();
    assert_eq!(made.left_out, 0);
    let came = (1..).zip(&made.envelopes).map(|(n, envelope)| arrival(envelope, "main", n).0);
    left.extend(came);
    left.shuffle(&mut random);
    let second = store();
    record(&second, &left).await;
    let mut found = second.conversation("main", &session.session_id).await.unwrap().unwrap();
    let mut expected = first.conversation("main", &session.session_id).await.unwrap().unwrap();
    (found.events, expected.events) = (Vec::new(), Vec::new());
    assert_same(&found, &expected, &format!("seed {seed}"));
    // Its own snapshots are events: nothing is missing there.
    let again = second.values("main", &session.session_id).await.unwrap().unwrap();
    let mut known = Changes::default();
    for arrival in &left {
        let Verdict::Apply(changes) = judge(arrival) else { panic!("{}", arrival.request_id) };
        known.absorb(changes);
    }
    assert!(snapshots(&again, &known).unwrap().envelopes.is_empty());
}

#[tokio::test]
async fn a_conversation_survives_its_events_in_any_order() {
    for session in recorded() {
        for seed in 0..8 {
            survives(&session, seed).await;
        }
    }
    for seed in 0..40 {
        survives(&generated(seed), seed).await;
    }
}

#[tokio::test]
async fn what_events_say_themselves_needs_no_snapshot() {
    for session in recorded() {
        let all = session.in_order("main");
        let store = store();
        record(&store, &all).await;
        let stored = store.values("main", &session.session_id).await.unwrap().unwrap();
        assert!(snapshots(&stored, &stored).unwrap().envelopes.is_empty());
        let whole = snapshots(&stored, &Changes::default()).unwrap();
        assert_eq!(whole.envelopes.len(), 1);
        let same = snapshots(&stored, &Changes::default()).unwrap();
        assert_eq!(whole.envelopes, same.envelopes, "the same values are the same events");
    }
}

#[test]
fn a_message_that_contradicts_its_blocks_says_what_they_say() {
    let at = Timestamp::EPOCH;
    let id = arrakis_core::base::id::conversation_id("main", "s");
    let stamp = json!({"at": at, "request_id": "r"});
    let payload = json!({
        "hook_event_name": "Snapshot", "session_id": "s",
        "conversation": {"id": id, "workspace": "main", "sessionId": "s", "startedAt": at, "lastEventAt": at},
        "messages": [{
            "id": id, "conversationId": id, "role": "assistant", "origin": "transcript",
            "content": {"stamp": stamp, "value": "forged"},
            "blocks": [{"at": at, "index": 0, "line": "l", "n": 0, "type": "text", "text": "said"}],
        }],
        "tool_uses": [{
            "id": id, "conversationId": id, "toolName": "x".repeat(9999), "first": stamp, "seen": {"hook": true, "transcript": false},
        }],
    });
    let envelope =
        Envelope::new("e".parse().unwrap(), at, "", Source::default(), payload.to_string());
    let (_, verdict) = arrival(&envelope, "main", 1);
    let Verdict::Apply(changes) = verdict else { panic!("{verdict:?}") };
    assert_eq!(changes.messages[0].content.value, "said");
    assert_eq!(changes.messages[0].blocks.texts().collect::<Vec<_>>(), ["said"]);
    assert_eq!(changes.tool_uses[0].tool_name.len(), 512);
}

#[tokio::test]
async fn a_large_conversation_has_several_snapshots() {
    let hook = |n: u32| {
        let prompt = "0123456789".repeat(SNAPSHOT_MAX_BYTES / 30);
        format!(
            r#"{{"session_id":"s","hook_event_name":"UserPromptSubmit","prompt_id":"{n}","prompt":"{prompt}"}}"#
        )
    };
    let session = Session::new("s", (0..7).map(|n| hook(n).into_bytes()).collect(), Vec::new());
    let store = store();
    record(&store, &session.in_order("main")).await;
    let stored = store.values("main", "s").await.unwrap().unwrap();
    let made = snapshots(&stored, &Changes::default()).unwrap().envelopes;
    assert_eq!(made.len(), 4);
    assert!(made.iter().all(|one| one.payload.len() < SNAPSHOT_MAX_BYTES + 2000));
    for envelope in &made {
        assert!(matches!(arrival(envelope, "main", 1).1, Verdict::Apply(_)));
    }
}

/// In the order of ids, which is another in each workspace.
fn sorted(mut changes: Changes) -> Changes {
    changes.messages.sort_by_key(|one| one.id);
    changes.tool_uses.sort_by_key(|one| one.id);
    changes.subagents.sort_by_key(|one| one.id);
    changes
}

#[tokio::test]
async fn a_snapshot_says_the_same_in_another_workspace_whatever_ids_stand_in_it() {
    for seed in 0..20 {
        let session = generated(seed);
        let home = changes_of(&session.in_order("home"));
        let away = changes_of(&session.in_order("away"));
        let [own, foreign] = [&away, &home].map(|values| {
            let made = snapshots(values, &Changes::default()).unwrap().envelopes;
            let judged = made.iter().map(|envelope| arrival(envelope, "away", 1).1);
            let mut all = Changes::default();
            judged.for_each(|verdict| match verdict {
                Verdict::Apply(changes) => all.absorb(changes),
                other => panic!("{other:?}"),
            });
            all.answer = Default::default();
            all
        });
        assert_eq!(sorted(own), sorted(foreign.clone()), "seed {seed}");
        let mut whole = away.clone();
        whole.absorb(foreign);
        assert_eq!(whole, away, "it says nothing that the events do not say");
    }
}
