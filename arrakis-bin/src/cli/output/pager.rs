//! Showing long text a page at a time.

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};

use crate::config::Env;

/// The pager of those who have chosen none; where it is missing, there is none.
const DEFAULT: &str = "command -v less > /dev/null || exit 127; exec less -FRX";

/// The exit codes of a shell that could not start what it was given.
const NOT_STARTED: [i32; 2] = [126, 127];

/// The command that shows text a page at a time: `ARRAKIS_PAGER`, else `PAGER`, else `less`, which leaves what
/// fits on the screen there. None where a variable is empty or says `cat`, or standard output is no terminal.
#[must_use]
pub fn command(env: Env<'_>) -> Option<String> {
    io::stdout().is_terminal().then(|| chosen(env)).flatten()
}

fn chosen(env: Env<'_>) -> Option<String> {
    let named = ["ARRAKIS_PAGER", "PAGER"].into_iter().find_map(env);
    let named = named.map(|name| name.to_string_lossy().trim().to_owned());
    Some(named.unwrap_or_else(|| DEFAULT.to_owned())).filter(|it| !it.is_empty() && it != "cat")
}

/// Has `write` write to the pager `command`, or to `out` where that cannot be started. A pager that ends before it
/// has read everything is no error.
///
/// # Errors
///
/// What was to be written cannot be read, or `out` does not take it.
pub fn page(
    command: &str,
    out: &mut dyn Write,
    write: &dyn Fn(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    out.flush()?;
    let pager = Command::new("sh").args(["-c", command]).stdin(Stdio::piped()).spawn();
    let Ok(mut pager) = pager else { return write(out) };
    let written = match pager.stdin.take() {
        Some(stdin) => {
            let mut stdin = io::BufWriter::new(stdin);
            write(&mut stdin).and_then(|()| stdin.flush())
        }
        None => Ok(()),
    };
    let ended = pager.wait()?;
    if ended.code().is_some_and(|code| NOT_STARTED.contains(&code)) {
        return write(out);
    }
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses() {
        let env = |own: Option<&'static str>, shared: Option<&'static str>| {
            chosen(&|name: &str| match name {
                "ARRAKIS_PAGER" => own.map(Into::into),
                "PAGER" => shared.map(Into::into),
                _ => None,
            })
        };
        assert_eq!(env(None, None).as_deref(), Some(DEFAULT));
        assert_eq!(env(None, Some("more")).as_deref(), Some("more"));
        assert_eq!(env(Some("most -s"), Some("more")).as_deref(), Some("most -s"));
        assert_eq!(env(Some(""), Some("more")), None);
        assert_eq!(env(None, Some("cat")), None);
    }

    #[test]
    fn what_the_pager_does_is_no_error() {
        let directory = tempfile::TempDir::new().unwrap();
        let shown = directory.path().join("shown");
        let text = |out: &mut dyn Write| (0..100_000).try_for_each(|n| writeln!(out, "line {n}"));
        let mut out = Vec::new();
        page(&format!("head -n 1 > {}", shown.display()), &mut out, &text).unwrap();
        assert_eq!(std::fs::read_to_string(&shown).unwrap(), "line 0\n");
        page("exit 3", &mut out, &text).unwrap();
        assert_eq!(out, b"");
        page("/no/such/pager 2> /dev/null", &mut out, &text).unwrap();
        assert!(out.starts_with(b"line 0\nline 1\n") && out.ends_with(b"line 99999\n"));
    }
}
