//! What all errors here have in common.

use std::time::Duration;

/// A native error of an adapter, boxed so that the traits name none.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure that says by itself whether trying again can help.
///
/// When to try again is not its matter: that is a [`RetryPolicy`](crate::base::retry::RetryPolicy)'s.
pub trait Retryable: std::error::Error {
    /// Whether the same call may succeed later without anybody changing anything.
    fn is_retryable(&self) -> bool;

    /// How long the other side asked to be left alone, if it did.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// The error and what caused it on one line, the outermost first: `cannot write: disk full`.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The innermost cause of an error: what the operating system or the other side said.
#[cfg(feature = "runtime")]
pub(crate) fn root_cause(error: &dyn std::error::Error) -> Option<String> {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.last().map(ToString::to_string)
}
