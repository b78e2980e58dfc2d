//! What is wrong with a configuration, in words that name the place and never the value.

use std::fmt;
use std::path::PathBuf;

/// A setting that cannot be used, where it stands, and what happens instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {wrong}; {instead}")]
pub struct ConfigProblem {
    /// Where it stands.
    pub place: Place,
    /// Which setting it is and what is wrong with it. The value itself is not told: it may be a secret.
    pub wrong: String,
    /// What happens instead.
    pub instead: String,
    /// Whether nothing may leave this machine until it is corrected.
    pub holds: bool,
}

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1; `None` where the file as a whole is meant.
        line: Option<usize>,
    },
    /// In a variable of the environment.
    Variable(&'static str),
}

/// What happens instead where a problem holds delivery.
const HELD: &str = "delivery is held until it is corrected";

impl ConfigProblem {
    pub(super) fn new(place: Place, wrong: String, instead: impl Into<String>) -> Self {
        Self { place, wrong, instead: instead.into(), holds: false }
    }

    /// A problem that holds delivery.
    pub(super) fn holding(place: Place, wrong: String) -> Self {
        Self { place, wrong, instead: HELD.to_owned(), holds: true }
    }

    /// The place and what is wrong there.
    #[must_use]
    pub fn found(&self) -> String {
        format!("{}: {}", self.place, self.wrong)
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match &self.place {
            Place::File { path, .. } => format!("correct {}", path.display()),
            Place::Variable(name) => format!("correct or unset {name}"),
        }
    }

    /// Whether only another process can go without it: the environment of this one does not change.
    #[must_use]
    pub fn is_in_environment(&self) -> bool {
        matches!(self.place, Place::Variable(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}, line {line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}
