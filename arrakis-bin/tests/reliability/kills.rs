//! The programs are killed at every call by which they touch a file.

use std::fs;
use std::io::BufReader;

use arrakis_store_fs::spool::layout::EntryName;
use nix::sys::signal::{Signal, kill};

use crate::oracle::{Event, Size};
use crate::proxy::{Proxy, Way};
use crate::scenario::{
    Receiver, Scenario, drain_once, lone_up, quick_world, redrive, rename_newest, roots,
};
use crate::trace::{self, Call, Fault, Plan, Report, Traced};
use crate::world::{Up, World, said};
use crate::{is_long, takes_each_call};

pub(crate) fn killed_at(at: Option<usize>) -> Option<Plan> {
    at.map(|at| Plan { at, fault: Fault::Kill })
}

pub(crate) fn any(_: &Call) -> bool {
    true
}

/// Whether a call is about an event's file.
pub(crate) fn is_of_event(call: &Call) -> bool {
    call.path.extension().is_some_and(|ending| ending == "event")
}

/// Runs `case` with no fault, to learn the calls, then with one at each of them, and goes on until
/// three runs in a row have had no such call: threads may share work out differently each time. Calls
/// before the first that `matters` are left out.
pub(crate) fn each_call(
    matters: impl Fn(&Call) -> bool,
    mut case: impl FnMut(Option<usize>) -> Report,
) {
    let calls = case(None).calls;
    let first = calls.iter().position(matters).expect("a call that matters");
    for at in first.. {
        let is_left_out = !takes_each_call() && (at - first) % 2 == 1
            || at < calls.len() && !is_long() && is_inside_a_row(&calls, at);
        if is_left_out {
            continue;
        }
        let is_reached = (0..3).any(|_| case(Some(at + 1)).calls.len() > at);
        if !is_reached {
            break;
        }
    }
}

/// Whether the call is one of many to the same file, one after the other, but neither among the first
/// nor the last of them, nor every hundredth: a large payload is a thousand pages of a database.
fn is_inside_a_row(calls: &[Call], at: usize) -> bool {
    const ENDS: usize = 16;
    let call = |at: usize| calls.get(at).map(|call| (call.name, &call.path));
    at >= ENDS
        && !at.is_multiple_of(100)
        && (at - ENDS..=at + ENDS).all(|other| call(other) == call(at))
}

/// What the hook finds when it starts.
#[derive(Debug, Clone, Copy)]
enum Home {
    /// A home that was never spooled into.
    New,
    /// A spool that is in use.
    Used,
    /// A file where the home should be: the fallback home is used.
    Broken,
}

fn kill_hooks(home: Home, size: Size) {
    let receiver = Receiver::start();
    let mut scenario =
        Scenario::new(format!("hook killed at every call, {home:?} home, {}", size.name()));
    each_call(any, |at| {
        let world = receiver.new_home();
        let mut hook = world.lone_hook();
        match home {
            Home::New => {}
            Home::Used => drop(scenario.capture(&world, Size::Small)),
            Home::Broken => {
                hook.env("ARRAKIS_HOME", world.home().join("config.toml"));
                hook.env("ARRAKIS_URL", &receiver.up.url);
            }
        }
        let event = scenario.oracle.issue(size);
        let report = trace::run(hook, event.payload.clone(), roots(&world), killed_at(at));
        scenario.count(report.faults());
        if report.struck.is_none() {
            assert_eq!(report.code(), Some(0));
            scenario.oracle.owe(&event);
        } else {
            assert!(report.is_killed(), "{report:?}");
        }
        let case = format!("hook killed at {at:?}, {:?}", report.struck);
        scenario.recover(&world, &receiver.world, &[event], &case);
        report
    });
    scenario.tally(&receiver.world);
    scenario.finish();
}

fn kill_drainers(size: Size) {
    let receiver = Receiver::start();
    let mut scenario = Scenario::new(format!("drainer killed at every call, {}", size.name()));
    // What it does before it takes an event is the same for all sizes.
    let matters = if size == Size::Small { any } else { is_of_event };
    each_call(matters, |at| {
        let world = receiver.new_home();
        let events: Vec<Event> = (0..2).map(|_| scenario.capture(&world, size)).collect();
        let report = trace::run(drain_once(&world), Vec::new(), roots(&world), killed_at(at));
        scenario.count(report.faults());
        assert_eq!(report.struck.is_some(), report.is_killed(), "{report:?}");
        let case = format!("drainer killed at {at:?}, {:?}", report.struck);
        scenario.recover(&world, &receiver.world, &events, &case);
        report
    });
    scenario.tally(&receiver.world);
    scenario.finish();
}

/// A server that refuses: one event fails a round, and another its last.
fn kill_drainers_whose_events_are_refused() {
    let receiver = Receiver::start();
    let proxy = Proxy::start(receiver.up.address());
    let mut scenario = Scenario::new("drainer killed at every call, events refused");
    let mut given_up = 0;
    each_call(is_of_event, |at| {
        let world = receiver.new_home_via(&proxy.url());
        let last = scenario.capture(&world, Size::Small);
        rename_newest(&world, |name| EntryName { rounds: 5, ..name });
        let events = [last, scenario.capture(&world, Size::Small)];
        // The batch, then each alone.
        proxy.set_next([Way::Refuse, Way::Refuse, Way::Refuse]);
        let report = trace::run(drain_once(&world), Vec::new(), roots(&world), killed_at(at));
        proxy.set_next([]);
        scenario.count(report.faults());
        assert_eq!(report.struck.is_some(), report.is_killed(), "{report:?}");
        given_up += world.spooled("failed").len();
        let case = format!("drainer killed at {at:?}, {:?}", report.struck);
        redrive(&world);
        scenario.recover(&world, &receiver.world, &events, &case);
        report
    });
    assert!(given_up > 0, "no event became a dead letter");
    scenario.tally(&receiver.world);
    scenario.finish();
}

fn kill_servers(size: Size) {
    let mut scenario = Scenario::new(format!("server killed at every call, {}", size.name()));
    let template = quick_world();
    Up::start(lone_up(&template, "127.0.0.1:0")).stop();
    each_call(any, |at| {
        let world = copy(&template);
        let server = lone_up(&world, "127.0.0.1:0");
        let mut server = Traced::start(server, Vec::new(), roots(&world), killed_at(at));
        let said = said(&mut BufReader::new(&mut server.stdout)).unwrap();
        let event = scenario.capture(&world, size);
        server.arm();
        // The server may die of it; the event goes back into the spool then.
        assert!(drain_once(&world).output().unwrap().status.success());
        kill(server.pid, Signal::SIGKILL).ok();
        let report = server.wait();
        assert!(report.is_killed(), "{report:?}");
        scenario.count(report.faults());
        let url = said["url"].as_str().unwrap().trim_start_matches("http://");
        let address = url.split('/').next().unwrap();
        let _up = Up::start(lone_up(&world, address));
        let case = format!("server killed at {at:?}, {:?}", report.struck);
        scenario.recover(&world, &world, &[event], &case);
        scenario.tally(&world);
        report
    });
    scenario.finish();
}

/// A world with a copy of the configuration and the database of `template`.
pub(crate) fn copy(template: &World) -> World {
    let world = quick_world();
    fs::create_dir(world.home()).unwrap();
    for file in ["config.toml", "arrakis.db"] {
        fs::copy(template.home().join(file), world.home().join(file)).unwrap();
    }
    world
}

fn kill_first_starts() {
    let mut scenario = Scenario::new("server killed at every call of its first start");
    each_call(any, |at| {
        let world = quick_world();
        let server = lone_up(&world, "127.0.0.1:0");
        let mut server = Traced::start(server, Vec::new(), roots(&world), killed_at(at));
        server.arm();
        said(&mut BufReader::new(&mut server.stdout));
        kill(server.pid, Signal::SIGKILL).ok();
        let report = server.wait();
        scenario.count(report.faults());
        let _up = Up::start(lone_up(&world, "127.0.0.1:0"));
        let case = format!("first start killed at {at:?}, {:?}", report.struck);
        scenario.recover(&world, &world, &[], &case);
        scenario.tally(&world);
        report
    });
    scenario.finish();
}

fn some_sizes() -> &'static [Size] {
    if is_long() { &Size::ALL } else { &[Size::Small] }
}

#[test]
fn hooks_killed_in_a_new_home() {
    some_sizes().iter().for_each(|size| kill_hooks(Home::New, *size));
}

#[test]
fn hooks_killed_in_a_used_home() {
    Size::ALL.into_iter().for_each(|size| kill_hooks(Home::Used, size));
}

#[test]
fn hooks_killed_in_the_fallback_home() {
    some_sizes().iter().for_each(|size| kill_hooks(Home::Broken, *size));
}

#[test]
fn drainers_killed() {
    Size::ALL.into_iter().for_each(kill_drainers);
}

#[test]
fn drainers_killed_while_events_are_refused() {
    kill_drainers_whose_events_are_refused();
}

#[test]
fn servers_killed() {
    Size::ALL.into_iter().for_each(kill_servers);
}

#[test]
fn servers_killed_at_their_first_start() {
    kill_first_starts();
}
