//! Asking before what cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::bail;

use super::Context;

/// Asks `question` at the terminal; returns whether the answer is yes. Without a terminal it fails with `must`, which
/// says what to do.
///
/// # Errors
///
/// There is no terminal, the question cannot be made, or the answer cannot be read.
pub(super) fn confirmed(
    must: &str,
    question: impl FnOnce(&mut Context) -> anyhow::Result<String>,
    context: &mut Context,
) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        bail!("{must}");
    }
    let question = question(context)?;
    Ok(is_confirmed(&question, &mut io::stdin().lock(), &mut context.err)?)
}

fn is_confirmed(
    question: &str,
    answers: &mut dyn BufRead,
    err: &mut dyn Write,
) -> io::Result<bool> {
    write!(err, "{question}")?;
    err.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
