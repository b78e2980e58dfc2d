//! Registers the hook in Claude Code's settings, and takes it out again.
//!
//! The client merges the hooks of three files: the user's, the project's and the project's local one.
//! A hook in two of them would see each event twice, so it is registered in one only.

mod document;
pub mod edit;
mod file;
mod obstacle;

pub use document::EditError;
pub use obstacle::{Obstacle, obstacles};

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use arrakis_core::base::clock::Timestamp;
use serde::Serialize;

use arrakis_core::base::error::error_chain;
use edit::Edit;
use file::{ReplaceError, Snapshot};

/// How often an edit is made anew because somebody else wrote the file meanwhile.
const MAX_TRIES: u32 = 3;

/// Where the client looks for the settings of an organisation, on Linux and on macOS.
const MANAGED: [&str; 2] = [
    "/etc/claude-code/managed-settings.json",
    "/Library/Application Support/ClaudeCode/managed-settings.json",
];

/// Which of the client's settings files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// `~/.claude/settings.json`: every session of this user.
    User,
    /// `.claude/settings.json`: every session in this project.
    Project,
    /// `.claude/settings.local.json`: this user's sessions in this project.
    Local,
}

/// Where the client looks for settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsFiles {
    user: PathBuf,
    project: PathBuf,
    local: PathBuf,
    managed: Vec<PathBuf>,
}

impl SettingsFiles {
    /// The files of a user with this home directory, in this working directory. `config_dir` is
    /// the value of `CLAUDE_CONFIG_DIR`; empty is as good as none.
    #[must_use]
    pub fn new(home: &Path, config_dir: Option<&OsStr>, cwd: &Path) -> Self {
        let user = match config_dir.filter(|dir| !dir.is_empty()) {
            Some(dir) => cwd.join(dir),
            None => home.join(".claude"),
        };
        let project = cwd.join(".claude");
        Self {
            user: user.join("settings.json"),
            local: project.join("settings.local.json"),
            project: project.join("settings.json"),
            managed: MANAGED.map(PathBuf::from).to_vec(),
        }
    }

    /// The same files, with another one of the organisation.
    #[must_use]
    pub fn with_managed(self, managed: PathBuf) -> Self {
        Self { managed: vec![managed], ..self }
    }

    /// The files of the organisation, which outweigh all others.
    #[must_use]
    pub fn managed(&self) -> &[PathBuf] {
        &self.managed
    }

    /// The file of a scope.
    #[must_use]
    pub fn path(&self, scope: Scope) -> &Path {
        match scope {
            Scope::User => &self.user,
            Scope::Project => &self.project,
            Scope::Local => &self.local,
        }
    }
}

/// What an edit of a settings file did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which file.
    pub scope: Scope,
    /// Its path.
    pub file: PathBuf,
    /// Whether there is anything to change.
    pub changed: bool,
    /// The events that got a registration.
    pub added: Vec<String>,
    /// The events whose registration was brought up to date.
    pub updated: Vec<String>,
    /// The events that lost their registration.
    pub removed: Vec<String>,
    /// The copy of the file as it was; none where nothing changed or there was no file.
    pub backup: Option<PathBuf>,
    /// What the user should know besides.
    pub warnings: Vec<String>,
}

/// The hook could not be registered or removed. The settings are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A settings file could not be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A settings file could not be written.
    #[error("{} cannot be written; it is as it was", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A settings file cannot be edited safely.
    #[error("{} was left as it is; correct it and try again", path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EditError,
    },
    /// Another file registers the hook.
    #[error(
        "{} registers {command} already, so each event would be captured twice; \
         keep that one, or remove it first with `{remedy}`", path.display()
    )]
    RegisteredElsewhere {
        /// That file.
        path: PathBuf,
        /// The command that it registers.
        command: String,
        /// What removes it.
        remedy: &'static str,
    },
    /// Somebody else keeps writing the file.
    #[error("{} is being changed by another program; try again", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
}

/// Registers `command`, the absolute path of the hook, in the file of `scope`.
///
/// # Errors
///
/// Another scope registers a hook already, or the file cannot be read, edited or written.
pub fn register(
    files: &SettingsFiles,
    scope: Scope,
    command: &str,
    now: Timestamp,
    dry_run: bool,
) -> Result<Report, SettingsError> {
    let mut warnings = Vec::new();
    let own = read(files.path(scope))?;
    for other in [Scope::User, Scope::Project, Scope::Local] {
        let path = files.path(other);
        // In the home directory, the project's file is the user's.
        if path == files.path(scope) || is_same_file(path, own.target()) {
            continue;
        }
        match registered_commands(path) {
            Ok(commands) => {
                if let Some(command) = commands.into_iter().next() {
                    let remedy = match other {
                        Scope::User => "arrakis uninstall",
                        Scope::Project | Scope::Local => "arrakis uninstall --project",
                    };
                    let path = path.to_owned();
                    return Err(SettingsError::RegisteredElsewhere { path, command, remedy });
                }
            }
            Err(error) => warnings.push(format!(
                "{} could not be searched for another registration: {}",
                path.display(),
                error_chain(&error)
            )),
        }
    }
    let mut report = change(files, scope, now, dry_run, |own| edit::register(own.text(), command))?;
    report.warnings.splice(0..0, warnings);
    Ok(report)
}

/// Removes every registration of the hook from the file of `scope`.
///
/// # Errors
///
/// The file cannot be read, edited or written.
pub fn unregister(
    files: &SettingsFiles,
    scope: Scope,
    now: Timestamp,
    dry_run: bool,
) -> Result<Report, SettingsError> {
    change(files, scope, now, dry_run, |own| {
        edit::unregister(own.text(), text_before(own).as_deref())
    })
}

/// Where the hook is registered, and by which command. Files that cannot be read count as none.
#[must_use]
pub fn registrations(files: &SettingsFiles) -> Vec<(PathBuf, String)> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    for scope in [Scope::User, Scope::Project, Scope::Local] {
        let path = files.path(scope);
        if found.iter().any(|(known, _)| is_same_file(path, known)) {
            continue;
        }
        let commands = registered_commands(path).unwrap_or_default();
        found.extend(commands.into_iter().map(|command| (path.to_owned(), command)));
    }
    found
}

fn change(
    files: &SettingsFiles,
    scope: Scope,
    now: Timestamp,
    dry_run: bool,
    edit: impl Fn(&Snapshot) -> Result<Edit, EditError>,
) -> Result<Report, SettingsError> {
    let path = files.path(scope);
    for _ in 0..MAX_TRIES {
        let own = read(path)?;
        let edited =
            edit(&own).map_err(|source| SettingsError::Edit { path: path.to_owned(), source })?;
        let changed = edited.is_change();
        let backup = if changed && !dry_run {
            match own.replace(&edited.text, now) {
                Ok(backup) => backup,
                Err(ReplaceError::Changed) => continue,
                Err(ReplaceError::Io(source)) => {
                    return Err(SettingsError::Write { path: path.to_owned(), source });
                }
            }
        } else {
            None
        };
        let disabled = own.exists() && edit::is_true(own.text(), "disableAllHooks");
        let warnings = disabled
            .then(|| "\"disableAllHooks\" is true in this file: no hook runs".to_owned())
            .into_iter()
            .collect();
        return Ok(Report {
            scope,
            file: path.to_owned(),
            changed,
            added: edited.added,
            updated: edited.updated,
            removed: edited.removed,
            backup,
            warnings,
        });
    }
    Err(SettingsError::Busy { path: path.to_owned() })
}

/// What the file said before it was registered in first: its newest backup without a registration.
fn text_before(own: &Snapshot) -> Option<String> {
    own.backups().iter().find_map(|backup| {
        let text = file::read_text(backup).ok()??;
        edit::registrations(&text).is_ok_and(|found| found.is_empty()).then_some(text)
    })
}

fn registered_commands(path: &Path) -> Result<Vec<String>, SettingsError> {
    edit::registrations(read(path)?.text())
        .map_err(|source| SettingsError::Edit { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Snapshot, SettingsError> {
    Snapshot::read(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
