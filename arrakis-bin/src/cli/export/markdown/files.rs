//! Images and documents of a conversation as files beside its document.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use arrakis_core::base::id::RequestId;
use arrakis_core::record::store::{ConversationDetail, EventKey, EventSummary};
use arrakis_core::session::conversation::{Block, BlockKey, ToolUse};
use arrakis_core::session::transcript::TRANSCRIPT_EVENT;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::Source;
use super::super::sink::NewFile;

/// Where files go.
pub(super) struct Folder {
    /// The folder.
    path: PathBuf,
    /// Its name, as the document beside it calls it.
    name: String,
    overwrite: bool,
}

impl Folder {
    /// A folder for the files of the document `path`, beside it. Its name needs no escape in a link.
    pub(super) fn beside(path: &Path, overwrite: bool) -> Self {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
        let is_fit = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        let stem: String = stem.chars().map(|c| if is_fit(c) { c } else { '_' }).collect();
        let name = format!("{stem}.files");
        Self { path: path.with_file_name(&name), name, overwrite }
    }

    /// Writes a file; returns the link to it.
    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<String> {
        let named = || format!("cannot write into {}", self.path.display());
        std::fs::create_dir_all(&self.path).with_context(named)?;
        let mut file = NewFile::create(&self.path.join(name), self.overwrite)?;
        file.put(bytes)?;
        file.finish()?;
        Ok(format!("{}/{name}", self.name))
    }
}

/// Where the images and documents of a conversation are.
#[derive(Debug, Default)]
pub(super) struct Files {
    of_blocks: HashMap<(RequestId, u32), Place>,
    of_tools: HashMap<Uuid, Vec<Place>>,
    /// How many files were written.
    pub(super) written: u64,
}

/// Where one is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In this file, named from the document.
    File(String),
    /// In this event alone.
    Event(RequestId),
    /// In the result of its tool use alone.
    Result,
}

/// Bytes and their media type.
struct Found {
    bytes: Vec<u8>,
    media_type: String,
}

/// Where the bytes of an image or a document stand.
#[derive(Deserialize)]
struct Base64<'a> {
    #[serde(borrow)]
    data: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    media_type: std::borrow::Cow<'a, str>,
}

impl Base64<'_> {
    fn read(&self) -> Option<Found> {
        let bytes = BASE64.decode(self.data.as_bytes()).ok()?;
        Some(Found { bytes, media_type: self.media_type.to_string() })
    }
}

impl Files {
    /// Those of a conversation, written where there is a folder.
    pub(super) async fn of(
        detail: &ConversationDetail,
        source: &Source<'_>,
        folder: Option<&Folder>,
    ) -> anyhow::Result<Self> {
        let mut files = Self::default();
        for tool_use in &detail.tool_uses {
            let mut places = Vec::new();
            for (n, found) in given_back(tool_use).into_iter().enumerate() {
                let name = format!("{}-{n}.{}", short(tool_use.id), extension(&found.media_type));
                places.push(files.place(folder, &name, &found, Place::Result)?);
            }
            if !places.is_empty() {
                files.of_tools.insert(tool_use.id, places);
            }
        }
        let blocks = detail.messages.iter().flat_map(|message| message.blocks.iter());
        let mut wanted: HashMap<&RequestId, Vec<&BlockKey>> = HashMap::new();
        for (key, _) in blocks.filter(|(_, block)| is_file(block)) {
            wanted.entry(&key.line).or_default().push(key);
        }
        for event in detail.events.iter().filter(|one| one.event_type == TRANSCRIPT_EVENT) {
            if wanted.is_empty() {
                break;
            }
            files.of_event(event, &mut wanted, source, folder).await?;
        }
        Ok(files)
    }

    /// Those of the lines of a slice.
    async fn of_event(
        &mut self,
        event: &EventSummary,
        wanted: &mut HashMap<&RequestId, Vec<&BlockKey>>,
        source: &Source<'_>,
        folder: Option<&Folder>,
    ) -> anyhow::Result<()> {
        let key = EventKey::Id(event.id);
        let found = source.reader.event(&event.workspace, key).await?;
        let Some(body) = found.and_then(|found| found.body) else { return Ok(()) };
        for raw in lines(&body) {
            let Some((line, files)) = of_line(raw) else { continue };
            // A line is read as often as it comes; its files are written once.
            let Some(keys) = wanted.remove(&line) else { continue };
            for (key, found) in keys.iter().zip(files) {
                let Some(found) = found else { continue };
                let name = format!("{}-{}.{}", name_of(&line), key.n, extension(&found.media_type));
                let place = Place::Event(event.request_id.clone());
                let place = self.place(folder, &name, &found, place)?;
                self.of_blocks.insert((line.clone(), key.n), place);
            }
        }
        Ok(())
    }

    fn place(
        &mut self,
        folder: Option<&Folder>,
        name: &str,
        found: &Found,
        elsewhere: Place,
    ) -> anyhow::Result<Place> {
        let Some(folder) = folder else { return Ok(elsewhere) };
        let link = folder.write(name, &found.bytes)?;
        self.written += 1;
        Ok(Place::File(link))
    }

    /// Where the image or document of a block is; none where no stored event has it.
    pub(super) fn of_block(&self, key: &BlockKey) -> Option<&Place> {
        self.of_blocks.get(&(key.line.clone(), key.n))
    }

    /// Where those are that a tool gave back.
    pub(super) fn of_tool(&self, tool_use: &ToolUse) -> &[Place] {
        self.of_tools.get(&tool_use.id).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Whether a block is an image, or a document that is no text.
fn is_file(block: &Block) -> bool {
    match block {
        Block::Image { .. } => true,
        Block::Other { kind } => kind == "document" || kind.starts_with("document, "),
        _ => false,
    }
}

/// The lines of a slice.
fn lines(body: &[u8]) -> Vec<&RawValue> {
    #[derive(Deserialize)]
    struct Slice<'a> {
        #[serde(borrow, default)]
        lines: Vec<&'a RawValue>,
    }
    serde_json::from_slice::<Slice<'_>>(body).map(|slice| slice.lines).unwrap_or_default()
}

/// A line's name, and its images and documents in order, each with its bytes where the line has them.
fn of_line(raw: &RawValue) -> Option<(RequestId, Vec<Option<Found>>)> {
    #[derive(Deserialize)]
    struct Line<'a> {
        uuid: RequestId,
        #[serde(borrow)]
        message: Message<'a>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        content: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow, rename = "type")]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow, default)]
        source: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: std::borrow::Cow<'a, str>,
    }
    let line: Line<'_> = serde_json::from_str(raw.get()).ok()?;
    let mut files = Vec::new();
    for part in line.message.content {
        let Ok(part) = serde_json::from_str::<Part<'_>>(part.get()) else { continue };
        let source = part.source.map(RawValue::get).unwrap_or("null");
        let kind = serde_json::from_str::<Kind<'_>>(source).map(|source| source.kind);
        let is_text = kind.is_ok_and(|kind| kind == "text");
        if part.kind == "image" || (part.kind == "document" && !is_text) {
            let found = serde_json::from_str::<Base64<'_>>(source).ok();
            files.push(found.and_then(|found| found.read()));
        }
    }
    Some((line.uuid, files))
}

/// The images and documents that a tool gave back.
fn given_back(tool_use: &ToolUse) -> Vec<Found> {
    let response = tool_use.result.as_ref().and_then(|result| result.response.as_ref());
    let Some(response) = response.filter(|json| json.as_str().contains("base64")) else {
        return Vec::new();
    };
    let Ok(value) = serde_json::from_str::<Value>(response.as_str()) else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(file) = value.get("file") {
        found.extend(of_values(file.get("base64"), file.get("type"), value.get("type")));
    }
    let blocks = value.as_array().or_else(|| value.get("content")?.as_array());
    for block in blocks.into_iter().flatten() {
        let source = block.get("source").unwrap_or(&Value::Null);
        found.extend(of_values(source.get("data"), source.get("media_type"), block.get("type")));
    }
    found
}

fn of_values(
    data: Option<&Value>,
    media_type: Option<&Value>,
    kind: Option<&Value>,
) -> Option<Found> {
    let bytes = BASE64.decode(data?.as_str()?).ok()?;
    let told = [media_type, kind].into_iter().flatten().find_map(Value::as_str);
    let media_type = match told {
        Some("pdf") => "application/pdf",
        other => other.unwrap_or_default(),
    };
    Some(Found { bytes, media_type: media_type.to_owned() })
}

/// How the name of a file ends: no program that opens it by its name runs it.
fn extension(media_type: &str) -> &'static str {
    match media_type {
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        "application/pdf" => "pdf",
        _ => "bin",
    }
}

fn short(id: Uuid) -> String {
    id.simple().to_string().chars().take(16).collect()
}

/// A name for a line that no other line of the conversation has.
fn name_of(line: &RequestId) -> String {
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let name = line.as_str();
    if name.len() <= 64 && name.chars().all(is_fit) {
        return name.to_owned();
    }
    let digest = arrakis_core::base::digest::Digest::of(name.as_bytes());
    digest.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
