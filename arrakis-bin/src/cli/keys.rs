//! `arrakis keys`: creates, lists and revokes API keys.
//!
//! The secret of a new key is shown once and kept nowhere. It is all that `create` writes to standard
//! output, so that it can be piped into a file or another program. As JSON, a key is an object with
//! `id`, `name`, `scope`, `workspace`, `createdAt`, `revokedAt` and `lastUsedAt`; `create` answers
//! `{"key": …, "secret": …}`, `list` an array, `revoke` the key.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arrakis_core::record::key::{ApiKey, Scope};
use arrakis_core::record::store::{DEFAULT_WORKSPACE, KeyStore};
use clap::{Args, Subcommand};
use rand::Rng;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::Context;
use super::output;
use super::output::table::{Cell, Column, Table};

/// Longest name of a key or a workspace, in characters: it stands in tables.
const NAME_MAX_CHARS: usize = 100;

/// The arguments of `arrakis keys`.
#[derive(Debug, Clone, Args)]
pub struct KeysArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Create a key and print its secret, once.
    Create(CreateArgs),
    /// List the keys, without their secrets. With --json: one array of objects.
    List,
    /// Revoke a key: requests with it are refused from now on.
    Revoke(RevokeArgs),
}

/// The arguments of `arrakis keys create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// What the key is called in lists, such as the machine that it is for [default: its scope].
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub name: Option<String>,

    /// What it allows: ingest (send events), read (see what is stored) or admin (everything).
    #[arg(long, value_name = "SCOPE")]
    pub scope: Scope,

    /// The workspace that its events belong to.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE, value_parser = parse_name)]
    pub workspace: String,
}

/// The arguments of `arrakis keys revoke`.
#[derive(Debug, Clone, Args)]
pub struct RevokeArgs {
    /// The key's id, as listed: the eight digits after `ark_`.
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs the command. `rng` makes the secrets.
///
/// # Errors
///
/// There is no such key, the store fails, or the output cannot be written.
pub async fn run(
    args: &KeysArgs,
    store: &Arc<dyn KeyStore>,
    rng: &mut dyn Rng,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    match &args.command {
        KeysCommand::Create(args) => create(args, store, rng, context).await?,
        KeysCommand::List => list(store, context).await?,
        KeysCommand::Revoke(args) => revoke(args, store, context).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(
    args: &CreateArgs,
    store: &Arc<dyn KeyStore>,
    rng: &mut dyn Rng,
    context: &mut Context,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Created<'a> {
        key: &'a ApiKey,
        secret: &'a str,
    }
    let now = context.clock.now();
    let name = args.name.as_deref().unwrap_or(args.scope.as_str());
    let (secret, key) = ApiKey::generate(name, args.scope, &args.workspace, now, rng);
    store.create_key(key.clone()).await.context("no key was created")?;
    let secret = secret.expose_secret();
    if context.json {
        context.write_json(&Created { key: &key, secret })?;
        return Ok(());
    }
    writeln!(context.out, "{secret}")?;
    context.remark(&format!(
        "Created the {} key {} ({}). Its secret is shown this once and kept nowhere.\n\
         Revoke it with `arrakis keys revoke {}`.",
        key.scope, key.id, key.name, key.id
    ))?;
    Ok(())
}

async fn list(store: &Arc<dyn KeyStore>, context: &mut Context) -> anyhow::Result<()> {
    let keys = store.keys().await?;
    if context.json {
        context.write_json(&keys)?;
        return Ok(());
    }
    if keys.is_empty() {
        context.remark("No keys yet. Create one with `arrakis keys create --scope ingest`.")?;
        return Ok(());
    }
    let zone = &context.zone;
    let mut table = Table::new(vec![
        Column::new("ID"),
        Column::new("SCOPE"),
        Column::new("STATE"),
        Column::new(zone.heading("CREATED", keys.iter().map(|key| key.created_at))),
        Column::new("LAST USED").optional(),
        Column::new("WORKSPACE").shrinks_to(9).optional(),
        Column::new("NAME").shrinks_to(12),
    ]);
    for key in &keys {
        let (state, style) = match key.revoked_at {
            None => ("active".to_owned(), output::GOOD),
            Some(at) => (format!("revoked {}", zone.moment(at, false)), output::BAD),
        };
        let last_used = key.last_used_at.map(|at| zone.moment(at, false));
        let last_used = last_used.unwrap_or_else(|| "never".to_owned());
        table.row(vec![
            Cell::new(&key.id),
            Cell::new(key.scope.as_str()),
            Cell::new(&state).style(style),
            Cell::new(&zone.moment(key.created_at, false)),
            Cell::new(&last_used).style(output::DIM),
            Cell::new(&key.workspace).style(output::DIM),
            Cell::new(&key.name),
        ]);
    }
    table.write(&mut context.out, context.terminal)?;
    Ok(())
}

async fn revoke(
    args: &RevokeArgs,
    store: &Arc<dyn KeyStore>,
    context: &mut Context,
) -> anyhow::Result<()> {
    let before = store.key(&args.id).await?;
    if !store.revoke_key(&args.id, context.clock.now()).await? {
        bail!("there is no key {:?}; `arrakis keys list` shows them", args.id);
    }
    let key = store.key(&args.id).await?;
    if context.json {
        context.write_json(&key)?;
        return Ok(());
    }
    match before.and_then(|key| key.revoked_at) {
        Some(at) => {
            let at = context.zone.whole_moment(at);
            writeln!(context.out, "Key {} was revoked on {at}.", args.id)?;
        }
        None => writeln!(context.out, "Revoked key {}.", args.id)?,
    }
    Ok(())
}

fn parse_name(name: &str) -> Result<String, String> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_MAX_CHARS {
        return Err(format!("it must have 1 to {NAME_MAX_CHARS} characters"));
    }
    if name.contains(char::is_control) {
        return Err("it must not contain control characters".to_owned());
    }
    Ok(name.to_owned())
}
