//! Finds the keywords of all rules in one pass.
//!
//! The hook is a process for each event, so what is built here is part of every event's time: a table of
//! 32 KiB that is filled in microseconds. A text is looked at by three bytes at a time, in lower case; where
//! the table knows these as the beginning of a keyword, the keyword is compared.

use std::borrow::Cow;

/// Bits of the table's index: few of the three bytes of ordinary text meet one of some 400 entries.
const BITS: u32 = 14;

/// What the table looks at, in bytes; no keyword is shorter.
pub(super) const KEYWORD_MIN_BYTES: usize = 3;

#[derive(Debug, Clone)]
struct Keyword {
    text: Cow<'static, [u8]>,
    /// Whether upper and lower case differ.
    exact: bool,
    rule: u16,
    /// The next keyword with the same place in the table, counted from one.
    next: u16,
}

/// The keywords of all rules.
#[derive(Debug, Clone)]
pub(super) struct Keywords {
    /// The first keyword of each place, counted from one; zero where there is none.
    heads: Box<[u16; 1 << BITS]>,
    keywords: Vec<Keyword>,
}

impl Keywords {
    pub(super) fn new() -> Self {
        let heads = vec![0; 1 << BITS].into_boxed_slice().try_into();
        Self { heads: heads.unwrap_or_else(|_| Box::new([0; 1 << BITS])), keywords: Vec::new() }
    }

    /// Adds a keyword of the rule with the number `rule`. Whether it could: it may be too short, or one
    /// too many.
    pub(super) fn add(&mut self, text: Cow<'static, [u8]>, exact: bool, rule: u16) -> bool {
        let Some(&[a, b, c]) = text.first_chunk() else { return false };
        let Ok(number) = u16::try_from(self.keywords.len() + 1) else { return false };
        let head = &mut self.heads[place(gram(gram(gram(0, a), b), c))];
        self.keywords.push(Keyword { text, exact, rule, next: *head });
        *head = number;
        true
    }

    /// Calls `found` for each keyword in `text`, in the order in which they begin, with its rule, where it
    /// begins and where it ends.
    pub(super) fn each(&self, text: &[u8], mut found: impl FnMut(u16, usize, usize)) {
        let mut last = 0;
        for (end, byte) in text.iter().enumerate() {
            last = gram(last, *byte);
            let mut number = self.heads[place(last)];
            while let Some(at) = usize::from(number).checked_sub(1) {
                let keyword = &self.keywords[at];
                number = keyword.next;
                let Some(start) = (end + 1).checked_sub(KEYWORD_MIN_BYTES) else { break };
                let Some(here) = text[start..].get(..keyword.text.len()) else { continue };
                let same = if keyword.exact {
                    here == &*keyword.text
                } else {
                    here.eq_ignore_ascii_case(&keyword.text)
                };
                if same {
                    found(keyword.rule, start, start + keyword.text.len());
                }
            }
        }
    }
}

/// The last three bytes, without their case.
fn gram(last: u32, byte: u8) -> u32 {
    (last << 8 | u32::from(byte | 0x20)) & 0x00ff_ffff
}

fn place(gram: u32) -> usize {
    (gram.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}
