//! Local clusters of real processes: nodes, agents, and what they watch.

mod client;
mod cluster;
mod ports;
mod process;

pub use client::{Client, Dialer};
pub use cluster::{Cluster, ClusterOptions, Ports, wall_clock};
pub use ports::free_ports;
pub use process::{Process, kill_processes_with, kill_services_below, processes_with};
