//! Disks, and logins that fail.

use std::{collections::BTreeSet, io::BufRead as _, path::Path};

use nix::libc::utmpx;

use super::{Gathered, Read, failed, left_out, number, open};

/// Disks told of.
const DISKS_MAX: usize = 32;
/// A sector, whatever the disk's own size of one: Documentation/admin-guide/iostats.rst of the kernel.
const SECTOR: u64 = 512;

/// What each whole disk read and wrote, and how busy it was: a rate of `io_time` is a share of time.
pub(super) fn disks(proc: &Path, out: &mut Gathered) -> Read {
    let path = proc.join("diskstats");
    let mut told = BTreeSet::new();
    let mut there = 0;
    for line in open(&path)?.lines() {
        let line = line.map_err(|error| failed(&path, error))?;
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(device), Some(numbers)) = (fields.get(2), fields.get(3..14)) else {
            return Err(failed(&path, format_args!("14 fields are expected, not `{line:.80}`")));
        };
        let device = *device;
        if passed_over(device) {
            continue;
        }
        there += 1;
        if told.len() >= DISKS_MAX || !told.insert(device.to_owned()) {
            continue;
        }
        let numbers: Result<Vec<u64>, _> = numbers.iter().map(|field| field.parse()).collect();
        let numbers = numbers.map_err(|error| failed(&path, format_args!("{device}: {error}")))?;
        let [reads, _, read, read_ms, writes, _, written, write_ms, now, busy_ms, weighted_ms] =
            numbers[..]
        else {
            continue;
        };
        let seconds = |ms: u64| number(ms) / 1e3;
        for (name, value) in [
            ("node_disk_reads_completed_total", number(reads)),
            ("node_disk_read_bytes_total", number(read.saturating_mul(SECTOR))),
            ("node_disk_read_time_seconds_total", seconds(read_ms)),
            ("node_disk_writes_completed_total", number(writes)),
            ("node_disk_written_bytes_total", number(written.saturating_mul(SECTOR))),
            ("node_disk_write_time_seconds_total", seconds(write_ms)),
            ("node_disk_io_now", number(now)),
            ("node_disk_io_time_seconds_total", seconds(busy_ms)),
            ("node_disk_io_time_weighted_seconds_total", seconds(weighted_ms)),
        ] {
            out.add(name, &[("device", device)], value);
        }
    }
    left_out("disks", there, DISKS_MAX)
}

/// Disks in memory and in files, and parts of disks, as the node exporter passes them over.
fn passed_over(device: &str) -> bool {
    let digit = |text: &str| text.ends_with(|c: char| c.is_ascii_digit());
    let part_of = |prefix: &str| device.starts_with(prefix) && digit(device);
    ["ram", "zram", "loop", "fd"].into_iter().any(part_of)
        || ["hd", "sd", "vd", "xvd"].into_iter().any(part_of)
        || (["nvme", "mmcblk"].into_iter().any(part_of)
            && device.rsplit_once('p').is_some_and(|(disk, _)| digit(disk)))
}

/// Failed logins, as `login`, `sshd` and other programs of PAM write them down: one record each in
/// `/var/log/btmp`, which `lastb` reads. (A file that is rotated begins anew, as a counter may.)
pub(super) fn auth_failures(btmp: &Path, out: &mut Gathered) -> Read {
    let found = std::fs::metadata(btmp).map_err(|error| failed(btmp, error))?;
    let record = u64::try_from(size_of::<utmpx>()).unwrap_or(u64::MAX);
    out.plain("medic_host_auth_failures_total", number(found.len() / record));
    Ok(())
}
