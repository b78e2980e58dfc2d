//! One spool in `arrakis status`: its counts, whether they add up, and what to do where they do not.

use std::collections::BTreeMap;
use std::io;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::conservation::{Balance, Counters, Present, Receiver};
use arrakis_store_fs::admin::inspect::{Elsewhere, Inspection, inspect, receivers};
use arrakis_store_fs::source::{self, Survey};
use arrakis_store_fs::{Layout, is_drainer_running};
use serde::Serialize;
use uuid::Uuid;

use crate::cli::output::zone::Zone;
use crate::cli::output::{self, Terminal, text};

/// How many rules of redaction are named.
const RULES_SHOWN: usize = 5;

/// What is in a spool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolStatus {
    /// The home that it is in.
    pub home: String,
    /// Names the spool, once a drainer has opened it.
    pub spool_id: Option<Uuid>,
    /// What was counted.
    #[serde(flatten)]
    pub tally: Counters,
    /// How many secrets redaction has removed from what was captured, by rule.
    pub redacted: BTreeMap<String, u64>,
    /// What is there.
    #[serde(flatten)]
    pub present: Present,
    /// Whether the two add up; `None` where they cannot be told.
    pub balance: Option<Balance>,
    /// The same in words.
    pub balance_says: String,
    /// When the oldest event that waits was captured.
    pub oldest: Option<Timestamp>,
    /// Whether a drainer is at work.
    pub drainer_running: bool,
    /// Whether it refuses new events.
    pub full: bool,
    /// What drainers on other machines have leased.
    pub leased_elsewhere: Vec<Elsewhere>,
    /// What drainers know of their receivers.
    pub receivers: Vec<Receiver>,
    /// The transcripts that are followed.
    pub transcripts: Survey,
}

impl SpoolStatus {
    /// Looks at a spool; `None` if there is none.
    #[must_use]
    pub fn of(layout: &Layout) -> Option<Self> {
        match inspect(layout) {
            Ok(found) => Some(Self::found(layout, found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Self {
                balance_says: format!("it cannot be read: {error}"),
                ..Self::none(layout)
            }),
        }
    }

    /// The status of a spool that does not exist.
    pub(super) fn none(layout: &Layout) -> Self {
        Self {
            home: layout.home().display().to_string(),
            spool_id: None,
            tally: Counters::default(),
            redacted: BTreeMap::new(),
            present: Present::default(),
            balance: None,
            balance_says: "there is nothing yet".to_owned(),
            oldest: None,
            drainer_running: false,
            full: false,
            leased_elsewhere: Vec::new(),
            receivers: Vec::new(),
            transcripts: Survey::default(),
        }
    }

    fn found(layout: &Layout, found: Inspection) -> Self {
        let Inspection { spool_id, counters, redacted, present, balance, oldest, full, elsewhere } =
            found;
        Self {
            home: layout.home().display().to_string(),
            spool_id,
            tally: counters,
            redacted,
            present,
            balance: Some(balance),
            balance_says: explain(balance),
            oldest,
            drainer_running: is_drainer_running(layout),
            full,
            leased_elsewhere: elsewhere,
            receivers: receivers(layout),
            transcripts: source::survey(layout).unwrap_or_default(),
        }
    }
}

/// Whether the counts add up, in words: by how much not, what it can mean, and what to do.
fn explain(balance: Balance) -> String {
    let events = |n: u64| output::count(usize::try_from(n).unwrap_or(usize::MAX), "event");
    match balance {
        Balance::Even => "it adds up: every event is accounted for".to_owned(),
        Balance::Within { events: unsure } => format!(
            "it adds up to within {}: they were moving while they were counted, or a process was killed \
             in the middle of a step",
            events(unsure)
        ),
        Balance::Missing { events: missing } => format!(
            "it does not add up: {} came in that neither left nor {} here. A power loss may have taken \
             the counts of the last seconds; else files were removed by hand, or the disk has lost them. \
             See `arrakis logs --level warn`; once it is explained, `arrakis doctor --accept-counts`",
            events(missing),
            if missing == 1 { "is" } else { "are" }
        ),
        Balance::Surplus { events: surplus } => format!(
            "it does not add up: {} more left or {} here than came in. None is lost by that: a power loss \
             or a full disk may have kept counts from being written, or files were put in by hand. Once it \
             is explained, `arrakis doctor --accept-counts`",
            events(surplus),
            if surplus == 1 { "is" } else { "are" }
        ),
    }
}

/// Writes a spool's lines.
pub(super) fn write(
    label: &str,
    spool: &SpoolStatus,
    now: Timestamp,
    zone: &Zone,
    terminal: Terminal,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let SpoolStatus { tally, present, .. } = spool;
    let bad = |count: u64, what: &str| {
        let text = format!("{count} {what}");
        if count > 0 { terminal.paint(output::BAD, &text) } else { text }
    };
    let some = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let came = [Some(format!("{} captured", tally.captured)), some(tally.found, "found")];
    let became = [
        Some(format!("{} delivered", tally.delivered)),
        some(tally.duplicate, "delivered before"),
        some(tally.discarded, "discarded"),
        some(tally.lost, "lost"),
        Some(format!("{} pending", present.pending)),
        Some(format!("{} processing", present.processing)),
        Some(bad(present.failed, "failed")),
        Some(bad(present.quarantined, "quarantined")),
    ];
    let sum = |parts: &[Option<String>]| {
        parts.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" + ")
    };
    writeln!(out, "{label}{} = {}", sum(&came), sum(&became))?;

    let mut line = |style: Option<anstyle::Style>, line: &str| {
        let line = text::one_line(line);
        let painted = style.map(|style| terminal.paint(style, &line));
        writeln!(out, "{:10}{}", "", painted.as_deref().unwrap_or(&line))
    };
    let style = match spool.balance {
        Some(Balance::Even | Balance::Within { .. }) => None,
        Some(Balance::Missing { .. } | Balance::Surplus { .. }) | None => Some(output::BAD),
    };
    line(style.filter(|_| spool.spool_id.is_some() || tally.captured > 0), &spool.balance_says)?;
    if tally.refused > 0 {
        let refused = output::count(usize::try_from(tally.refused).unwrap_or(usize::MAX), "event");
        let why = "could not be kept: see `arrakis logs --level error`";
        line(Some(output::BAD), &format!("{refused} {why}"))?;
    }
    let drainer =
        if spool.drainer_running { "a drainer is at work" } else { "no drainer is at work" };
    match spool.oldest {
        Some(oldest) => {
            let age = u64::try_from(now.since(oldest).as_millis()).unwrap_or(u64::MAX);
            line(None, &format!("{drainer}; the oldest waits for {}", output::duration(age)))?;
        }
        None => line(None, drainer)?,
    }
    if let Some(removed) = removed(&spool.redacted) {
        line(None, &removed)?;
    }
    let Survey { files, unread_bytes, troubles, unknown_lines, .. } = &spool.transcripts;
    let transcripts =
        |n: u64| output::count(usize::try_from(n).unwrap_or(usize::MAX), "transcript");
    if *files > 0 {
        let text = format!("{} followed, {unread_bytes} bytes to be read", transcripts(*files));
        line(None, &text)?;
    }
    if let Some((path, trouble)) = troubles.first() {
        let text = format!(
            "{} cannot be read, such as {path}: {trouble}",
            transcripts(troubles.len() as u64)
        );
        line(Some(output::WARN), &text)?;
    }
    if let Some(unknown) = output::unknown_lines(unknown_lines) {
        line(Some(output::WARN), &format!("{unknown}; {}", output::UNKNOWN_LINES_REMEDY))?;
    }
    for Elsewhere { machine, events } in &spool.leased_elsewhere {
        let text = format!(
            "{events} of those processing are leased by a drainer on another machine ({machine}); only it \
             can give them back"
        );
        line(Some(output::WARN), &text)?;
    }
    for receiver in &spool.receivers {
        let style = (receiver.state != "closed").then_some(output::WARN);
        let failure = receiver.last_failure.as_ref();
        let failure = failure.map(|failure| {
            format!("; last failure {}: {}", zone.whole_moment(failure.at), failure.message)
        });
        let text = format!(
            "the circuit breaker of {} is {}{}",
            receiver.destination,
            receiver.state.replace('_', "-"),
            failure.unwrap_or_default()
        );
        line(style, &text)?;
    }
    if spool.full {
        let warning = "it is full and refuses new events: bring the server back, or raise [spool] in config.toml";
        line(Some(output::BAD), warning)?;
    }
    Ok(())
}

/// What redaction has removed, the rules that removed most first; nothing where it has removed nothing.
fn removed(redacted: &BTreeMap<String, u64>) -> Option<String> {
    let mut rules: Vec<(&str, u64)> =
        redacted.iter().map(|(rule, n)| (rule.as_str(), *n)).collect();
    rules.sort_by_key(|(rule, count)| (std::cmp::Reverse(*count), *rule));
    let total = rules.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
    let mut named: Vec<String> =
        rules.iter().take(RULES_SHOWN).map(|(rule, count)| format!("{count} {rule}")).collect();
    let others = rules.len().saturating_sub(RULES_SHOWN);
    if others > 0 {
        named.push(format!("{others} other {}", if others == 1 { "rule" } else { "rules" }));
    }
    let secrets = output::count(usize::try_from(total).unwrap_or(usize::MAX), "secret");
    (total > 0).then(|| format!("redaction has removed {secrets}: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(spool: &SpoolStatus) -> String {
        let mut out = Vec::new();
        let now = Timestamp::from_millis(100_000);
        write("spool     ", spool, now, &Zone::UTC, Terminal::NONE, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn status(tally: Counters, present: Present) -> SpoolStatus {
        let balance = tally.balance(&present, 0);
        SpoolStatus {
            tally,
            present,
            balance: Some(balance),
            balance_says: explain(balance),
            ..SpoolStatus::none(&Layout::new("/home"))
        }
    }

    #[test]
    fn a_spool_that_adds_up_says_so_in_one_line() {
        let tally = Counters { captured: 5, delivered: 3, duplicate: 1, ..Counters::default() };
        let spool = status(tally, Present { pending: 1, ..Present::default() });
        let spool = SpoolStatus { oldest: Some(Timestamp::from_millis(40_000)), ..spool };
        assert_eq!(
            text(&spool),
            "spool     5 captured = 3 delivered + 1 delivered before + 1 pending + 0 processing + 0 failed + 0 quarantined\n\
             \x20         it adds up: every event is accounted for\n\
             \x20         no drainer is at work; the oldest waits for 1 min 0 s\n"
        );
    }

    #[test]
    fn what_redaction_removed_is_summed_by_rule() {
        let redacted =
            [("jwt", 2), ("password", 7), ("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)];
        let redacted = redacted.map(|(rule, count)| (rule.to_owned(), count)).into();
        let text = removed(&redacted).unwrap();
        let expected =
            "redaction has removed 14 secrets: 7 password, 2 jwt, 1 a, 1 b, 1 c, 2 other rules";
        assert_eq!(text, expected);
        assert_eq!(removed(&BTreeMap::new()), None);
    }

    #[test]
    fn lines_of_unknown_types_are_named_with_what_to_do() {
        let mut spool = status(Counters::default(), Present::default());
        assert!(!text(&spool).contains("does not know"));
        let unknown = [("new\u{1b}[31m", 3), ("attachment/other", 40), ("rare", 1)];
        spool.transcripts.unknown_lines =
            unknown.map(|(line_type, lines)| (line_type.to_owned(), lines)).into();
        let text = text(&spool);
        let expected = "44 lines of types that this version does not know: 40 attachment/other, \
                        3 new\\x1b[31m, 1 rare; nothing is lost: ";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_does_not_add_up_says_by_how_much_what_it_means_and_what_to_do() {
        let gone = status(Counters { captured: 3, ..Counters::default() }, Present::default());
        let gone = text(&gone);
        for part in [
            "3 events came in that neither left nor are here",
            "power loss",
            "doctor --accept-counts",
        ] {
            assert!(gone.contains(part), "{gone}");
        }
        let more = status(Counters::default(), Present { failed: 1, ..Present::default() });
        let more = SpoolStatus { tally: Counters { refused: 2, ..more.tally }, full: true, ..more };
        let more = text(&more);
        for part in [
            "1 event more left or is here",
            "None is lost",
            "2 events could not be kept",
            "it is full",
        ] {
            assert!(more.contains(part), "{more}");
        }
    }
}
