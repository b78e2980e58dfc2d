//! Style sheets, scripts and pictures: part of the program, under names that change with what they hold.

use std::sync::LazyLock;

use arrakis_core::base::digest::Digest;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// A file that pages need.
struct Asset {
    /// Its name in the templates, such as `style.css`.
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal $kind:literal),* $(,)?) => {
        [$(Asset {
            name: $name,
            kind: $kind,
            bytes: include_bytes!(concat!("../../../assets/", $name)),
        }),*]
    };
}

const ASSETS: [Asset; 4] = assets! {
    "style.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "early.js" "text/javascript; charset=utf-8",
    "page.js" "text/javascript; charset=utf-8",
};

/// Where each asset is.
static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let path = |asset: &Asset| {
        let hash = hex::encode(&Digest::of(asset.bytes).as_bytes()[..8]);
        let (stem, end) = asset.name.rsplit_once('.').unwrap_or((asset.name, ""));
        format!("/assets/{stem}.{hash}.{end}")
    };
    ASSETS.iter().map(path).collect()
});

/// Where a page finds the asset of this name; empty where there is none, which a test excludes.
pub(super) fn path(name: &str) -> &'static str {
    let at = ASSETS.iter().position(|asset| asset.name == name);
    at.and_then(|at| PATHS.get(at)).map_or("", String::as_str)
}

/// `GET /assets/{name}`. An old name is not found, so that no page gets the style of another version.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let wanted = format!("/assets/{name}");
    let Some(at) = PATHS.iter().position(|path| *path == wanted) else {
        return (StatusCode::NOT_FOUND, "no such file; load the page anew").into_response();
    };
    let asset = &ASSETS[at];
    let mut response = asset.bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(CACHE_CONTROL, for_ever);
    response
}
