//! What every page has around it: who looks, in which zone and theme, and where in the dashboard.

use std::fmt;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::record::key::Scope;
use arrakis_core::session::usage::Usd;
use askama::filters::{HtmlSafe, Safe};

use super::assets;
use super::zone::{self, Zone};

/// What the templates of all pages need.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) zone: Zone,
    pub(super) theme: Theme,
    pub(super) now: Timestamp,
    /// Who looks; nobody on the page where one signs in.
    pub(super) viewer: Option<Who>,
    /// Which part of the dashboard is marked as the present one.
    pub(super) place: Place,
    /// The same as JSON, where there is that.
    pub(super) twin: Option<String>,
    /// Stands in each form, so that no other site can send it.
    pub(super) token: String,
}

/// Who looks at a page.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) workspace: String,
    pub(super) scope: Scope,
}

/// The colours that the reader has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// Those of the system.
    System,
    Light,
    Dark,
}

impl Theme {
    pub(super) fn named(name: Option<&str>) -> Self {
        match name {
            Some("light") => Self::Light,
            Some("dark") => Self::Dark,
            _ => Self::System,
        }
    }
}

impl fmt::Display for Theme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        })
    }
}

/// The parts of the dashboard, as they stand in its navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Conversations,
    Search,
    Usage,
    Events,
    Failed,
    Machines,
    Keys,
    /// Outside of the navigation.
    Elsewhere,
}

impl Place {
    /// Those that the navigation shows, in order.
    pub(super) const SHOWN: [Self; 8] = [
        Self::Overview,
        Self::Conversations,
        Self::Search,
        Self::Usage,
        Self::Events,
        Self::Failed,
        Self::Machines,
        Self::Keys,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Overview | Self::Elsewhere => "/",
            Self::Conversations => "/conversations",
            Self::Search => "/search",
            Self::Usage => "/usage",
            Self::Events => "/events",
            Self::Failed => "/failed",
            Self::Machines => "/machines",
            Self::Keys => "/keys",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overview | Self::Elsewhere => "Overview",
            Self::Conversations => "Conversations",
            Self::Search => "Search",
            Self::Usage => "Usage",
            Self::Events => "Events",
            Self::Failed => "Failed",
            Self::Machines => "Machines",
            Self::Keys => "Keys",
        }
    }

    /// The key that goes there after `g`.
    pub(super) fn key(self) -> char {
        match self {
            Self::Overview | Self::Elsewhere => 'o',
            Self::Conversations => 'c',
            Self::Search => 's',
            Self::Usage => 'u',
            Self::Events => 'e',
            Self::Failed => 'f',
            Self::Machines => 'm',
            Self::Keys => 'k',
        }
    }

    /// The lines of its picture, in a square of 16.
    pub(super) fn icon(self) -> &'static str {
        match self {
            Self::Overview | Self::Elsewhere => "M2 13V8M6 13V4M10 13V9M14 13V2",
            Self::Conversations => "M2 3h12v8H7l-3 3v-3H2zM5 6h6M5 8.500h4",
            Self::Search => "M7 2a5 5 0 1 0 0 10a5 5 0 1 0 0-10M10.600 10.600L14 14",
            Self::Usage => "M8 2a6 6 0 1 0 6 6H8zM10.500 2.600a6 6 0 0 1 2.900 2.900",
            Self::Events => "M2 4h12M2 8h12M2 12h8",
            Self::Failed => "M8 2l6.500 11.500h-13zM8 6.500v3M8 11.500v.200",
            Self::Machines => "M2 3h12v7H2zM6 13h4M8 10v3",
            Self::Keys => "M5 7.500a3 3 0 1 0 .100 0M7.500 9L14 3M11.500 5.300l1.500 1.700",
        }
    }
}

/// Text that this module has made, and that is HTML.
pub(super) type Html = Safe<String>;

impl Shell {
    pub(super) fn asset(&self, name: &str) -> &'static str {
        assets::path(name)
    }

    pub(super) fn places(&self) -> [Place; 8] {
        Place::SHOWN
    }

    pub(super) fn is_admin(&self) -> bool {
        self.viewer.as_ref().is_some_and(|who| who.scope == Scope::Admin)
    }

    /// The time of day; the day as well where that is not today's.
    pub(super) fn time(&self, at: &Timestamp) -> Html {
        let is_today = self.zone.day(*at) == self.zone.day(self.now);
        let text = if is_today { self.zone.time(*at) } else { self.zone.short(*at) };
        tag(*at, &text)
    }

    /// The time of day alone.
    pub(super) fn clock(&self, at: &Timestamp) -> Html {
        tag(*at, &self.zone.time(*at))
    }

    /// How long ago, below a day; else when.
    pub(super) fn ago(&self, at: &Timestamp) -> Html {
        let age = self.now.since(*at);
        let text = match age.as_secs() {
            0..86_400 => format!("{} ago", zone::age(age)),
            _ => self.zone.short(*at),
        };
        tag(*at, &text)
    }

    /// How long since.
    pub(super) fn age(&self, at: &Timestamp) -> Html {
        tag(*at, &zone::age(self.now.since(*at)))
    }

    pub(super) fn count(&self, n: &u64) -> Html {
        Safe(grouped(*n))
    }

    pub(super) fn ms(&self, ms: &u64) -> Html {
        Safe(zone::duration(*ms))
    }
}

impl HtmlSafe for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn tag(at: Timestamp, text: &str) -> Html {
    // The text of a zone's name is never in it: these are digits and the names of months.
    Safe(format!(r#"<time datetime="{at}" title="{at}">{text}</time>"#))
}

/// `1 204 331`, with thin spaces that do not break.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `$0.0042`, `$12.40`, `$1 204`.
pub(super) fn money(usd: Usd) -> String {
    let nanos = usd.as_nanos();
    let cents = (nanos + 5_000_000) / 10_000_000;
    match nanos {
        0 => "$0".to_owned(),
        1..100_000_000 => format!("${:.4}", usd.as_dollars()),
        _ if cents < 100_000 => format!("${}.{:02}", cents / 100, cents % 100),
        _ => format!("${}", grouped((cents + 50) / 100)),
    }
}

/// `940`, `12.4 k`, `3.1 M`.
pub(super) fn short(n: u64) -> String {
    let with = |unit: u64, name: &str| {
        let tenths = n / (unit / 10);
        match tenths >= 1000 {
            true => format!("{} {name}", tenths / 10),
            false => format!("{}.{} {name}", tenths / 10, tenths % 10),
        }
    };
    match n {
        0..1000 => n.to_string(),
        1000..1_000_000 => with(1000, "k"),
        1_000_000..1_000_000_000 => with(1_000_000, "M"),
        _ => with(1_000_000_000, "G"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_204_331), "1\u{202f}204\u{202f}331");
        assert_eq!(short(999), "999");
        assert_eq!(short(12_449), "12.4 k");
        assert_eq!(short(250_000_000), "250 M");
        let usd = |nanos| money(Usd::from_nanos(nanos));
        assert_eq!(usd(0), "$0");
        assert_eq!(usd(4_200_000), "$0.0042");
        assert_eq!(usd(12_400_000_000), "$12.40");
        assert_eq!(usd(1_204_500_000_000), "$1\u{202f}205");
    }
}
