//! `arrakis statusline`: one line for the foot of Claude Code's screen.
//!
//! The client gives what it knows of the session as JSON on standard input, and shows what is printed. It asks often and shows
//! nothing where a command fails, so this one always succeeds and waits for nothing: what is not known in time is left out.
//!
//! ```text
//! Opus 5.5 · $1.24 session · $12.30 today
//! ```

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::id::conversation_id;
use arrakis_core::record::store::{DEFAULT_WORKSPACE, Rollups, UsageGroups};
use arrakis_core::session::usage::Usd;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::text;
use super::usage::sums::{Part, Sum, read};
use super::{Context, store_of};

/// Bytes of standard input that are read: the client gives some kilobytes.
const INPUT_MAX_BYTES: u64 = 1024 * 1024;

/// How long the store may take. The embedded one takes some milliseconds.
const STORE_TIMEOUT: Duration = Duration::from_millis(250);

/// Usage is read from this long before the session began by the client's own count.
const MARGIN: Duration = Duration::from_secs(24 * 3600);

/// What stands between two parts of the line.
const BETWEEN: &str = " · ";

/// The arguments of `arrakis statusline`.
#[derive(Debug, Clone, Args)]
pub struct StatuslineArgs {
    /// The workspace.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_WORKSPACE)]
    pub workspace: String,
}

/// What the client says. What is not as expected is not there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    session_id: Value,
    model: Value,
    cost: Value,
}

impl Said {
    fn read(input: &mut dyn Read) -> Self {
        let mut bytes = Vec::new();
        input.take(INPUT_MAX_BYTES).read_to_end(&mut bytes).ok();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn model(&self) -> Option<&str> {
        self.model["display_name"].as_str().or_else(|| self.model["id"].as_str())
    }

    /// What the session has cost by the client's own count.
    fn cost(&self) -> Option<Usd> {
        self.cost["total_cost_usd"].as_f64().and_then(Usd::from_dollars)
    }
}

/// What the store knows.
#[derive(Debug, Default)]
struct Known {
    session: Part,
    today: Part,
}

/// What is asked of the store.
struct Question {
    home: PathBuf,
    workspace: String,
    session: String,
    /// The beginning of today, for the reader.
    midnight: Timestamp,
    /// A moment before the session began.
    began: Timestamp,
}

/// Writes the line.
pub fn run(args: &StatuslineArgs, input: &mut dyn Read, context: &mut Context) -> ExitCode {
    let said = Said::read(input);
    let now = context.clock.now();
    let lasted = Duration::from_millis(said.cost["total_duration_ms"].as_u64().unwrap_or(0));
    let question = Question {
        home: context.home.clone(),
        workspace: args.workspace.clone(),
        session: said.session_id.as_str().unwrap_or_default().to_owned(),
        midnight: context.zone.midnight(now),
        began: now.minus(lasted.saturating_add(MARGIN)),
    };
    let known = ask(question);
    // There is nobody to tell that it cannot be written.
    let written = if context.json {
        context.write_json(&json!({
            "model": said.model(),
            "clientCost": said.cost(),
            "sessionCost": known.as_ref().map(|known| known.session.cost),
            "todayCost": known.as_ref().map(|known| known.today.cost),
        }))
    } else {
        writeln!(context.out, "{}", line(&said, known.as_ref()))
    };
    written.ok();
    ExitCode::SUCCESS
}

/// What the store knows; none where it does not say in time. A database that is locked or away may keep a thread waiting,
/// which then ends with the process.
fn ask(question: Question) -> Option<Known> {
    let (answer, answered) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let known = runtime.ok().and_then(|runtime| runtime.block_on(known(&question)));
        answer.send(known).ok();
    });
    answered.recv_timeout(STORE_TIMEOUT).ok().flatten()
}

async fn known(question: &Question) -> Option<Known> {
    let store: Arc<dyn Rollups> = store_of(&question.home).await.ok()?;
    let by = UsageGroups { bucket: true, conversation: true, ..UsageGroups::default() };
    let span = (question.midnight.min(question.began), Timestamp::from_micros(i64::MAX));
    let sums = read(&store, &question.workspace, span, by).await.ok()?;
    let id = conversation_id(&question.workspace, &question.session);
    let (mut session, mut today) = (Sum::default(), Sum::default());
    for sum in &sums {
        if sum.conversation_id == Some(id) {
            session.add(sum);
        }
        if sum.at >= Some(question.midnight) {
            today.add(sum);
        }
    }
    Some(Known { session: session.total, today: today.total })
}

/// The line. Of the session's cost the greater is right: the client's begins anew where a session is resumed by some versions,
/// and ours lacks what has not been delivered yet.
fn line(said: &Said, known: Option<&Known>) -> String {
    let mut parts = Vec::new();
    parts.extend(said.model().map(text::one_line));
    let ours = known.map(|known| known.session).filter(|part| part.messages > 0);
    let session = match (said.cost(), ours) {
        (Some(client), Some(ours)) if ours.cost > client => Some(ours.cost_text()),
        (Some(client), _) => Some(client.to_string()),
        (None, ours) => ours.map(|ours| ours.cost_text()),
    };
    parts.extend(session.map(|cost| format!("{cost} session")));
    parts.extend(known.map(|known| format!("{} today", known.today.cost_text())));
    parts.join(BETWEEN)
}
