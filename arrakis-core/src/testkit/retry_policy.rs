//! The conformance suite of [`RetryPolicy`].

use std::num::NonZeroU32;
use std::time::Duration;

use crate::base::error::Retryable;
use crate::base::limits::RETRY_AFTER_MAX;
use crate::base::retry::{Decision, RetryPolicy};
use crate::delivery::transport::TransportError;

/// A policy.
pub trait RetryPolicyFixture {
    /// It.
    fn policy(&self) -> &dyn RetryPolicy;

    /// Whether it decides over attempts, which a failure that is not retryable ends; not over something
    /// that goes on after one, such as rounds.
    fn is_about_attempts(&self) -> bool {
        true
    }
}

/// Makes one `#[test]` of each case of the suite; `$make` is a function without arguments that returns
/// a [`RetryPolicyFixture`].
#[macro_export]
macro_rules! retry_policy_conformance {
    ($make:path) => {
        $crate::retry_policy_conformance!(@cases $make:
            the_same_arguments_give_the_same_decision,
            a_failure_that_is_not_retryable_ends_attempts_and_nothing_else,
            a_delay_that_the_other_side_asked_for_is_never_undercut,
        );
    };
    (@cases $make:path: $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::testkit::retry_policy::$case(&$make());
            }
        )*
    };
}

/// The attempts that are looked at: more than any sensible policy makes in a row, and the last number.
fn attempts() -> impl Iterator<Item = NonZeroU32> {
    (1..=100).chain([u32::MAX]).filter_map(NonZeroU32::new)
}

fn away(retry_after: Option<Duration>) -> TransportError {
    TransportError::Unavailable { answer: None, retry_after }
}

fn permanent() -> TransportError {
    let error = TransportError::Refused { answer: None, message: "no".to_owned() };
    assert!(!error.is_retryable());
    error
}

/// It keeps no account of what it was asked before.
pub fn the_same_arguments_give_the_same_decision(fixture: &impl RetryPolicyFixture) {
    let decide = || {
        let policy = fixture.policy();
        attempts().map(|n| policy.next(n, &away(None))).collect::<Vec<_>>()
    };
    assert_eq!(decide(), decide());
}

/// Attempts end; a policy about something else takes no notice.
pub fn a_failure_that_is_not_retryable_ends_attempts_and_nothing_else(
    fixture: &impl RetryPolicyFixture,
) {
    for n in attempts() {
        let expected = match fixture.is_about_attempts() {
            true => Decision::GiveUp,
            false => fixture.policy().next(n, &away(None)),
        };
        assert_eq!(fixture.policy().next(n, &permanent()), expected, "try {n}");
    }
}

/// As far as such a wish is honoured, it is met or the policy gives up.
pub fn a_delay_that_the_other_side_asked_for_is_never_undercut(fixture: &impl RetryPolicyFixture) {
    for seconds in [0, 1, 2, 7, 90, 3600, 1_000_000] {
        let asked = Duration::from_secs(seconds);
        for n in attempts() {
            if let Decision::RetryAfter(delay) = fixture.policy().next(n, &away(Some(asked))) {
                assert!(delay >= asked.min(RETRY_AFTER_MAX), "try {n}: {delay:?} for {asked:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::retry::{FixedRetry, RetrySchedule};

    impl RetryPolicyFixture for FixedRetry {
        fn policy(&self) -> &dyn RetryPolicy {
            self
        }
    }

    impl RetryPolicyFixture for RetrySchedule {
        fn policy(&self) -> &dyn RetryPolicy {
            self
        }

        fn is_about_attempts(&self) -> bool {
            false
        }
    }

    mod within_a_round {
        retry_policy_conformance!(super::FixedRetry::default);
    }

    mod between_rounds {
        retry_policy_conformance!(super::RetrySchedule::default);
    }
}
