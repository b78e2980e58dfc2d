//! The conformance suite of [`DeadLetters`].

use std::sync::Arc;

use async_trait::async_trait;

use crate::base::dead_letter::DeadLetters;
use crate::base::id::RequestId;

/// A medium that has dead letters.
#[async_trait]
pub trait DeadLettersFixture: Send + Sync {
    /// Makes a dead letter of this id.
    async fn bury(&self, id: &RequestId);

    /// Whether an event of this id waits to be tried at once.
    async fn is_due(&self, id: &RequestId) -> bool;

    /// The dead letters.
    async fn dead_letters(&self) -> Arc<dyn DeadLetters>;
}

/// Makes one `#[tokio::test]` of each case of the suite; `$make` is an async function without
/// arguments that returns a fresh [`DeadLettersFixture`].
#[macro_export]
macro_rules! dead_letters_conformance {
    ($make:path) => {
        $crate::dead_letters_conformance!(@cases $make:
            list_is_in_the_order_of_ids_and_continues,
            show_gives_one_dead_letter_and_only_that,
            redrive_makes_an_event_due_at_once,
            discard_is_final,
            ids_that_are_not_there_are_passed_over,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                $crate::testkit::dead_letters::$case(&$make().await).await;
            }
        )*
    };
}

async fn bury(fixture: &impl DeadLettersFixture, names: &[&str]) -> Vec<RequestId> {
    let ids: Vec<RequestId> = names.iter().map(|id| id.parse().expect("a valid id")).collect();
    for id in &ids {
        fixture.bury(id).await;
    }
    ids
}

async fn listed(letters: &dyn DeadLetters) -> Vec<RequestId> {
    let list = letters.list(None, 100).await.expect("list");
    list.into_iter().map(|letter| letter.request_id).collect()
}

/// A list is in the order of ids, and its next part begins after the id given.
pub async fn list_is_in_the_order_of_ids_and_continues(fixture: &impl DeadLettersFixture) {
    let ids = bury(fixture, &["c", "a", "b"]).await;
    let letters = fixture.dead_letters().await;
    let first = letters.list(None, 2).await.expect("list");
    assert_eq!(first.iter().map(|l| l.request_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let rest = letters.list(Some(first[1].request_id.clone()), 2).await.expect("list");
    assert_eq!(rest.iter().map(|l| &l.request_id).collect::<Vec<_>>(), [&ids[0]]);
}

/// One dead letter is shown by its id; what is not there is not.
pub async fn show_gives_one_dead_letter_and_only_that(fixture: &impl DeadLettersFixture) {
    let ids = bury(fixture, &["a"]).await;
    let letters = fixture.dead_letters().await;
    let detail = letters.show(&ids[0]).await.expect("show").expect("it is there");
    assert_eq!(detail.letter.request_id, ids[0]);
    assert_eq!(detail.letter.failure.as_ref(), detail.history.last());
    assert!(letters.show(&"b".parse().expect("a valid id")).await.expect("show").is_none());
}

/// A redriven event is no dead letter any more: it is tried at once.
pub async fn redrive_makes_an_event_due_at_once(fixture: &impl DeadLettersFixture) {
    let ids = bury(fixture, &["a", "b"]).await;
    let letters = fixture.dead_letters().await;
    let named_twice = [ids[0].clone(), ids[0].clone()];
    assert_eq!(letters.redrive(&named_twice).await.expect("redrive"), 1);
    assert_eq!(listed(&*letters).await, ids[1..]);
    assert!(fixture.is_due(&ids[0]).await);
    assert!(!fixture.is_due(&ids[1]).await);
}

/// A discarded dead letter does not come back.
pub async fn discard_is_final(fixture: &impl DeadLettersFixture) {
    let ids = bury(fixture, &["a", "b"]).await;
    let letters = fixture.dead_letters().await;
    assert_eq!(letters.discard(&ids[..1]).await.expect("discard"), 1);
    assert_eq!(listed(&*letters).await, ids[1..]);
    assert_eq!(letters.redrive(&ids[..1]).await.expect("redrive"), 0);
    assert!(!fixture.is_due(&ids[0]).await);
}

/// Unknown ids are no error and count for nothing.
pub async fn ids_that_are_not_there_are_passed_over(fixture: &impl DeadLettersFixture) {
    let mut ids = bury(fixture, &["a"]).await;
    ids.insert(0, "unknown".parse().expect("a valid id"));
    let letters = fixture.dead_letters().await;
    assert_eq!(letters.redrive(&ids).await.expect("redrive"), 1);
    assert_eq!(letters.discard(&ids).await.expect("discard"), 0);
    assert!(listed(&*letters).await.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::base::dead_letter::Failure;
    use crate::delivery::queue::{Disposition, Lane, LeaseRequest};
    use crate::testkit::queue::{MemoryFixture, QueueFixture, envelope};

    #[async_trait]
    impl DeadLettersFixture for MemoryFixture {
        async fn bury(&self, id: &RequestId) {
            let queue = QueueFixture::open(self).await;
            queue.push(envelope(id.as_str(), b"{}")).await.unwrap();
            let failure = Failure {
                at: self.clock().now(),
                round: 1,
                code: "refused".to_owned(),
                message: "no".to_owned(),
            };
            let lease = lease(&*queue, id).await.pop().unwrap();
            queue.settle(vec![(lease, Disposition::DeadLetter { failure })]).await.unwrap();
        }

        async fn is_due(&self, id: &RequestId) -> bool {
            let queue = QueueFixture::open(self).await;
            !lease(&*queue, id).await.is_empty()
        }

        async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
            QueueFixture::dead_letters(self).await
        }
    }

    async fn lease(
        queue: &dyn crate::delivery::queue::Queue,
        id: &RequestId,
    ) -> Vec<crate::delivery::queue::Lease> {
        let lane = Lane::One(id.clone());
        let request = LeaseRequest { lane, events: 1, bytes: 1 << 20, closed: Vec::new() };
        queue.lease(request).await.unwrap().leases
    }

    async fn make() -> MemoryFixture {
        MemoryFixture::new()
    }

    dead_letters_conformance!(make);
}
