//! What the client sends to the model beside a prompt: files that the prompt mentions, and where a pasted image lies.

use serde::Deserialize;

use super::line::Line;
use super::{Part, Place, Reader};
use crate::session::conversation::{MessageOrigin, Notice, Role};
use crate::session::hook::Field;

/// How the line begins that tells where an image of the prompt lies.
const IMAGE_SOURCE: &str = "[Image: source: ";

/// An attachment, as far as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Field<'a>,
    #[serde(borrow, default)]
    filename: Field<'a>,
    #[serde(borrow, default)]
    display_path: Field<'a>,
    #[serde(borrow, default)]
    path: Field<'a>,
    #[serde(borrow, default)]
    server: Field<'a>,
    #[serde(borrow, default)]
    uri: Field<'a>,
    #[serde(borrow, default)]
    page_count: Field<'a>,
    #[serde(borrow, default)]
    file_size: Field<'a>,
    #[serde(borrow, default)]
    content: Field<'a>,
}

#[derive(Deserialize, Default)]
struct Content<'a> {
    #[serde(borrow, default)]
    file: Field<'a>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(borrow, default, rename = "type")]
    media_type: Field<'a>,
    #[serde(borrow, default)]
    num_lines: Field<'a>,
    #[serde(borrow, default)]
    total_lines: Field<'a>,
    #[serde(borrow, default)]
    original_size: Field<'a>,
}

impl Attachment<'_> {
    /// What was read, in a line: `read notes.md (3 lines)`.
    fn told(&self) -> Option<String> {
        let kind = self.kind.text()?;
        let name = [self.display_path, self.filename, self.path, self.uri];
        let name = name.into_iter().find_map(Field::text)?;
        let mut told = match self.server.text() {
            Some(server) => format!("read {name} of {server}"),
            None => format!("read {name}"),
        };
        let content: Content<'_> = self.content.object().unwrap_or_default();
        let file: File<'_> = content.file.object().unwrap_or_default();
        let count = |n: u64, what: &str| {
            let end = if n == 1 { "" } else { "s" };
            format!("{n} {what}{end}")
        };
        let lines = match (file.num_lines.read::<u64>(), file.total_lines.read::<u64>()) {
            (Some(read), Some(all)) if all > read => Some(format!("{read} of {all} lines")),
            (Some(read), _) => Some(count(read, "line")),
            _ => None,
        };
        let bytes = file.original_size.read().or_else(|| self.file_size.read());
        let details = [
            (kind == "directory").then(|| "directory".to_owned()),
            (kind == "already_read_file").then(|| "known already".to_owned()),
            file.media_type.text().map(String::from),
            lines,
            self.page_count.read().map(|pages| count(pages, "page")),
            bytes.map(|bytes| count(bytes, "byte")),
        ];
        let details: Vec<String> = details.into_iter().flatten().collect();
        if !details.is_empty() {
            told += &format!(" ({})", details.join(", "));
        }
        Some(told)
    }
}

impl Reader<'_> {
    /// A file that the client sends to the model beside a prompt.
    pub(super) fn attached(&mut self, line: &Line<'_>, place: &Place) {
        let told = line.attachment.object::<Attachment<'_>>().and_then(|one| one.told());
        if let Some(told) = told {
            self.attach(told, place);
        }
    }

    /// A line that tells where an image of the prompt lies; whether it is one.
    pub(super) fn image_source(&mut self, parts: &[Part<'_>], place: &Place) -> bool {
        let [Part::Client(text) | Part::Text(text)] = parts else { return false };
        let path = text.trim().strip_prefix(IMAGE_SOURCE).and_then(|rest| rest.strip_suffix(']'));
        let Some(path) = path else { return false };
        self.attach(format!("image from {path}"), place);
        true
    }

    fn attach(&mut self, told: String, place: &Place) {
        let blocks = self.blocks(0, vec![Part::Other(told.into())], place);
        self.message(Role::System, MessageOrigin::Attachment, None, blocks, place);
    }
}

impl Line<'_> {
    /// What a line in the person's name is that the client wrote, as its fields tell.
    pub(super) fn notice(&self) -> Option<Notice> {
        let is_summary = [self.is_compact_summary, self.summarize_metadata, self.own_note];
        let is_prompt = [self.scheduled_task_id, self.wakeup_source, self.prompt_source];
        let is_for_model = self.is_meta.is_set()
            && !is_prompt.into_iter().any(Field::is_set)
            && self.origin_kind().is_none();
        (is_for_model || is_summary.into_iter().any(Field::is_set)).then_some(Notice::ForModel)
    }
}
