//! The `medic` binary with its failpoints compiled in.

fn main() -> std::process::ExitCode {
    medic_node::cli::main()
}
