//! What is read from the environment, by name: settings, and the places of the home and of Claude Code.

use std::ffi::OsString;
use std::path::PathBuf;

use arrakis_core::base::envelope::Source;

/// Looks a variable of the environment up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

// The variables of each setting. The first one that is set and not empty counts.
pub(super) const ENABLED: &[&str] = &["ARRAKIS_ENABLED", "CLAUDE_HOOK_ENABLED"];
pub(super) const DEBUG: &[&str] = &["ARRAKIS_DEBUG", "CLAUDE_HOOK_DEBUG"];
pub(super) const TIMEOUT: &[&str] = &["ARRAKIS_TIMEOUT", "CLAUDE_HOOK_TIMEOUT"];
pub(super) const RETRY_ATTEMPTS: &[&str] =
    &["ARRAKIS_RETRY_ATTEMPTS", "CLAUDE_HOOK_RETRY_ATTEMPTS"];
pub(super) const RETRY_DELAY: &[&str] = &["ARRAKIS_RETRY_DELAY", "CLAUDE_HOOK_RETRY_DELAY"];
pub(super) const LISTEN: &[&str] = &["ARRAKIS_LISTEN"];
pub(super) const DASHBOARD: &[&str] = &["ARRAKIS_DASHBOARD"];
pub(super) const TRANSCRIPTS: &[&str] = &["ARRAKIS_TRANSCRIPTS"];
pub(super) const THINKING: &[&str] = &["ARRAKIS_TRANSCRIPTS_THINKING"];

/// A URL and the key for it, by the names of their variables.
pub(super) const RECEIVERS: [[&str; 2]; 2] =
    [["ARRAKIS_URL", "ARRAKIS_API_KEY"], ["CLAUDE_HOOK_API_URL", "CLAUDE_HOOK_API_KEY"]];

/// The variables that hold ingest keys. A server takes them as keys that it accepts.
pub const KEY_VARIABLES: [&str; 2] = [RECEIVERS[0][1], RECEIVERS[1][1]];

const HOME: &str = "HOME";
const ARRAKIS_HOME: &str = "ARRAKIS_HOME";
const FALLBACK_HOME: &str = "ARRAKIS_FALLBACK_HOME";
const CLAUDE_CONFIG_DIR: &str = "CLAUDE_CONFIG_DIR";
const USER: [&str; 2] = ["USER", "LOGNAME"];

/// The program that drains.
const ARRAKIS_BIN: &str = "ARRAKIS_BIN";

/// What the standard library and the HTTP client read by themselves: where programs and temporary files
/// are, proxies in both spellings, and the certificates that are trusted.
const READ_BY_OTHERS: [&str; 12] = [
    "PATH",
    "TMPDIR",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Every variable that a drainer reads. It outlives the session that started it, and the environment of a
/// session holds keys of others, so it inherits these alone.
pub fn drainer_variables() -> impl Iterator<Item = &'static str> {
    let settings = [
        ENABLED,
        DEBUG,
        TIMEOUT,
        RETRY_ATTEMPTS,
        RETRY_DELAY,
        LISTEN,
        DASHBOARD,
        TRANSCRIPTS,
        THINKING,
        &USER,
        &READ_BY_OTHERS,
        &[HOME, ARRAKIS_HOME, FALLBACK_HOME, CLAUDE_CONFIG_DIR, ARRAKIS_BIN],
    ];
    settings.into_iter().flatten().copied().chain(RECEIVERS.into_iter().flatten())
}

/// The home: `ARRAKIS_HOME`, else `.arrakis` in the user's own.
#[must_use]
pub fn home(env: Env<'_>) -> PathBuf {
    let home = path(env, ARRAKIS_HOME).unwrap_or_else(|| {
        let own = path(env, HOME).or_else(std::env::home_dir);
        own.unwrap_or_else(std::env::temp_dir).join(".arrakis")
    });
    std::path::absolute(&home).unwrap_or(home)
}

/// Where events go when the home cannot be written: `ARRAKIS_FALLBACK_HOME`, else a directory of this
/// user's below the system's temporary one.
#[must_use]
pub fn fallback_home(env: Env<'_>) -> PathBuf {
    let home = path(env, FALLBACK_HOME)
        .unwrap_or_else(|| std::env::temp_dir().join(format!("arrakis-{}", nix::unistd::getuid())));
    std::path::absolute(&home).unwrap_or(home)
}

/// Claude Code's folder, below which it keeps transcripts: `CLAUDE_CONFIG_DIR`, else `.claude` in the
/// user's home. `None` where neither is known.
#[must_use]
pub fn claude_folder(env: Env<'_>) -> Option<PathBuf> {
    let own = || path(env, HOME).or_else(std::env::home_dir).map(|home| home.join(".claude"));
    let folder = path(env, CLAUDE_CONFIG_DIR).or_else(own)?;
    Some(std::path::absolute(&folder).unwrap_or(folder))
}

/// Where Claude Code keeps transcripts.
#[must_use]
pub fn projects_folder(env: Env<'_>) -> Option<PathBuf> {
    claude_folder(env).map(|folder| folder.join("projects"))
}

/// The program that drains, where one is named: `ARRAKIS_BIN`.
#[must_use]
pub fn chosen_program(env: Env<'_>) -> Option<PathBuf> {
    path(env, ARRAKIS_BIN)
}

/// The machine and the user that events come from. Only these variables are read: the environment holds
/// keys.
#[must_use]
pub fn machine(env: Env<'_>) -> Source {
    let host = nix::unistd::gethostname().ok();
    Source {
        host: host.map(|host| host.to_string_lossy().into_owned()),
        user: USER.into_iter().find_map(|name| env_text(env, name)),
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

fn path(env: Env<'_>, name: &str) -> Option<PathBuf> {
    env(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

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
        let env = |name: &str| (name == ARRAKIS_HOME).then(|| named.clone());
        assert_eq!(home(&env), PathBuf::from(&named));
    }

    #[test]
    fn a_drainer_inherits_every_variable_that_is_read_here() {
        let read = RefCell::new(BTreeSet::new());
        let env = |name: &str| {
            read.borrow_mut().insert(name.to_owned());
            None
        };
        let _ = Config::load(&home(&env), &env);
        let _ = (fallback_home(&env), projects_folder(&env), machine(&env), chosen_program(&env));
        let inherited: BTreeSet<_> = drainer_variables().map(str::to_owned).collect();
        let missing: Vec<_> = read.borrow().difference(&inherited).cloned().collect();
        assert_eq!(missing, Vec::<String>::new());
    }
}
