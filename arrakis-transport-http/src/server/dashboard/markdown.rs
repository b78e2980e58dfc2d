//! Markdown of prompts and answers as HTML, through two nets: HTML that stands in it becomes text before it is rendered, and
//! what was rendered is cleaned by a list of what is allowed.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use ammonia::Builder;
use arrakis_core::base::limits::cut;
use askama::filters::Safe;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

use super::shell::Html;

/// Bytes of one text that are rendered; a longer one is shown as far as this.
const RENDERED_MAX_BYTES: usize = 256 * 1024;

static CLEANER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let tags: HashSet<&str> = [
        "p",
        "br",
        "hr",
        "em",
        "strong",
        "del",
        "code",
        "pre",
        "blockquote",
        "ul",
        "ol",
        "li",
        "h3",
        "h4",
        "h5",
        "h6",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "a",
    ]
    .into();
    let attributes: HashMap<&str, HashSet<&str>> =
        HashMap::from([("a", HashSet::from(["href"])), ("ol", HashSet::from(["start"]))]);
    let mut builder = Builder::empty();
    builder
        .tags(tags)
        .tag_attributes(attributes)
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        .url_relative(ammonia::UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer nofollow"));
    builder
});

/// The text as HTML that is safe beside any other.
pub(super) fn html(text: &str) -> Html {
    let shown = cut(text, RENDERED_MAX_BYTES);
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let events = Parser::new_ext(shown, options).filter_map(plain);
    let mut rendered = String::with_capacity(shown.len() * 3 / 2);
    pulldown_cmark::html::push_html(&mut rendered, events);
    Safe(CLEANER.clean(&rendered).to_string())
}

/// An event of the parser, where HTML is text, images are what they are called, and headings stand below those of the page.
fn plain(event: Event<'_>) -> Option<Event<'_>> {
    Some(match event {
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
        Event::Start(Tag::HtmlBlock) => Event::Start(Tag::Paragraph),
        Event::End(TagEnd::HtmlBlock) => Event::End(TagEnd::Paragraph),
        Event::Start(Tag::Image { .. }) => Event::Text(CowStr::Borrowed("[image: ")),
        Event::End(TagEnd::Image) => Event::Text(CowStr::Borrowed("]")),
        Event::Start(Tag::Heading { level, .. }) => Event::Start(Tag::Heading {
            level: lower(level),
            id: None,
            classes: Vec::new(),
            attrs: Vec::new(),
        }),
        Event::End(TagEnd::Heading(level)) => Event::End(TagEnd::Heading(lower(level))),
        Event::TaskListMarker(done) => {
            Event::Text(CowStr::Borrowed(if done { "☑ " } else { "☐ " }))
        }
        // A line break that somebody typed is one.
        Event::SoftBreak => Event::HardBreak,
        event => event,
    })
}

fn lower(level: pulldown_cmark::HeadingLevel) -> pulldown_cmark::HeadingLevel {
    use pulldown_cmark::HeadingLevel::{H1, H2, H3, H4, H5, H6};
    match level {
        H1 => H3,
        H2 => H4,
        H3 => H5,
        H4 | H5 | H6 => H6,
    }
}

#[cfg(test)]
mod tests {
    use super::html;

    #[test]
    fn markdown_reads_as_it_was_meant() {
        let read = html("# Plan\n\n1. *first*\n2. `code`\n\n- [x] done\n\n| a |\n|---|\n| b |").0;
        for part in ["<h3>Plan</h3>", "<em>first</em>", "<code>code</code>", "☑ done", "<td>b</td>"]
        {
            assert!(read.contains(part), "{part}: {read}");
        }
        assert_eq!(html("one\ntwo").0.trim(), "<p>one<br>\ntwo</p>");
    }

    #[test]
    fn nothing_in_it_is_obeyed() {
        for hostile in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "![x](https://elsewhere/x.png)",
            "[x](javascript:alert(1))",
            "<a href=\"javascript:alert(1)\">x</a>",
            "[x]: data:text/html,x\n\n[x]",
            "<style>*{display:none}</style>",
            "<svg onload=alert(1)>",
            "# x {#id onclick=alert(1)}",
            "<iframe src=//elsewhere>",
            "[x](/sign-out)",
        ] {
            let read = html(hostile).0;
            for bad in [
                "<script",
                "<img",
                "<style",
                "<svg",
                "<iframe",
                "<a href=\"javascript",
                "<a href=\"data",
                "<a href=\"/",
                "<h3 ",
            ] {
                assert!(!read.contains(bad), "{hostile}: {read}");
            }
        }
        let link = html("[x](https://example.org/)").0;
        assert!(link.contains(r#"rel="noopener noreferrer nofollow""#), "{link}");
    }
}
