//! The measure of the simulation itself: every mistake that can be planted must be found.

use std::{ops::Range, path::Path, time::Duration};

use medic_state::planted::Planted;

use crate::{
    processes::ask,
    run::{Layer, Plan, run},
    wall::Watch,
};

/// How a planted mistake fared.
#[derive(Clone, Debug)]
pub struct Caught {
    /// Which.
    pub planted: Planted,
    /// The seed and what was found first; `None`: missed.
    pub by: Option<(u64, String)>,
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
    let begun = Watch::start();
    let mut tried = 0;
    for seed in seeds {
        tried += 1;
        let outcome = run(&Plan { seed, planted: Some(planted), ..Plan::default() })?;
        // A seed that fails without the mistake proves nothing about it.
        let sound = || run(&Plan { seed, ..Plan::default() }).map(|run| run.violations.is_empty());
        if let Some(found) = outcome.violations.first()
            && sound()?
        {
            let by = Some((seed, found.to_string()));
            return Ok(Caught { planted, by, tried, took: begun.elapsed() });
        }
    }
    Ok(Caught { planted, by: None, tried, took: begun.elapsed() })
}

/// Runs a mistake of whole nodes over seeds, a process each, until it is found.
///
/// # Errors
/// When a child cannot be started or read.
pub fn hunt_in_processes(
    program: &Path,
    planted: Planted,
    seeds: Range<u64>,
) -> std::io::Result<Caught> {
    let begun = Watch::start();
    let mut tried = 0;
    for seed in seeds {
        tried += 1;
        let sound = Plan { layer: Layer::B, seed, ..Plan::default() };
        let told = ask(program, &Plan { planted: Some(planted), ..sound.clone() })?;
        if let Some(found) = told.violations.into_iter().next()
            && ask(program, &sound)?.violations.is_empty()
        {
            let by = Some((seed, found));
            return Ok(Caught { planted, by, tried, took: begun.elapsed() });
        }
    }
    Ok(Caught { planted, by: None, tried, took: begun.elapsed() })
}
