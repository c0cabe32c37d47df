//! Colours, tables and spans of time.

/// Colours, or none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    color: bool,
}

impl Style {
    /// With colours or without.
    #[must_use]
    pub const fn new(color: bool) -> Self {
        Self { color }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// A heading.
    #[must_use]
    pub fn head(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Good news.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// To be looked at.
    #[must_use]
    pub fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Bad news.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Names.
    #[must_use]
    pub fn name(self, text: &str) -> String {
        self.paint("36", text)
    }
}

/// Columns set apart by spaces, as `kubectl` prints them: good to read, good for `awk`.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    #[must_use]
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells may be coloured.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.head.len(), "a row has as many cells as headings");
        self.rows.push(cells.into());
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As text; a table without rows says so.
    #[must_use]
    pub fn render(&self, style: &Style) -> String {
        if self.rows.is_empty() {
            return "none".to_owned();
        }
        let mut widths: Vec<usize> = self.head.iter().map(|cell| width(cell)).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(cell));
            }
        }
        let line = |cells: &[String]| {
            let mut text = String::new();
            for (cell, column) in cells.iter().zip(&widths) {
                text.push_str(cell);
                text.push_str(&" ".repeat(column - width(cell) + 3));
            }
            text.trim_end().to_owned()
        };
        let head = style.dim(&line(&self.head));
        std::iter::once(head)
            .chain(self.rows.iter().map(|row| line(row)))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Characters that take room: those of colour codes do not.
pub(super) fn width(text: &str) -> usize {
    let mut count = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            let _ = chars.by_ref().find(|c| *c == 'm');
        } else {
            count += 1;
        }
    }
    count
}

/// A span of time as people say it: `0.4s`, `12s`, `3m05s`, `2h10m`, `5d04h`.
#[must_use]
pub fn span(ms: u64) -> String {
    let (s, m, h) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 if ms % 1000 >= 100 => format!("{s}.{}s", ms % 1000 / 100),
        1_000..10_000 => format!("{s}s"),
        10_000..60_000 => format!("{s}s"),
        60_000..3_600_000 => format!("{m}m{:02}s", s % 60),
        3_600_000..86_400_000 => format!("{h}h{:02}m", m % 60),
        _ => format!("{}d{:02}h", h / 24, h % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        let spans = [40, 1_450, 5_000, 12_900, 65_000, 7_800_000, 90_000_000].map(span);
        assert_eq!(spans, ["40ms", "1.4s", "5s", "12s", "1m05s", "2h10m", "1d01h"]);
    }

    #[test]
    fn tables_align_whatever_the_colours() {
        let style = Style::new(true);
        let mut table = Table::new(["A", "BB"]);
        table.row([style.bad("x"), "y".to_owned()]);
        table.row(["longer".to_owned(), "é".to_owned()]);
        let plain: Vec<String> = table
            .render(&style)
            .replace("\u{1b}[31m", "")
            .replace("\u{1b}[2m", "")
            .replace("\u{1b}[0m", "")
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(plain, ["A        BB", "x        y", "longer   é"]);
        assert_eq!(Table::new(["A"]).render(&style), "none");
    }
}
