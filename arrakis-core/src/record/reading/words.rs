//! Small words: counts, sizes, and texts on one line.

/// The text on one line: white space and line breaks become single spaces.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text, and `…` where it has more than so many characters.
#[must_use]
pub fn fit(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
    }
}

/// Indents JSON text and changes nothing else of it: neither numbers nor the order of keys. The text
/// must be JSON.
#[must_use]
pub fn indent_json(json: &str) -> String {
    let mut indented = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                indented.push('"');
                copy_string(&mut letters, &mut indented);
            }
            '{' | '[' => {
                indented.push(letter);
                while letters.next_if(char::is_ascii_whitespace).is_some() {}
                match letters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => indented.push(close),
                    None => {
                        depth += 1;
                        break_line(&mut indented, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut indented, depth);
                indented.push(letter);
            }
            ',' => {
                indented.push(',');
                break_line(&mut indented, depth);
            }
            ':' => indented.push_str(": "),
            letter if letter.is_ascii_whitespace() => {}
            letter => indented.push(letter),
        }
    }
    indented
}

/// `512 bytes`, `3.4 KB`, `4.5 MB`, in powers of ten.
#[must_use]
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1000 => count(bytes, "byte"),
        1000..1_000_000 => format!("{}.{} KB", bytes / 1000, bytes % 1000 / 100),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

/// `1 event`, `2 events`.
#[must_use]
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn copy_string(letters: &mut impl Iterator<Item = char>, to: &mut String) {
    while let Some(letter) = letters.next() {
        to.push(letter);
        match letter {
            '"' => return,
            '\\' => to.extend(letters.next()),
            _ => {}
        }
    }
}

fn break_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}
