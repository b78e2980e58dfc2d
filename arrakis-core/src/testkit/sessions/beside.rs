//! Workspaces that use each other's ids.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::{START_MILLIS, Session, arrival, assert_same, changes_of, generated};
use crate::base::clock::{ManualClock, Timestamp};
use crate::base::digest::Digest;
use crate::base::id::uuid_v7;
use crate::record::ingest::judge;
use crate::record::store::{
    Arrival, EventFilter, EventReader, EventStore, MemoryStore, Page, Verdict,
};
use crate::session::conversation::Changes;
use crate::session::snapshot::snapshots;

/// Records what two workspaces send, mixed, and compares what each is told and sees with what it would be told and
/// see alone.
///
/// Both send two sessions of one id, whose events say different things under the same request ids, and a third one.
/// All use the same ids of lines, messages, tools and subagents. Both send snapshots, each made in one of them, and
/// the same with every id of the other. Each seed takes two workspaces of its own.
///
/// # Panics
///
/// Something differs.
pub async fn record_beside_each_other(store: &dyn EventStore, clock: &Arc<ManualClock>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let workspaces = [format!("one-{seed}"), format!("two-{seed}")];
    let first = generated(3 * seed);
    let sessions =
        [generated(3 * seed + 1).renamed(&first.session_id), generated(3 * seed + 2), first];
    let mut events: Vec<Arrival> = Vec::new();
    for (workspace, other) in [(0, 1), (1, 0)] {
        let [workspace, other] = [&workspaces[workspace], &workspaces[other]];
        for session in &sessions {
            let mut some = session.shuffled(workspace, random.random());
            some.truncate(random.random_range(0..=some.len()));
            events.extend(some);
            events.extend(foreign(session, workspace, other, &sessions[1]));
        }
    }
    events.shuffle(&mut random);
    for (n, arrival) in events.iter_mut().enumerate() {
        // The same event may be in several sessions: each arrival has a row of its own.
        let mut random = [0; 10];
        random.copy_from_slice(&Digest::of(format!("{seed} {n}").as_bytes()).as_bytes()[..10]);
        arrival.event_id = uuid_v7(arrival.received_at, random);
    }
    let alone = [(); 2].map(|()| MemoryStore::new(Arc::<ManualClock>::clone(clock)));
    while !events.is_empty() {
        let rest = events.split_off(random.random_range(1..=events.len().min(20)));
        let judged = |arrival: &Arrival| (arrival.clone(), judge(arrival));
        let batch: Vec<(Arrival, Verdict)> = events.iter().map(judged).collect();
        let told = store.record(batch).await.expect("record");
        for (workspace, alone) in workspaces.iter().zip(&alone) {
            let is_mine = |arrival: &&Arrival| arrival.workspace == *workspace;
            let mine = events.iter().filter(is_mine).map(judged).collect();
            let expected = alone.record(mine).await.expect("record");
            let told = events.iter().zip(&told).filter(|(arrival, _)| is_mine(arrival));
            let told: Vec<_> = told.map(|(_, told)| told.clone()).collect();
            assert_eq!(told, expected, "seed {seed}, {workspace}");
        }
        events = rest;
    }
    for (workspace, alone) in workspaces.iter().zip(&alone) {
        for session in &sessions[1..] {
            let found = store.conversation(workspace, &session.session_id).await.expect("read");
            let expected = alone.conversation(workspace, &session.session_id).await.expect("read");
            let (Some(mut found), Some(mut expected)) = (found, expected) else {
                panic!("seed {seed}, {workspace}: a snapshot of each session came");
            };
            (found.events, expected.events) = (Vec::new(), Vec::new());
            assert_same(&found, &expected, &format!("seed {seed}, {workspace}"));
        }
        let filter = EventFilter { workspace: Some(workspace.clone()), ..EventFilter::default() };
        let [found, expected] = [
            store.events(filter.clone(), Page::first(1000)).await.expect("events"),
            alone.events(filter, Page::first(1000)).await.expect("events"),
        ]
        .map(|rows| {
            rows.events
                .into_iter()
                .map(|row| (row.id, row.request_id, row.status))
                .collect::<Vec<_>>()
        });
        assert_eq!(found, expected, "seed {seed}, {workspace}");
    }
}

/// Snapshots of a session, as both workspaces may make them and send them to `workspace`: as they are, and forged,
/// so that the values of `session` stand there under the name of `forged`.
fn foreign(session: &Session, workspace: &str, other: &str, forged: &Session) -> Vec<Arrival> {
    let mut all = Vec::new();
    for made_in in [workspace, other] {
        let stored = changes_of(&session.in_order(made_in));
        let made = snapshots(&stored, &Changes::default()).expect("snapshots").envelopes;
        for envelope in made {
            let n = u64::try_from(all.len()).unwrap_or(0);
            let at = Timestamp::from_millis(START_MILLIS);
            let payload = String::from_utf8_lossy(&envelope.payload).into_owned();
            // Only the event names the session: the values keep all their ids.
            let named = format!(r#""session_id":"{}""#, session.session_id);
            let renamed = format!(r#""session_id":"{}""#, forged.session_id);
            let lie = payload.replacen(&named, &renamed, 1).into_bytes();
            let id = envelope.header.request_id.clone();
            all.push(arrival(workspace, n, (id.clone(), at, payload.into_bytes())));
            let id = format!("forged.{id}").parse().expect("a request id");
            all.push(arrival(workspace, n + 1, (id, at, lie)));
        }
    }
    all
}
