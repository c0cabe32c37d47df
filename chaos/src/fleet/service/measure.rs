//! What the kernel says of this process: memory, processor time, descriptors, listening sockets.

use std::collections::BTreeSet;

/// Resident memory from `/proc/self/statm` (second field, pages).
pub(super) fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u32 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(f64::from(pages) * f64::from(u32::try_from(page).ok()?))
}

/// Processor time used so far, seconds: fields 14 and 15 of `/proc/self/stat`.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold blanks.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    let per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(f64::from(ticks) / f64::from(u32::try_from(per_s).ok()?))
}

/// Open descriptors.
pub(super) fn descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Ports on which this process listens: its sockets among the listening ones of the system.
pub(super) fn listening_ports() -> BTreeSet<u16> {
    let own: BTreeSet<String> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    table.lines().skip(1).filter_map(|line| listening(line, &own)).collect()
}

/// `0: 0100007F:1F90 00000000:0000 0A … inode …`: state 0A is LISTEN.
fn listening(line: &str, own: &BTreeSet<String>) -> Option<u16> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let ours = *fields.get(3)? == "0A" && own.contains(*fields.get(9)?);
    let port = fields.get(1)?.rsplit_once(':')?.1;
    ours.then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_listening_socket_is_found_and_a_closed_one_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listening_ports().contains(&port));
        drop(listener);
        assert!(!listening_ports().contains(&port));
        assert!(resident_bytes().unwrap() > 1e6);
        assert!(cpu_seconds().is_some() && descriptors().unwrap() > 2);
    }
}
