//! Files fail: the disk is full or broken, for one call or from one call on.

use std::io::BufReader;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};

use crate::is_long;
use crate::kills::{any, copy, each_call};
use crate::oracle::{Event, Size};
use crate::scenario::{Receiver, Scenario, drain_once, lone_up, quick_world, roots};
use crate::trace::{self, Fault, Plan, Report, Traced};
use crate::world::{Up, said};

/// One call fails, or the disk is full from there on; the long form has all four.
fn faults() -> Vec<Fault> {
    let usual = [Fault::Fail(Errno::EIO), Fault::FailOn(Errno::ENOSPC)];
    let others = [Fault::FailOn(Errno::EIO), Fault::Fail(Errno::ENOSPC)];
    usual.into_iter().chain(others.into_iter().filter(|_| is_long())).collect()
}

fn plan(at: Option<usize>, fault: Fault) -> Option<Plan> {
    at.map(|at| Plan { at, fault })
}

/// A program may fail, and does not crash.
fn assert_ended(report: &Report) {
    assert!(report.code().is_some_and(|code| code != 101), "{report:?}");
}

/// The home of a hook fails: the event is in the spool, or in the fallback home's.
fn hooks_whose_home_fails(fault: Fault) {
    let receiver = Receiver::start();
    let mut scenario = Scenario::new(format!("hook whose home fails, {fault:?}"));
    each_call(any, |at| {
        let world = receiver.new_home();
        scenario.capture(&world, Size::Small);
        let event = scenario.oracle.issue(Size::Small);
        let hook = world.lone_hook();
        let home = vec![world.home()];
        let report = trace::run(hook, event.payload.clone(), home, plan(at, fault));
        assert_eq!(report.code(), Some(0), "{report:?}");
        scenario.oracle.owe(&event);
        scenario.count(report.faults());
        let case = format!("hook failed at {at:?}, {:?}", report.struck);
        scenario.recover(&world, &receiver.world, &[event], &case);
        report
    });
    scenario.tally(&receiver.world);
    scenario.finish();
}

/// Both homes of a hook fail: it exits 0 all the same, and what it has captured before comes through.
fn hooks_whose_homes_both_fail(fault: Fault) {
    let receiver = Receiver::start();
    let mut scenario = Scenario::new(format!("hook whose homes both fail, {fault:?}"));
    each_call(any, |at| {
        let world = receiver.new_home();
        let before = scenario.capture(&world, Size::Small);
        let event = scenario.oracle.issue(Size::Small);
        let hook = world.lone_hook();
        let report = trace::run(hook, event.payload.clone(), roots(&world), plan(at, fault));
        assert_eq!(report.code(), Some(0), "{report:?}");
        scenario.count(report.faults());
        let case = format!("hook failed at {at:?}, {:?}", report.struck);
        scenario.recover(&world, &receiver.world, &[before, event], &case);
        report
    });
    scenario.tally(&receiver.world);
    scenario.finish();
}

fn drainers_whose_files_fail(fault: Fault) {
    let receiver = Receiver::start();
    let mut scenario = Scenario::new(format!("drainer whose files fail, {fault:?}"));
    each_call(any, |at| {
        let world = receiver.new_home();
        let events: Vec<Event> = (0..2).map(|_| scenario.capture(&world, Size::Small)).collect();
        let report = trace::run(drain_once(&world), Vec::new(), roots(&world), plan(at, fault));
        assert_ended(&report);
        scenario.count(report.faults());
        let case = format!("drainer failed at {at:?}, {:?}", report.struck);
        scenario.recover(&world, &receiver.world, &events, &case);
        report
    });
    scenario.tally(&receiver.world);
    scenario.finish();
}

/// A call of a server fails; it goes on, without a restart.
fn servers_whose_files_fail(errno: Errno) {
    let mut scenario = Scenario::new(format!("server whose files fail once, {errno:?}"));
    let template = quick_world();
    Up::start(lone_up(&template, "127.0.0.1:0")).stop();
    each_call(any, |at| {
        let world = copy(&template);
        let server = lone_up(&world, "127.0.0.1:0");
        let plan = plan(at, Fault::Fail(errno));
        let mut server =
            Traced::start(server, Vec::new(), vec![world.home().join("arrakis.db")], plan);
        said(&mut BufReader::new(&mut server.stdout)).unwrap();
        let event = scenario.capture(&world, Size::Small);
        server.arm();
        assert!(drain_once(&world).output().unwrap().status.success());
        scenario.recover(&world, &world, &[event], &format!("server failed at {at:?}"));
        kill(server.pid, Signal::SIGTERM).unwrap();
        let report = server.wait();
        assert_eq!(report.code(), Some(0), "{report:?}");
        scenario.count(report.faults());
        scenario.tally(&world);
        report
    });
    scenario.finish();
}

#[test]
fn hooks_exit_0_and_keep_the_event_when_their_home_fails() {
    faults().into_iter().for_each(hooks_whose_home_fails);
}

#[test]
fn hooks_exit_0_when_both_their_homes_fail() {
    faults().into_iter().for_each(hooks_whose_homes_both_fail);
}

#[test]
fn drainers_lose_nothing_when_their_files_fail() {
    faults().into_iter().for_each(drainers_whose_files_fail);
}

#[test]
fn servers_go_on_after_a_call_has_failed() {
    servers_whose_files_fail(Errno::EIO);
}
