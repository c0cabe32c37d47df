//! Clusters of real processes: leaders killed at every boundary, deposed leaders, unknown outcomes,
//! real nginx, network namespaces, damaged and full disks, killed agents, bad input, every command, operators and
//! strangers at the door, telemetry, pages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail where it stands")]

mod agent_killed;
mod bad_input;
mod boundaries;
mod campaign;
mod certificates;
mod commands;
mod deposed;
mod drain;
mod experiment;
mod full_disk;
mod healing;
mod interop;
mod moved;
mod netns;
mod nginx;
mod observers;
mod opaque;
mod operator;
mod paged;
mod quiet;
mod strangers;
mod support;
mod telemetry;
mod typed;
