//! What keeps a registration from working, though it is there.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Scope, SettingsFiles, edit, file, is_same_file};

/// Something in settings because of which the client does not run the hook, or not where it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A file switches off all hooks.
    Disabled(PathBuf),
    /// The organisation allows only hooks of its own settings.
    ManagedOnly(PathBuf),
    /// The hook is not registered for some events.
    Missing(PathBuf, Vec<&'static str>),
    /// The registered program is not there.
    Gone(PathBuf),
    /// The hook runs with another home.
    OtherHome(PathBuf, PathBuf),
}

impl Obstacle {
    /// Whether no event is captured at all, or none where it is looked for.
    #[must_use]
    pub fn is_total(&self) -> bool {
        !matches!(self, Self::Missing(..))
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Disabled(_) => "remove \"disableAllHooks\" there, or set it to false",
            Self::ManagedOnly(_) => {
                "ask whoever manages this machine to register the hook in the managed settings"
            }
            Self::Missing(..) | Self::Gone(_) => "run `arrakis install`",
            Self::OtherHome(..) => "run this command with that home, or correct ARRAKIS_HOME there",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled(path) => {
                write!(f, "\"disableAllHooks\" is true in {}: no hook runs", path.display())
            }
            Self::ManagedOnly(path) => write!(
                f,
                "\"allowManagedHooksOnly\" is true in {}: hooks of your own settings do not run",
                path.display()
            ),
            Self::Missing(path, events) => write!(
                f,
                "{} does not register the hook for {} of {} events: {}",
                path.display(),
                events.len(),
                edit::registered_events().count(),
                events.join(", ")
            ),
            Self::Gone(path) => write!(f, "the registered hook {} is not there", path.display()),
            Self::OtherHome(path, home) => {
                write!(f, "{} has the hook run with the home {}", path.display(), home.display())
            }
        }
    }
}

/// What keeps the registration in these files from working for this home. Files that cannot be read count as none.
#[must_use]
pub fn obstacles(files: &SettingsFiles, home: &Path) -> Vec<Obstacle> {
    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    let own = [Scope::Local, Scope::Project, Scope::User].map(|scope| files.path(scope));
    for path in files.managed().iter().map(PathBuf::as_path).chain(own) {
        if let Ok(Some(text)) = file::read_text(path)
            && !texts.iter().any(|(known, _)| is_same_file(known, path))
        {
            texts.push((path.to_owned(), text));
        }
    }
    let mut found = Vec::new();
    for (path, text) in &texts {
        if edit::is_true(text, "disableAllHooks") {
            found.push(Obstacle::Disabled(path.clone()));
        }
        let is_managed = files.managed().contains(path);
        let registers = |text: &str| edit::registrations(text).is_ok_and(|all| !all.is_empty());
        if is_managed && edit::is_true(text, "allowManagedHooksOnly") && !registers(text) {
            found.push(Obstacle::ManagedOnly(path.clone()));
        }
        let missing = edit::missing_events(text).unwrap_or_default();
        if registers(text) && !missing.is_empty() {
            found.push(Obstacle::Missing(path.clone(), missing));
        }
        let commands = edit::registrations(text).unwrap_or_default().into_iter().map(PathBuf::from);
        found.extend(commands.filter(|command| is_gone(command)).map(Obstacle::Gone));
    }
    // The first file that says something of it wins.
    let other = texts.iter().find_map(|(path, text)| Some((path, edit::home(text)?)));
    if let Some((path, other)) = other
        && !is_same_file(&other, home)
        && other != home
    {
        found.push(Obstacle::OtherHome(path.clone(), other));
    }
    found
}

/// Whether a registered command is the path of nothing. What only a shell can read is not judged.
fn is_gone(command: &Path) -> bool {
    let is_plain = !command.to_string_lossy().contains([' ', '"', '\'', '$']);
    command.is_absolute() && is_plain && !command.exists()
}
