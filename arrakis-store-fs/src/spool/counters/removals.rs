//! What redaction has removed, as the tally has it: `(github-token=2,jwt=1)`.

use std::collections::BTreeMap;

use arrakis_core::base::envelope::Removed;

/// Longest name of a rule in the tally, in bytes; a longer one is cut.
const NAME_MAX_BYTES: usize = 64;

/// Most rules that are counted by name, so that a file of garbage cannot grow the counts without end;
/// what others remove is counted under [`OTHER`].
const RULES_MAX: usize = 1000;

/// The name under which what is over [`RULES_MAX`] is counted.
const OTHER: &str = "other";

/// The counts as they are appended to the tally; nothing where nothing was removed.
pub(super) fn encode(removed: &Removed) -> Vec<u8> {
    let counts: Vec<String> =
        removed.iter().map(|(rule, count)| format!("{}={count}", plain(rule))).collect();
    if counts.is_empty() { Vec::new() } else { format!("({})", counts.join(",")).into_bytes() }
}

/// Reads the counts after their opening parenthesis into `sums`; returns how many bytes they took. What is
/// not whole, because a power loss or a reader cut it off, counts for nothing.
pub(super) fn read(tally: &[u8], sums: &mut BTreeMap<String, u64>) -> usize {
    let length = tally.iter().take_while(|byte| is_plain(**byte) || b"=,".contains(byte)).count();
    if tally.get(length) != Some(&b')') {
        return length;
    }
    let counts = std::str::from_utf8(&tally[..length]).unwrap_or_default();
    for (rule, count) in counts.split(',').filter_map(|count| count.split_once('=')) {
        add(sums, rule, count.parse().unwrap_or(0));
    }
    length + 1
}

/// Adds what one rule has removed.
fn add(sums: &mut BTreeMap<String, u64>, rule: &str, count: u64) {
    let has_place = sums.len() < RULES_MAX || sums.contains_key(rule);
    let sum = sums.entry(if has_place { rule } else { OTHER }.to_owned()).or_default();
    *sum = sum.saturating_add(count);
}

/// A rule's name in the characters that the tally takes.
fn plain(rule: &str) -> String {
    let bytes = rule.bytes().take(NAME_MAX_BYTES).map(|byte| byte.to_ascii_lowercase());
    bytes.map(|byte| if is_plain(byte) { char::from(byte) } else { '_' }).collect()
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}
