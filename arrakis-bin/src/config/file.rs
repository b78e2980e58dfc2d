//! `config.toml`: reading it whole, and then table by table and setting by setting.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use arrakis_core::base::limits::{CONFIG_FILE_MAX_BYTES, cut};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigProblem, Place};

/// The text of the file; `None` where there is none.
///
/// # Errors
///
/// There is one, and it cannot be read.
pub(super) fn read(path: &Path) -> Result<Option<String>, ConfigProblem> {
    match read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_none(&error) => Ok(None),
        Err(error) => {
            let place = Place::File { path: path.to_owned(), line: None };
            Err(ConfigProblem::holding(place, format!("the file cannot be read: {error}")))
        }
    }
}

/// Whether there is no such file. Where the home itself is a file there is none either.
fn is_none(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_text(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(CONFIG_FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_FILE_MAX_BYTES {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

/// The file's text, which tells the lines of what stands in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'t> {
    pub(super) path: &'t Path,
    pub(super) text: &'t str,
}

impl<'t> Document<'t> {
    /// The settings of the file.
    ///
    /// # Errors
    ///
    /// It is no TOML.
    pub(super) fn parse(self) -> Result<DeTable<'t>, ConfigProblem> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(table.into_inner()),
            // Only what is wrong and where: the source line may hold a key.
            Err(error) => {
                let place = self.place(error.span().unwrap_or_default());
                let wrong = format!("the file is not valid TOML: {}", error.message());
                Err(ConfigProblem::holding(place, wrong))
            }
        }
    }

    pub(super) fn place(self, span: Range<usize>) -> Place {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Place::File { path: self.path.to_owned(), line: Some(line) }
    }
}

/// A table of the file, or its root, with the names that it may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'t> {
    document: Document<'t>,
    /// What stands before the names of its settings: `redact.`, or nothing.
    prefix: &'static str,
    known: &'static [&'static str],
    table: Option<&'t DeTable<'t>>,
}

/// A name in a table that is no setting.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) place: Place,
    /// What is wrong, in words.
    pub(super) wrong: String,
    /// The setting that may be meant.
    pub(super) near: Option<&'static str>,
}

impl<'t> Section<'t> {
    /// The root of a file. `None` where there is no file.
    pub(super) fn root(
        document: Document<'t>,
        table: Option<&'t DeTable<'t>>,
        known: &'static [&'static str],
    ) -> Self {
        Self { document, prefix: "", known, table }
    }

    /// The table `name` of this one, which has these names.
    ///
    /// # Errors
    ///
    /// It is none: where it stands.
    pub(super) fn section(
        &self,
        name: &'static str,
        prefix: &'static str,
        known: &'static [&'static str],
    ) -> Result<Self, Place> {
        let Some(value) = self.get(name) else { return Ok(self.empty(prefix, known)) };
        match value.get_ref().as_table() {
            Some(table) => Ok(Self { prefix, known, table: Some(table), ..*self }),
            None => Err(self.place(value)),
        }
    }

    /// A table of this file without any settings.
    pub(super) fn empty(&self, prefix: &'static str, known: &'static [&'static str]) -> Self {
        Self { prefix, known, table: None, ..*self }
    }

    /// A table that stands in this one, as an element of an array does.
    pub(super) fn inner(
        &self,
        table: &'t DeTable<'t>,
        prefix: &'static str,
        known: &'static [&'static str],
    ) -> Self {
        Self { prefix, known, table: Some(table), ..*self }
    }

    /// The value of a setting.
    pub(super) fn get(&self, name: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        debug_assert!(self.known.contains(&name), "{name} is a setting of this table");
        self.table?.get(name)
    }

    /// All settings, whatever their names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t str, &'t Spanned<DeValue<'t>>)> {
        self.table.into_iter().flat_map(|table| table.iter()).map(|(name, value)| {
            let name: &'t str = name.get_ref();
            (name, value)
        })
    }

    /// The full name of a setting.
    pub(super) fn name_of(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn place<T>(&self, value: &Spanned<T>) -> Place {
        self.document.place(value.span())
    }

    /// The names that are no settings, in the order of their lines.
    pub(super) fn unknown(&self) -> Vec<Unknown> {
        let names = self.table.into_iter().flat_map(|table| table.keys());
        let mut unknown: Vec<_> = names
            .filter(|name| !self.known.iter().any(|known| known == name.get_ref()))
            .map(|name| (name.span().start, self.unknown_name(name)))
            .collect();
        unknown.sort_by_key(|(start, _)| *start);
        unknown.into_iter().map(|(_, unknown)| unknown).collect()
    }

    fn unknown_name(&self, name: &Spanned<std::borrow::Cow<'_, str>>) -> Unknown {
        let near = nearest(name.get_ref(), self.known);
        let shown = self.name_of(cut(name.get_ref(), SHOWN_NAME_BYTES));
        let hint = near.map(|near| format!(" (is {} meant?)", self.name_of(near)));
        Unknown {
            place: self.place(name),
            wrong: format!("{shown:?} is not a setting{}", hint.unwrap_or_default()),
            near,
        }
    }
}

/// What is shown of a name that is no setting, in bytes: more than any setting has.
const SHOWN_NAME_BYTES: usize = 60;

/// The known setting closest to `name`: at most two edits away, and at most one edit for every three letters.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = cut(name, SHOWN_NAME_BYTES).to_lowercase().replace('-', "_");
    let slips = |known: &str| strsim::damerau_levenshtein(&name, known);
    let (slips, near) = known.iter().map(|known| (slips(known), *known)).min()?;
    (slips <= 2 && slips * 3 <= near.len()).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_is_told_from_another_word() {
        let known = ["url", "enabled", "transcripts", "timeout_ms", "delivery"];
        for (name, near) in [
            ("tiemout_ms", Some("timeout_ms")),
            ("Enabled", Some("enabled")),
            ("timeout-ms", Some("timeout_ms")),
            ("transcript", Some("transcripts")),
            ("uri", Some("url")),
            ("nonsense", None),
            ("u", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), near, "{name}");
        }
    }
}
