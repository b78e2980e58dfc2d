//! Where tracing events go: the four log files of a home, and the terminal.
//!
//! | file | what |
//! |---|---|
//! | `webhook-success.log` | one line per delivered event (target `arrakis::success`) |
//! | `webhook-error.log` | every warning and error |
//! | `webhook-queue.log` | what the drainer does with each event (targets `arrakis::queue`, `arrakis::success`) |
//! | `webhook-debug.log` | everything at `info`; at `debug` too where the configuration says `debug = true` |
//!
//! Each line is one JSON object. Field names are camel case, so one search for a request id tells
//! an event's life across all four files.

use std::fmt;
use std::io::Write;
use std::path::Path;

use arrakis_core::base::clock::{Clock, SystemClock};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::Config;
use crate::log_file::{LogFile, LogFiles};

/// What a program writes to its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Console {
    /// Nothing: people read its output.
    #[value(skip)]
    Silent,
    /// Lines for people.
    Text,
    /// The lines of the log files: one JSON object each.
    Json,
}

/// Sends tracing events to the log files of `logs`, marked with the program's name; and to standard
/// error as `console` says, as far as `ARRAKIS_LOG` lets through (default `info`).
pub fn init(logs: &Path, config: &Config, component: &'static str, console: Console) {
    let files = FileLayer {
        files: LogFiles::new(logs, config.logs),
        component,
        verbosity: if config.debug { LevelFilter::DEBUG } else { LevelFilter::INFO },
    };
    let filter = || {
        EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            .with_env_var("ARRAKIS_LOG")
            .from_env_lossy()
    };
    let text = (console == Console::Text).then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_filter(filter())
    });
    let json = (console == Console::Json).then(|| JsonLayer { component }.with_filter(filter()));
    // A second call in one process (tests) keeps the first.
    tracing_subscriber::registry().with(files).with(text).with(json).try_init().ok();
}

/// The layer of the four files.
#[derive(Debug)]
struct FileLayer {
    files: LogFiles,
    component: &'static str,
    verbosity: LevelFilter,
}

impl FileLayer {
    /// The files that an event belongs to.
    fn targets(&self, metadata: &Metadata<'_>) -> impl Iterator<Item = &LogFile> {
        let (level, target) = (*metadata.level(), metadata.target());
        let delivery = matches!(target, "arrakis::queue" | "arrakis::success");
        [
            (&self.files.success, target == "arrakis::success"),
            (&self.files.error, level <= Level::WARN),
            (&self.files.queue, delivery && level <= Level::INFO),
            (&self.files.debug, level <= self.verbosity),
        ]
        .into_iter()
        .filter_map(|(file, wanted)| wanted.then_some(file))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for FileLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = metadata.target().starts_with("arrakis");
        *metadata.level() <= self.verbosity && (ours || *metadata.level() <= Level::WARN)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.verbosity)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = line(event, self.component);
        for file in self.targets(event.metadata()) {
            // A log that cannot be written must not stop what it is about.
            file.append(&line).ok();
        }
    }
}

/// The layer of standard error, for programs that gather logs.
#[derive(Debug)]
struct JsonLayer {
    component: &'static str,
}

impl<S: Subscriber> Layer<S> for JsonLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = line(event, self.component).to_string();
        text.push('\n');
        // With standard error gone there is nobody left to tell.
        std::io::stderr().lock().write_all(text.as_bytes()).ok();
    }
}

/// An event as a line of a log.
fn line(event: &Event<'_>, component: &str) -> Value {
    let mut line = Map::new();
    line.insert("timestamp".to_owned(), SystemClock.now().to_string().into());
    line.insert("level".to_owned(), event.metadata().level().as_str().to_lowercase().into());
    line.insert("component".to_owned(), component.into());
    event.record(&mut Fields(&mut line));
    Value::Object(line)
}

/// Puts the fields of an event into a JSON object, under camel case names.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn insert(&mut self, field: &Field, value: Value) {
        self.0.insert(camel_case(field.name()), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.insert(field, u64::try_from(value).unwrap_or(u64::MAX).into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::camel_case;

    #[test]
    fn names_become_camel_case() {
        assert_eq!(camel_case("request_id"), "requestId");
        assert_eq!(camel_case("message"), "message");
        assert_eq!(camel_case("retry_ms"), "retryMs");
    }
}
