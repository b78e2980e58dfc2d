//! Keys: who may send and read, when each was last used, and making and revoking them.

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::key::{ApiKey, Scope};
use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rand::SeedableRng;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::{Asked, Context, Reader, answer};
use crate::server::ServerState;
use crate::server::dashboard::shell::{Place, Shell};
use crate::server::dashboard::viewer::{Failure, Viewer, rendered, see_other};
use crate::server::error::HttpError;

/// Longest name of a key.
const NAME_MAX_BYTES: usize = 100;

/// How long a key that nobody uses is left unmarked.
const UNUSED: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 3600);

/// What may be asked: nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::server::dashboard) struct Wanted {}

/// What the page shows.
#[derive(Debug, Serialize)]
pub(in crate::server::dashboard) struct Keys {
    keys: Vec<ApiKey>,
}

/// `GET /keys`.
pub(in crate::server::dashboard) async fn page(
    State(state): State<ServerState>,
    viewer: Viewer,
    asked: Asked<Wanted>,
) -> Response {
    if let Err(error) = viewer.check_admin() {
        return Failure::seen_by(error, &viewer, state.0.clock.now()).into_response();
    }
    let page = |shell, view| KeysPage { shell, view, made: None };
    answer(&state, &viewer, asked, Place::Keys, view, page).await
}

/// `GET /api/v1/keys`.
pub(in crate::server::dashboard) async fn twin(
    State(state): State<ServerState>,
    reader: Reader,
    asked: Asked<Wanted>,
) -> Response {
    if reader.principal.scope != Scope::Admin {
        let message = "keys are shown to a key of scope admin";
        return HttpError::new(StatusCode::FORBIDDEN, "forbidden", message).into_response();
    }
    super::twin(&state, &reader, asked, view).await
}

async fn view(context: &Context<'_>, _: Wanted) -> Result<Keys, HttpError> {
    let keys = context.read(context.inner.authenticator.keys().keys()).await?;
    let mut keys: Vec<_> =
        keys.into_iter().filter(|key| key.workspace == context.workspace).collect();
    keys.sort_by_key(|key| (key.revoked_at.is_some(), std::cmp::Reverse(key.created_at)));
    Ok(Keys { keys })
}

/// What the form says that makes a key.
#[derive(Debug, Deserialize)]
pub(in crate::server::dashboard) struct Making {
    token: String,
    name: String,
    scope: Scope,
}

/// `POST /keys`: makes a key, and shows it once.
pub(in crate::server::dashboard) async fn make(
    State(state): State<ServerState>,
    viewer: Viewer,
    Form(making): Form<Making>,
) -> Response {
    let inner = &*state.0;
    let now = inner.clock.now();
    let made = async {
        viewer.check(&making.token)?;
        viewer.check_admin()?;
        let name = making.name.trim();
        if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
            let message = format!("a key has a name of 1 to {NAME_MAX_BYTES} bytes");
            return Err(HttpError::new(StatusCode::BAD_REQUEST, "invalid_name", message));
        }
        let mut rng = rand::rngs::StdRng::from_seed(rand::random());
        let workspace = &viewer.principal.workspace;
        let (secret, key) = ApiKey::generate(name, making.scope, workspace, now, &mut rng);
        inner.in_time(inner.authenticator.keys().create_key(key)).await??;
        let context = Context { inner, workspace, zone: viewer.zone(), now };
        Ok((secret, view(&context, Wanted {}).await?))
    };
    match made.await {
        Ok((secret, view)) => {
            let made = Made { key: secret.expose_secret().to_owned(), scope: making.scope };
            let shell = viewer.shell(now, Place::Keys);
            rendered(&KeysPage { shell, view, made: Some(made) })
        }
        Err(error) => Failure::seen_by(error, &viewer, now).into_response(),
    }
}

/// What the form says that revokes a key.
#[derive(Debug, Deserialize)]
pub(in crate::server::dashboard) struct Revoking {
    token: String,
    id: String,
    /// The key's name, typed by whoever revokes it.
    name: String,
}

/// `POST /keys/revoke`.
pub(in crate::server::dashboard) async fn revoke(
    State(state): State<ServerState>,
    viewer: Viewer,
    Form(revoking): Form<Revoking>,
) -> Response {
    let inner = &*state.0;
    let now = inner.clock.now();
    let revoked = async {
        viewer.check(&revoking.token)?;
        viewer.check_admin()?;
        let keys = inner.authenticator.keys();
        let key = inner.in_time(keys.key(&revoking.id)).await??;
        let key = key.filter(|key| key.workspace == viewer.principal.workspace);
        let Some(key) = key else {
            let message = "there is no such key in this workspace";
            return Err(HttpError::new(StatusCode::NOT_FOUND, "not_found", message));
        };
        if key.name != revoking.name.trim() {
            let message = format!("to revoke this key, type its name: {}", key.name);
            return Err(HttpError::new(StatusCode::BAD_REQUEST, "wrong_name", message));
        }
        inner.in_time(keys.revoke_key(&key.id, now)).await??;
        Ok(())
    };
    match revoked.await {
        Ok(()) => see_other("/keys"),
        Err(error) => Failure::seen_by(error, &viewer, now).into_response(),
    }
}

/// A key that was just made.
struct Made {
    key: String,
    scope: Scope,
}

impl Made {
    /// What to do with it.
    fn hint(&self) -> &'static str {
        match self.scope {
            Scope::Ingest => {
                "Put it into ~/.arrakis/config.toml of the machine as api_key, beside the url of this server."
            }
            Scope::Read => {
                "Whoever has it reads everything of this workspace, here and by the API."
            }
            Scope::Admin => "Whoever has it may do everything. Keep it where passwords are kept.",
        }
    }
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    shell: Shell,
    view: Keys,
    made: Option<Made>,
}

impl KeysPage {
    fn is_unused(&self, key: &ApiKey) -> bool {
        let since: Timestamp = key.last_used_at.unwrap_or(key.created_at);
        key.revoked_at.is_none() && self.shell.now.since(since) > UNUSED
    }
}
