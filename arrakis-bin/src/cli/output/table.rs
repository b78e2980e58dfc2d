//! A table that fits the terminal.
//!
//! Columns are as wide as their widest cell. Where that is more than the terminal has, columns that
//! allow it give way, the rightmost first: whole columns are left out until the rest fits when cut as
//! far as it may be, and then no cell is cut further than it must. Written to a file or a pipe, nothing is cut or left out,
//! and a tab stands between two cells.

use std::io;

use anstyle::Style;

use super::{Terminal, text};

/// Columns between two columns.
const GAP: usize = 2;

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    heading: String,
    right: bool,
    min: Option<usize>,
    optional: bool,
}

impl Column {
    /// A column whose cells are always whole.
    #[must_use]
    pub fn new(heading: impl Into<String>) -> Self {
        Self { heading: heading.into(), right: false, min: None, optional: false }
    }

    /// Aligns cells to the right, for numbers.
    #[must_use]
    pub fn right(mut self) -> Self {
        self.right = true;
        self
    }

    /// Lets cells be cut to `min` columns.
    #[must_use]
    pub fn shrinks_to(mut self, min: usize) -> Self {
        self.min = Some(min);
        self
    }

    /// Lets the column be left out; it is, where all its cells are empty.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// One cell: safe text and how it is painted.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell of somebody's text, made safe and brought onto one line.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text::one_line(text), style: Style::new() }
    }

    /// Paints the cell.
    #[must_use]
    pub fn style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }
}

/// Rows under headings.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row: one cell per column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Writes the table.
    ///
    /// # Errors
    ///
    /// `out` does not take it.
    pub fn write(&self, out: &mut dyn io::Write, terminal: Terminal) -> io::Result<()> {
        if terminal.width.is_none() {
            return self.write_tabbed(out);
        }
        let widths = self.widths(terminal.width);
        let headings: Vec<Cell> = self
            .columns
            .iter()
            .map(|column| Cell::new(&column.heading).style(super::DIM))
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            let mut padding = 0;
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let Some(width) = *width else { continue };
                let shown = text::fit(&cell.text, width);
                let free = width - text::width(&shown).min(width);
                padding += if column.right { free } else { 0 };
                // Padding is written before the next cell, so that no line ends in spaces.
                line.extend(std::iter::repeat_n(' ', padding));
                line.push_str(&terminal.paint(cell.style, &shown));
                padding = GAP + if column.right { 0 } else { free };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// The whole table with a tab between two cells, for programs.
    fn write_tabbed(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let headings: Vec<&str> = self.columns.iter().map(|column| &*column.heading).collect();
        writeln!(out, "{}", headings.join("\t"))?;
        self.rows.iter().try_for_each(|row| {
            let cells: Vec<&str> = row.iter().map(|cell| &*cell.text).collect();
            writeln!(out, "{}", cells.join("\t"))
        })
    }

    /// The width of each column; none where it is left out.
    fn widths(&self, available: Option<usize>) -> Vec<Option<usize>> {
        let widest = |n: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(n));
            cells.map(|cell| text::width(&cell.text)).max().unwrap_or(0)
        };
        let mut widths: Vec<Option<usize>> = self
            .columns
            .iter()
            .enumerate()
            .map(|(n, column)| match widest(n) {
                0 if column.optional => None,
                cells => Some(cells.max(text::width(&column.heading))),
            })
            .collect();
        let Some(available) = available else { return widths };
        let excess = |widths: &[Option<usize>]| {
            let taken: usize = widths.iter().flatten().map(|width| width + GAP).sum();
            taken.saturating_sub(GAP).saturating_sub(available)
        };
        let cut = |column: &Column, width: usize, by: usize| match column.min {
            Some(min) => width.saturating_sub(by).max(min.min(width)),
            None => width,
        };
        let columns: Vec<(usize, &Column)> = self.columns.iter().enumerate().rev().collect();
        for (n, _) in columns.iter().filter(|(_, column)| column.optional) {
            let smallest: Vec<Option<usize>> = (self.columns.iter().zip(&widths))
                .map(|(column, width)| width.map(|width| cut(column, width, width)))
                .collect();
            if excess(&smallest) > 0 {
                widths[*n] = None;
            }
        }
        for (n, column) in columns {
            let over = excess(&widths);
            widths[n] = widths[n].map(|width| cut(column, width, over));
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![
            Column::new("ID"),
            Column::new("N").right(),
            Column::new("TEXT").shrinks_to(6),
            Column::new("NOTE").shrinks_to(4).optional(),
        ]);
        for (id, n, text, note) in
            [("one", "1", "some words", "a note here"), ("three", "100", "x\u{1b}[0m", "")]
        {
            table.row([id, n, text, note].map(Cell::new).to_vec());
        }
        table
    }

    fn written(width: Option<usize>) -> String {
        let mut out = Vec::new();
        table().write(&mut out, Terminal { colour: false, width }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_is_cut_without_a_terminal() {
        assert_eq!(
            written(None),
            "ID\tN\tTEXT\tNOTE\n\
             one\t1\tsome words\ta note here\n\
             three\t100\tx\\x1b[0m\t\n"
        );
    }

    #[test]
    fn what_is_left_out_makes_room() {
        assert_eq!(written(Some(22)).lines().nth(1), Some("one      1  some words"));
    }

    #[test]
    fn columns_give_way_from_the_right() {
        assert_eq!(written(Some(30)).lines().nth(1), Some("one      1  some words  a not…"));
        assert_eq!(written(Some(25)).lines().nth(1), Some("one      1  some w…  a n…"));
        assert_eq!(written(Some(18)).lines().nth(1), Some("one      1  some …"));
        for width in 18..60 {
            let widest = written(Some(width)).lines().map(text::width).max();
            assert!(widest <= Some(width), "{width}: {widest:?}");
        }
    }
}
