//! What lists of events, and commands that change events, can be filtered by.

use std::path::PathBuf;
use std::sync::Arc;

use arrakis_core::base::envelope::Form;
use arrakis_core::record::store::{EventFilter, EventReader};
use clap::Args;

use super::super::Context;
use super::super::conversations::find;
use super::super::logs::Since;

/// Filters of events, beside those by state and workspace.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Filters {
    /// Only events of this type, such as PostToolUse.
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,

    /// Only events of this session, by its id or how it begins.
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,

    /// Only events received since then: a duration such as 3h or 2days, or a time such as 2026-11-24,
    /// 2026-11-24T08:30 or one of RFC 3339.
    #[arg(long, value_name = "DURATION|TIME")]
    pub since: Option<Since>,

    /// Only events received before then.
    #[arg(long, value_name = "DURATION|TIME")]
    pub until: Option<Since>,

    /// Only events that were captured on this host.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,

    /// Only events that were captured for this user, by the login name.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Only events that were captured in this project directory or one below it.
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,

    /// Only events with this error code, such as id_conflict.
    #[arg(long, value_name = "CODE")]
    pub error: Option<String>,

    /// Only events that came in this form: envelope (as Arrakis captures them), original (of the original hook)
    /// or raw (of an HTTP hook).
    #[arg(long, value_name = "FORM", value_parser = form)]
    pub form: Option<Form>,
}

impl Filters {
    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The filter that asks for this.
    ///
    /// # Errors
    ///
    /// The project directory cannot be made absolute, or it is not clear which session is meant.
    pub(super) async fn filter(
        &self,
        reader: &Arc<dyn EventReader>,
        workspace: &str,
        context: &Context,
    ) -> anyhow::Result<EventFilter> {
        let session_id = match &self.session {
            Some(session) => Some(find::session(reader, workspace, session, &context.zone).await?),
            None => None,
        };
        let now = context.clock.now();
        let project = self.project.as_ref().map(std::path::absolute).transpose()?;
        Ok(EventFilter {
            event_type: self.event_type.clone(),
            session_id,
            since: self.since.map(|since| since.before(now, &context.zone)),
            until: self.until.map(|until| until.before(now, &context.zone)),
            host: self.host.clone(),
            user: self.user.clone(),
            project: project.map(|path| path.to_string_lossy().into_owned()),
            error_code: self.error.clone(),
            form: self.form,
            ..EventFilter::default()
        })
    }
}

fn form(text: &str) -> Result<Form, String> {
    let found = Form::ALL.into_iter().find(|form| form.as_str() == text);
    found.ok_or_else(|| "it is envelope, original or raw".to_owned())
}
