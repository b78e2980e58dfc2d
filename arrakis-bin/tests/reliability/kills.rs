//! The programs are killed at every call by which they touch a file.

use std::fs;
use std::io::{BufRead, BufReader, Read};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::oracle::{Event, Size};
use crate::scenario::{Receiver, Scenario, drain_once, roots};
use crate::trace::{self, Fault, Plan, Report, Traced};
use crate::world::World;

fn killed_at(at: usize) -> Option<Plan> {
    Some(Plan { at, fault: Fault::Kill })
}

/// Runs cases with the fault at the first call, the second, and so on, until a run has no such call.
pub(crate) fn each_call(mut case: impl FnMut(usize) -> Report) {
    for at in 1.. {
        if case(at).calls.len() < at {
            break;
        }
    }
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
    each_call(|at| {
        let world = receiver.new_home();
        let config = world.home().join("config.toml");
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
        scenario.count(u64::from(report.struck.is_some()));
        if report.struck.is_none() {
            assert_eq!(report.code(), Some(0));
            scenario.oracle.owe(&event);
        } else {
            assert!(report.is_killed(), "{report:?}");
        }
        assert!(config.exists());
        let case = format!("hook killed at {at}, {:?}", report.struck);
        scenario.recover(&world, &receiver.world, &[event], &case);
        report
    });
    scenario.finish(&[&receiver.world]);
}

fn kill_drainers(size: Size) {
    let receiver = Receiver::start();
    let mut scenario = Scenario::new(format!("drainer killed at every call, {}", size.name()));
    each_call(|at| {
        let world = receiver.new_home();
        let events: Vec<Event> = (0..2).map(|_| scenario.capture(&world, size)).collect();
        let report = trace::run(drain_once(&world), Vec::new(), roots(&world), killed_at(at));
        scenario.count(u64::from(report.struck.is_some()));
        assert_eq!(report.struck.is_some(), report.is_killed(), "{report:?}");
        let case = format!("drainer killed at {at}, {:?}", report.struck);
        scenario.recover(&world, &receiver.world, &events, &case);
        report
    });
    scenario.finish(&[&receiver.world]);
}

#[test]
fn hooks_killed_in_a_new_home() {
    Size::ALL.into_iter().for_each(|size| kill_hooks(Home::New, size));
}

#[test]
fn hooks_killed_in_a_used_home() {
    Size::ALL.into_iter().for_each(|size| kill_hooks(Home::Used, size));
}

#[test]
fn hooks_killed_in_the_fallback_home() {
    Size::ALL.into_iter().for_each(|size| kill_hooks(Home::Broken, size));
}

#[test]
fn drainers_killed() {
    Size::ALL.into_iter().for_each(kill_drainers);
}
