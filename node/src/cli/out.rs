//! The one door to standard output and standard error.
//!
//! Results go to standard output, remarks to standard error, so that a pipe sees results alone.
//! Colours only where a terminal shows them, and never with `NO_COLOR` or `TERM=dumb`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the door")]

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use super::{args::Format, error::CliError};

/// Where results go, and how.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    format: Format,
    color: bool,
}

impl Out {
    /// For this form, with colours where standard output shows them.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, color: shows_color(std::io::stdout().is_terminal()) }
    }

    /// Whether to colour.
    #[must_use]
    pub const fn color(&self) -> bool {
        self.color
    }

    /// Whether a program reads it.
    #[must_use]
    pub const fn for_program(&self) -> bool {
        !matches!(self.format, Format::Table)
    }

    /// Whether it is to be YAML.
    #[must_use]
    pub const fn is_yaml(&self) -> bool {
        matches!(self.format, Format::Yaml)
    }

    /// Prints a text, ended by one line feed.
    ///
    /// # Errors
    /// When the reader is gone.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        write!(stdout, "{text}{end}").and_then(|()| stdout.flush()).map_err(closed)
    }

    /// Prints a value for a program, or what `table` makes of it for people.
    ///
    /// # Errors
    /// When the reader is gone.
    pub fn value<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Table => self.text(&table(value)),
            Format::Json => {
                self.text(&serde_json::to_string_pretty(value).map_err(CliError::failed)?)
            }
            Format::Jsonl => self.text(&serde_json::to_string(value).map_err(CliError::failed)?),
            Format::Yaml => {
                // Through JSON, so that every form shows the same names and numbers.
                let value = serde_json::to_value(value).map_err(CliError::failed)?;
                self.text(&serde_saphyr::to_string(&value).map_err(CliError::failed)?)
            }
        }
    }

    /// Prints a list: one document, or with `jsonl` one object per line.
    ///
    /// # Errors
    /// When the reader is gone.
    pub fn list<T: Serialize>(
        &self,
        items: &[T],
        table: impl FnOnce(&[T]) -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Table => self.text(&table(items)),
            Format::Jsonl => items.iter().try_for_each(|item| self.value(item, |_| String::new())),
            Format::Json | Format::Yaml => self.value(&items, |_| String::new()),
        }
    }

    /// A remark for the person, beside the result.
    pub fn note(&self, text: &str) {
        remark(&format!("{text}\n"));
    }

    /// Asks a question that is answered with y; no terminal, no yes.
    #[must_use]
    pub fn confirm(&self, question: &str) -> bool {
        if !std::io::stdin().is_terminal() {
            return false;
        }
        remark(&format!("{question} [y/N] "));
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).is_ok()
            && matches!(answer.trim(), "y" | "Y" | "yes")
    }
}

/// Says what went wrong.
pub fn error(error: &CliError) {
    if matches!(error, CliError::Closed) {
        return;
    }
    let label = if shows_color(std::io::stderr().is_terminal()) {
        "\u{1b}[1;31merror:\u{1b}[0m"
    } else {
        "error:"
    };
    remark(&format!("{label} {error}\n"));
}

fn remark(text: &str) {
    if std::io::stderr().write_all(text.as_bytes()).is_err() {
        // Standard error is closed: there is no one left to tell.
    }
}

fn shows_color(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    terminal && !set("NO_COLOR") && !dumb
}

fn closed(_: std::io::Error) -> CliError {
    CliError::Closed
}
