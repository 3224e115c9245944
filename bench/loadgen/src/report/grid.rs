//! A table that knows no medium: aligned columns for a terminal, `<table>` for a page.

use std::io::{self, Write};

/// Spaces between two columns.
const GAP: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Headed columns and their rows; the head of the first column names the whole.
#[derive(Debug, Default)]
pub(crate) struct Grid {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// A table whose first column is names.
    pub(crate) fn new(name: &str) -> Self {
        Self::default().text(name)
    }

    /// A table whose first column is figures.
    pub(crate) fn of_numbers(name: &str) -> Self {
        Self::default().number(name)
    }

    /// One more column of figures.
    pub(crate) fn number(mut self, head: impl Into<String>) -> Self {
        self.columns.push((head.into(), Align::Right));
        self
    }

    /// One more column of words.
    pub(crate) fn text(mut self, head: impl Into<String>) -> Self {
        self.columns.push((head.into(), Align::Left));
        self
    }

    /// Adds a row with one cell per column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes lines for a terminal. Names may come from somebody else's file: what would move the cursor is replaced.
    ///
    /// # Errors
    ///
    /// What writing to `out` fails with.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let heads: Vec<_> = self.columns.iter().map(|(head, _)| head.clone()).collect();
        let lines = || std::iter::once(&heads).chain(&self.rows);
        let widths: Vec<_> = (0..self.columns.len())
            .map(|column| lines().map(|cells| width(cells, column)).max().unwrap_or(0))
            .collect();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, (_, align)), width) in cells.iter().zip(&self.columns).zip(&widths) {
                let cell = printable(cell);
                if !line.is_empty() {
                    line.extend(std::iter::repeat_n(' ', GAP));
                }
                line += &match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Writes a `<table>`.
    ///
    /// # Errors
    ///
    /// What writing to `out` fails with.
    pub(crate) fn write_html(&self, out: &mut impl Write) -> io::Result<()> {
        let class = |align: &Align| match align {
            Align::Left => "",
            Align::Right => " class=\"number\"",
        };
        write!(out, "<div class=\"scroll\"><table>\n<thead><tr>")?;
        for (head, align) in &self.columns {
            write!(out, "<th{}>{}</th>", class(align), escape(head))?;
        }
        writeln!(out, "</tr></thead>\n<tbody>")?;
        for row in &self.rows {
            write!(out, "<tr>")?;
            for (cell, (_, align)) in row.iter().zip(&self.columns) {
                write!(out, "<td{}>{}</td>", class(align), escape(cell))?;
            }
            writeln!(out, "</tr>")?;
        }
        writeln!(out, "</tbody></table></div>")
    }
}

fn width(cells: &[String], column: usize) -> usize {
    cells.get(column).map_or(0, |cell| cell.chars().count())
}

/// `text` without characters that a terminal acts upon.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// `text` for the inside of an element or of a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c if c.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new("relay").number("CPU, us").text("state");
        grid.row(["ingress", "3.43", "busy"].map(str::to_owned));
        grid.row(["<b>\u{1b}", "12", "idle & cold"].map(str::to_owned));
        grid
    }

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        grid().write_text(&mut out).unwrap();
        let expected = "\
relay    CPU, us  state
ingress     3.43  busy
<b>\u{fffd}          12  idle & cold
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn html_is_escaped() {
        let mut out = Vec::new();
        grid().write_html(&mut out).unwrap();
        let html = String::from_utf8(out).unwrap();
        assert!(html.contains("<td>&lt;b&gt;\u{fffd}</td><td class=\"number\">12</td>"));
        assert!(html.contains("idle &amp; cold"), "{html}");
        assert_eq!(escape("'\"\n"), "&#39;&quot;\u{fffd}");
    }
}
