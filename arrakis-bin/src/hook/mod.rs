//! What `arrakis-hook` does: read the event, redact it, make it durable, wake a drainer.
//!
//! Claude Code waits for it, so it uses no network and waits for nobody. Whatever happens it exits 0
//! with an empty stdout: exit 2 would block the user's prompt, and output would be put before the
//! model.

mod stdin;
mod trouble;

use std::time::Duration;

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::envelope::Preview;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::id::RequestId;
use arrakis_core::session::redact::RedactedPayload;
use arrakis_store_fs::spool::counters;
use arrakis_store_fs::{Layout, Spool, is_drainer_running};

use crate::config::{Config, Delivery, Env, env_text, fallback_home, home, machine};
use crate::wake::{spawn_drain_of_one, spawn_drainer};
use arrakis_core::base::error::error_chain;

use trouble::Troubles;

/// How long stdin may take, in all. The client writes it at once; its own shortest limit is the 1.5 s
/// that all hooks of a `SessionEnd` share.
const STDIN_DEADLINE: Duration = Duration::from_secs(1);

/// Runs the hook. It returns in any case and never panics on input.
pub fn run(env: Env<'_>) {
    let home = Layout::new(home(env));
    let (config, problems) = Config::load(home.home(), env);
    if !config.enabled {
        return;
    }
    let mut troubles = Troubles::default();
    for problem in problems {
        troubles.add("config", "the configuration has a problem", problem.to_string());
    }

    let input = stdin::read(STDIN_DEADLINE);
    let now = SystemClock.now();
    let request_id = RequestId::mint(now, rand::random());
    troubles.about(&request_id);
    if let Some(problem) = &input.problem {
        troubles.add("stdin", "the event was not read whole", problem.clone());
    }
    let RedactedPayload { bytes: payload, truncated, removed } =
        RedactedPayload::new(&input.bytes, input.truncated, &config.redactor);
    let preview = Preview::of(&payload);
    if !preview.is_object && truncated.is_none() {
        let details = format!("{} bytes are kept as they came", payload.len());
        troubles.add("payload", "the event is not a JSON object", details);
    }
    let url = config.receivers.current.clone();
    let mut envelope = Envelope::with_preview(
        request_id.clone(),
        now,
        url,
        source(env),
        payload.into_owned(),
        preview,
    );
    envelope.header.truncated = truncated;
    envelope.header.redacted = removed;

    match capture(&home, &envelope, env, &mut troubles) {
        // A spool that is full needs its drainer most.
        None => wake(&home, &home, &mut troubles),
        Some(_) if config.delivery == Delivery::Direct && config.hold.is_none() => {
            deliver_now(&home, &request_id, &mut troubles);
        }
        Some(captured_in) => wake(&home, &captured_in, &mut troubles),
    }
    troubles.write(&home, &Layout::new(fallback_home(env)), config.logs);
}

/// Makes the event durable: in the home, else in the fallback home. Returns where.
fn capture(
    home: &Layout,
    envelope: &Envelope,
    env: Env<'_>,
    troubles: &mut Troubles,
) -> Option<Layout> {
    let error = match Spool::new(home.clone()).capture(envelope) {
        Ok(_) => return Some(home.clone()),
        Err(error) => error,
    };
    troubles.add("spool", "the event could not be spooled in the home", error_chain(&error));
    let fallback = Layout::new(fallback_home(env));
    if matches!(error, arrakis_store_fs::SpoolError::Full(_)) {
        refuse(home, &fallback, troubles);
        return None;
    }
    let captured = private(&fallback).and_then(|()| {
        Spool::new(fallback.clone()).capture(envelope).map_err(|error| error_chain(&error))
    });
    match captured {
        Ok(path) => {
            let path = path.display().to_string();
            troubles.add("fallback", "the event was spooled in the fallback home", path);
            Some(fallback)
        }
        Err(error) => {
            troubles.add("lost", "the event could not be spooled anywhere and is lost", error);
            refuse(home, &fallback, troubles);
            None
        }
    }
}

/// Counts an event that is not kept, where that can be written.
fn refuse(home: &Layout, fallback: &Layout, troubles: &mut Troubles) {
    troubles.refused();
    let counted = counters::count_refused(home).is_ok()
        || (private(fallback).is_ok() && counters::count_refused(fallback).is_ok());
    if !counted {
        let details = "neither home can be written".to_owned();
        troubles.add("uncounted", "the refused event could not be counted", details);
    }
}

/// Makes sure that the fallback home, which is in a place open to everybody, is this user's alone.
fn private(fallback: &Layout) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt;

    let mut builder = std::fs::DirBuilder::new();
    match builder.mode(0o700).create(fallback.home()) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(format!("{}: {error}", fallback.home().display()));
        }
        _ => {}
    }
    arrakis_store_fs::spool::check_private(fallback.home(), nix::unistd::getuid().as_raw())
}

/// Wakes a drainer unless one holds the lock. The event's file was renamed before this look, and a
/// drainer looks once more after it has let go of the lock, so no event falls between the two.
fn wake(home: &Layout, captured_in: &Layout, troubles: &mut Troubles) {
    if !is_drainer_running(captured_in)
        && let Err(error) = spawn_drainer(home.home())
    {
        troubles.add(
            "drainer",
            "the drainer could not be started; the event waits",
            error.to_string(),
        );
    }
}

/// Has this one event delivered, and waits for it as long as one round may take.
fn deliver_now(home: &Layout, request_id: &RequestId, troubles: &mut Troubles) {
    let mut child = match spawn_drain_of_one(home.home(), request_id.as_str()) {
        Ok(child) => child,
        Err(error) => {
            let details = error.to_string();
            troubles.add("drainer", "the drainer could not be started; the event waits", details);
            return;
        }
    };
    let details = match child.wait() {
        Ok(status) if status.success() => return,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    troubles.add("drainer", "direct delivery failed; the event waits", details);
}

/// Where the event comes from.
fn source(env: Env<'_>) -> Source {
    Source {
        project_dir: env_text(env, "CLAUDE_PROJECT_DIR"),
        cli_version: env_text(env, "CLAUDE_CODE_VERSION"),
        ..machine(env)
    }
}
