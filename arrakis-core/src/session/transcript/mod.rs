//! Transcripts: the file that Claude Code keeps of each session, and the slices of it that travel.
//!
//! A transcript is a file of one JSON object a line that only grows at its end. What it has gained is
//! sent as events of the type [`TRANSCRIPT_EVENT`], each a slice of the file. The payload of a slice is
//! one line of JSON:
//!
//! ```text
//! {"hook_event_name":"Transcript","session_id":S,"transcript_path":P,
//!  "cwd":?,"agent_id":?,"agent_type":?,"agent_tool_use_id":?,
//!  "start":0,"end":5120,                 offsets in the file, before redaction
//!  "copied":true,                        only where all lines are copies of those of another session, or
//!                                        of the main thread in the transcript of a subagent
//!  "lines":[{"type":"user",…},…],        lines of the conversation, redacted, else as they are, and short
//!                                        ones of types that are not known
//!  "titles":[4711],                     offsets of those lines that are titles, which have no time
//!  "skipped":{"attachment":3},           lines of types that hold nothing of the conversation, counted
//!  "unknown":{"from-the-future":1},      lines of types that are not known, counted, kept or not
//!  "sidechains":{"uuid":"uuid"},         the first line of its sidechain, for each line in one that names no
//!                                        subagent
//!  "answers":{"uuid":2},                 for each line of an answer whose id earlier ones have had: which it is
//!  "unreadable":[{"offset":7,"bytes":9,"reason":"not_json","digest":"sha256:…","text":"…"}]}
//! ```
//!
//! Of a file that the client sends to the model beside a prompt a line has the name, kind and size only.
//!
//! A record of the transcript that stands on a damaged line is a line like any other; what is left of that line
//! is unreadable.
//!
//! The same line may come in slices of different bounds, and more than once. So what is read from a
//! line depends on nothing but the line.
//!
//! [`Slicer`] makes slices; it is given the lines, and reads no file. Which files there are is told by
//! the events ([`Mention`]).

mod answers;
mod attached;
pub(crate) mod copies;
mod damage;
pub(crate) mod line_type;
mod mention;
mod sidechains;
mod slicer;
mod thinking;

pub use answers::Answers;
pub use copies::{Copies, Repeats};
pub use line_type::{count_line_type, is_line};
pub use mention::Mention;
pub use sidechains::Sidechains;
pub use slicer::{
    LongLine, Slice, SliceConfig, Slicer, TranscriptAgent, TranscriptFile, Unreadable,
};

/// The event type of a slice.
pub const TRANSCRIPT_EVENT: &str = "Transcript";
