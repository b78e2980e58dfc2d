//! The kinds of values, and how a setting is read: the environment first, then the file, then the default.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use arrakis_core::base::limits::RETENTION_MAX_DAYS;
use toml::Spanned;
use toml::de::DeValue;

use super::Delivery;
use super::environment::Env;
use super::file::{Section, Unknown};
use super::problem::{ConfigProblem, Place};

/// A kind of value.
pub(super) trait Kind {
    /// The value.
    type Value: Clone;

    /// What the value must be, in words.
    fn must_be(&self) -> String;

    /// Reads it from the file.
    fn of_toml(&self, value: &DeValue<'_>) -> Option<Self::Value>;

    /// Reads it from a variable.
    fn of_text(&self, text: &str) -> Option<Self::Value>;

    /// How a value is written in the file.
    fn shown(&self, value: &Self::Value) -> String;
}

/// True or false.
#[derive(Debug)]
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn must_be(&self) -> String {
        "true or false".to_owned()
    }

    fn of_toml(&self, value: &DeValue<'_>) -> Option<bool> {
        value.as_bool()
    }

    fn of_text(&self, text: &str) -> Option<bool> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    fn shown(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number within bounds.
#[derive(Debug)]
pub(super) struct Number(pub(super) RangeInclusive<u64>);

impl Kind for Number {
    type Value = u64;

    fn must_be(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn of_toml(&self, value: &DeValue<'_>) -> Option<u64> {
        let digits = value.as_integer()?;
        let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok();
        number.filter(|number| self.0.contains(number))
    }

    fn of_text(&self, text: &str) -> Option<u64> {
        text.parse().ok().filter(|number| self.0.contains(number))
    }

    fn shown(&self, value: &u64) -> String {
        value.to_string()
    }
}

/// An address to listen at.
#[derive(Debug)]
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn must_be(&self) -> String {
        "an IP address and a port, such as \"127.0.0.1:3000\"".to_owned()
    }

    fn of_toml(&self, value: &DeValue<'_>) -> Option<SocketAddr> {
        self.of_text(value.as_str()?)
    }

    fn of_text(&self, text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn shown(&self, value: &SocketAddr) -> String {
        format!("\"{value}\"")
    }
}

/// How the hook hands events on.
#[derive(Debug)]
pub(super) struct DeliveryKind;

impl Kind for DeliveryKind {
    type Value = Delivery;

    fn must_be(&self) -> String {
        "\"spool\" or \"direct\"".to_owned()
    }

    fn of_toml(&self, value: &DeValue<'_>) -> Option<Delivery> {
        self.of_text(value.as_str()?)
    }

    fn of_text(&self, text: &str) -> Option<Delivery> {
        [Delivery::Spool, Delivery::Direct].into_iter().find(|known| known.as_str() == text)
    }

    fn shown(&self, value: &Delivery) -> String {
        format!("{:?}", value.as_str())
    }
}

/// For how long something is kept: a number of days; `None` is for good.
#[derive(Debug)]
pub(super) struct Age;

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Kind for Age {
    type Value = Option<Duration>;

    fn must_be(&self) -> String {
        format!("\"off\", or a number of days from \"1d\" to \"{RETENTION_MAX_DAYS}d\"")
    }

    fn of_toml(&self, value: &DeValue<'_>) -> Option<Option<Duration>> {
        self.of_text(value.as_str()?)
    }

    fn of_text(&self, text: &str) -> Option<Option<Duration>> {
        if text == "off" {
            return Some(None);
        }
        let days = text.strip_suffix('d')?.parse().ok()?;
        (1..=RETENTION_MAX_DAYS).contains(&u64::from(days)).then(|| Some(DAY * days))
    }

    fn shown(&self, value: &Option<Duration>) -> String {
        match value {
            None => "\"off\"".to_owned(),
            Some(age) => format!("\"{}d\"", age.as_secs() / DAY.as_secs()),
        }
    }
}

/// What happens where a setting is there and cannot be read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Otherwise<T> {
    /// What would hold without it: the file's value, or the default.
    Default,
    /// The form that keeps most at home.
    Strict(T),
    /// This, and nothing leaves the machine.
    Hold(T),
}

/// Reads settings, and keeps what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) env: Env<'a>,
    pub(super) problems: Vec<ConfigProblem>,
}

impl Reader<'_> {
    /// A setting. One whose name in the file is a slip cannot be read either, where that matters.
    pub(super) fn setting<K: Kind>(
        &mut self,
        section: &Section<'_>,
        unknown: &mut Vec<Unknown>,
        name: &'static str,
        variables: &'static [&'static str],
        kind: &K,
        (default, otherwise): (K::Value, Otherwise<K::Value>),
    ) -> K::Value {
        let found = section.get(name).map(|value| Found::in_file(section, name, value, kind));
        let slip = match otherwise {
            Otherwise::Default => None,
            _ => unknown.iter().position(|unknown| unknown.near == Some(name)),
        };
        let slip = slip.map(|index| {
            let Unknown { place, wrong, .. } = unknown.remove(index);
            Found { place, value: Err(wrong) }
        });
        let variable = self.variable(variables).map(|(name, text)| Found {
            place: Place::Variable(name),
            value: text
                .and_then(|text| kind.of_text(text.trim()))
                .ok_or_else(|| format!("it must be {}", kind.must_be())),
        });

        let mut wrong = Vec::new();
        // From what counts least to what counts most.
        let mut value = default;
        for found in [found, slip, variable].into_iter().flatten() {
            match found.value {
                Ok(found) => {
                    value = found;
                    wrong.iter_mut().for_each(|(_, _, overruled)| *overruled = true);
                }
                Err(text) => {
                    match &otherwise {
                        Otherwise::Default => {}
                        Otherwise::Strict(strict) | Otherwise::Hold(strict) => {
                            value = strict.clone();
                        }
                    }
                    wrong.push((found.place, text, false));
                }
            }
        }
        for (place, wrong, overruled) in wrong {
            self.problems.push(match &otherwise {
                Otherwise::Hold(_) if !overruled => ConfigProblem::holding(place, wrong),
                _ => ConfigProblem::new(place, wrong, format!("{} is used", kind.shown(&value))),
            });
        }
        value
    }

    /// Tells of names that are no settings.
    pub(super) fn tell(&mut self, unknown: Vec<Unknown>) {
        let told = |Unknown { place, wrong, .. }| ConfigProblem::new(place, wrong, "it is ignored");
        self.problems.extend(unknown.into_iter().map(told));
    }

    /// A list of texts. An entry that cannot be used is told and left out, and so are those past `max`.
    pub(super) fn list<T>(
        &mut self,
        section: &Section<'_>,
        name: &'static str,
        max: usize,
        must_be: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = section.get(name) else { return Vec::new() };
        let full = section.name_of(name);
        let Some(entries) = value.get_ref().as_array() else {
            let wrong = format!("{full} must be a list of texts");
            self.problems.push(ConfigProblem::new(section.place(value), wrong, "it is ignored"));
            return Vec::new();
        };
        let mut list = Vec::new();
        for (n, entry) in entries.iter().enumerate() {
            if list.len() == max {
                let wrong = format!("{full} has more than {max} entries");
                let instead = "those from here on are ignored";
                self.problems.push(ConfigProblem::new(section.place(entry), wrong, instead));
                break;
            }
            match entry.get_ref().as_str().and_then(&read) {
                Some(read) => list.push(read),
                None => {
                    let wrong = format!("entry {} of {full} must be {must_be}", n + 1);
                    let place = section.place(entry);
                    self.problems.push(ConfigProblem::new(place, wrong, "it is ignored"));
                }
            }
        }
        list
    }

    /// A table of the root. One that is no table is told, and read as if it were empty.
    pub(super) fn section<'t>(
        &mut self,
        root: &Section<'t>,
        name: &'static str,
        prefix: &'static str,
        known: &'static [&'static str],
    ) -> Section<'t> {
        root.section(name, prefix, known).unwrap_or_else(|place| {
            let wrong = format!("{name} must be a table");
            self.problems.push(ConfigProblem::new(place, wrong, "its defaults are used"));
            root.empty(prefix, known)
        })
    }

    /// The text of a variable that is set and not empty; `Some(None)` where it is no UTF-8.
    pub(super) fn variable_of(&self, name: &str) -> Option<Option<String>> {
        let value = (self.env)(name).filter(|value| !value.is_empty())?;
        Some(value.into_string().ok())
    }

    /// The first of these variables that is set and not empty, and its text unless that is no UTF-8.
    pub(super) fn variable(
        &self,
        names: &'static [&'static str],
    ) -> Option<(&'static str, Option<String>)> {
        names.iter().find_map(|&name| Some((name, self.variable_of(name)?)))
    }
}

/// A setting that is there: where, and its value or what is wrong with it.
struct Found<T> {
    place: Place,
    value: Result<T, String>,
}

impl<T> Found<T> {
    fn in_file<K: Kind<Value = T>>(
        section: &Section<'_>,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        kind: &K,
    ) -> Self {
        let wrong = || format!("{} must be {}", section.name_of(name), kind.must_be());
        Self { place: section.place(value), value: kind.of_toml(value.get_ref()).ok_or_else(wrong) }
    }
}
