//! Signing in with a key or by a one-time link, and signing out.

use std::net::SocketAddr;

use arrakis_core::record::key::Scope;
use arrakis_core::record::store::DEFAULT_WORKSPACE;
use askama::Template;
use axum::Form;
use axum::extract::{ConnectInfo, FromRequestParts, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;
use serde::Deserialize;

use crate::server::ServerState;
use crate::server::auth::Principal;
use crate::server::client_ip::client_ip;
use crate::server::dashboard::shell::Shell;
use crate::server::dashboard::sign_in::{given, owner, taken};
use crate::server::dashboard::viewer::{Failure, Look, Viewer, is_own, rendered, see_other};
use crate::server::error::HttpError;
use crate::server::listen::Encrypted;

/// Longest key and longest link that are looked at.
const PRESENTED_MAX_BYTES: usize = 256;

/// Who asks, and how.
#[derive(Debug)]
pub(in crate::server::dashboard) struct Visitor {
    headers: HeaderMap,
    address: Option<std::net::IpAddr>,
    is_encrypted: bool,
    is_own: bool,
}

impl FromRequestParts<ServerState> for Visitor {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &ServerState,
    ) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| *peer);
        let trusted = &state.0.trusted_proxies;
        let by_proxy = peer.is_some_and(|peer| trusted.contains(&peer.ip().to_canonical()))
            && parts.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        Ok(Self {
            headers: parts.headers.clone(),
            address: client_ip(peer, &parts.headers, trusted),
            is_encrypted: by_proxy || parts.extensions.get::<Encrypted>().is_some(),
            is_own: is_own(&parts.method, &parts.headers),
        })
    }
}

impl Visitor {
    fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.is_loopback())
    }
}

/// What the page may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::server::dashboard) struct Wanted {
    next: String,
}

/// `GET /sign-in`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Response {
    shown(&state, &visitor, own_path(&wanted.next), None)
}

/// What the form says.
#[derive(Debug, Deserialize)]
pub(in crate::server::dashboard) struct Presented {
    key: SecretString,
    #[serde(default)]
    next: String,
}

/// `POST /sign-in`. Of a key that does not work nobody is told why.
pub(in crate::server::dashboard) async fn sign_in(
    State(state): State<ServerState>,
    visitor: Visitor,
    Form(presented): Form<Presented>,
) -> Response {
    use secrecy::ExposeSecret;
    let next = own_path(&presented.next);
    if let Some(refused) = refused(&state, &visitor) {
        return refused;
    }
    let key = presented.key.expose_secret().trim();
    let authenticator = &state.0.authenticator;
    let found = match key.len() <= PRESENTED_MAX_BYTES {
        true => authenticator.reader(&SecretString::from(key)).await,
        false => Ok(None),
    };
    match found {
        Ok(Some(principal)) if principal.scope.allows(Scope::Read) => {
            signed_in(&state, &visitor, &principal, next).await
        }
        Ok(principal) => {
            let scope = principal.map(|principal| principal.scope.as_str());
            tracing::info!(target: "arrakis::server", scope, "somebody could not sign in");
            let why = "This key does not open the dashboard. It takes one of scope read or admin.";
            let mut response = shown(&state, &visitor, next, Some(why));
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            response
        }
        Err(error) => failed(&state, &visitor, error),
    }
}

/// A link that was opened.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::server::dashboard) struct Link {
    token: String,
}

#[derive(Template)]
#[template(path = "link.html")]
struct LinkPage {
    shell: Shell,
    token: String,
}

/// `GET /sign-in/link`: asks for a click, so that whoever looks at links in passing does not use it up.
pub(in crate::server::dashboard) async fn link(
    State(state): State<ServerState>,
    visitor: Visitor,
    Query(link): Query<Link>,
) -> Response {
    let shell = Look::of(&visitor.headers).shell(state.0.clock.now());
    rendered(&LinkPage { shell, token: link.token })
}

/// `POST /sign-in/link`.
pub(in crate::server::dashboard) async fn take_link(
    State(state): State<ServerState>,
    visitor: Visitor,
    Form(link): Form<Link>,
) -> Response {
    if let Some(refused) = refused(&state, &visitor) {
        return refused;
    }
    let sign_ins = state.0.authenticator.sign_ins();
    let works = link.token.len() <= PRESENTED_MAX_BYTES
        && sign_ins.is_some_and(|sign_ins| sign_ins.take_link(&link.token));
    if works {
        return signed_in(&state, &visitor, &owner(DEFAULT_WORKSPACE), "/").await;
    }
    let why = "This link was used already, or is too old. Sign in with a key, or start the server again for a new link.";
    let mut response = shown(&state, &visitor, "/", Some(why));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

/// What a form of a page has besides its fields.
#[derive(Debug, Deserialize)]
pub(in crate::server::dashboard) struct Signed {
    token: String,
}

/// `POST /sign-out`.
pub(in crate::server::dashboard) async fn sign_out(
    State(state): State<ServerState>,
    visitor: Visitor,
    viewer: Viewer,
    Form(signed): Form<Signed>,
) -> Response {
    let closed = async {
        viewer.check(&signed.token)?;
        match state.0.authenticator.sign_ins() {
            Some(sign_ins) => sign_ins.close(&visitor.headers).await,
            None => Ok(()),
        }
    };
    match closed.await {
        Ok(()) => with_cookie(see_other("/sign-in"), &taken(visitor.is_encrypted)),
        Err(error) => Failure::seen_by(error, &viewer, state.0.clock.now()).into_response(),
    }
}

/// Why a visitor may not try at all, if that is so.
fn refused(state: &ServerState, visitor: &Visitor) -> Option<Response> {
    if !visitor.is_own {
        let message = "this came from another site, and nothing was done";
        let error = HttpError::new(StatusCode::FORBIDDEN, "forbidden", message);
        return Some(failed(state, visitor, error));
    }
    let may_try = state.0.authenticator.sign_ins().is_some_and(|all| all.may_try(visitor.address));
    (!may_try).then(|| {
        let message = "there were too many tries to sign in; wait a minute";
        failed(
            state,
            visitor,
            HttpError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_tries", message),
        )
    })
}

async fn signed_in(
    state: &ServerState,
    visitor: &Visitor,
    principal: &Principal,
    next: &str,
) -> Response {
    let opened = async {
        let sign_ins = state.0.authenticator.sign_ins().ok_or_else(|| {
            HttpError::new(StatusCode::NOT_FOUND, "not_found", "this server has no dashboard")
        })?;
        sign_ins.open(principal, &visitor.headers).await
    };
    match opened.await {
        Ok(secret) => with_cookie(see_other(next), &given(&secret, visitor.is_encrypted)),
        Err(error) => failed(state, visitor, error),
    }
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

fn failed(state: &ServerState, visitor: &Visitor, error: HttpError) -> Response {
    Failure::new(error, Look::of(&visitor.headers), &state.0).into_response()
}

/// A path of this server, as it was asked for; its beginning where it leads elsewhere.
fn own_path(next: &str) -> &str {
    let own = next.starts_with('/')
        && !next.starts_with("//")
        && !next.starts_with("/\\")
        && next.bytes().all(|byte| byte.is_ascii_graphic());
    if own { next } else { "/" }
}

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignInPage<'a> {
    shell: Shell,
    next: &'a str,
    why: Option<&'a str>,
    is_plain: bool,
}

fn shown(state: &ServerState, visitor: &Visitor, next: &str, why: Option<&str>) -> Response {
    let shell = Look::of(&visitor.headers).shell(state.0.clock.now());
    let is_plain = !visitor.is_encrypted && !visitor.is_local();
    rendered(&SignInPage { shell, next, why, is_plain })
}

#[cfg(test)]
mod tests {
    use super::own_path;

    #[test]
    fn signing_in_leads_nowhere_else() {
        for own in ["/", "/events?status=FAILED", "/c/1/m/2"] {
            assert_eq!(own_path(own), own);
        }
        for other in ["", "//evil", "/\\evil", "https://evil", "javascript:x", "/a\nb", "/ü"] {
            assert_eq!(own_path(other), "/", "{other:?}");
        }
    }
}
