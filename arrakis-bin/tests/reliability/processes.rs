//! The processes die and stop at random, under load.

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::is_long;
use crate::oracle::{Event, Size};
use crate::proxy::{Proxy, Way};
use crate::scenario::{Receiver, Scenario, drain_once, seed};
use crate::world::{World, assert_silent, start};

#[test]
fn servers_and_drainers_killed_and_stopped_under_load() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut scenario =
        Scenario::new(format!("processes killed and stopped under load, seed {seed}"));
    // On a disk: this one takes its time anyway.
    let world = World::new();
    let mut up = world.up();
    let address = up.address().to_owned();
    let mut events = Vec::new();
    let (mut faults, mut stopped) = (0, 0);
    let rounds = if is_long() { 1_000 } else { 60 };
    for round in 0..rounds {
        let size = if round % 20 == 10 { Size::Large } else { Size::Small };
        let hooks: Vec<_> = [size, Size::Small, Size::Medium]
            .into_iter()
            .map(|size| {
                let event = scenario.oracle.issue(size);
                let mut hook = world.hook();
                hook.env("ARRAKIS_RETRY_DELAY", "1");
                (start(&mut hook, &event.payload), event)
            })
            .collect();
        match random.random_range(0..6) {
            0 | 1 => faults += world.kill_drainers(),
            2 => stopped += world.signal_drainers(Signal::SIGSTOP).len(),
            3 => {
                up.child.kill().unwrap();
                up.child.wait().unwrap();
                up = world.up_at(&address);
                faults += 1;
            }
            _ => drop(world.signal_drainers(Signal::SIGCONT)),
        }
        for (hook, event) in hooks {
            assert_silent(&hook.wait_with_output().unwrap());
            scenario.oracle.owe(&event);
            events.push(event);
        }
    }
    assert!(faults > 10 && stopped > 0, "{faults} kills, {stopped} stops");
    world.signal_drainers(Signal::SIGCONT);
    world.kill_drainers();
    scenario.count((faults + stopped) as u64);
    scenario.recover(&world, &world, &events, "the end");
    scenario.tally(&world);
    scenario.finish();
}

#[test]
fn a_stopped_drainer_is_not_robbed_and_a_dead_one_is_inherited() {
    let receiver = Receiver::start();
    let proxy = Proxy::start(receiver.up.address());
    let world = receiver.new_home_via(&proxy.url());
    let mut scenario = Scenario::new("drainer stopped with an event in its hands, then killed");
    let event = scenario.capture(&world, Size::Small);
    proxy.set_next([Way::Swallow]);
    let mut holder = world.command(env!("CARGO_BIN_EXE_arrakis")).arg("drain").spawn().unwrap();
    proxy.wait_until_taken(|| false);
    assert!(!world.signal_drainers(Signal::SIGSTOP).is_empty());
    let other = scenario.capture(&world, Size::Small);
    assert!(drain_once(&world).output().unwrap().status.success());
    assert_eq!(world.spooled("processing").len(), 1, "the other has left it where it is");
    assert!(world.spooled("pending").is_empty(), "and delivered the rest");
    assert!(world.kill_drainers() > 0);
    holder.wait().unwrap();
    scenario.count(2);
    scenario.recover(&world, &receiver.world, &[event, other], "after its death");
    scenario.tally(&receiver.world);
    scenario.finish();
}

#[test]
fn eight_drainers_share_one_spool() {
    const DRAINERS: usize = 8;
    let receiver = Receiver::start();
    let world = receiver.new_home();
    let mut scenario = Scenario::new("eight drainers on one spool, half of them killed");
    // Several batches of 8 MiB, so that each drainer finds something.
    let count = if is_long() { 3_000 } else { 500 };
    let events: Vec<Event> = (0..count).map(|_| scenario.capture(&world, Size::Medium)).collect();
    let mut drainers: Vec<_> = (0..DRAINERS)
        .map(|_| {
            let mut drain = world.command(env!("CARGO_BIN_EXE_arrakis"));
            drain.args(["drain", "--parallel"]).spawn().unwrap()
        })
        .collect();
    world.wait_until("some are delivered", |world| world.spooled("pending").len() < events.len());
    for drainer in drainers.iter_mut().step_by(2) {
        drainer.kill().unwrap();
        scenario.count(1);
    }
    world.wait_until("all are delivered", |world| {
        world.spooled("pending").is_empty() && world.spooled("processing").is_empty()
    });
    for drainer in &mut drainers {
        drainer.kill().unwrap();
        drainer.wait().unwrap();
    }
    scenario.recover(&world, &receiver.world, &events, "the end");
    scenario.tally(&receiver.world);
    scenario.finish();
}
