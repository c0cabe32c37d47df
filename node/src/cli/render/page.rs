//! A page of text: headings in a margin, paragraphs wrapped beside them.

use super::{Style, style::width as shown};

/// Characters of a line: fits half a wide screen, and mail.
const WIDTH: usize = 100;

/// Text under construction.
pub(super) struct Page {
    style: Style,
    lines: Vec<String>,
}

impl Page {
    pub(super) const fn new(style: Style) -> Self {
        Self { style, lines: Vec::new() }
    }

    /// A blank line and a heading with a remark.
    pub(super) fn heading(&mut self, title: &str, remark: &str) {
        self.lines.push(String::new());
        self.lines.push(format!("{}  {remark}", self.style.head(title)).trim_end().to_owned());
    }

    /// A line as it is.
    pub(super) fn raw(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Text after a label; further lines stand under the text.
    pub(super) fn labelled(&mut self, indent: usize, label: &str, width: usize, text: &str) {
        let margin = indent + width;
        let mut first = true;
        for line in wrap(text, WIDTH.saturating_sub(margin).max(20)) {
            if first {
                let gap = " ".repeat(width.saturating_sub(shown(label)));
                let label = self.style.dim(label);
                self.lines.push(format!("{}{label}{gap}{line}", " ".repeat(indent)));
                first = false;
            } else {
                self.lines.push(format!("{}{line}", " ".repeat(margin)));
            }
        }
    }

    /// Text with a margin.
    pub(super) fn text(&mut self, indent: usize, text: &str) {
        self.labelled(indent, "", 0, text);
    }

    pub(super) fn finish(self) -> String {
        self.lines.join("\n")
    }
}

/// Lines of at most `width` characters, broken at spaces where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let fits = line.is_empty() || shown(&line) + 1 + shown(word) <= width;
        if !fits {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}
