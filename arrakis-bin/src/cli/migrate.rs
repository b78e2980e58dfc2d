//! `arrakis migrate`: brings the database of a server to this version's schema.
//!
//! As JSON the result is `{"migrations": [...]}`: those that were run, or with `--check` those that are
//! lacking.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Context;
use crate::compose;

/// The arguments of `arrakis migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// The database: `postgres://USER:PASSWORD@HOST/DATABASE`, or `sqlite://PATH`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,

    /// Change nothing: only tell what is lacking, and exit with 1 if anything is.
    #[arg(long)]
    pub check: bool,
}

/// Runs the command.
///
/// # Errors
///
/// The database cannot be reached, a migration fails, or the output cannot be written.
pub async fn run(args: &MigrateArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let url = &args.database_url;
    let migrations = if args.check {
        compose::pending_migrations(url).await?
    } else {
        compose::migrate(url).await?
    };
    if context.json {
        context.write_json(&json!({ "migrations": migrations }))?;
    } else if migrations.is_empty() {
        writeln!(context.out, "The database has this version's schema.")?;
    } else {
        let what = if args.check { "The database lacks" } else { "Migrated:" };
        writeln!(context.out, "{what} {}", migrations.join(", "))?;
    }
    let lacking = args.check && !migrations.is_empty();
    Ok(if lacking { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
