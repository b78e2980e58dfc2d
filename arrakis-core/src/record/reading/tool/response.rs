//! What a tool gave back, as words.

use crate::session::conversation::ToolUse;
use serde_json::Value;

use super::{body, given_back};
use crate::record::reading::words;

/// Where the client keeps an output that it has cut, and how long that is in bytes, as far as it says so.
pub fn kept_elsewhere(tool_use: &ToolUse) -> Option<String> {
    let response = given_back(tool_use)?;
    if let Some(path) = response.get("persistedOutputPath").and_then(Value::as_str) {
        let bytes = response.get("persistedOutputSize").and_then(Value::as_u64);
        let size = bytes.map(|bytes| words::size(usize::try_from(bytes).unwrap_or(usize::MAX)));
        return Some(format!("{} in {path}", size.as_deref().unwrap_or("the whole output")));
    }
    let text = told(&response)?;
    let text = text.trim_start().strip_prefix("<persisted-output>")?;
    let size = text.split_once("too large (").and_then(|(_, rest)| rest.split_once(')'));
    let size = size.map_or("the whole output", |(size, _)| size);
    let (_, path) = text.split_once("saved to: ")?;
    Some(format!("{size} in {}", path.lines().next().unwrap_or_default().trim()))
}

/// What a tool gave back, with the colours that it may have; empty where that is nothing, not known, or told by the
/// [`body`](fn@body).
pub fn coloured_output(tool_use: &ToolUse) -> String {
    let response = tool_use.result.as_ref().and_then(|result| result.response.as_ref());
    let Some(response) = response else { return String::new() };
    match given_back(tool_use) {
        Some(Value::Object(_)) if body(tool_use).is_some() => String::new(),
        Some(value) => told(&value).unwrap_or_else(|| words::indent_json(response.as_str())),
        // More than can be parsed.
        None => response.as_str().to_owned(),
    }
}

/// The words of a tool's result, where it is of a known form.
fn told(value: &Value) -> Option<String> {
    let object = match value {
        Value::String(text) => return Some(text.clone()),
        Value::Null => return Some(String::new()),
        Value::Array(blocks) if !blocks.is_empty() => {
            let texts: Option<Vec<String>> = blocks.iter().map(block).collect();
            return texts.map(|texts| texts.join("\n"));
        }
        Value::Object(object) => object,
        _ => return None,
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    if text("stdout").is_some() || text("stderr").is_some() {
        let streams = [text("stdout"), text("stderr")].into_iter().flatten();
        let streams: Vec<&str> = streams.filter(|text| !text.is_empty()).collect();
        return Some(streams.join("\n"));
    }
    if let Some(file) = object.get("file") {
        return file.get("content").and_then(Value::as_str).map(str::to_owned).or_else(|| {
            let data = file.get("base64").and_then(Value::as_str)?;
            let kind = file.get("type").and_then(Value::as_str).or(text("type"));
            Some(named(kind.unwrap_or("file"), None, Some(data)))
        });
    }
    if object.contains_key("filePath") && object.contains_key("structuredPatch") {
        return Some(String::new()); // a change of a file, which the input tells
    }
    if let (Some(_), Some(Value::Array(results))) = (text("query"), object.get("results")) {
        let told = results.iter().filter_map(|one| match one {
            Value::String(words) => Some(words.clone()),
            one => told(one.get("content")?),
        });
        return Some(told.collect::<Vec<_>>().join("\n"));
    }
    if let (Some(_), Some(result)) = (text("url"), text("result")) {
        return Some(result.to_owned());
    }
    if let Some(names) =
        object.get("filenames").filter(|_| text("content").is_none_or(str::is_empty))
    {
        let names = names.as_array()?.iter().filter_map(Value::as_str);
        return Some(names.collect::<Vec<_>>().join("\n"));
    }
    if let Some(code) = text("error_code") {
        return Some(code.to_owned());
    }
    if text("type") == Some("document") {
        return block(value);
    }
    told(object.get("content")?)
}

/// The words of a block; what is no text is named.
fn block(block: &Value) -> Option<String> {
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let Some(kind) = text(block, "type") else {
        return page(text(block, "title")?, text(block, "url")?);
    };
    match kind.as_str() {
        "text" => text(block, "text"),
        "web_search_result" => page(text(block, "title")?, text(block, "url").unwrap_or_default()),
        "tool_reference" => text(block, "tool_name"),
        _ => {
            let source = block.get("source").unwrap_or(&Value::Null);
            let data = text(source, "data");
            if text(source, "type").as_deref() == Some("text") {
                return data;
            }
            let media_type = text(source, "media_type");
            Some(named(&kind, media_type.as_deref(), data.as_deref()))
        }
    }
}

/// A page that a search has found.
fn page(title: String, url: String) -> Option<String> {
    Some(format!("{title}  {url}").trim_end().to_owned())
}

/// Something that is no text: what it is, its type, and its size where the Base64 of it is known.
fn named(kind: &str, media_type: Option<&str>, base64: Option<&str>) -> String {
    let size = base64.map(|data| words::size(data.trim_end_matches('=').len() * 3 / 4));
    let told = [Some(kind), media_type, size.as_deref()];
    format!("[{}]", told.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_known_forms_are_words() {
        let told = |json: &str| told(&serde_json::from_str(json).unwrap());
        assert_eq!(told(r#"{"stdout":"a","stderr":"b"}"#).as_deref(), Some("a\nb"));
        assert_eq!(told(r#"{"type":"text","file":{"content":"c\n"}}"#).as_deref(), Some("c\n"));
        let blocks = r#"[{"type":"text","text":"d"},{"type":"image"}]"#;
        assert_eq!(told(blocks).as_deref(), Some("d\n[image]"));
        assert_eq!(told(&format!(r#"{{"content":{blocks}}}"#)).as_deref(), Some("d\n[image]"));
        let changed = r#"{"filePath":"f","structuredPatch":[],"content":"e"}"#;
        assert_eq!(told(changed).as_deref(), Some(""));
        assert_eq!(told(r#"{"success":true}"#), None);
        assert_eq!(told("7"), None);
        let image = r#"{"type":"image","file":{"base64":"AAAA","type":"image/png"}}"#;
        assert_eq!(told(image).as_deref(), Some("[image/png, 3 bytes]"));
        let pages = r#"{"query":"q","results":[{"content":[{"title":"t","url":"u"}]},"words"]}"#;
        assert_eq!(told(pages).as_deref(), Some("t  u\nwords"));
        let found = r#"{"filenames":["a","b"],"numFiles":2}"#;
        assert_eq!(told(found).as_deref(), Some("a\nb"));
        let fetched = r#"{"type":"web_fetch_result","url":"u","content":{"type":"document",
            "source":{"type":"text","data":"page"}}}"#;
        assert_eq!(told(fetched).as_deref(), Some("page"));
        let failed = r#"{"type":"web_search_tool_result_error","error_code":"too_many"}"#;
        assert_eq!(told(failed).as_deref(), Some("too_many"));
    }
}
