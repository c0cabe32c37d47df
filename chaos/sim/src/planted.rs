//! The measure of the simulation itself: every mistake that can be planted must be found.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use medic_state::planted::Planted;

use crate::{
    check::Violation,
    run::{Plan, run},
};

/// How a planted mistake fared.
#[derive(Clone, Debug)]
pub struct Caught {
    /// Which.
    pub planted: Planted,
    /// The seed and what was found first; `None`: missed.
    pub by: Option<(u64, Violation)>,
    /// Seeds tried.
    pub tried: u64,
    /// Time it took.
    pub took: Duration,
}

/// Runs one mistake over seeds until it is found.
///
/// # Errors
/// When no thread or runtime can be had.
pub fn hunt(planted: Planted, seeds: Range<u64>) -> std::io::Result<Caught> {
    let begun = Instant::now();
    let mut tried = 0;
    for seed in seeds {
        tried += 1;
        let outcome = run(&Plan { seed, planted: Some(planted), ..Plan::default() })?;
        // A seed that fails without the mistake proves nothing about it.
        let sound = || run(&Plan { seed, ..Plan::default() }).map(|run| run.violations.is_empty());
        if let Some(found) = outcome.violations.first()
            && sound()?
        {
            let by = Some((seed, found.clone()));
            return Ok(Caught { planted, by, tried, took: begun.elapsed() });
        }
    }
    Ok(Caught { planted, by: None, tried, took: begun.elapsed() })
}
