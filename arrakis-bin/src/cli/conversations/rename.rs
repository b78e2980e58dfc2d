//! A new title for a conversation: it travels as an event, as all that is stored.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use arrakis_core::record::store::{DEFAULT_WORKSPACE, EventReader};
use arrakis_core::session::conversation::{Changes, Conversation, Stamp, Title, TitleSource};
use arrakis_core::session::snapshot::snapshots;
use arrakis_store_fs::Layout;
use arrakis_store_fs::admin::transfer::Importer;
use clap::Args;

use super::find;
use crate::cli::Context;
use crate::cli::queue::retry::wake;
use crate::config::{Config, process_env};

/// The arguments of `arrakis conversations rename`.
#[derive(Debug, Clone, Args)]
pub struct RenameArgs {
    /// The session id or the conversation's own, or how it begins.
    #[arg(value_name = "SESSION")]
    pub session: String,

    /// The title.
    #[arg(value_name = "TITLE")]
    pub title: String,

    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    pub workspace: String,
}

pub(super) async fn run(
    args: &RenameArgs,
    reader: &Arc<dyn EventReader>,
    context: &mut Context,
) -> anyhow::Result<ExitCode> {
    let value = args.title.split_whitespace().collect::<Vec<_>>().join(" ");
    if value.is_empty() {
        bail!("a title needs words");
    }
    let workspace = &args.workspace;
    let session = find::by_prefix(reader, workspace, &args.session, &context.zone).await?;
    let Some(found) = reader.conversation(workspace, &session).await? else {
        bail!("the conversation {session} is gone");
    };
    let now = context.clock.now();
    let request_id = arrakis_core::base::id::slice_id(&["renamed", &session, &now.to_string()]);
    let stamp = Stamp { at: now, request_id };
    let renamed = Conversation {
        started_at: found.conversation.started_at,
        last_event_at: found.conversation.last_event_at,
        title: Some(Title::new(TitleSource::Renamed, &stamp, value)),
        ..Conversation::new(workspace, &session, &stamp)
    };
    let renamed = Changes { conversations: vec![renamed], ..Changes::default() };
    let mut events = snapshots(&renamed, &Changes::default())?.envelopes;
    let (config, problems) = Config::load(&context.home, &process_env);
    for problem in problems {
        context.remark(&problem.to_string())?;
    }
    for event in &mut events {
        event.header.destination.clone_from(&config.receivers.current);
    }
    let spool = Layout::new(&context.home);
    Importer::new(spool.clone())?.take_envelopes(&events)?;
    wake(&spool, context)?;
    if context.json {
        context.write_json(&serde_json::json!({ "sessionId": session }))?;
    } else {
        writeln!(context.out, "{session} gets its new title as soon as the event is delivered.")?;
    }
    Ok(ExitCode::SUCCESS)
}
