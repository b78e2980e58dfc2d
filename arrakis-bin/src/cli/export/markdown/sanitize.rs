//! Markdown of others inside a document of ours.
//!
//! Prompts and answers are Markdown, and stay it: lists, code and links read as they were meant. But they may have
//! been written by anybody, and a renderer may obey what stands in them. So of each text
//!
//! * HTML is shown and not obeyed: `<` where it could begin a tag is written `&lt;`;
//! * images are links: nothing is loaded by opening the document;
//! * links lead to `http`, `https` and `mailto`, or are text;
//! * nothing reaches beyond its own end: a text that leaves code open stands in a fence as a whole.
//!
//! Only what CommonMark calls code, with its common extensions as well as without, is left alone.

use std::collections::BTreeSet;
use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser, Tag};

use crate::cli::output::text;

/// How often a text is read anew: what is escaped changes what the rest is.
const ROUNDS: usize = 8;

/// The two languages that renderers read.
fn languages() -> [Options; 2] {
    let common = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_MATH;
    [Options::empty(), common]
}

/// The text as a part of a document, with a line break at its end.
pub(super) fn markdown(text: &str) -> String {
    let mut text = printable(text.trim_end());
    for _ in 0..ROUNDS {
        let places = dangers(&text);
        if places.is_empty() {
            return if ends_well(&text) { text + "\n" } else { fenced(&text, "") };
        }
        text = escaped(&text, &places);
    }
    fenced(&text, "")
}

/// The text word for word, in a fence.
pub(super) fn fenced(text: &str, language: &str) -> String {
    let text = printable(text.trim_end_matches('\n'));
    let fence = "`".repeat(longest_run(&text).max(2) + 1);
    format!("{fence}{language}\n{text}\n{fence}\n")
}

/// The text word for word, on one line, as code.
pub(super) fn code(text: &str) -> String {
    let text = text::one_line(text);
    let ticks = "`".repeat(longest_run(&text) + 1);
    let gap =
        if text.is_empty() || text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{ticks}{gap}{text}{gap}{ticks}")
}

/// The text on one line, where it means nothing to a renderer.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for letter in text::one_line(text).chars() {
        match letter {
            '<' => plain.push_str("&lt;"),
            '&' => plain.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '$' | '|' | '#' | '!' | '^' | '{' | '}' => {
                plain.extend(['\\', letter]);
            }
            letter => plain.push(letter),
        }
    }
    plain
}

/// The text on one line, inside HTML.
pub(super) fn html(text: &str) -> String {
    let text = text::one_line(text).replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The text without what a terminal would obey; its lines and tabs stay.
fn printable(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(text::safe).collect::<Vec<_>>().join("\t");
    let lines = text.split('\n').map(|whole| line(whole.strip_suffix('\r').unwrap_or(whole)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The most backticks in a row.
fn longest_run(text: &str) -> usize {
    text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0)
}

/// Where a renderer could find something to obey.
fn dangers(text: &str) -> BTreeSet<usize> {
    let mut dangers = BTreeSet::new();
    for options in languages() {
        let mut code: Vec<Range<usize>> = Vec::new();
        let parser = Parser::new_ext(text, options);
        for (_, definition) in parser.reference_definitions().iter() {
            if !is_safe(&definition.dest) {
                dangers.insert(definition.span.start);
            }
        }
        for (event, range) in parser.into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(_)) | Event::Code(_) => code.push(range),
                Event::Start(Tag::Link { dest_url, .. }) if !is_safe(&dest_url) => {
                    dangers.insert(range.start);
                }
                _ => {}
            }
        }
        let bytes = text.as_bytes();
        let mut code = code.into_iter().peekable();
        for (at, byte) in bytes.iter().enumerate() {
            while code.next_if(|range| range.end <= at).is_some() {}
            let next = bytes.get(at + 1).copied().unwrap_or(0);
            let is_danger = match byte {
                b'<' => next.is_ascii_alphabetic() || matches!(next, b'/' | b'!' | b'?'),
                b'!' => next == b'[',
                _ => false,
            };
            if is_danger && code.peek().is_none_or(|range| !range.contains(&at)) {
                dangers.insert(at);
            }
        }
    }
    dangers
}

/// The text with what stands at these places escaped.
fn escaped(text: &str, places: &BTreeSet<usize>) -> String {
    let mut escaped = String::with_capacity(text.len() + places.len() * 4);
    let mut done = 0;
    for place in places {
        escaped.push_str(&text[done..*place]);
        done = place + 1;
        match &text[*place..done] {
            "<" => escaped.push_str("&lt;"),
            "!" => escaped.push_str("&#33;"),
            "[" => escaped.push_str("&#91;"),
            other => {
                escaped.push('\\');
                escaped.push_str(other);
            }
        }
    }
    escaped + &text[done..]
}

/// Whether following a link does no more than open a page or a letter.
fn is_safe(target: &str) -> bool {
    let target = target.trim_start().to_ascii_lowercase();
    let scheme = target.split(['/', '?', '#']).next().and_then(|start| start.split_once(':'));
    scheme.is_none_or(|(scheme, _)| matches!(scheme, "http" | "https" | "mailto"))
}

/// Whether a paragraph behind the text is a paragraph.
fn ends_well(text: &str) -> bool {
    const AFTER: &str = "behind";
    let whole = format!("{text}\n\n{AFTER}\n");
    languages().into_iter().all(|options| {
        let events: Vec<Event<'_>> = Parser::new_ext(&whole, options).collect();
        let mut depth = 0;
        let mut last_block = 0;
        for (n, event) in events.iter().enumerate() {
            match event {
                Event::Start(_) => {
                    if depth == 0 {
                        last_block = n;
                    }
                    depth += 1;
                }
                Event::End(_) => depth -= 1,
                _ => {}
            }
        }
        let is_after = |event: &Event<'_>| matches!(event, Event::Text(text) if **text == *AFTER);
        matches!(&events[last_block..],
            [Event::Start(Tag::Paragraph), text, Event::End(_)] if is_after(text))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Nothing of the text is obeyed, and it ends where it ends.
    fn assert_sanitized(text: &str) {
        for options in languages() {
            let document = format!("before\n\n{}", markdown(text));
            assert!(ends_well(document.trim_end()), "{document:?}");
            for event in Parser::new_ext(&document, options) {
                match event {
                    Event::Html(html) | Event::InlineHtml(html) => {
                        panic!("{html:?} is live in {document:?}")
                    }
                    Event::Start(Tag::Image { .. }) => panic!("an image is loaded by {document:?}"),
                    Event::Start(Tag::Link { dest_url, .. }) => {
                        assert!(is_safe(&dest_url), "{dest_url} in {document:?}");
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn markdown_stays_what_it_is() {
        let text =
            "# A\n\n- `Vec<String>` and *b* < c\n\n```html\n<b>x</b>\n```\n\n[d](https://e.f)";
        assert_eq!(markdown(text), format!("{text}\n"));
        assert_eq!(markdown("a <b>c</b>"), "a &lt;b>c&lt;/b>\n");
        assert_eq!(markdown("![a](http://b/c.png)"), "&#33;[a](http://b/c.png)\n");
        assert_eq!(markdown("a\u{1b}[31m\tb\r\nc"), "a\\x1b[31m\tb\nc\n");
    }

    #[test]
    fn nothing_of_others_is_obeyed() {
        for text in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "<!-- open",
            "<details>",
            "</details>\n</details>",
            "[a](javascript:alert(1))",
            "[a](JaVa\tscript:x) [b]( data:text/html,x ) [c](java&#115;cript:x) [d](vbscript:x)",
            "[a]: javascript:x\n\n[a] [b][a]",
            "<javascript:alert(1)>",
            "![a](http://tracker/x.png) \\![b](http://c) ![d][e]\n\n[e]: http://f",
            "```\nopen",
            "~~~ x\n<b>\n```\n",
            "> ```\n> <b>",
            "- ```\n  ```\n<b>",
            "<!--\n```\n-->\n\n```\n<script>x</script>\n```\n",
            "<div>\n```\n</div>\n<script>\n```\n<b>",
            "| `a | <b>` |\n|---|---|\n| `c | <i>` |",
            "`a\n\n<b>`",
            "\\<b> \\\\<b>",
            "    <pre>\n<pre>",
            "$a<b>$ $$<i>$$",
            "[^1]\n\n[^1]: <b>",
            "a\n===\n---\n",
            "1. a\n\n   ```\n   <b>",
            "\0<b\0>",
            "",
        ] {
            assert_sanitized(text);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_text_is(parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "<b>", "</b>", "<!--", "-->", "`", "``", "```", "~~~", "\n", "\n\n", "    ", "\t", " ", "> ",
                "- ", "1. ", "![", "[", "](", ")", "]: ", "javascript:x", "http://a", "a", "\\", "|", "|---|\n",
                "$", "&lt;", "<a\n", "<pre>", "<?", "<![CDATA[", "[^1]", "#", "---\n", "*", "_",
            ]), 0..24)) {
            assert_sanitized(&parts.concat());
        }

        #[test]
        fn plain_text_means_nothing(text in "[<>&!\\[\\]()`*_#~|a-c \\\\\"':-]{0,20}") {
            for options in languages() {
                let document = format!("# {}\n", plain(&text));
                let mut shown = String::new();
                for event in Parser::new_ext(&document, options) {
                    match event {
                        Event::Text(text) => shown.push_str(&text),
                        Event::Start(Tag::Heading { .. }) | Event::End(_) => {}
                        other => panic!("{other:?} in {document:?}"),
                    }
                }
                prop_assert_eq!(shown, text::one_line(&text));
            }
        }

        #[test]
        fn code_is_word_for_word(text in "[`a<> ]{0,12}") {
            let text = text.trim().to_owned();
            let document = code(&text);
            let events: Vec<_> = Parser::new(&document).collect();
            let expected = text::one_line(&text);
            let is_code = matches!(&events[..], [_, Event::Code(found), _]
                if found.trim() == expected.trim());
            prop_assert!(expected.is_empty() || is_code, "{document:?}: {events:?}");
        }
    }
}
