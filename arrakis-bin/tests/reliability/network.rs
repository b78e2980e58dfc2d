//! The way to the server fails in every manner, with hooks running all the while.

use std::collections::BTreeSet;
use std::time::Duration;

use arrakis_store_fs::{Layout, Spool};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::is_long;
use crate::oracle::{Event, Size};
use crate::proxy::{ANSWERS, Proxy, Way};
use crate::scenario::{Receiver, Scenario, drain_once, seed};
use crate::world::{World, assert_silent, start};

/// How long a delivery may take here before it counts as failed.
const TIMEOUT_MS: &str = "500";

/// Everything that can happen to a request.
fn ways() -> Vec<Way> {
    let answers = ANSWERS.into_iter().map(Way::Say);
    let late = Way::Delay(Duration::from_millis(50));
    [Way::Reset, Way::Cut(0), Way::Cut(100), Way::Freeze, Way::Swallow, late]
        .into_iter()
        .chain(answers)
        .collect()
}

#[test]
fn an_answer_may_break_off_at_any_byte() {
    let receiver = Receiver::start();
    let proxy = Proxy::start(receiver.up.address());
    let world = receiver.new_home_via(&proxy.url());
    let mut scenario = Scenario::new("answer cut at any byte");
    let event = scenario.capture(&world, Size::Small);
    scenario.recover(&world, &receiver.world, &[event], "uncut");
    let length = proxy.answer_bytes();
    assert!(length > 200, "an answer has {length} bytes");
    let is_chosen =
        |at: &usize| is_long() || *at < 20 || at.is_multiple_of(16) || *at + 20 > length;
    for at in (0..length).filter(is_chosen) {
        let event = scenario.capture(&world, Size::Small);
        proxy.set_next([Way::Cut(at)]);
        let before = proxy.faults();
        assert!(drain_once(&world).output().unwrap().status.success());
        scenario.count(proxy.faults() - before);
        scenario.recover(&world, &receiver.world, &[event], &format!("cut at {at}"));
    }
    scenario.tally(&receiver.world);
    scenario.finish();
}

#[test]
fn each_fault_of_the_network_costs_no_event() {
    let receiver = Receiver::start();
    let proxy = Proxy::start(receiver.up.address());
    let mut scenario = Scenario::new("network fails once, or on every attempt");
    for way in ways() {
        for (events, attempts) in [(1, 1), (1, 3), (5, 1), (5, 20)] {
            let world = receiver.new_home_via(&proxy.url());
            let events: Vec<Event> =
                (0..events).map(|_| scenario.capture(&world, Size::Small)).collect();
            proxy.set_next(vec![way.clone(); attempts]);
            let before = proxy.faults();
            let mut drain = drain_once(&world);
            drain.env("ARRAKIS_TIMEOUT", TIMEOUT_MS);
            assert!(drain.output().unwrap().status.success());
            scenario.count(proxy.faults() - before);
            proxy.set_next([]);
            let case = format!("{way:?}, {attempts} times, {} events", events.len());
            scenario.recover(&world, &receiver.world, &events, &case);
        }
    }
    scenario.tally(&receiver.world);
    scenario.finish();
}

#[test]
fn a_network_that_never_works_for_long_delays_and_loses_nothing() {
    let receiver = Receiver::start();
    let proxy = Proxy::start(receiver.up.address());
    let world = receiver.new_home_via(&proxy.url());
    let spool = Spool::new(Layout::new(world.home()));
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut scenario = Scenario::new(format!("network fails at random under load, seed {seed}"));
    let ways = ways();
    let mut events = Vec::new();
    let rounds = if is_long() { 200 } else { 40 };
    for _ in 0..rounds {
        // More faults than these would open the circuit breaker, and each then takes five seconds.
        let faults = if is_long() { 3 } else { 1 };
        let some = (0..3).map(|n| match n < faults {
            true => ways.choose(&mut random).unwrap().clone(),
            false => Way::Pass,
        });
        proxy.set_next(some.collect::<Vec<_>>());
        // The hooks start drainers of their own; each change has everything tried again.
        let hooks: Vec<_> = (0..3)
            .map(|n| {
                let size = if n == 0 { Size::Medium } else { Size::Small };
                let event = scenario.oracle.issue(size);
                let mut hook = world.hook();
                hook.env("ARRAKIS_TIMEOUT", TIMEOUT_MS).env("ARRAKIS_RETRY_DELAY", "1");
                (start(&mut hook, &event.payload), event)
            })
            .collect();
        for (hook, event) in hooks {
            assert_silent(&hook.wait_with_output().unwrap());
            scenario.oracle.owe(&event);
            events.push(event);
        }
        proxy.wait_until_taken(|| {
            spool.poke().unwrap();
            world.spooled("pending").is_empty() && world.spooled("processing").is_empty()
        });
    }
    spool.poke().unwrap();
    let kinds: BTreeSet<&str> = proxy.taken().into_keys().collect();
    assert!(kinds.len() >= 5, "{kinds:?}");
    scenario.count(proxy.faults());
    wait_until_settled(&world);
    scenario.recover(&world, &receiver.world, &events, "the end");
    scenario.tally(&receiver.world);
    scenario.finish();
}

/// Waits until nothing is leased: then drainers that run have nothing under way.
fn wait_until_settled(world: &World) {
    world.wait_until("nothing is leased", |world| world.spooled("processing").is_empty());
    world.kill_drainers();
}
