//! Loopback ports that nobody uses now.
//!
//! Taken from below the range the system gives to outgoing connections (from 32768 on Linux): a
//! service that is down for a moment must find its port free when it comes back.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;

const FIRST: u16 = 18_000;
const LAST: u16 = 31_000;
/// Starting points tried before giving up.
const TRIES: usize = 200;

/// `count` different free ports.
///
/// # Errors
/// When none are found.
pub fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let short = || std::io::Error::other(format!("no {count} consecutive free ports were found"));
    let base = free_block(u16::try_from(count).map_err(|_| short())?)?;
    Ok((base..).take(count).collect())
}

/// First of `count` consecutive free ports.
///
/// # Errors
/// When no such block is found: the system is short of ports.
pub(super) fn free_block(count: u16) -> std::io::Result<u16> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..TRIES)
        .map(|_| rand::rng().random_range(FIRST..LAST - count))
        .find(|base| (*base..base + count).all(free))
        .ok_or_else(|| {
            std::io::Error::other(format!("no {count} consecutive free ports were found"))
        })
}
