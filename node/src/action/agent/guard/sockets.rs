//! Where processes listen, from `/proc/<pid>/net` and `/proc/<pid>/fd`.
//!
//! The table of a network namespace is read once a round. The kernel lists listening TCP sockets first, so
//! that reading ends with them however many connections there are. Descriptors are looked through only
//! where some listening socket of the namespace is not declared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
};

/// Descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 16_384;
/// Of one table of sockets so much is read.
const TABLE_BYTES_MAX: u64 = 4 << 20;
/// States as the kernel numbers them: `TCP_LISTEN`, `TCP_NEW_SYN_RECV` and its elder, and `TCP_CLOSE`,
/// which is what an unconnected UDP socket is in.
const LISTEN: &str = "0A";
const OPENING: [&str; 2] = ["03", "0C"];
const UNCONNECTED: &str = "07";
/// As Linux has it where nobody set another.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// One socket that waits for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) inode: u64,
    pub(super) protocol: &'static str,
    pub(super) address: SocketAddr,
}

/// The sockets of each network namespace, as of one round.
#[derive(Debug, Default)]
pub(super) struct Sockets(BTreeMap<PathBuf, Arc<Vec<Socket>>>);

impl Sockets {
    /// Sockets of a process that listen on other ports than these, by inode, as text for people.
    pub(super) fn listening(
        &mut self,
        pid: u32,
        declared: &BTreeSet<u16>,
    ) -> BTreeMap<u64, String> {
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/net")) else {
            return BTreeMap::new();
        };
        let all = self.0.entry(namespace).or_insert_with(|| Arc::new(of_namespace(pid)));
        let strange: BTreeMap<u64, &Socket> = all
            .iter()
            .filter(|socket| !declared.contains(&socket.address.port()))
            .map(|socket| (socket.inode, socket))
            .collect();
        if strange.is_empty() {
            return BTreeMap::new();
        }
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return BTreeMap::new();
        };
        let inode = |link: PathBuf| {
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
        };
        descriptors
            .flatten()
            .take(DESCRIPTORS_MAX)
            .filter_map(|entry| inode(fs::read_link(entry.path()).ok()?))
            .filter_map(|inode| Some((inode, *strange.get(&inode)?)))
            .map(|(inode, socket)| (inode, format!("{} {}", socket.protocol, socket.address)))
            .collect()
    }
}

fn of_namespace(pid: u32) -> Vec<Socket> {
    let ephemeral = ephemeral();
    let mut all = Vec::new();
    for (table, protocol) in [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")] {
        let Ok(file) = File::open(format!("/proc/{pid}/net/{table}")) else { continue };
        let lines = BufReader::new(file.take(TABLE_BYTES_MAX)).lines().skip(1);
        for line in lines.map_while(Result::ok) {
            match read(&line, protocol) {
                Line::Waits(socket) => {
                    let clients = protocol == "udp" && ephemeral.contains(&socket.address.port());
                    if !clients {
                        all.push(socket);
                    }
                }
                Line::Other if protocol == "tcp" => break,
                Line::Other | Line::Opening => {}
            }
        }
    }
    all
}

/// From where ports are given to clients.
fn ephemeral() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = text.split_ascii_whitespace().map(str::parse::<u16>);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(from)), Some(Ok(to))) => from..=to,
        _ => EPHEMERAL,
    }
}

/// What a line of a table is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Waits(Socket),
    Opening,
    Other,
}

/// `0: 0100007F:1F90 00000000:0000 0A … inode …`, addresses in words of the host's byte order.
pub(super) fn read(line: &str, protocol: &'static str) -> Line {
    let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
    let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
    else {
        return Line::Opening;
    };
    if OPENING.contains(state) {
        return Line::Opening;
    }
    let waits = if protocol == "tcp" { *state == LISTEN } else { *state == UNCONNECTED };
    let read = || Some(Socket { inode: inode.parse().ok()?, protocol, address: address(local)? });
    if waits { read().map_or(Line::Opening, Line::Waits) } else { Line::Other }
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok();
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?.to_ne_bytes())),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at * 8)?.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}
