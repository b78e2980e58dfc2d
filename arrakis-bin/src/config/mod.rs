//! The configuration: what the environment says, else what `config.toml` says, else the default.
//!
//! Reading it never fails, and it is read setting by setting: one that cannot be used is told as a
//! [`ConfigProblem`] and leaves all others as they are. It falls back to its default, but for those that
//! protect privacy: they take their strict form, or hold delivery ([`Config::hold`]). A hook captures whatever
//! its configuration looks like.

mod environment;
mod file;
mod problem;
mod receivers;
mod redaction;
mod retention;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrakis_core::base::limits::{
    DELIVERY_TIME_MAX, LOG_FILES_MAX, PATH_MAX_BYTES, SPOOL_MAX_BYTES, SPOOL_MAX_FILES,
    TRANSCRIPT_FOLDERS_MAX, TRUSTED_PROXIES_MAX,
};
use arrakis_core::record::retention::RetentionPolicy;
use arrakis_core::session::redact::{RedactConfig, Redactor};

use file::{Document, Section, Unknown};
use value::{Address, DeliveryKind, Flag, Number, Otherwise, Reader};

pub use environment::{
    Env, KEY_VARIABLES, chosen_program, claude_folder, drainer_variables, env_text, fallback_home,
    home, machine, process_env, projects_folder,
};
pub use problem::{ConfigProblem, Place};
pub use receivers::{DEFAULT_URL, FileReceiver, Receiver, Receivers};

/// The settings of one home.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where events go and which key goes where. `ARRAKIS_URL`, `ARRAKIS_API_KEY`, `CLAUDE_HOOK_API_URL`,
    /// `CLAUDE_HOOK_API_KEY`.
    pub receivers: Receivers,
    /// Why nothing may leave this machine now; `None` where it may.
    pub hold: Option<ConfigProblem>,
    /// Whether events are captured at all. `ARRAKIS_ENABLED`, `CLAUDE_HOOK_ENABLED`.
    pub enabled: bool,
    /// Whether logs tell every detail. `ARRAKIS_DEBUG`, `CLAUDE_HOOK_DEBUG`.
    pub debug: bool,
    /// How the hook hands events on.
    pub delivery: Delivery,
    /// How long one delivery attempt may take. `ARRAKIS_TIMEOUT`, `CLAUDE_HOOK_TIMEOUT`, in ms.
    pub timeout: Duration,
    /// Attempts in a round. `ARRAKIS_RETRY_ATTEMPTS`, `CLAUDE_HOOK_RETRY_ATTEMPTS`.
    pub retry_attempts: u32,
    /// Time between two of them. `ARRAKIS_RETRY_DELAY`, `CLAUDE_HOOK_RETRY_DELAY`, in ms.
    pub retry_delay: Duration,
    /// Where `arrakis up` listens. `ARRAKIS_LISTEN`.
    pub listen: SocketAddr,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Whether a server has the pages of the dashboard.
    pub dashboard: bool,
    /// What is taken out of payloads.
    pub redact: RedactConfig,
    /// Redacts by [`redact`](Self::redact). It is compiled once, as a hook does it for each event.
    pub redactor: Redactor,
    /// What is read of transcripts.
    pub transcripts: Transcripts,
    /// The limits of the spool.
    pub spool: SpoolLimits,
    /// The limits of the log files.
    pub logs: LogLimits,
    /// How long a server keeps what is stored.
    pub retention: RetentionPolicy,
}

/// How the hook hands events on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It spools and returns; a drainer delivers.
    Spool,
    /// It spools, then waits for one round of delivery.
    Direct,
}

impl Delivery {
    /// Its name in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spool => "spool",
            Self::Direct => "direct",
        }
    }
}

/// What is read of transcripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcripts {
    /// Whether they are read after the events that name them. `ARRAKIS_TRANSCRIPTS`.
    pub enabled: bool,
    /// Whether the model's thinking is sent. `ARRAKIS_TRANSCRIPTS_THINKING`.
    pub thinking: bool,
    /// Folders beside Claude Code's own in which they may lie.
    pub folders: Vec<PathBuf>,
}

/// The limits of the spool, past which new events are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Most events.
    pub max_files: u64,
    /// Most bytes.
    pub max_bytes: u64,
}

/// When log files are rotated, and how many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Size at which a file is rotated, in bytes.
    pub max_bytes: u64,
    /// Rotated files that are kept.
    pub keep: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_bytes: 10_000_000, keep: 5 }
    }
}

/// The settings at the root of the file.
const NAMES: &[&str] = &[
    "url",
    "api_key",
    "destinations",
    "allow_plain_http",
    "enabled",
    "debug",
    "delivery",
    "timeout_ms",
    "retry_attempts",
    "retry_delay_ms",
    "listen",
    "trusted_proxies",
    "dashboard",
    "redact",
    "transcripts",
    "spool",
    "logs",
    "retention",
];
const TRANSCRIPTS_NAMES: &[&str] = &["enabled", "thinking", "folders"];
const SPOOL_NAMES: &[&str] = &["max_files", "max_bytes"];
const LOGS_NAMES: &[&str] = &["max_bytes", "keep"];

impl Config {
    /// Reads the configuration of `home`.
    #[must_use]
    pub fn load(home: &Path, env: Env<'_>) -> (Self, Vec<ConfigProblem>) {
        let path = home.join("config.toml");
        let mut reader = Reader { env, problems: Vec::new() };
        let text = file::read(&path).unwrap_or_else(|problem| {
            reader.problems.push(problem);
            None
        });
        let document = Document { path: &path, text: text.as_deref().unwrap_or_default() };
        let parsed = document.parse();
        let is_known = reader.problems.is_empty() && parsed.is_ok();
        let config = match &parsed {
            Ok(table) => Self::read(&mut reader, &Section::root(document, Some(table), NAMES)),
            Err(problem) => {
                reader.problems.push(problem.clone());
                Self::read(&mut reader, &Section::root(document, None, NAMES))
            }
        };
        let mut problems = reader.problems;
        problems.dedup();
        let hold = problems.iter().find(|problem| problem.holds).cloned();
        let mut config = Self { hold, ..config };
        // They can be read later, and what the file says about them may not be known.
        config.transcripts.enabled &= config.hold.is_none();
        if !is_known {
            config.retention = RetentionPolicy::default(); // what it says may keep more
        }
        (config, problems)
    }

    fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Self {
        let mut unknown = root.unknown();
        let receivers = Receivers::read(reader, root);
        let mut slips = |name: &str| {
            let index = unknown.iter().position(|unknown| unknown.near == Some(name));
            index.map(|index| unknown.remove(index))
        };
        let (redact, transcripts) = (slips("redact"), slips("transcripts"));
        let retention = slips("retention");
        let (redact, redactor) = redaction::read(reader, root, redact);
        let transcripts = Transcripts::read(reader, root, transcripts);
        let spool = SpoolLimits::read(reader, root);
        let logs = LogLimits::read(reader, root);
        let retention = retention::read(reader, root, retention);

        let mut flag = |name, variables, otherwise: (bool, Otherwise<bool>)| {
            reader.setting(root, &mut unknown, name, variables, &Flag, otherwise)
        };
        let enabled = flag("enabled", environment::ENABLED, (true, Otherwise::Hold(true)));
        let debug = flag("debug", environment::DEBUG, (false, Otherwise::Default));
        let dashboard = flag("dashboard", environment::DASHBOARD, (true, Otherwise::Default));
        let mut number = |name, variables, range, default| {
            let default = (default, Otherwise::Default);
            reader.setting(root, &mut unknown, name, variables, &Number(range), default)
        };
        let longest = DELIVERY_TIME_MAX.as_secs() * 1000;
        let timeout = number("timeout_ms", environment::TIMEOUT, 1..=longest, 10_000);
        let attempts = number("retry_attempts", environment::RETRY_ATTEMPTS, 1..=10, 3);
        let delay = number("retry_delay_ms", environment::RETRY_DELAY, 0..=longest, 1000);
        let default = (Delivery::Spool, Otherwise::Default);
        let delivery = reader.setting(root, &mut unknown, "delivery", &[], &DeliveryKind, default);
        let default = (SocketAddr::from(([127, 0, 0, 1], 3000)), Otherwise::Default);
        let listen =
            reader.setting(root, &mut unknown, "listen", environment::LISTEN, &Address, default);
        let read = |text: &str| text.parse().ok();
        let trusted_proxies =
            reader.list(root, "trusted_proxies", TRUSTED_PROXIES_MAX, "an IP address", read);
        reader.tell(unknown);
        Self {
            receivers,
            hold: None,
            enabled,
            debug,
            delivery,
            timeout: Duration::from_millis(timeout),
            retry_attempts: u32::try_from(attempts).unwrap_or(1),
            retry_delay: Duration::from_millis(delay),
            listen,
            trusted_proxies,
            dashboard,
            redact,
            redactor,
            transcripts,
            spool,
            logs,
            retention,
        }
    }
}

impl Transcripts {
    /// Reads `[transcripts]`. Where that is no table, or `slip` is nearly its name, none of its settings can
    /// be read.
    fn read(reader: &mut Reader<'_>, root: &Section<'_>, slip: Option<Unknown>) -> Self {
        let mut broken = slip.map(|Unknown { place, wrong, .. }| (place, wrong));
        let section = root.section("transcripts", "transcripts.", TRANSCRIPTS_NAMES);
        let section = section.unwrap_or_else(|place| {
            broken = Some((place, "transcripts must be a table".to_owned()));
            root.empty("transcripts.", TRANSCRIPTS_NAMES)
        });
        let mut unknown = section.unknown();
        if let Some((place, wrong)) = broken {
            unknown.extend(["enabled", "thinking"].map(|name| Unknown {
                place: place.clone(),
                wrong: wrong.clone(),
                near: Some(name),
            }));
        }
        let mut flag = |name, variables| {
            let default = (true, Otherwise::Strict(false));
            reader.setting(&section, &mut unknown, name, variables, &Flag, default)
        };
        let enabled = flag("enabled", environment::TRANSCRIPTS);
        let thinking = flag("thinking", environment::THINKING);
        reader.tell(unknown);
        let must_be = format!("an absolute path of at most {PATH_MAX_BYTES} bytes");
        let folders = reader.list(&section, "folders", TRANSCRIPT_FOLDERS_MAX, &must_be, |text| {
            let path = Path::new(text);
            let is_path = path.is_absolute() && text.len() <= PATH_MAX_BYTES;
            is_path.then(|| path.to_owned())
        });
        Self { enabled, thinking, folders }
    }
}

impl SpoolLimits {
    fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Self {
        let section = reader.section(root, "spool", "spool.", SPOOL_NAMES);
        let mut unknown = section.unknown();
        let mut number = |name, default| {
            let default = (default, Otherwise::Default);
            reader.setting(&section, &mut unknown, name, &[], &Number(1..=LARGEST), default)
        };
        let max_files = number("max_files", SPOOL_MAX_FILES);
        let max_bytes = number("max_bytes", SPOOL_MAX_BYTES);
        reader.tell(unknown);
        Self { max_files, max_bytes }
    }
}

impl LogLimits {
    fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Self {
        let section = reader.section(root, "logs", "logs.", LOGS_NAMES);
        let mut unknown = section.unknown();
        let mut number = |name, range, default| {
            let default = (default, Otherwise::Default);
            reader.setting(&section, &mut unknown, name, &[], &Number(range), default)
        };
        let default = Self::default();
        let max_bytes = number("max_bytes", 1..=LARGEST, default.max_bytes);
        let keep = number("keep", 0..=LOG_FILES_MAX, default.keep as u64);
        reader.tell(unknown);
        Self { max_bytes, keep: usize::try_from(keep).unwrap_or(default.keep) }
    }
}

/// The largest number that TOML can hold.
const LARGEST: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests;
