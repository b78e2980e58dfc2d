//! The conformance suite of [`Queue`].
//!
//! An implementation provides a [`QueueFixture`]: a medium that owners can be opened on, and the
//! clock that they read. Then `queue_conformance!(make)`, with `make` an async function that returns
//! a fresh fixture, makes one `#[tokio::test]` of each case.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::clock::{Clock, ManualClock, Timestamp};
use crate::base::dead_letter::{DeadLetters, Failure};
use crate::base::digest::Digest;
use crate::base::envelope::{Envelope, Source};
use crate::base::id::RequestId;
use crate::base::limits::{DUE_HORIZON, PENDING_MAX_AGE};
use crate::delivery::queue::{
    Aged, Disposition, EXPIRED, Lane, Lease, LeaseRequest, MemoryQueue, Queue, Wake,
};

/// A medium to open queues on.
#[async_trait]
pub trait QueueFixture: Send + Sync {
    /// The clock that every owner reads.
    fn clock(&self) -> Arc<ManualClock>;

    /// Opens the medium as one more owner, who dies when the value is dropped.
    async fn open(&self) -> Arc<dyn Queue>;

    /// The dead letters of the same medium.
    async fn dead_letters(&self) -> Arc<dyn DeadLetters>;
}

/// The fixture of [`MemoryQueue`].
#[derive(Debug)]
pub struct MemoryFixture {
    clock: Arc<ManualClock>,
    queue: Arc<MemoryQueue>,
}

impl MemoryFixture {
    /// An empty medium.
    #[must_use]
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        Self { clock, queue: Arc::new(MemoryQueue::new(shared)) }
    }
}

impl Default for MemoryFixture {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl QueueFixture for MemoryFixture {
    fn clock(&self) -> Arc<ManualClock> {
        Arc::clone(&self.clock)
    }

    async fn open(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.another_owner())
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::<MemoryQueue>::clone(&self.queue)
    }
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`QueueFixture`].
#[macro_export]
macro_rules! queue_conformance {
    ($make:path) => {
        $crate::queue_conformance!(@cases $make:
            a_pushed_event_is_leased_as_it_was,
            pushing_a_request_id_that_is_already_there_changes_nothing,
            an_event_is_leased_to_one_owner_at_a_time,
            many_owners_share_events_without_doubles,
            an_event_that_is_not_due_is_not_leased,
            a_due_time_beyond_the_horizon_is_due_now,
            an_event_for_a_closed_destination_is_not_leased,
            a_lease_request_with_room_for_nothing_still_gives_one_event,
            a_lease_request_is_filled_up_to_its_limits,
            one_event_is_leased_by_its_id_due_or_not,
            the_fresh_lane_gives_an_event_once,
            delivered_and_duplicate_remove_the_event,
            released_gives_the_event_back_as_it_was,
            retry_at_gives_the_event_back_with_one_more_failed_round,
            deferred_gives_the_event_back_with_its_rounds_due_later,
            a_new_event_that_is_deferred_waits_while_others_go,
            a_dead_letter_is_kept_with_its_whole_history,
            settling_twice_is_told_and_harms_nobody,
            reap_gives_the_events_of_dead_owners_back_and_of_no_living_one,
            whether_it_is_idle_is_told,
            an_event_that_waits_too_long_is_a_dead_letter_until_its_receiver_is_back,
            time_that_does_not_count_makes_no_event_old,
            wait_returns_after_a_push,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::queue::$case(&$make().await).await;
            }
        )*
    };
}

/// An envelope of this id, for [`DESTINATION`], whose payload is `payload`.
#[must_use]
pub fn envelope(id: &str, payload: &[u8]) -> Envelope {
    envelope_to(id, payload, DESTINATION)
}

/// The destination of [`envelope`].
pub const DESTINATION: &str = "http://127.0.0.1:3000/api/claude-hooks";

fn envelope_to(id: &str, payload: &[u8], destination: &str) -> Envelope {
    let captured_at = Timestamp::from_millis(1_800_000_000_000);
    Envelope::new(id_of(id), captured_at, destination, Source::default(), payload.to_vec())
}

fn id_of(text: &str) -> RequestId {
    text.parse().expect("a valid request id")
}

fn request(lane: Lane) -> LeaseRequest {
    LeaseRequest { lane, events: 100, bytes: 100 << 20, closed: Vec::new() }
}

fn failure(round: u32) -> Failure {
    Failure {
        at: Timestamp::from_millis(1_800_000_000_000 + i64::from(round)),
        round,
        code: format!("code_{round}"),
        message: "a message with\nnew lines and \"quotes\"".to_owned(),
    }
}

async fn lease_all(queue: &dyn Queue) -> Vec<Lease> {
    queue.lease(request(Lane::Any)).await.expect("lease").leases
}

async fn lease_one(queue: &dyn Queue) -> Lease {
    let mut leases = lease_all(queue).await;
    assert_eq!(leases.len(), 1, "exactly one event is there");
    leases.remove(0)
}

async fn settle(queue: &dyn Queue, lease: Lease, disposition: Disposition) {
    queue.settle(vec![(lease, disposition)]).await.expect("settle");
}

/// An event that was pushed is leased with every byte and field it had.
pub async fn a_pushed_event_is_leased_as_it_was(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    let payloads: [&[u8]; 5] =
        [b"", b"{\"a\":1}", b"two\nlines\r\n\n", &[0, 255, 10, 13, 0], &vec![b'x'; 3 << 20]];
    for payload in payloads {
        let envelope = envelope("an.id:with-every_kind", payload);
        queue.push(envelope.clone()).await.expect("push");
        let lease = lease_one(&*queue).await;
        assert_eq!(*lease.envelope, envelope);
        assert_eq!(lease.envelope.header.digest, Digest::of(payload));
        assert_eq!(lease.failed_rounds, 0);
        settle(&*queue, lease, Disposition::Delivered).await;
    }
}

/// A request id is in the queue once, with the payload that came first.
pub async fn pushing_a_request_id_that_is_already_there_changes_nothing(
    fixture: &impl QueueFixture,
) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"first")).await.expect("push");
    queue.push(envelope("a", b"second")).await.expect("a repeat is no error");
    let lease = lease_one(&*queue).await;
    assert_eq!(&lease.envelope.payload[..], b"first");
}

/// What one owner has leased, another does not get.
pub async fn an_event_is_leased_to_one_owner_at_a_time(fixture: &impl QueueFixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    one.push(envelope("a", b"x")).await.expect("push");
    let lease = lease_one(&*one).await;
    assert!(lease_all(&*other).await.is_empty());
    assert!(lease_all(&*one).await.is_empty());
    let id = Lane::One(id_of("a"));
    assert!(other.lease(request(id)).await.expect("lease").leases.is_empty());
    drop(lease);
}

/// Owners that lease side by side get every event, and none twice.
pub async fn many_owners_share_events_without_doubles(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    for n in 0..60 {
        queue.push(envelope(&format!("e{n}"), b"x")).await.expect("push");
    }
    let mut owners = Vec::new();
    for _ in 0..3 {
        owners.push(fixture.open().await);
    }
    let few = || LeaseRequest { events: 7, ..request(Lane::Any) };
    let leasing = owners.iter().map(|owner| async move {
        let mut mine = Vec::new();
        loop {
            let leased = owner.lease(few()).await.expect("lease").leases;
            if leased.is_empty() {
                return mine;
            }
            mine.extend(leased.into_iter().map(|lease| lease.envelope.request_id().clone()));
        }
    });
    let leased = futures_util::future::join_all(leasing).await.concat();
    assert_eq!(leased.len(), 60);
    assert_eq!(leased.iter().collect::<BTreeSet<_>>().len(), 60);
}

/// An event waits for its due time, which is told while it waits.
pub async fn an_event_that_is_not_due_is_not_leased(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"x")).await.expect("push");
    let due = fixture.clock().now().plus(Duration::from_secs(60));
    let lease = lease_one(&*queue).await;
    settle(&*queue, lease, Disposition::RetryAt { due, failure: failure(1) }).await;

    let leased = queue.lease(request(Lane::Any)).await.expect("lease");
    assert!(leased.leases.is_empty());
    let told = leased.next_due.expect("a due time").as_millis();
    assert_eq!(told, due.as_millis());

    fixture.clock().advance(Duration::from_secs(60));
    lease_one(&*queue).await;
}

/// A due time that only a jump of the clock explains holds nothing back.
pub async fn a_due_time_beyond_the_horizon_is_due_now(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"x")).await.expect("push");
    let due = fixture.clock().now().plus(DUE_HORIZON).plus(Duration::from_secs(60));
    let lease = lease_one(&*queue).await;
    settle(&*queue, lease, Disposition::RetryAt { due, failure: failure(1) }).await;
    lease_one(&*queue).await;
}

/// Events for a receiver that is away stay, the others go.
pub async fn an_event_for_a_closed_destination_is_not_leased(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    let away = "http://away.invalid/";
    queue.push(envelope_to("a", b"x", away)).await.expect("push");
    queue.push(envelope("b", b"x")).await.expect("push");
    let but_away = LeaseRequest { closed: vec![away.to_owned()], ..request(Lane::Any) };
    let leased = queue.lease(but_away.clone()).await.expect("lease").leases;
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].envelope.header.destination, DESTINATION);
    let leased = queue.lease(but_away).await.expect("lease");
    assert!(leased.leases.is_empty() && leased.next_due.is_none());
    assert_eq!(lease_one(&*queue).await.envelope.header.destination, away);
}

/// An event that is larger than the request's limit gets through, alone.
pub async fn a_lease_request_with_room_for_nothing_still_gives_one_event(
    fixture: &impl QueueFixture,
) {
    let queue = fixture.open().await;
    for id in ["a", "b"] {
        queue.push(envelope(id, &[b'x'; 1000])).await.expect("push");
    }
    for limits in [(100, 1), (0, 1 << 20)] {
        let tight = LeaseRequest { events: limits.0, bytes: limits.1, ..request(Lane::Any) };
        assert_eq!(queue.lease(tight).await.expect("lease").leases.len(), 1);
    }
}

/// A request takes as many events as its limits allow, and no more.
pub async fn a_lease_request_is_filled_up_to_its_limits(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    for n in 0..10 {
        queue.push(envelope(&format!("e{n}"), &[b'x'; 1000])).await.expect("push");
    }
    let by_count = LeaseRequest { events: 3, ..request(Lane::Any) };
    assert_eq!(queue.lease(by_count).await.expect("lease").leases.len(), 3);
    let by_bytes = LeaseRequest { bytes: 2500, ..request(Lane::Any) };
    assert_eq!(queue.lease(by_bytes).await.expect("lease").leases.len(), 2);
    assert_eq!(lease_all(&*queue).await.len(), 5);
}

/// A person can have one event delivered at once.
pub async fn one_event_is_leased_by_its_id_due_or_not(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    for id in ["a", "b"] {
        queue.push(envelope(id, b"x")).await.expect("push");
    }
    let due = fixture.clock().now().plus(Duration::from_secs(60));
    for lease in lease_all(&*queue).await {
        settle(&*queue, lease, Disposition::RetryAt { due, failure: failure(1) }).await;
    }
    let mut leased = queue.lease(request(Lane::One(id_of("b")))).await.expect("lease").leases;
    assert_eq!(leased.len(), 1);
    assert_eq!(leased.remove(0).envelope.request_id(), &id_of("b"));
    let none = queue.lease(request(Lane::One(id_of("c")))).await.expect("lease").leases;
    assert!(none.is_empty());
}

/// The fresh lane offers a new event, and not again what was offered once.
pub async fn the_fresh_lane_gives_an_event_once(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"x")).await.expect("push");
    assert_eq!(queue.wait().await, Wake::Pushed);
    let mut leased = queue.lease(request(Lane::Fresh)).await.expect("lease").leases;
    assert_eq!(leased.len(), 1);
    settle(&*queue, leased.remove(0), Disposition::Released).await;
    assert!(queue.lease(request(Lane::Fresh)).await.expect("lease").leases.is_empty());
    lease_one(&*queue).await;
}

/// A delivered event is gone, everywhere, and so is one that was delivered before.
pub async fn delivered_and_duplicate_remove_the_event(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    for disposition in [Disposition::Delivered, Disposition::Duplicate] {
        queue.push(envelope("a", b"x")).await.expect("push");
        let lease = lease_one(&*queue).await;
        settle(&*queue, lease, disposition).await;
    }
    assert!(lease_all(&*fixture.open().await).await.is_empty());
    assert_eq!(queue.depth().await.expect("depth"), crate::delivery::queue::Depth::default());
}

/// A released event has lost nothing.
pub async fn released_gives_the_event_back_as_it_was(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"x")).await.expect("push");
    let lease = lease_one(&*queue).await;
    assert_eq!(queue.depth().await.expect("depth").processing, 1);
    settle(&*queue, lease, Disposition::Released).await;
    assert_eq!(queue.depth().await.expect("depth").pending, 1);
    let lease = lease_one(&*fixture.open().await).await;
    assert_eq!(lease.failed_rounds, 0);
    assert_eq!(*lease.envelope, envelope("a", b"x"));
}

/// A failed round stays counted when another owner leases the event.
pub async fn retry_at_gives_the_event_back_with_one_more_failed_round(fixture: &impl QueueFixture) {
    fixture.open().await.push(envelope("a", b"x")).await.expect("push");
    for round in 0..3 {
        let queue = fixture.open().await;
        let lease = lease_one(&*queue).await;
        assert_eq!(lease.failed_rounds, round);
        let due = fixture.clock().now();
        settle(&*queue, lease, Disposition::RetryAt { due, failure: failure(round + 1) }).await;
    }
    assert_eq!(lease_one(&*fixture.open().await).await.failed_rounds, 3);
}

/// An event that is deferred is due later, with its rounds, and pushing it again changes nothing.
pub async fn deferred_gives_the_event_back_with_its_rounds_due_later(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"x")).await.expect("push");
    let due = fixture.clock().now();
    let lease = lease_one(&*queue).await;
    settle(&*queue, lease, Disposition::RetryAt { due, failure: failure(1) }).await;
    let due = due.plus(Duration::from_secs(60));
    let lease = lease_one(&*queue).await;
    settle(&*queue, lease, Disposition::Deferred { due, failure: failure(1) }).await;
    queue.push(envelope("a", b"x")).await.expect("push");

    let leased = queue.lease(request(Lane::Any)).await.expect("lease");
    assert!(leased.leases.is_empty());
    assert_eq!(leased.next_due, Some(due));
    fixture.clock().advance(Duration::from_secs(60));
    let lease = lease_one(&*queue).await;
    assert_eq!(lease.failed_rounds, 1);
    settle(&*queue, lease, Disposition::DeadLetter { failure: failure(2) }).await;
    let letter = fixture.dead_letters().await.show(&id_of("a")).await.expect("show");
    assert_eq!(letter.expect("it is there").history, [failure(1), failure(1), failure(2)]);
}

/// An event that has lost no round can be deferred too: others go meanwhile, and a person has it at once.
pub async fn a_new_event_that_is_deferred_waits_while_others_go(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"x")).await.expect("push");
    let minute = Duration::from_secs(60);
    let mut due = fixture.clock().now().plus(minute);
    let lease = lease_one(&*queue).await;
    settle(&*queue, lease, Disposition::Deferred { due, failure: failure(0) }).await;
    queue.push(envelope("b", b"x")).await.expect("push");

    let other = lease_one(&*queue).await;
    assert_eq!(other.envelope.request_id(), &id_of("b"));
    settle(&*queue, other, Disposition::Delivered).await;
    for lane in [Lane::Fresh, Lane::Any] {
        assert!(queue.lease(request(lane)).await.expect("lease").leases.is_empty());
    }
    let leased = queue.lease(request(Lane::Any)).await.expect("lease");
    assert_eq!(leased.next_due, Some(due));
    assert!(!queue.is_idle().await.expect("is idle"));

    let asked = request(Lane::One(id_of("a")));
    let mut leased = queue.lease(asked).await.expect("lease").leases;
    assert_eq!(leased.len(), 1);
    due = due.plus(minute);
    settle(&*queue, leased.remove(0), Disposition::Deferred { due, failure: failure(0) }).await;
    fixture.clock().advance(minute);
    assert!(queue.lease(request(Lane::Any)).await.expect("lease").leases.is_empty());
    fixture.clock().advance(minute);
    let lease = lease_one(&*queue).await;
    assert_eq!((lease.envelope.request_id(), lease.failed_rounds), (&id_of("a"), 0));
}

/// A dead letter leaves the queue and keeps all that is known about it.
pub async fn a_dead_letter_is_kept_with_its_whole_history(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"payload")).await.expect("push");
    let due = fixture.clock().now();
    let lease = lease_one(&*queue).await;
    settle(&*queue, lease, Disposition::RetryAt { due, failure: failure(1) }).await;
    let lease = lease_one(&*queue).await;
    settle(&*queue, lease, Disposition::DeadLetter { failure: failure(2) }).await;

    let depth = queue.depth().await.expect("depth");
    assert_eq!((depth.pending, depth.processing, depth.failed), (0, 0, 1));
    let letters = fixture.dead_letters().await;
    let detail = letters.show(&id_of("a")).await.expect("show").expect("it is there");
    assert_eq!(detail.history, [failure(1), failure(2)]);
    assert_eq!(&detail.payload[..], b"payload");
    assert_eq!(detail.header, Some(envelope("a", b"payload").header));
}

/// A lease that is not held cannot be settled, and trying takes nothing from its holder.
pub async fn settling_twice_is_told_and_harms_nobody(fixture: &impl QueueFixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    one.push(envelope("a", b"x")).await.expect("push");
    let lease = lease_one(&*one).await;
    let copy = Lease {
        envelope: Arc::clone(&lease.envelope),
        failed_rounds: lease.failed_rounds,
        token: lease.token.clone(),
    };
    settle(&*one, lease, Disposition::Released).await;
    let held = lease_one(&*other).await;
    assert!(one.settle(vec![(copy, Disposition::Released)]).await.is_err());
    assert!(lease_all(&*one).await.is_empty());
    settle(&*other, held, Disposition::Delivered).await;
}

/// What a dead owner held is free again; what a living one holds stays its own.
pub async fn reap_gives_the_events_of_dead_owners_back_and_of_no_living_one(
    fixture: &impl QueueFixture,
) {
    let (dead, living) = (fixture.open().await, fixture.open().await);
    for id in ["a", "b"] {
        dead.push(envelope(id, b"x")).await.expect("push");
    }
    let one = || LeaseRequest { events: 1, ..request(Lane::Any) };
    let held = dead.lease(one()).await.expect("lease").leases;
    let kept = living.lease(one()).await.expect("lease").leases;
    assert_eq!((held.len(), kept.len()), (1, 1));
    let orphan = held[0].envelope.request_id().clone();
    drop(held);
    drop(dead);

    let heir = fixture.open().await;
    heir.reap().await.expect("reap");
    assert_eq!(lease_one(&*heir).await.envelope.request_id(), &orphan);
    assert_eq!(living.depth().await.expect("depth").processing, 2);
    for lease in kept {
        settle(&*living, lease, Disposition::Delivered).await;
    }
}

/// What waits and what is leased keeps a queue from being idle; dead letters do not.
pub async fn whether_it_is_idle_is_told(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    assert!(queue.is_idle().await.expect("is idle"));
    queue.push(envelope("a", b"x")).await.expect("push");
    assert!(!queue.is_idle().await.expect("is idle"));
    let lease = lease_one(&*queue).await;
    assert!(!fixture.open().await.is_idle().await.expect("is idle"));
    settle(&*queue, lease, Disposition::DeadLetter { failure: failure(1) }).await;
    assert!(queue.is_idle().await.expect("is idle"));
}

/// Its age is the time that was told, whatever the clock says; nothing is lost by it.
pub async fn an_event_that_waits_too_long_is_a_dead_letter_until_its_receiver_is_back(
    fixture: &impl QueueFixture,
) {
    let queue = fixture.open().await;
    queue.push(envelope("old", b"x")).await.expect("push");
    queue.push(envelope_to("other", b"x", "http://other.invalid/")).await.expect("push");
    let due = fixture.clock().now();
    let lost = queue.lease(request(Lane::One(id_of("old")))).await.expect("lease").leases.remove(0);
    settle(&*queue, lost, Disposition::RetryAt { due, failure: failure(1) }).await;
    let second = Duration::from_secs(1);
    for by in [PENDING_MAX_AGE, PENDING_MAX_AGE - second] {
        assert_eq!(queue.age(by).await.expect("age"), Aged::default());
    }
    queue.push(envelope("young", b"x")).await.expect("push");
    let expired = Aged { expired: 2, revived: 0 };
    // Whoever tells the time, it is the same time.
    assert_eq!(queue.age(second).await.expect("age"), expired);
    let letters = fixture.dead_letters().await;
    let detail = letters.show(&id_of("old")).await.expect("show").expect("it is there");
    assert_eq!(detail.history.last().map(|failure| failure.code.as_str()), Some(EXPIRED));
    assert_eq!((&detail.history[0], &detail.payload[..]), (&failure(1), &b"x"[..]));

    let young = lease_one(&*queue).await;
    assert_eq!(queue.age(second).await.expect("age"), Aged::default());
    settle(&*queue, young, Disposition::Delivered).await;
    let revived = Aged { expired: 0, revived: 1 };
    assert_eq!(queue.age(second).await.expect("age"), revived, "the other receiver is still away");
    let old = lease_one(&*queue).await;
    assert_eq!((old.envelope.request_id(), old.failed_rounds), (&id_of("old"), 1));
    assert_eq!(queue.depth().await.expect("depth").failed, 1);
}

/// A clock that is set a year forward or back makes nothing old.
pub async fn time_that_does_not_count_makes_no_event_old(fixture: &impl QueueFixture) {
    let queue = fixture.open().await;
    queue.push(envelope("a", b"x")).await.expect("push");
    let now = fixture.clock().now();
    let year = Duration::from_secs(366 * 24 * 3600);
    for moment in [now, now.plus(year), now.minus(year), now] {
        fixture.clock().set(moment);
        for _ in 0..3 {
            assert_eq!(queue.age(Duration::from_secs(3600)).await.expect("age"), Aged::default());
        }
        let lease = lease_one(&*queue).await;
        settle(&*queue, lease, Disposition::Released).await;
    }
}

/// A push wakes who waits, whichever came first.
pub async fn wait_returns_after_a_push(fixture: &impl QueueFixture) {
    let (producer, consumer) = (fixture.open().await, fixture.open().await);
    producer.push(envelope("a", b"x")).await.expect("push");
    consumer.wait().await;
    lease_one(&*consumer).await;
    let (wake, pushed) = tokio::join!(consumer.wait(), producer.push(envelope("b", b"x")));
    pushed.expect("push");
    assert_eq!(wake, Wake::Pushed);
    lease_one(&*consumer).await;
}

#[cfg(test)]
mod tests {
    use super::MemoryFixture;

    async fn make() -> MemoryFixture {
        MemoryFixture::new()
    }

    queue_conformance!(make);
}
