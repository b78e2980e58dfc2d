//! The wall clock is set a year forward or back: nothing is lost, and nothing is cleaned away.

use std::fs::File;
use std::io::BufReader;
use std::time::{Duration, SystemTime};

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_store_fs::spool::layout::EntryName;
use nix::sys::signal::{Signal, kill};

use crate::kills::{any, copy, each_call, is_of_event};
use crate::oracle::{Event, Size};
use crate::proxy::{Proxy, Way};
use crate::scenario::{Receiver, Scenario, drain_once, lone_up, quick_world, rename_newest, roots};
use crate::trace::{self, Fault, Plan, Traced};
use crate::world::{Up, said};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn years() -> [Fault; 2] {
    let year = YEAR.as_secs().cast_signed();
    [Fault::Jump(year), Fault::Jump(-year)]
}

fn plan(at: Option<usize>, fault: Fault) -> Option<Plan> {
    at.map(|at| Plan { at, fault })
}

#[test]
fn a_clock_that_jumps_while_a_hook_runs() {
    let receiver = Receiver::start();
    let mut scenario = Scenario::new("clock jumps a year at every call of a hook");
    for fault in years() {
        each_call(any, |at| {
            let world = receiver.new_home();
            let event = scenario.oracle.issue(Size::Small);
            let input = event.payload.clone();
            let report = trace::run(world.lone_hook(), input, roots(&world), plan(at, fault));
            assert_eq!(report.code(), Some(0), "{report:?}");
            scenario.oracle.owe(&event);
            scenario.count(report.faults());
            scenario.recover(
                &world,
                &receiver.world,
                &[event],
                &format!("hook, {at:?}, {fault:?}"),
            );
            report
        });
    }
    scenario.tally(&receiver.world);
    scenario.finish();
}

#[test]
fn a_clock_that_jumps_while_a_drainer_runs() {
    let receiver = Receiver::start();
    let mut scenario = Scenario::new("clock jumps a year at every call of a drainer");
    for fault in years() {
        each_call(is_of_event, |at| {
            let world = receiver.new_home();
            let event = scenario.capture(&world, Size::Small);
            let report = trace::run(drain_once(&world), Vec::new(), roots(&world), plan(at, fault));
            assert_eq!(report.code(), Some(0), "{report:?}");
            scenario.count(report.faults());
            let case = format!("drainer, {at:?}, {fault:?}");
            scenario.recover(&world, &receiver.world, &[event], &case);
            report
        });
    }
    scenario.tally(&receiver.world);
    scenario.finish();
}

#[test]
fn a_clock_that_jumps_while_a_server_runs() {
    let mut scenario = Scenario::new("clock jumps a year under a server");
    let template = quick_world();
    Up::start(lone_up(&template, "127.0.0.1:0")).stop();
    for (fault, at) in years().into_iter().flat_map(|fault| [1, 20, 40].map(|at| (fault, at))) {
        let world = copy(&template);
        let server = lone_up(&world, "127.0.0.1:0");
        let mut server = Traced::start(server, Vec::new(), roots(&world), plan(Some(at), fault));
        said(&mut BufReader::new(&mut server.stdout)).unwrap();
        let before = scenario.capture(&world, Size::Small);
        server.arm();
        assert!(drain_once(&world).output().unwrap().status.success());
        scenario.recover(&world, &world, &[before], &format!("server, {at}, {fault:?}"));
        kill(server.pid, Signal::SIGTERM).unwrap();
        let report = server.wait();
        assert_eq!(report.code(), Some(0), "{report:?}");
        let off = "abs(julianday(received_at) - julianday('now')) > 300";
        let off = world.count(&format!("webhook_events WHERE {off}"));
        assert!(off > 0, "no row has the wrong time, so the clock did not jump");
        scenario.count(report.faults());
        scenario.tally(&world);
    }
    scenario.finish();
}

/// What a clock that is set right again leaves behind: names and times in the far past and future.
#[test]
fn files_that_seem_a_year_old_or_from_next_year() {
    let receiver = Receiver::start();
    let proxy = Proxy::start(receiver.up.address());
    let mut scenario = Scenario::new("files a year old or from next year, of every round");
    let now = SystemClock.now();
    let ages = [
        (now.plus(YEAR), SystemTime::now() + YEAR),
        ("2025-01-01T00:00:00Z".parse().unwrap(), SystemTime::now() - YEAR),
    ];
    for (due, modified) in ages {
        let world = receiver.new_home_via(&proxy.url());
        let mut events: Vec<Event> = Vec::new();
        for rounds in 0..=5 {
            events.push(scenario.capture(&world, Size::Small));
            let aged = rename_newest(&world, |name| EntryName { due, rounds, ..name });
            File::open(&aged).unwrap().set_modified(modified).unwrap();
            scenario.count(1);
        }
        // While the receiver is away, no age makes a dead letter.
        proxy.set_next(vec![Way::Reset; 3]);
        assert!(drain_once(&world).output().unwrap().status.success());
        assert_eq!(world.spooled("pending").len(), events.len(), "none is given up");
        proxy.set_next([]);
        scenario.recover(&world, &receiver.world, &events, "aged files");
    }
    scenario.tally(&receiver.world);
    scenario.finish();
}
