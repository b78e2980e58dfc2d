//! The limits of the domain and those that several crates share, each with its reason. A limit of one mechanism (a page
//! of a command, a cache, a retry of a lock) stands beside that mechanism.

use std::time::Duration;

/// Largest payload that is captured whole: 16 MiB.
///
/// The largest payload measured on the real client is 4.5 MB (an overwriting `Write` of 1.5 MB);
/// a longer one keeps its head, its tail and its digest.
pub const PAYLOAD_MAX_BYTES: usize = 16 * MIB;

/// What is kept of each end of a payload over [`PAYLOAD_MAX_BYTES`].
pub const TRUNCATED_PART_BYTES: usize = MIB;

/// Longest value that redaction takes because of the name before it, in bytes: tokens of a few kilobytes
/// exist, and what is longer is data.
pub const REDACTED_VALUE_MAX_BYTES: usize = 16 * 1024;

/// Longest key block that redaction takes as a whole, in bytes: an RSA key of 16384 bits has 13 KB, and line
/// numbers and escapes add to it.
pub const REDACTED_BLOCK_MAX_BYTES: usize = 64 * 1024;

/// Longest name of a redaction rule, in bytes: it stands in each replacement.
pub const RULE_NAME_MAX_BYTES: usize = 64;

/// Largest regular expression of a user's redaction rule once compiled, in bytes: each hook compiles it, and
/// an ordinary one takes a tenth.
pub const USER_PATTERN_MAX_BYTES: usize = MIB;

/// Largest request body of the single-event endpoint, expanded: an envelope whose payload is not
/// JSON travels as base64, a third longer than its bytes.
pub const BODY_MAX_BYTES: usize = 32 * MIB;

/// Largest request body of the batch endpoint, expanded, unless it holds one event only.
pub const BATCH_BODY_MAX_BYTES: usize = 16 * MIB;

/// Most events in one request to the batch endpoint.
pub const BATCH_MAX_EVENTS: usize = 500;

/// What the drainer puts into one batch at most, in payload bytes.
pub const BATCH_MAX_PAYLOAD_BYTES: usize = 8 * MIB;

/// Request bodies over [`HEAVY_BYTES`](super::heavy::HEAVY_BYTES) held in memory by the server at one time, all together.
pub const BODIES_IN_FLIGHT_BYTES: usize = 64 * MIB;

/// Smaller request bodies held at one time, all together: large ones take no place from them.
pub const SMALL_BODIES_IN_FLIGHT_BYTES: usize = 16 * MIB;

/// Longest request id, in bytes.
pub const REQUEST_ID_MAX_BYTES: usize = 128;

/// Longest session id that is accepted, in bytes: it is indexed, and a real one has 36.
pub const SESSION_ID_MAX_BYTES: usize = 512;

/// Longest project directory in a header, in bytes: the longest path of Linux.
pub const PROJECT_DIR_MAX_BYTES: usize = 4096;

/// Longest URL of a receiver, in bytes: what servers commonly take, and it stands in every header.
pub const URL_MAX_BYTES: usize = 8 * 1024;

/// How much longer than its workspace keeps audit rows the ledger knows an event: for so long a repeat is
/// recognised whose first was pruned. A spool that was away for a quarter of a year is older than any that was
/// seen, and an entry takes some 200 bytes.
pub const LEDGER_OUTLIVES_EVENTS: Duration = Duration::from_secs(90 * 24 * 3600);

/// Most days that a retention may be set to: a hundred years, which any clock can be set back by.
pub const RETENTION_MAX_DAYS: u64 = 36_500;

/// Most workspaces with a retention of their own: each is compared with what is pruned.
pub const RETENTION_WORKSPACES_MAX: usize = 1000;

/// Largest `config.toml` that is read, in bytes: real ones have a few hundred.
pub const CONFIG_FILE_MAX_BYTES: u64 = MIB as u64;

/// Longest ingest key, in bytes: ours have 52, and a gateway's token fits into a request's headers, of which
/// proxies take 8 KiB.
pub const API_KEY_MAX_BYTES: usize = 4 * 1024;

/// Most receivers that a configuration names beside the one in use: as many as are remembered
/// ([`RECEIVERS_MAX`]).
pub const DESTINATIONS_MAX: usize = RECEIVERS_MAX;

/// Most hosts that may be sent keys without TLS: a company's network has a few.
pub const PLAIN_HTTP_HOSTS_MAX: usize = 100;

/// Most proxies whose `X-Forwarded-For` is believed: each request's chain is compared with all of them.
pub const TRUSTED_PROXIES_MAX: usize = 1000;

/// Most folders of transcripts beside Claude Code's own: each path that an event names is compared with all
/// of them.
pub const TRANSCRIPT_FOLDERS_MAX: usize = 100;

/// Most redaction rules of a user: each is compiled and may run on each event, while Claude Code waits.
pub const REDACT_RULES_MAX: usize = 200;

/// Longest pattern of a redaction rule, in bytes: those of well-known issuers have a hundred.
pub const REDACT_PATTERN_MAX_BYTES: usize = 4 * 1024;

/// Most literals of a redaction rule: each is looked for in each event.
pub const REDACT_LITERALS_MAX: usize = 100;

/// Longest literal of a redaction rule, in bytes.
pub const REDACT_LITERAL_MAX_BYTES: usize = 256;

/// Longest time that one attempt of a delivery, or the pause after it, may be set to: ten minutes. A hook that
/// delivers directly waits for a whole round of them.
pub const DELIVERY_TIME_MAX: Duration = Duration::from_secs(600);

/// Most rotated log files that are kept: a rotation renames all of them.
pub const LOG_FILES_MAX: u64 = 10_000;

/// Indexed text (event types, tool names, titles) is cut at this many bytes.
pub const INDEXED_TEXT_MAX_BYTES: usize = 512;

/// Longest summary of an event, in bytes: a line that a terminal shows, kept with each event.
pub const SUMMARY_MAX_BYTES: usize = 200;

/// What of one text or payload can be searched for, from its beginning.
pub const SEARCHED_TEXT_MAX_BYTES: usize = 256 * 1024;

/// Most distinct words of one text or payload that can be searched for, the first ones. Prose and source code of
/// [`SEARCHED_TEXT_MAX_BYTES`] have about 5,000; tables and encoded data have a hundred thousand, each of which
/// would be a row of the index.
pub const INDEXED_WORDS_MAX: usize = 8192;

/// What the hits of one page of a search hold at most, in bytes of text, unless one alone has more: a hundred hits
/// of ordinary length, and little enough that a hundred readers at one time take some megabytes.
pub const SEARCH_PAGE_BYTES: usize = 256 * 1024;

/// How long a search may take. Searches of a million messages take a fifth of a second, and people give up after
/// some seconds; what takes longer only keeps others waiting.
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A due time further ahead than this is taken as due now: the longest delay of the schedule is
/// two hours, half of it again as jitter, so only a clock that jumped can say more.
pub const DUE_HORIZON: Duration = Duration::from_secs(5 * 3600);

/// Longest `Retry-After` that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Most receivers whose state is remembered; beyond it those that are healthy are forgotten. A person
/// has one or two, and their state is kept in a file.
pub const RECEIVERS_MAX: usize = 100;

/// Most events of a receiver that are known to time out alone; beyond it they are found anew. Each takes half a
/// minute to find, so only a receiver that often times out has more.
pub const TIMED_OUT_EVENTS_MAX: usize = 1000;

/// How long an event may wait for its receiver, in time that a drainer has watched pass: a week
/// covers holidays. After it the event is a dead letter, until the receiver is back.
pub const PENDING_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most files that a spool holds before it refuses new events.
pub const SPOOL_MAX_FILES: u64 = 2_000_000;

/// Most bytes that a spool holds before it refuses new events.
pub const SPOOL_MAX_BYTES: u64 = 10 * 1024 * MIB as u64;

/// Most spools that are known of one workspace: a large company's machines, and enough that one key cannot
/// fill the store.
pub const SPOOLS_MAX: usize = 10_000;

/// How long the hourly history of a spool is kept: a quarter of a year shows what changed with a version.
pub const SPOOL_HISTORY_MAX_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Longest report of a spool, in bytes: it is a request header, and proxies take 8 KiB of all of them
/// together.
pub const SPOOL_REPORT_MAX_BYTES: usize = 4 * 1024;

/// Longest line of an exported spool: a payload of 16 MiB in base64, with room for its header and the
/// history of thousands of failed rounds.
pub const SPOOL_LINE_MAX_BYTES: usize = 32 * MIB;

/// Longest line of a transcript that is sent, in bytes: what a payload holds
/// ([`PAYLOAD_MAX_BYTES`]), less room for what stands around it.
pub const TRANSCRIPT_LINE_MAX_BYTES: usize = PAYLOAD_MAX_BYTES - 64 * 1024;

/// Longest path that an event may name a transcript or a working directory with, in bytes: what Linux takes.
pub const PATH_MAX_BYTES: usize = 4096;

/// What a slice of a transcript holds at most, in bytes of lines, unless one line is longer: slices of
/// this size are delivered in batches and share a request's budget with the events of hooks.
pub const SLICE_MAX_BYTES: usize = 256 * 1024;

/// Most lines of a slice: they bound what one event can add.
pub const SLICE_MAX_LINES: usize = 1000;

/// Most types of lines that are counted by their names, in a slice and for each transcript: a file of garbage
/// has one for each line.
pub const LINE_TYPES_MAX: usize = 64;

/// Longest line of an unknown type that is kept, in bytes. A later version may understand it; the lines of
/// Claude Code's conversations are mostly shorter, and its logs of whole requests have 100 KB.
pub const UNKNOWN_LINE_MAX_BYTES: usize = 16 * 1024;

/// What a slice keeps of lines of unknown types, in bytes: a quarter of it, so that a client that begins to
/// write its requests into the transcript costs little.
pub const UNKNOWN_LINES_MAX_BYTES: usize = 64 * 1024;

/// After how long without an event a conversation that has no end counts as abandoned: nobody works for a day without a
/// prompt, and one that goes on after all is open again.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Most lines of one transcript of which it is remembered to which sidechain they belong, some hundred bytes each.
pub const SIDECHAIN_LINES_MAX: usize = 100_000;

/// Most places of the transcripts of one session that are named because they cannot be read.
pub const UNREADABLE_KEPT_MAX: usize = 100;

/// Most subagents of one session whose transcripts are looked for: a long session has hundreds, and a folder
/// without end must not be listed.
pub const SUBAGENTS_MAX: usize = 10_000;

/// How long the place in a transcript is remembered after the file is gone: as long as Claude Code keeps
/// transcripts by default, in case the file comes back from a backup.
pub const TRANSCRIPT_NOTE_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How much of a transcript is read at most before the place is made durable, in bytes: what a crash has read
/// again.
pub const TRANSCRIPT_CHECKPOINT_BYTES: u64 = 16 * MIB as u64;

/// Most blocks of one message; the first ones are kept. The API answers with a few dozen at most, and whoever reads
/// the message gets all of them.
pub const MESSAGE_MAX_BLOCKS: usize = 1000;

/// Most lines that a message is known to follow. One says where it stands; those of older clients follow one for each of
/// their lines, and those of gateways that give all answers one id one for each answer.
pub const MESSAGE_MAX_PARENTS: usize = 64;

/// Most models of which the client's cost is kept: they are written with each event of a session, which uses
/// a few.
pub const CLIENT_COST_MAX_MODELS: usize = 64;

/// What is shown of a line that could not be read, in bytes: enough to tell what it was.
pub const UNREADABLE_TEXT_MAX_BYTES: usize = 512;

/// What a page of stored events holds at most, in bytes of bodies as the store keeps them, unless one alone has
/// more: an export's memory.
pub const ARCHIVE_PAGE_BYTES: u64 = 8 * MIB as u64;

/// Most items of one page of a store: the cursor goes on, and the ids of a page fit into one statement.
pub const PAGE_MAX: usize = 10_000;

/// Most rows that a page of a list looks at: where no index serves a filter, a page of what is rare ends there, after
/// some tens of milliseconds, and says where to go on.
pub const LIST_LOOKS_MAX: usize = 10_000;

/// Most messages of a conversation that are counted for a list, and most tool uses. Most conversations have fewer, and a
/// page of fifty that have more is counted in a tenth of a second.
pub const COUNTED_MAX: usize = 500;

/// Most rows that a workspace has of one minute, hour or day of the counts of events. Senders choose the event type, the
/// host and the error code; a company of 100 machines has some 500 a minute, and a day of 1,000 rows takes a megabyte.
pub const ROLLUP_ROWS_MAX: usize = 1000;

/// How long counts by minute are kept: two weeks, of which an alert compares the second with the first.
pub const ROLLUP_MINUTES_KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// How long counts by hour are kept: a year, and a month to compare with the same one a year before.
pub const ROLLUP_HOURS_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// What is counted of one kind of tokens of a message at most: a million times what the largest model takes. Senders
/// choose these numbers, and sums of millions of messages must fit into a column.
pub const COUNTED_TOKENS_MAX: u64 = 1_000_000_000_000;

/// Most sums that are read at one time: a fortnight by minute and five times that, and some tens of megabytes.
pub const SUMS_MAX: usize = 100_000;

/// What a list shows of a raw body, in bytes.
pub const RAW_PREVIEW_BYTES: usize = 256;

/// What a snapshot holds at most, in bytes, unless one value alone is longer: like slices, they share a request's
/// budget with other events.
pub const SNAPSHOT_MAX_BYTES: usize = 2 * MIB;

/// Most tools that are named where something is missing of a session: a line has room for no more.
pub const GAP_TOOLS_MAX: usize = 6;

const MIB: usize = 1024 * 1024;

/// Cuts `text` to at most `max` bytes, on a character boundary.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn cut_keeps_characters_whole() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 99), "aé");
    }
}
