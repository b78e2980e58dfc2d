//! What stands in `request_body` for a body that the column cannot hold: `{"raw":true,"bytes":N,"preview":"..."}`.

use std::borrow::Cow;

use serde::Serialize;

use crate::base::limits::RAW_PREVIEW_BYTES;

/// The beginning of a raw body, for people.
#[must_use]
pub fn raw_body_preview(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&body[..body.len().min(RAW_PREVIEW_BYTES)])
}

/// The JSON that stands for a raw body.
#[must_use]
pub fn raw_body_wrapper(body: &[u8], preview: &str) -> String {
    #[derive(Serialize)]
    struct Wrapper<'a> {
        raw: bool,
        bytes: usize,
        preview: &'a str,
    }
    let wrapper = Wrapper { raw: true, bytes: body.len(), preview };
    // A struct of plain fields always serializes; the fallback says the same without the preview.
    serde_json::to_string(&wrapper)
        .unwrap_or_else(|_| format!("{{\"raw\":true,\"bytes\":{}}}", body.len()))
}
