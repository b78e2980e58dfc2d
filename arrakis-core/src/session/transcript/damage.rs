//! Whole records on damaged lines.
//!
//! A client that is killed leaves half a record, and the next one is written behind it; two clients write at
//! once, and their records stand on one line; a machine that stops leaves zeros. Each record is an object that
//! says itself where it ends, so those that are whole are found again.

use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::line_type::{BYTE_ORDER_MARK, is_line};
use crate::session::hook::{Field, object};

/// How often the bytes of a line are read in search of records: objects in a record that was cut have no end
/// either.
const READINGS_MAX: usize = 16;

/// How every record begins.
const BEGINNING: &[u8] = b"{\"";

/// The place in a line of what is left without what an editor or a machine that stopped has put around it: a
/// byte order mark, zeros and white space.
pub(super) fn core(line: &[u8]) -> Range<usize> {
    let is_filling = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let mark = if line.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let Some(first) = line[mark..].iter().position(|byte| !is_filling(byte)) else { return 0..0 };
    let end = line.iter().rposition(|byte| !is_filling(byte)).map_or(0, |last| last + 1);
    mark + first..end
}

/// A part of a damaged line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole record.
    Record(Range<usize>),
    /// What is no record, or not a whole one.
    Rest(Range<usize>),
}

/// What a line that is no record is made of; nothing where no record is in it.
pub(super) fn pieces(line: &[u8]) -> Vec<Piece> {
    let (mut pieces, mut done, mut next) = (Vec::new(), 0, 0);
    let mut left = line.len().saturating_mul(READINGS_MAX);
    while let Some(start) = find(line, next).filter(|_| left > 0) {
        let mut objects =
            serde_json::Deserializer::from_slice(&line[start..]).into_iter::<IgnoredAny>();
        match objects.next() {
            Some(Ok(_)) => {
                let end = start + objects.byte_offset();
                if is_record(&line[start..end]) {
                    rest(&mut pieces, line, done..start);
                    pieces.push(Piece::Record(start..end));
                    done = end;
                }
                left = left.saturating_sub(end - start);
                next = end;
            }
            Some(Err(error)) => {
                left = left.saturating_sub(error.column().max(1));
                next = start + 1;
            }
            None => break,
        }
    }
    if !pieces.is_empty() {
        rest(&mut pieces, line, done..line.len());
    }
    pieces
}

fn rest(pieces: &mut Vec<Piece>, line: &[u8], range: Range<usize>) {
    let Range { start, end } = core(&line[range.clone()]);
    if start < end {
        pieces.push(Piece::Rest(range.start + start..range.start + end));
    }
}

fn find(line: &[u8], from: usize) -> Option<usize> {
    let mut windows = line.get(from..)?.windows(BEGINNING.len());
    windows.position(|window| window == BEGINNING).map(|place| from + place)
}

/// Whether an object is a record, and not a part of one: those have types as well, and name no session.
fn is_record(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Owner<'a> {
        #[serde(borrow, default)]
        session_id: Field<'a>,
        #[serde(borrow, default)]
        leaf_uuid: Field<'a>,
    }
    let is_owned = |owner: Owner<'_>| owner.session_id.is_set() || owner.leaf_uuid.is_set();
    object(json).is_ok_and(is_owned) && is_line(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Vec<(bool, &str)> {
        let piece = |piece| match piece {
            Piece::Record(range) => (true, &line[range]),
            Piece::Rest(range) => (false, &line[range]),
        };
        pieces(line.as_bytes()).into_iter().map(piece).collect()
    }

    #[test]
    fn whole_records_are_told_from_parts_of_records_that_were_cut() {
        let record = |n: u8| {
            format!(
                r#"{{"sessionId":"s","type":"user","uuid":"u{n}","message":{{"content":[{{"type":"text","text":"{{\"type\""}}]}}}}"#
            )
        };
        let (one, two) = (record(1), record(2));
        let cut = &one[..one.len() - 3];
        assert_eq!(found(&format!("{one}{two}")), [(true, &*one), (true, &*two)]);
        assert_eq!(found(&format!("{cut}{two}\n")), [(false, cut), (true, &*two)]);
        assert_eq!(found(&format!("{one}\0\0{cut}")), [(true, &*one), (false, cut)]);
        assert_eq!(found(&format!("{one} \0")), [(true, &*one)]);
        for none in [cut, "", "[1]", r#"{"type":"user"}"#, r#"x{"sessionId":"s","type":"new"}"#] {
            assert_eq!(found(none), [], "{none}");
        }
    }

    #[test]
    fn a_mark_and_zeros_around_a_record_are_no_part_of_it() {
        for (line, expected) in
            [("\u{feff}{}\r\n", 3..5), ("\0\0{} \0\n", 2..4), ("\u{feff}\0", 0..0), ("", 0..0)]
        {
            assert_eq!(core(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_cut_record_of_many_parts_is_not_read_without_end() {
        let line = format!(r#"{{"a":[{}"#, r#"{"b":["#.repeat(100_000));
        assert_eq!(pieces(line.as_bytes()), []);
    }
}
