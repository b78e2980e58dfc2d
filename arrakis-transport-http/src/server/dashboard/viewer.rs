//! Who looks at a page, and what a page says to whoever may not.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::digest::Digest;
use arrakis_core::record::key::Scope;
use askama::Template;
use axum::extract::FromRequestParts;
use axum::extract::rejection::QueryRejection;
use axum::http::header::{HOST, LOCATION, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use rand::RngExt;
use subtle::ConstantTimeEq;

use super::shell::{Place, Shell, Theme, Who};
use super::sign_in::{cookie, principal};
use super::zone::Zone;
use crate::server::auth::Principal;
use crate::server::error::HttpError;
use crate::server::{Inner, ServerState};

/// Somebody who is signed in and looks at a page.
#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) principal: Principal,
    look: Look,
    /// Names the session, for the token of its forms.
    session: Digest,
    /// What was asked for, with its query.
    path: String,
}

/// How somebody wants to see pages.
#[derive(Debug, Clone)]
pub(super) struct Look {
    zone: Zone,
    theme: Theme,
}

impl Look {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            zone: Zone::named(cookie(headers, "arrakis-zone").as_deref()),
            theme: Theme::named(cookie(headers, "arrakis-theme").as_deref()),
        }
    }

    pub(super) fn zone(self) -> Zone {
        self.zone
    }

    /// What stands around a page that nobody need be signed in for.
    pub(super) fn shell(self, now: Timestamp) -> Shell {
        Shell {
            zone: self.zone,
            theme: self.theme,
            now,
            viewer: None,
            place: Place::Elsewhere,
            twin: None,
            token: String::new(),
        }
    }
}

impl Viewer {
    pub(super) fn zone(&self) -> &Zone {
        &self.look.zone
    }

    /// Where the page is that was asked for, as JSON.
    pub(super) fn twin(&self) -> Option<String> {
        let path = match self.path.strip_prefix('/') {
            Some(rest) if rest.is_empty() || rest.starts_with('?') => format!("overview{rest}"),
            Some(rest) => rest.to_owned(),
            None => return None,
        };
        Some(format!("/api/v1/{path}"))
    }

    /// What stands around a page that this viewer looks at.
    pub(super) fn shell(&self, now: Timestamp, place: Place) -> Shell {
        let who = Who { workspace: self.principal.workspace.clone(), scope: self.principal.scope };
        let token = masked(&self.session);
        Shell { viewer: Some(who), place, token, ..self.look.clone().shell(now) }
    }

    /// Whether a form came from a page of this session.
    ///
    /// # Errors
    ///
    /// It did not.
    pub(super) fn check(&self, token: &str) -> Result<(), HttpError> {
        if is_of(&self.session, token) {
            return Ok(());
        }
        let message = "this form is too old, or came from elsewhere; load the page anew";
        Err(HttpError::new(StatusCode::FORBIDDEN, "forbidden", message))
    }

    /// Whether this viewer may change things.
    ///
    /// # Errors
    ///
    /// The key was made for reading.
    pub(super) fn check_admin(&self) -> Result<(), HttpError> {
        if self.principal.scope == Scope::Admin {
            return Ok(());
        }
        let message = "you are signed in with a key of scope read; this needs one of scope admin";
        Err(HttpError::new(StatusCode::FORBIDDEN, "forbidden", message))
    }
}

impl FromRequestParts<ServerState> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &ServerState,
    ) -> Result<Self, Self::Rejection> {
        let inner = &*state.0;
        let headers = &parts.headers;
        let look = Look::of(headers);
        let failed = |error: HttpError| Failure::new(error, look.clone(), inner).into_response();
        if !is_own(&parts.method, headers) {
            let message = "this came from another site, and nothing was done";
            return Err(failed(HttpError::new(StatusCode::FORBIDDEN, "forbidden", message)));
        }
        let session = inner.authenticator.browser(headers).await.map_err(failed)?;
        let Some(session) = session else {
            let next = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            return Err(to_sign_in(if parts.method == Method::GET { next } else { "/" }));
        };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let hash = session.hash;
        Ok(Self { principal: principal(session), look, session: hash, path })
    }
}

/// Whether a request that may change something comes from a page of this very server, as the browser says.
pub(super) fn is_own(method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return true;
    }
    match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        // Browsers say it over TLS and on this machine only.
        None => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
            let origin = origin.and_then(|origin| origin.split_once("://"));
            host.is_some() && origin.map(|(_, origin)| origin) == host
        }
    }
}

/// Leads to the page where one signs in, and from there back to `next`.
fn to_sign_in(next: &str) -> Response {
    let query =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
    let target = if next == "/" { "/sign-in".to_owned() } else { format!("/sign-in?{query}") };
    see_other(&target)
}

/// Leads the browser to another page of this server.
pub(super) fn see_other(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(LOCATION, path);
    }
    response
}

/// The token of a session's forms, with a mask of its own: what is compressed beside it tells nothing about it.
fn masked(session: &Digest) -> String {
    let mask = rand::rng().random::<[u8; 16]>();
    let token = token(session);
    let hidden: Vec<u8> = token.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    hex::encode(mask) + &hex::encode(hidden)
}

fn is_of(session: &Digest, presented: &str) -> bool {
    let Ok(bytes) = hex::decode(presented) else { return false };
    let Some((mask, hidden)) = bytes.split_at_checked(16) else { return false };
    let shown: Vec<u8> = hidden.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    shown.len() == hidden.len() && shown.ct_eq(&token(session)).into()
}

fn token(session: &Digest) -> [u8; 16] {
    let digest = Digest::of(&[&b"arrakis form "[..], session.as_bytes()].concat());
    let mut token = [0; 16];
    token.copy_from_slice(&digest.as_bytes()[..16]);
    token
}

/// A page that says what went wrong, and what to do.
#[derive(Debug)]
pub(super) struct Failure {
    error: HttpError,
    shell: Shell,
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    shell: &'a Shell,
    status: u16,
    code: &'a str,
    message: &'a str,
    heading: &'a str,
}

impl Failure {
    pub(super) fn new(error: HttpError, look: Look, inner: &Inner) -> Self {
        Self { error, shell: look.shell(inner.clock.now()) }
    }

    /// The same for somebody who is signed in.
    pub(super) fn seen_by(error: HttpError, viewer: &Viewer, now: Timestamp) -> Self {
        Self { error, shell: viewer.shell(now, Place::Elsewhere) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.error.status();
        let heading = match status {
            StatusCode::NOT_FOUND => "There is nothing here",
            StatusCode::FORBIDDEN => "You may not do this",
            StatusCode::TOO_MANY_REQUESTS => "Too many tries",
            StatusCode::SERVICE_UNAVAILABLE => "The store does not answer",
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => "This cannot be read",
            _ => "This went wrong",
        };
        let page = FailurePage {
            shell: &self.shell,
            status: status.as_u16(),
            code: self.error.code(),
            message: self.error.message(),
            heading,
        };
        (status, rendered(&page)).into_response()
    }
}

/// A page as HTML.
pub(super) fn rendered(page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(target: "arrakis::server", %error, "a page cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What a query string that cannot be read is answered with.
pub(super) fn unreadable(error: &QueryRejection) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, "invalid_filter", error.body_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_belongs_to_its_session_and_looks_different_each_time() {
        let (mine, other) = (Digest::of(b"mine"), Digest::of(b"other"));
        let (first, second) = (masked(&mine), masked(&mine));
        assert_ne!(first, second);
        assert!(is_of(&mine, &first) && is_of(&mine, &second));
        assert!(!is_of(&other, &first));
        for nothing in ["", "00", &first[..40], &format!("{first}00"), "zz"] {
            assert!(!is_of(&mine, nothing), "{nothing:?}");
        }
    }

    #[test]
    fn what_changes_something_comes_from_this_server() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (name.parse().unwrap(), HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect()
        };
        let own = |pairs: &[_]| is_own(&Method::POST, &headers(pairs));
        assert!(is_own(&Method::GET, &headers(&[])));
        assert!(own(&[("sec-fetch-site", "same-origin")]));
        assert!(!own(&[("sec-fetch-site", "same-site")]));
        assert!(!own(&[("sec-fetch-site", "cross-site"), ("host", "a"), ("origin", "http://a")]));
        assert!(own(&[("host", "a:1"), ("origin", "http://a:1")]));
        assert!(!own(&[("host", "a:1"), ("origin", "http://b:1")]));
        assert!(!own(&[("host", "a:1")]));
        assert!(!own(&[("host", "a:1"), ("origin", "null")]));
    }
}
