//! `arrakis prune`, and the job of a server: what goes, what stays, and what a kill leaves.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use crate::support::world::World;
use crate::support::{Bench, bench};
use arrakis_bin::cli::prune::{self, PruneArgs};
use arrakis_bin::compose::{open_embedded, run_server};
use arrakis_bin::config::Config;
use arrakis_core::base::clock::{Clock, ManualClock, SystemClock};
use arrakis_core::record::store::{
    Ages, EventStore, MemoryStore, Retention, RetentionPolicy, Verdict,
};
use arrakis_core::testkit::event_store::{Arrivals, hook};
use arrakis_store_fs::Layout;
use arrakis_store_sqlite::{SqliteConfig, SqliteStore};
use arrakis_transport_http::server::ServeConfig;
use diesel::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A store with old and young rows, and the command line over it.
struct Desk {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    arrivals: Arrivals,
    bench: Bench,
    _home: TempDir,
}

impl Desk {
    async fn new() -> Self {
        let home = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::new("2026-11-24T12:00:00Z".parse().unwrap()));
        let mut bench = bench(home.path());
        bench.context.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let mut desk = Self {
            store: Arc::new(MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>)),
            arrivals: Arrivals::new(Arc::clone(&clock)),
            clock,
            bench,
            _home: home,
        };
        for n in 0..3 {
            let prompt = desk.arrivals.prompt(&format!("old-{n}"), "s");
            desk.store.record(vec![prompt]).await.unwrap();
        }
        let (waits, _) = desk.arrivals.prompt("waits", "s");
        let failed = Verdict::Failed { code: "x".to_owned(), message: "x".to_owned() };
        desk.store.record(vec![(waits, failed)]).await.unwrap();
        desk.clock.advance(40 * DAY);
        let young = desk.arrivals.prompt("young", "t");
        desk.store.record(vec![young]).await.unwrap();
        desk
    }

    async fn run(&mut self, args: PruneArgs, events: Option<Duration>) -> anyhow::Result<String> {
        let default = Ages { events, conversations: events };
        let policy = RetentionPolicy { default, ..RetentionPolicy::default() };
        let store: Arc<dyn Retention> = self.store.clone();
        let shutdown = CancellationToken::new();
        prune::run(&args, &store, &policy, &shutdown, &mut self.bench.context).await?;
        Ok(self.bench.out.take())
    }

    async fn rows(&self) -> u64 {
        use arrakis_core::record::store::EventReader;
        self.store.counts().await.unwrap().into_values().sum()
    }
}

const DRY_RUN: PruneArgs = PruneArgs { dry_run: true, yes: false };
const NOW: PruneArgs = PruneArgs { dry_run: false, yes: true };

#[tokio::test]
async fn a_dry_run_tells_what_would_go_and_deletes_nothing() {
    let mut desk = Desk::new().await;
    let told = desk.run(DRY_RUN, Some(30 * DAY)).await.unwrap();
    let expected = "\
WORKSPACE\tWHAT\tCOUNT\tOLDEST (UTC)\tSIZE
main\tevents\t3\t2026-11-24 12:00:00\t";
    assert!(told.starts_with(expected), "{told}");
    assert!(told.contains("main\tconversations\t1\t2026-11-24 12:00:00"), "{told}");
    desk.bench.context.json = true;
    let json: Value =
        serde_json::from_str(&desk.run(DRY_RUN, Some(30 * DAY)).await.unwrap()).unwrap();
    assert_eq!(json[0]["workspace"], "main");
    assert_eq!((&json[0]["kind"], &json[0]["count"]), (&json!("events"), &json!(3)));
    assert_eq!(json[0]["oldest"], "2026-11-24T12:00:00.001000Z");
    assert!(json[0]["bytes"].as_u64().unwrap() > 100);
    assert_eq!(desk.rows().await, 5);
}

#[tokio::test]
async fn a_prune_deletes_what_is_old_and_says_how_much() {
    let mut desk = Desk::new().await;
    // There is no terminal here to confirm at.
    let refused = desk.run(PruneArgs { dry_run: false, yes: false }, Some(30 * DAY)).await;
    assert!(format!("{:#}", refused.unwrap_err()).contains("--yes"));
    assert_eq!(desk.rows().await, 5);
    let told = desk.run(NOW, Some(30 * DAY)).await.unwrap();
    let expected = "Pruned 3 events, 1 conversation with 3 messages and 0 tool uses, 0 request ids \
        of the ledger.\n";
    assert_eq!(told, expected);
    assert_eq!(desk.rows().await, 2);

    assert_eq!(desk.run(NOW, Some(30 * DAY)).await.unwrap(), "");
    let why = desk.bench.err.take();
    assert!(why.contains("events are kept for 30 days"), "{why}");
    assert_eq!(desk.run(DRY_RUN, None).await.unwrap(), "");
    let why = desk.bench.err.take();
    assert!(why.contains("events are kept for good"), "{why}");
    desk.bench.context.json = true;
    let json: Value = serde_json::from_str(&desk.run(NOW, None).await.unwrap()).unwrap();
    let nothing = json!({ "events": 0, "conversations": 0, "messages": 0, "toolUses": 0,
        "subagents": 0, "ledger": 0 });
    assert_eq!(json, nothing);
}

/// A store of a world with events that are a hundred days old, as many as `old`, and one of now.
async fn world(old: u32) -> World {
    let world = World::new();
    std::fs::create_dir_all(world.home()).unwrap();
    let now = SystemClock.now();
    let clock = Arc::new(ManualClock::new(now.minus(100 * DAY)));
    let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let path = world.home().join("arrakis.db");
    let store = SqliteStore::open(path, shared, SqliteConfig::default()).unwrap();
    let mut arrivals = Arrivals::new(Arc::clone(&clock));
    for session in 0..old.div_ceil(100) {
        let name = format!("s{session}");
        let mut batch = Vec::new();
        for n in 0..100 {
            let tool = format!(
                r#","tool_name":"Bash","tool_use_id":"t{n}","tool_input":{{"command":"ls"}}"#
            );
            let id = format!("{name}-{n}");
            batch.push(match n % 2 {
                0 => arrivals.prompt(&id, &name),
                _ => arrivals.next(&id, hook(&name, "PreToolUse", &tool)),
            });
        }
        store.record(batch).await.unwrap();
        while store.index(100).await.unwrap() > 0 {}
    }
    clock.set(now);
    store.record(vec![arrivals.prompt("young", "young")]).await.unwrap();
    world
}

fn configure(world: &World, retention: &str) {
    std::fs::write(world.home().join("config.toml"), retention).unwrap();
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn the_program_does_what_the_configuration_says() {
    let world = world(200).await;
    let prune = |arguments: &[&str]| world.arrakis(&[&["prune"], arguments].concat());
    let dry = prune(&["--dry-run", "--json"]);
    assert_eq!(serde_json::from_slice::<Value>(&dry.stdout).unwrap(), json!([]), "{}", text(&dry));
    configure(&world, "[retention]\nevents = \"30d\"\nconversations = \"200d\"");
    let dry = prune(&["--dry-run", "--json"]);
    let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!((dry.as_array().unwrap().len(), &dry[0]["count"]), (1, &json!(200)), "{dry}");
    let refused = prune(&[]);
    assert!(!refused.status.success() && text(&refused).contains("--yes"), "{}", text(&refused));

    configure(&world, "[retention]\nevents = \"30\"");
    let kept = prune(&["--yes"]);
    assert!(kept.status.success() && text(&kept).contains("warning"), "{}", text(&kept));
    configure(&world, "[retention\nevents = \"30d\"");
    let kept = prune(&["--yes"]);
    assert!(!kept.status.success() && text(&kept).contains("nothing is pruned"), "{}", text(&kept));
    assert_eq!(world.count("webhook_events"), 201);

    configure(&world, "[retention]\nevents = \"30d\"\nconversations = \"30d\"");
    let pruned = prune(&["--yes", "--json"]);
    let pruned: Value = serde_json::from_slice(&pruned.stdout).unwrap();
    assert_eq!((&pruned["events"], &pruned["conversations"]), (&json!(200), &json!(2)), "{pruned}");
    assert_eq!((&pruned["messages"], &pruned["toolUses"]), (&json!(100), &json!(100)), "{pruned}");
    assert_eq!(world.count("webhook_events"), 1);
    assert_eq!(world.count("request_ids"), 201);
}

#[tokio::test]
async fn a_prune_that_is_killed_leaves_everything_whole() {
    let world = world(1000).await;
    configure(&world, "[retention]\nevents = \"30d\"\nconversations = \"30d\"");
    let mut kills = 0;
    loop {
        let before = world.count("webhook_events") + world.count("messages");
        let mut command = world.command(env!("CARGO_BIN_EXE_arrakis"));
        let mut prune = command.args(["prune", "--yes", "--json"]).spawn().unwrap();
        world.wait_until("something was deleted", |world| {
            world.count("webhook_events") + world.count("messages") < before
        });
        prune.kill().unwrap();
        kills += u32::from(!prune.wait().unwrap().success());
        for orphans in [
            "messages WHERE conversation_id NOT IN (SELECT id FROM conversations)",
            "tool_uses WHERE conversation_id NOT IN (SELECT id FROM conversations)",
        ] {
            assert_eq!(world.count(orphans), 0, "{orphans}");
        }
        if world.count("webhook_events") < 900 {
            break;
        }
    }
    assert!(kills > 0, "a kill came in the middle");
    let pruned = world.arrakis(&["prune", "--yes"]);
    assert!(pruned.status.success(), "{}", text(&pruned));
    assert_eq!((world.count("webhook_events"), world.count("conversations")), (1, 1));
    assert_eq!(world.count("messages"), 1);
    for orphans in [
        "event_keys WHERE event_id NOT IN (SELECT id FROM webhook_events)",
        "event_words WHERE rowid NOT IN (SELECT key FROM event_keys)",
        "subject_words WHERE rowid NOT IN (SELECT key FROM subject_keys)",
        "subject_keys WHERE subject_id NOT IN \
            (SELECT id FROM messages UNION ALL SELECT id FROM tool_uses)",
    ] {
        assert_eq!(world.count(orphans), 0, "{orphans}");
    }
    let check = diesel::dsl::sql::<diesel::sql_types::Text>(
        "SELECT integrity_check FROM pragma_integrity_check",
    );
    assert_eq!(check.get_result::<String>(&mut world.database()).unwrap(), "ok");
}

/// The server's time passes in no time; that of the rows is what it is.
#[tokio::test(start_paused = true)]
async fn a_server_prunes_by_itself() {
    let world = world(300).await;
    configure(&world, "[retention]\nevents = \"30d\"\nconversations = \"30d\"");
    let (config, problems) = Config::load(&world.home(), &|_| None);
    assert_eq!(problems, []);
    let store = open_embedded(&Layout::new(world.home())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    let left = || world.count("webhook_events") + world.count("conversations");
    let watch = async {
        for _ in 0..1_000_000 {
            if left() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        shutdown.cancel();
    };
    let serving = ServeConfig::default();
    tokio::join!(run_server(listener, store, &config, serving, None, shutdown.clone()), watch);
    assert_eq!(left(), 2, "the young event and its conversation");
    assert_eq!(world.count("request_ids"), 301, "the ledger is kept for longer");
}
