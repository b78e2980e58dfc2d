//! A database that dies under load, and servers whose client asks again until it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::Home;
use arrakis_core::base::error::Retryable;
use arrakis_core::record::audit::EventStatus;
use arrakis_core::record::store::{AdmissionKind, Arrival, EventReader, EventStore, Verdict};
use arrakis_core::testkit::event_store::Arrivals;
use arrakis_store_pg::{PgConfig, PgStore};
use arrakis_test_cluster::{Cluster, Database};
use tokio::sync::mpsc;

const CLIENTS: usize = 8;
const EVENTS: usize = 150;
const KILLS: usize = 3;

/// Sends until it is answered, as the drainer does; each try is an arrival of its own.
async fn send(store: &PgStore, one: &(Arrival, Verdict), tries: &AtomicUsize) -> AdmissionKind {
    loop {
        let nth = tries.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&(nth as u64).to_be_bytes());
        let event_id = arrakis_core::base::id::uuid_v7(one.0.received_at, random);
        let again = (Arrival { event_id, ..one.0.clone() }, one.1.clone());
        match store.record(vec![again]).await {
            Ok(mut admissions) => return admissions.remove(0).kind,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_database_loses_nothing_and_doubles_nothing() {
    let mut cluster = Cluster::start(&[]).unwrap();
    let database = Database::create_in(&cluster.url("postgres")).await;
    let home = Home::with(database, PgConfig::default()).await;
    let servers = [Arc::clone(&home.store), home.again().await];
    let tries = Arc::new(AtomicUsize::new(0));
    let (answered, mut progress) = mpsc::unbounded_channel();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (store, tries) = (Arc::clone(&servers[client % 2]), Arc::clone(&tries));
        let (answered, clock) = (answered.clone(), Arc::clone(&home.clock));
        clients.spawn(async move {
            let mut arrivals = Arrivals::new(clock);
            for n in 0..EVENTS {
                let one = arrivals.prompt(&format!("c{client}-{n}"), &format!("s{}", n % 3));
                let kind = send(&store, &one, &tries).await;
                assert_ne!(kind, AdmissionKind::Conflict);
                answered.send(()).unwrap();
            }
        });
    }
    drop(answered);
    let mut count = 0;
    while progress.recv().await.is_some() {
        count += 1;
        if count % (CLIENTS * EVENTS / (KILLS + 1)) == 0 && count < CLIENTS * EVENTS {
            cluster = tokio::task::spawn_blocking(move || {
                cluster.kill();
                cluster.restart().unwrap();
                cluster
            })
            .await
            .unwrap();
        }
    }
    clients.join_all().await;
    assert_eq!(count, CLIENTS * EVENTS);

    let counts = home.store.counts().await.unwrap();
    assert_eq!(counts[&EventStatus::Success], (CLIENTS * EVENTS) as u64);
    assert_eq!(counts.keys().filter(|state| **state != EventStatus::Duplicate).count(), 1);
    let mut words = BTreeMap::new();
    for session in 0..3 {
        let detail =
            home.store.conversation("main", &format!("s{session}")).await.unwrap().unwrap();
        for message in detail.messages {
            *words.entry(message.content.value).or_insert(0) += 1;
        }
    }
    assert_eq!(words.len(), CLIENTS * EVENTS);
    assert!(words.values().all(|count| *count == 1));
    assert!(tries.load(Ordering::Relaxed) > CLIENTS * EVENTS, "the kills were felt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_unavailable_and_comes_back_by_itself() {
    let mut cluster = Cluster::start(&["fsync=off"]).unwrap();
    let database = Database::create_in(&cluster.url("postgres")).await;
    let mut home = Home::with(database, PgConfig::default()).await;
    let one = home.arrivals.prompt("r", "s");
    cluster.kill();
    assert!(home.store.record(vec![one.clone()]).await.unwrap_err().is_retryable());
    assert!(home.store.ping().await.unwrap_err().is_retryable());
    assert!(home.store.counts().await.unwrap_err().is_retryable());
    cluster.restart().unwrap();
    home.store.ping().await.unwrap();
    assert_eq!(crate::common::record_one(&home.store, one).await.kind, AdmissionKind::New);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_room_is_unavailable_and_not_the_fault_of_the_events() {
    let cluster = Cluster::start(&["fsync=off"]).unwrap();
    let database = Database::create_in(&cluster.url("postgres")).await;
    let mut home = Home::with(database, PgConfig::default()).await;
    // Filling a disk is not possible everywhere; raising what a full one raises is.
    home.database
        .run_sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END $$;
             CREATE TRIGGER full_disk BEFORE INSERT ON webhook_events EXECUTE FUNCTION full_disk()",
        )
        .await;
    let batch: Vec<_> = (0..4).map(|n| home.arrivals.prompt(&format!("r{n}"), "s")).collect();
    // Other tables may still have room in their last pages.
    assert!(home.store.record(batch.clone()).await.unwrap_err().is_retryable());
    let full = "CREATE TRIGGER full_disk BEFORE INSERT ON commits EXECUTE FUNCTION full_disk()";
    home.database.run_sql(full).await;
    assert!(home.store.record(batch.clone()).await.unwrap_err().is_retryable());
    assert!(home.store.ping().await.unwrap_err().is_retryable());
    home.database
        .run_sql("DROP TRIGGER full_disk ON webhook_events; DROP TRIGGER full_disk ON commits")
        .await;
    let admissions = home.store.record(batch).await.unwrap();
    assert!(admissions.iter().all(|one| one.status == EventStatus::Success));
}
