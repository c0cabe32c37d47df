//! The demo's voice: what is broken, and what Medic sees, decides and does, with elapsed times.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Writes lines to standard output, coloured on a terminal unless `NO_COLOR` is set.
#[derive(Debug)]
pub(super) struct Narrator {
    colour: bool,
    began: Mutex<Instant>,
}

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// A heading.
    Title,
    /// The demo breaks something or speaks for itself.
    Demo,
    /// Medic's own words.
    Medic,
    /// It went well.
    Good,
    /// It did not.
    Bad,
    /// By the way.
    Dim,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Title => "1",
            Self::Demo => "33",
            Self::Medic => "36",
            Self::Good => "32",
            Self::Bad => "31;1",
            Self::Dim => "2",
        }
    }
}

impl Narrator {
    pub(super) fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, began: Mutex::new(Instant::now()) }
    }

    /// Elapsed times count from here.
    pub(super) fn restart_clock(&self) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// A line with the time since the fault.
    pub(super) fn timed(&self, tone: Tone, who: &str, text: &str) {
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = began.elapsed().as_secs_f64();
        self.write(tone, &format!("  {seconds:>5.1}s  {who:<6} {text}"));
    }

    /// A line without.
    pub(super) fn line(&self, tone: Tone, text: &str) {
        self.write(tone, text);
    }

    fn write(&self, tone: Tone, text: &str) {
        let mut out = std::io::stdout().lock();
        let written = if self.colour {
            writeln!(out, "\x1b[{}m{text}\x1b[0m", tone.code())
        } else {
            writeln!(out, "{text}")
        };
        // A reader that went away (`| head`) is no reason to stop healing.
        drop(written.and_then(|()| out.flush()));
    }
}
