//! The `medic` binary with its failpoints compiled in, and the mistakes that can be planted.

use std::process::ExitCode;

use medic_state::planted::{Planted, plant_everywhere};

/// Names a mistake that this process makes: the measure of the checkers of real processes.
const PLANTED: &str = "MEDIC_PLANTED";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(PLANTED) {
        let all = Planted::ALL.iter().copied();
        let Some(which) = all.clone().find(|known| known.name() == name) else {
            let names: Vec<&str> = all.map(Planted::name).collect();
            eprintln!("{PLANTED}={name}: there is no such mistake; there are {}", names.join(", "));
            return ExitCode::from(2);
        };
        plant_everywhere(which);
    }
    medic_node::cli::main()
}
