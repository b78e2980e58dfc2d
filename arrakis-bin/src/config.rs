//! The configuration: what the environment says, else what `config.toml` says, else the default.
//!
//! Reading it never fails. What cannot be understood is left out and told as a [`ConfigProblem`]: a
//! hook with a broken configuration still captures.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrakis_core::envelope::Source;
use arrakis_core::limits::{SPOOL_MAX_BYTES, SPOOL_MAX_FILES, URL_MAX_BYTES};
use arrakis_core::redact::RedactConfig;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

/// Where events go unless something else is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:3000/api/claude-hooks";

/// Largest `config.toml` that is read: 1 MiB. Real ones have a few hundred bytes.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Looks a variable of the environment up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The settings of one home.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where events go: the URL without credentials. `ARRAKIS_URL`, `CLAUDE_HOOK_API_URL`.
    pub url: String,
    /// Whether somebody chose that URL.
    pub url_is_set: bool,
    /// The ingest key for [`url`](Self::url). `ARRAKIS_API_KEY`, `CLAUDE_HOOK_API_KEY`.
    pub api_key: Option<SecretString>,
    /// Keys for other URLs, to which events were captured before the URL changed.
    pub destinations: BTreeMap<String, Destination>,
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
    /// What is taken out of payloads.
    pub redact: RedactConfig,
    /// What is read of transcripts.
    pub transcripts: Transcripts,
    /// The limits of the spool.
    pub spool: SpoolLimits,
    /// The limits of the log files.
    pub logs: LogLimits,
}

/// What is known about a destination beside the configured one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The ingest key.
    pub api_key: SecretString,
}

/// How the hook hands events on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// It spools and returns; a drainer delivers.
    Spool,
    /// It spools, then waits for one round of delivery.
    Direct,
}

/// What is read of transcripts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transcripts {
    /// Whether they are read after the events that name them. `ARRAKIS_TRANSCRIPTS`.
    pub enabled: bool,
    /// Whether the model's thinking is sent. `ARRAKIS_TRANSCRIPTS_THINKING`.
    pub thinking: bool,
    /// Folders beside Claude Code's own in which they may lie.
    pub folders: Vec<PathBuf>,
}

impl Default for Transcripts {
    fn default() -> Self {
        Self { enabled: true, thinking: true, folders: Vec::new() }
    }
}

/// The limits of the spool, past which new events are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolLimits {
    /// Most events.
    pub max_files: u64,
    /// Most bytes.
    pub max_bytes: u64,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { max_files: SPOOL_MAX_FILES, max_bytes: SPOOL_MAX_BYTES }
    }
}

/// When log files are rotated, and how many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

/// Something in the configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigProblem(pub String);

/// `config.toml`, every part of it optional.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    url: Option<String>,
    api_key: Option<SecretString>,
    destinations: BTreeMap<String, Destination>,
    enabled: Option<bool>,
    debug: Option<bool>,
    delivery: Option<Delivery>,
    timeout_ms: Option<u64>,
    retry_attempts: Option<u32>,
    retry_delay_ms: Option<u64>,
    listen: Option<SocketAddr>,
    trusted_proxies: Vec<IpAddr>,
    redact: RedactConfig,
    transcripts: Transcripts,
    spool: SpoolLimits,
    logs: LogLimits,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

impl Config {
    /// Reads the configuration of `home`.
    #[must_use]
    pub fn load(home: &Path, env: Env<'_>) -> (Self, Vec<ConfigProblem>) {
        let mut problems = Vec::new();
        let file = File::read(&home.join("config.toml"), &mut problems);
        let mut read = Environment { env, problems: &mut problems };

        let chosen = read.text(&["ARRAKIS_URL", "CLAUDE_HOOK_API_URL"]).or(file.url);
        let url = chosen.and_then(|url| read.url(&url));
        let config = Self {
            url_is_set: url.is_some(),
            url: url.unwrap_or_else(|| DEFAULT_URL.to_owned()),
            api_key: read
                .text(&["ARRAKIS_API_KEY", "CLAUDE_HOOK_API_KEY"])
                .map(SecretString::from)
                .or(file.api_key),
            destinations: file.destinations,
            enabled: read
                .flag(&["ARRAKIS_ENABLED", "CLAUDE_HOOK_ENABLED"])
                .or(file.enabled)
                .unwrap_or(true),
            debug: read
                .flag(&["ARRAKIS_DEBUG", "CLAUDE_HOOK_DEBUG"])
                .or(file.debug)
                .unwrap_or(false),
            delivery: file.delivery.unwrap_or(Delivery::Spool),
            timeout: read
                .millis(&["ARRAKIS_TIMEOUT", "CLAUDE_HOOK_TIMEOUT"], file.timeout_ms)
                .unwrap_or(Duration::from_secs(10)),
            retry_attempts: read
                .number(&["ARRAKIS_RETRY_ATTEMPTS", "CLAUDE_HOOK_RETRY_ATTEMPTS"])
                .or(file.retry_attempts)
                .unwrap_or(3)
                .clamp(1, 10),
            retry_delay: read
                .millis(&["ARRAKIS_RETRY_DELAY", "CLAUDE_HOOK_RETRY_DELAY"], file.retry_delay_ms)
                .unwrap_or(Duration::from_secs(1)),
            listen: read
                .number(&["ARRAKIS_LISTEN"])
                .or(file.listen)
                .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 3000))),
            trusted_proxies: file.trusted_proxies,
            redact: file.redact,
            transcripts: Transcripts {
                enabled: read.flag(&["ARRAKIS_TRANSCRIPTS"]).unwrap_or(file.transcripts.enabled),
                thinking: read
                    .flag(&["ARRAKIS_TRANSCRIPTS_THINKING"])
                    .unwrap_or(file.transcripts.thinking),
                folders: file.transcripts.folders,
            },
            spool: file.spool,
            logs: file.logs,
        };
        (config, problems)
    }
}

impl File {
    fn read(path: &Path, problems: &mut Vec<ConfigProblem>) -> Self {
        let mut problem = |what: String| {
            problems.push(ConfigProblem(format!("{}: {what}; defaults are used", path.display())));
            Self::default()
        };
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => return problem(error.to_string()),
        };
        match toml::from_str::<Self>(&text) {
            Ok(mut file) => {
                let unknown = std::mem::take(&mut file.unknown);
                problems.extend(unknown.into_keys().map(|key| {
                    ConfigProblem(format!("{}: {key:?} is not a setting", path.display()))
                }));
                file
            }
            // Only what is wrong and where: the source line may hold a key.
            Err(error) => {
                let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
                problem(format!("line {line}: {}", error.message()))
            }
        }
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

/// Reads the environment, keeping account of what cannot be used.
struct Environment<'a> {
    env: Env<'a>,
    problems: &'a mut Vec<ConfigProblem>,
}

impl Environment<'_> {
    /// The first of these variables that is set and not empty.
    fn text(&mut self, names: &[&str]) -> Option<String> {
        let value = |name| (self.env)(name).filter(|value| !value.is_empty());
        let (name, value) = names.iter().find_map(|&name| Some((name, value(name)?)))?;
        let text = value.into_string().ok();
        if text.is_none() {
            self.problems.push(ConfigProblem(format!("{name} is not UTF-8")));
        }
        text
    }

    fn number<T: std::str::FromStr>(&mut self, names: &[&str]) -> Option<T> {
        let text = self.text(names)?;
        let number = text.trim().parse().ok();
        if number.is_none() {
            self.problems
                .push(ConfigProblem(format!("{}={text:?} cannot be used", names.join("/"))));
        }
        number
    }

    fn millis(&mut self, names: &[&str], file: Option<u64>) -> Option<Duration> {
        self.number(names).or(file).map(Duration::from_millis)
    }

    fn flag(&mut self, names: &[&str]) -> Option<bool> {
        let text = self.text(names)?;
        match text.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => {
                let problem = format!("{}={text:?} is neither true nor false", names.join("/"));
                self.problems.push(ConfigProblem(problem));
                None
            }
        }
    }

    /// A URL that may be written into every event: HTTP, and without credentials.
    fn url(&mut self, text: &str) -> Option<String> {
        match Url::parse(text.trim()) {
            Ok(mut url) if matches!(url.scheme(), "http" | "https") => {
                // Both only fail for URLs that cannot have credentials.
                url.set_username("").ok();
                url.set_password(None).ok();
                url.set_fragment(None);
                if url.as_str().len() <= URL_MAX_BYTES {
                    return Some(url.to_string());
                }
                let problem =
                    format!("the URL has more than {URL_MAX_BYTES} bytes; the default is used");
                self.problems.push(ConfigProblem(problem));
            }
            _ => {
                let problem = "the URL is not an http or https one; the default is used";
                self.problems.push(ConfigProblem(problem.to_owned()));
            }
        }
        None
    }
}

/// The home: `ARRAKIS_HOME`, else `.arrakis` in the user's own.
#[must_use]
pub fn home(env: Env<'_>) -> PathBuf {
    let chosen = env("ARRAKIS_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = chosen.unwrap_or_else(|| {
        let own = env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        own.or_else(std::env::home_dir).unwrap_or_else(std::env::temp_dir).join(".arrakis")
    });
    std::path::absolute(&home).unwrap_or(home)
}

/// Where events go when the home cannot be written: `ARRAKIS_FALLBACK_HOME`, else a directory of this
/// user's below the system's temporary one.
#[must_use]
pub fn fallback_home(env: Env<'_>) -> PathBuf {
    let chosen = env("ARRAKIS_FALLBACK_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = chosen
        .unwrap_or_else(|| std::env::temp_dir().join(format!("arrakis-{}", nix::unistd::getuid())));
    std::path::absolute(&home).unwrap_or(home)
}

/// Claude Code's folder, below which it keeps transcripts: `CLAUDE_CONFIG_DIR`, else `.claude` in the
/// user's home. `None` where neither is known.
#[must_use]
pub fn claude_folder(env: Env<'_>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = || set("HOME").or_else(std::env::home_dir).map(|home| home.join(".claude"));
    let folder = set("CLAUDE_CONFIG_DIR").or_else(own)?;
    Some(std::path::absolute(&folder).unwrap_or(folder))
}

/// Where Claude Code keeps transcripts.
#[must_use]
pub fn projects_folder(env: Env<'_>) -> Option<PathBuf> {
    claude_folder(env).map(|folder| folder.join("projects"))
}

/// The machine and the user that events come from. Only these variables are read: the environment holds
/// keys.
#[must_use]
pub fn machine(env: Env<'_>) -> Source {
    let host = nix::unistd::gethostname().ok();
    Source {
        host: host.map(|host| host.to_string_lossy().into_owned()),
        user: env_text(env, "USER").or_else(|| env_text(env, "LOGNAME")),
        os: Some(std::env::consts::OS.to_owned()),
        ..Source::default()
    }
}

/// The process's own environment.
#[must_use]
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The value of a variable, if it is text and not empty.
#[must_use]
pub fn env_text(env: Env<'_>, name: &str) -> Option<String> {
    env(name)?.into_string().ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn load(file: &str, env: &[(&str, &str)]) -> (Config, Vec<ConfigProblem>) {
        let home = tempfile::TempDir::new().unwrap();
        std::fs::write(home.path().join("config.toml"), file).unwrap();
        let env =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Config::load(home.path(), &env)
    }

    #[test]
    fn the_environment_comes_before_the_file_and_the_file_before_the_default() {
        let file = "url = \"http://file/\"\ntimeout_ms = 5\n[logs]\nkeep = 2\n";
        let env =
            [("CLAUDE_HOOK_API_URL", "http://user:secret@original/x"), ("ARRAKIS_DEBUG", "1")];
        let (config, problems) = load(file, &env);
        assert_eq!(problems, []);
        assert_eq!(config.url, "http://original/x", "and credentials are taken out");
        assert!(config.debug && config.url_is_set);
        assert_eq!(config.timeout, Duration::from_millis(5));
        assert_eq!((config.logs.keep, config.logs.max_bytes), (2, 10_000_000));
        let (config, _) = load("", &[]);
        assert_eq!(config.url, DEFAULT_URL);
        assert!(!config.url_is_set && config.enabled);
    }

    #[test]
    fn a_broken_file_gives_defaults_and_says_where_without_quoting_it() {
        let (config, problems) = load("debug = true\napi_key = sk-hidden\n", &[]);
        assert_eq!(config.url, DEFAULT_URL);
        assert_eq!(problems.len(), 1);
        let text = problems[0].to_string();
        assert!(text.contains("line 2") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn what_cannot_be_used_is_told_and_left_out() {
        let env = [("CLAUDE_HOOK_TIMEOUT", "soon"), ("CLAUDE_HOOK_ENABLED", "perhaps")];
        let (config, problems) = load("tiemout = 3\nurl = \"ftp://x\"", &env);
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(config.enabled);
        assert_eq!(config.timeout, Duration::from_secs(10));
    }

    #[test]
    fn a_file_that_is_none_or_has_no_end_is_told_and_not_read() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("config.toml");
        let problem = || {
            let (config, problems) = Config::load(home.path(), &|_| None);
            assert_eq!(config.url, DEFAULT_URL);
            problems[0].to_string()
        };
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(problem().contains("not a regular file"));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, " ".repeat(2 << 20)).unwrap();
        assert!(problem().contains("more than 1 MiB"));
    }

    #[test]
    fn transcripts_are_read_unless_something_else_is_said() {
        let (config, _) = load("", &[]);
        assert_eq!(config.transcripts, Transcripts::default());
        assert!(config.transcripts.enabled && config.transcripts.thinking);
        let file = "[transcripts]\nenabled = false\nfolders = [\"/shared\"]\n";
        let env = [("ARRAKIS_TRANSCRIPTS", "on"), ("ARRAKIS_TRANSCRIPTS_THINKING", "off")];
        let (config, problems) = load(file, &env);
        assert_eq!(problems, []);
        assert!(config.transcripts.enabled && !config.transcripts.thinking);
        assert_eq!(config.transcripts.folders, [PathBuf::from("/shared")]);
    }

    #[test]
    fn claude_s_folder_is_the_one_that_it_is_told() {
        let env = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, v)| v.into())
        };
        let folder = |set| claude_folder(&env(set)).unwrap();
        assert_eq!(folder(&[("HOME", "/h")]), PathBuf::from("/h/.claude"));
        assert_eq!(folder(&[("HOME", "/h"), ("CLAUDE_CONFIG_DIR", "/c")]), PathBuf::from("/c"));
    }

    #[test]
    fn a_home_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let named = OsString::from_vec(b"/h\xff".to_vec());
        let env = |name: &str| (name == "ARRAKIS_HOME").then(|| named.clone());
        assert_eq!(home(&env), PathBuf::from(&named));
    }

    #[test]
    fn keys_do_not_show() {
        let file =
            "api_key = \"ark_hidden\"\n[destinations.\"http://b/\"]\napi_key = \"ark_hidden\"\n";
        let (config, problems) = load(file, &[]);
        assert_eq!(problems, []);
        assert_eq!(config.api_key.as_ref().unwrap().expose_secret(), "ark_hidden");
        assert!(!format!("{config:?}").contains("hidden"));
    }
}
