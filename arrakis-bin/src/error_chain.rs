//! An error with its causes on one line.

use std::error::Error;

/// The error and what caused it, the outermost first: `cannot write: disk full`.
pub(crate) fn error_chain(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| Error::source(*error));
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
