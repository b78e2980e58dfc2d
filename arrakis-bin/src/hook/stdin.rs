//! Reading the event: all of stdin, or what comes of it in time and in bounds.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use arrakis_core::base::digest::{Digest, DigestBuilder};
use arrakis_core::base::envelope::{Truncation, TruncationReason};
use arrakis_core::base::limits::{PAYLOAD_MAX_BYTES, TRUNCATED_PART_BYTES};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What came on stdin.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The payload: everything less one final newline; head and tail where that is too much.
    pub(super) bytes: Vec<u8>,
    /// Set where the payload is not all that came, or more would have come.
    pub(super) truncated: Option<Truncation>,
    /// What went wrong, in words.
    pub(super) problem: Option<String>,
}

/// Reads stdin to its end, for as long as `deadline` allows.
#[allow(clippy::disallowed_methods, reason = "the hook has no runtime")]
pub(super) fn read(deadline: Duration) -> Input {
    let mut collected = Collected::default();
    let ended = collect(&mut collected, Instant::now() + deadline);
    collected.into_input(ended, deadline)
}

/// Whether stdin came to its end.
enum Ended {
    Yes,
    Deadline,
    Error(io::Error),
}

#[allow(clippy::disallowed_methods, reason = "the hook has no runtime")]
fn collect(collected: &mut Collected, deadline: Instant) -> Ended {
    let stdin = io::stdin();
    let mut reader = stdin.lock();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ended::Deadline;
        }
        // Reading after a successful poll does not block, and polling takes no mode from a stream
        // that other processes share.
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, timeout) {
            Ok(0) => return Ended::Deadline,
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Ended::Error(error.into()),
        }
        // A chunk larger than the buffer of `stdin` goes past it, so nothing escapes the poll.
        match reader.read(&mut chunk) {
            Ok(0) => return Ended::Yes,
            Ok(read) => collected.add(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ended::Error(error),
        }
    }
}

/// What has come so far: everything, up to the limit; then head, tail and digest.
#[derive(Default)]
struct Collected {
    head: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
    hasher: Option<DigestBuilder>,
}

impl Collected {
    fn add(&mut self, chunk: &[u8]) {
        self.total += chunk.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(chunk);
            self.tail.extend_from_slice(chunk);
            if self.tail.len() > 2 * TRUNCATED_PART_BYTES {
                self.tail.drain(..self.tail.len() - TRUNCATED_PART_BYTES);
            }
            return;
        }
        self.head.extend_from_slice(chunk);
        // One more than the limit: the final newline does not count.
        if self.head.len() > PAYLOAD_MAX_BYTES + 1 {
            let mut hasher = DigestBuilder::default();
            hasher.update(&self.head);
            self.hasher = Some(hasher);
            self.tail = self.head.split_off(self.head.len() - TRUNCATED_PART_BYTES);
            self.head.truncate(TRUNCATED_PART_BYTES);
            self.head.shrink_to_fit();
        }
    }

    fn into_input(mut self, ended: Ended, deadline: Duration) -> Input {
        let problem = match &ended {
            Ended::Yes => None,
            Ended::Deadline => {
                Some(format!("stdin was still open after {} ms", deadline.as_millis()))
            }
            Ended::Error(error) => Some(format!("stdin: {error}")),
        };
        let end = if self.hasher.is_some() { &mut self.tail } else { &mut self.head };
        let whole_line = end.last() == Some(&b'\n');
        if whole_line {
            end.pop();
        }
        if let Some(hasher) = self.hasher {
            self.tail.drain(..self.tail.len().saturating_sub(TRUNCATED_PART_BYTES));
            let truncation = Truncation {
                reason: TruncationReason::TooLarge,
                original_bytes: self.total,
                original_digest: hasher.finish(),
                head_bytes: self.head.len() as u64,
            };
            let text = format!("{} bytes are more than {PAYLOAD_MAX_BYTES}", self.total);
            let problem =
                Some(problem.map_or(text.clone(), |problem| format!("{text}; {problem}")));
            let bytes = [self.head, self.tail].concat();
            return Input { bytes, truncated: Some(truncation), problem };
        }
        // An open stdin after a whole line is the caller's slip and has cost nothing.
        let missing = !matches!(ended, Ended::Yes) && !whole_line;
        let truncated = missing.then(|| Truncation {
            reason: TruncationReason::Deadline,
            original_bytes: self.total,
            original_digest: Digest::of(&self.head),
            head_bytes: self.head.len() as u64,
        });
        Input { bytes: self.head, truncated, problem }
    }
}
