//! The `medic` binary with its failpoints compiled in, and the mistakes that can be planted.

use std::{
    io::{Write as _, stderr},
    process::ExitCode,
};

use medic_chaos::campaign::PLANTED;
use medic_state::planted::plant_everywhere;

fn main() -> ExitCode {
    match std::env::var(PLANTED).map(|name| name.parse()) {
        Ok(Ok(which)) => plant_everywhere(which),
        Ok(Err(unknown)) => {
            drop(writeln!(stderr(), "{PLANTED}: {unknown}"));
            return ExitCode::from(2);
        }
        Err(_) => {}
    }
    medic_node::cli::main()
}
