//! Clusters of real processes: leaders killed at every boundary, deposed leaders, unknown outcomes,
//! real nginx, damaged disks, operators and strangers at the door.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail where it stands")]

mod boundaries;
mod deposed;
mod nginx;
mod opaque;
mod operator;
mod strangers;
mod support;
