//! Charts as SVG. Geometry stands in attributes and colours in classes, since the policy of pages forbids inline styles.
//! Whoever reads no pictures gets the same as a table.

use std::fmt::Write as _;

use askama::filters::Safe;

use super::shell::Html;

/// Columns of stacked parts.
#[derive(Debug)]
pub(super) struct Columns {
    /// What the chart is about, for readers of no pictures.
    pub(super) label: String,
    pub(super) columns: Vec<Column>,
    /// Below the first, the middle and the last column.
    pub(super) axis: [String; 3],
    /// How a value is written.
    pub(super) show: fn(u64) -> String,
}

/// One column.
#[derive(Debug)]
pub(super) struct Column {
    /// What it is, in its title: such as a time.
    pub(super) name: String,
    /// Parts from below, each with the class of its colour and its name.
    pub(super) parts: Vec<(&'static str, String, u64)>,
    /// What it was a while ago, as a faint line.
    pub(super) before: Option<u64>,
    /// Where it leads, if anywhere.
    pub(super) link: Option<String>,
}

impl Column {
    fn total(&self) -> u64 {
        self.parts.iter().map(|(_, _, value)| *value).fold(0, u64::saturating_add)
    }
}

/// Width and height of the drawing in its own units. It is stretched to the place that it has; what is written stands
/// beside it, and is not.
const WIDTH: usize = 1000;
const HEIGHT: usize = 120;

impl Columns {
    /// The chart.
    pub(super) fn svg(&self) -> Html {
        let values =
            self.columns.iter().map(|column| column.total().max(column.before.unwrap_or(0)));
        let top = round_up(values.max().unwrap_or(0));
        let mut svg = String::with_capacity(200 * self.columns.len() + 1000);
        svg.push_str(r#"<div class="plot"><p class="ticks" aria-hidden="true">"#);
        for part in [2, 1, 0] {
            let _ = write!(svg, "<span>{}</span>", escaped(&(self.show)(top / 2 * part)));
        }
        let label = escaped(&self.label);
        let _ = write!(
            svg,
            r#"</p><svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{label}"><path class="grid" d="M0 0H{WIDTH}M0 {}H{WIDTH}M0 {HEIGHT}H{WIDTH}"/>"#,
            HEIGHT / 2
        );
        self.write_columns(&mut svg, top);
        self.write_before(&mut svg, top);
        svg.push_str(r#"</svg><p class="axis" aria-hidden="true">"#);
        for name in &self.axis {
            let _ = write!(svg, "<span>{}</span>", escaped(name));
        }
        svg.push_str("</p></div>");
        Safe(svg)
    }

    fn write_columns(&self, svg: &mut String, top: u64) {
        let slot = self.slot();
        let gap = if slot >= 6.0 { 2.0 } else { slot * 0.2 };
        for (at, column) in self.columns.iter().enumerate() {
            let x = slot * at as f64 + gap / 2.0;
            let width = (slot - gap).max(0.5);
            let link = column.link.as_deref().map(escaped);
            if let Some(link) = &link {
                let _ = write!(svg, r#"<a href="{link}">"#);
            }
            let _ = write!(svg, "<g><title>{}", escaped(&column.name));
            for (_, name, value) in column.parts.iter().filter(|(_, _, value)| *value > 0) {
                let _ = write!(svg, "\n{}: {}", escaped(name), escaped(&(self.show)(*value)));
            }
            let _ = write!(
                svg,
                r#"</title><rect class="hit" x="{:.1}" y="0" width="{slot:.1}" height="{HEIGHT}"/>"#,
                x - gap / 2.0
            );
            let mut y = HEIGHT as f64;
            for (class, _, value) in column.parts.iter().filter(|(_, _, value)| *value > 0) {
                // What is there is seen, however little it is.
                let tall = (HEIGHT as f64 * *value as f64 / top as f64).max(1.0);
                y -= tall;
                let _ = write!(
                    svg,
                    r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{tall:.1}"/>"#
                );
            }
            svg.push_str("</g>");
            if link.is_some() {
                svg.push_str("</a>");
            }
        }
    }

    fn write_before(&self, svg: &mut String, top: u64) {
        if self.columns.iter().all(|column| column.before.is_none()) {
            return;
        }
        let slot = self.slot();
        svg.push_str(r#"<path class="before" d=""#);
        for (at, column) in self.columns.iter().enumerate() {
            let x = slot * (at as f64 + 0.5);
            let value = column.before.unwrap_or(0) as f64;
            let y = HEIGHT as f64 * (1.0 - value / top as f64);
            let _ = write!(svg, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        svg.push_str(r#""/>"#);
    }

    fn slot(&self) -> f64 {
        WIDTH as f64 / self.columns.len().max(1) as f64
    }
}

/// A line of values, as small as a picture beside a text.
pub(super) fn line(values: &[u64], label: &str) -> Html {
    let top = values.iter().max().copied().unwrap_or(0).max(1) as f64;
    let step = WIDTH as f64 / values.len().saturating_sub(1).max(1) as f64;
    let mut svg = format!(
        r#"<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{}"><path class="grid" d="M0 {HEIGHT}H{WIDTH}"/><path class="curve" d=""#,
        escaped(label)
    );
    for (at, value) in values.iter().enumerate() {
        let y = HEIGHT as f64 * (1.0 - *value as f64 / top);
        let _ = write!(svg, "{}{:.1} {y:.1}", if at == 0 { 'M' } else { 'L' }, step * at as f64);
    }
    svg.push_str(r#""/></svg>"#);
    Safe(svg)
}

/// A part of a whole as a bar.
pub(super) fn meter(part: u64, whole: u64, class: &str) -> Html {
    let width = if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
    Safe(format!(
        r#"<svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="{class}" width="{width:.1}" height="4"/></svg>"#
    ))
}

/// The least of 1, 2, 5, 10, 20, 50, … that is not below `value`, and even from 2 on, so that its half is whole.
fn round_up(value: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for times in [2, 4, 6, 10] {
            let round = unit.saturating_mul(times);
            if round >= value {
                return round;
            }
        }
        unit = unit.saturating_mul(10);
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(names: &[(&str, u64)]) -> String {
        let column = |(name, value): &(&str, u64)| Column {
            name: (*name).to_owned(),
            parts: vec![("c1", (*name).to_owned(), *value)],
            before: None,
            link: None,
        };
        let columns = names.iter().map(column).collect();
        let axis = [const { String::new() }; 3];
        let show = |n: u64| n.to_string();
        Columns { label: "l".to_owned(), columns, axis, show }.svg().0
    }

    #[test]
    fn a_column_is_as_high_as_its_share() {
        let svg = chart(&[("a", 10), ("b", 5)]);
        assert!(svg.contains(r#"height="120.0""#) && svg.contains(r#"height="60.0""#), "{svg}");
    }

    #[test]
    fn names_are_text_whatever_they_hold() {
        let svg = chart(&[("<script>\"'&", 1)]);
        assert!(
            !svg.contains("<script>") && svg.contains("&lt;script&gt;&quot;&#39;&amp;"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_is_a_chart_as_well() {
        assert!(chart(&[]).ends_with("</div>"));
        assert!(chart(&[("a", 0), ("b", u64::MAX)]).ends_with("</div>"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let tops: Vec<_> = [0, 2, 3, 11, 47, 61, 1000].map(round_up).to_vec();
        assert_eq!(tops, [2, 2, 4, 20, 60, 100, 1000]);
    }
}
