//! The lines of a transcript, in memory that does not depend on how long they are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use arrakis_core::base::digest::{Digest, DigestBuilder};
use arrakis_core::base::limits::{SLICE_MAX_BYTES, TRANSCRIPT_LINE_MAX_BYTES};
use arrakis_core::session::transcript::LongLine;

/// How much of a file tells it from another: more than a line of one message has in
/// common with the next.
const FINGERPRINT_BYTES: usize = 4096;

/// How much of a line that is too long is read at once.
const STEP_BYTES: u64 = 64 * 1024;

/// A line with its newline.
#[derive(Debug)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    /// One that is too long, and its end.
    Long(LongLine<'a>, &'a [u8]),
    /// The last one, without a newline.
    Last(&'a [u8]),
}

/// Reads whole lines.
#[derive(Debug)]
pub(super) struct Lines {
    input: BufReader<Take<File>>,
    line: Vec<u8>,
    end: Vec<u8>,
}

impl Lines {
    /// The lines of `file` between two offsets.
    pub(super) fn new(mut file: File, start: u64, end: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        let input = BufReader::with_capacity(256 * 1024, file.take(end.saturating_sub(start)));
        Ok(Self { input, line: Vec::new(), end: Vec::new() })
    }

    /// The next line; `None` at the end, before which there may be a long line without its newline, and where
    /// `stopped` becomes true on the way through one.
    pub(super) fn next(&mut self, stopped: &AtomicBool) -> io::Result<Option<Line<'_>>> {
        const MAX: usize = TRANSCRIPT_LINE_MAX_BYTES;
        self.line.clear();
        (&mut self.input).take(MAX as u64 + 1).read_until(b'\n', &mut self.line)?;
        if self.line.ends_with(b"\n") {
            return Ok(Some(Line::Whole(&self.line)));
        }
        if self.line.len() <= MAX {
            return Ok(Some(Line::Last(&self.line)).filter(|_| !self.line.is_empty()));
        }
        let (mut digest, mut bytes) = (DigestBuilder::default(), self.line.len() as u64);
        digest.update(&self.line);
        self.line.truncate(SLICE_MAX_BYTES);
        self.end.clear();
        while !self.end.ends_with(b"\n") {
            self.end.drain(..self.end.len().saturating_sub(FINGERPRINT_BYTES));
            let before = self.end.len();
            let read = (&mut self.input).take(STEP_BYTES).read_until(b'\n', &mut self.end)?;
            if read == 0 || stopped.load(Ordering::Relaxed) {
                return Ok(None);
            }
            digest.update(&self.end[before..]);
            bytes += read as u64;
        }
        let long = LongLine { bytes, digest: digest.finish(), head: &self.line };
        Ok(Some(Line::Long(long, &self.end)))
    }
}

/// The last bytes before an offset.
#[derive(Debug, Default)]
pub(super) struct Last(Vec<u8>);

impl Last {
    /// The `bytes` before `offset` as the file has them now.
    pub(super) fn read(file: &File, offset: u64, bytes: u64) -> io::Result<Self> {
        let bytes = bytes.min(FINGERPRINT_BYTES as u64).min(offset);
        let mut last = vec![0; usize::try_from(bytes).unwrap_or_default()];
        file.read_exact_at(&mut last, offset - bytes)?;
        Ok(Self(last))
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(FINGERPRINT_BYTES)..]);
        self.0.drain(..self.0.len().saturating_sub(FINGERPRINT_BYTES));
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

/// Whether a line is written whole, though it may have no newline: a JSON object says itself where it ends.
pub(super) fn is_whole(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

/// The digest of the first line without its newline, or of its beginning; `None` while it is not written whole.
pub(super) fn first_line(file: &File) -> io::Result<Option<Digest>> {
    let mut first = Vec::with_capacity(FINGERPRINT_BYTES);
    let mut step = [0; FINGERPRINT_BYTES];
    while first.len() < FINGERPRINT_BYTES {
        let read = file.read_at(&mut step[first.len()..], first.len() as u64)?;
        if read == 0 {
            break;
        }
        first.extend_from_slice(&step[first.len()..][..read]);
    }
    let end = first.iter().position(|byte| *byte == b'\n');
    if end.is_none() && first.len() < FINGERPRINT_BYTES && !is_whole(&first) {
        return Ok(None);
    }
    first.truncate(end.unwrap_or(FINGERPRINT_BYTES));
    Ok(Some(Digest::of(&first)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    static GOES_ON: AtomicBool = AtomicBool::new(false);

    fn file(parts: &[&[u8]]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        parts.iter().for_each(|part| file.write_all(part).unwrap());
        file
    }

    #[test]
    fn lines_come_one_by_one_and_the_last_one_without_its_newline() {
        let mut lines = Lines::new(file(&[b"xa\n\nb\0\nhalf"]), 1, 100).unwrap();
        for expected in [&b"a\n"[..], b"\n", b"b\0\n"] {
            assert!(
                matches!(lines.next(&GOES_ON).unwrap(), Some(Line::Whole(line)) if line == expected)
            );
        }
        assert!(matches!(lines.next(&GOES_ON).unwrap(), Some(Line::Last(b"half"))));
        assert!(lines.next(&GOES_ON).unwrap().is_none());
        let mut bounded = Lines::new(file(&[b"a\nbb\n"]), 0, 4).unwrap();
        assert!(
            bounded.next(&GOES_ON).unwrap().is_some()
                && matches!(bounded.next(&GOES_ON).unwrap(), Some(Line::Last(b"bb")))
        );
    }

    #[test]
    fn a_line_that_is_too_long_comes_as_its_size_digest_and_ends() {
        let long = [vec![b'x'; 50_000_000], b"end\n".to_vec()].concat();
        let mut lines = Lines::new(file(&[&long, b"next\n"]), 0, 60_000_000).unwrap();
        let Some(Line::Long(found, end)) = lines.next(&GOES_ON).unwrap() else {
            panic!("it is long")
        };
        assert_eq!(found.bytes, long.len() as u64);
        assert_eq!(found.digest, Digest::of(&long));
        assert_eq!(found.head.len(), SLICE_MAX_BYTES);
        assert!(end.ends_with(b"xend\n"));
        assert!(matches!(lines.next(&GOES_ON).unwrap(), Some(Line::Whole(b"next\n"))));
        assert!(lines.line.capacity() <= 2 * TRANSCRIPT_LINE_MAX_BYTES);
        let mut unfinished = Lines::new(file(&[&long[..long.len() - 1]]), 0, u64::MAX).unwrap();
        assert!(unfinished.next(&GOES_ON).unwrap().is_none());
        let mut stopped = Lines::new(file(&[&long]), 0, u64::MAX).unwrap();
        assert!(stopped.next(&AtomicBool::new(true)).unwrap().is_none());
    }

    #[test]
    fn what_tells_a_file_are_its_first_line_and_the_last_bytes_read() {
        let found = file(&[b"first\nsecond\n"]);
        assert_eq!(first_line(&found).unwrap(), Some(Digest::of(b"first")));
        assert_eq!(first_line(&file(&[b"{}"])).unwrap(), Some(Digest::of(b"{}")));
        assert_eq!(first_line(&file(&[b"half"])).unwrap(), None);
        let long = vec![b'x'; 10_000];
        assert_eq!(
            first_line(&file(&[&long])).unwrap(),
            Some(Digest::of(&long[..FINGERPRINT_BYTES]))
        );
        let mut last = Last::default();
        last.push(b"first\n");
        last.push(b"second\n");
        assert_eq!(last.digest(), Last::read(&found, 13, last.len()).unwrap().digest());
        last.push(&long);
        assert_eq!(last.len(), FINGERPRINT_BYTES as u64);
    }
}
