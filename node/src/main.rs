//! The `medic` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    medic_node::cli::main()
}
