//! How the host does, from `/proc` and its filesystems: what an instance suffers from together with
//! all others there.
//!
//! ```text
//!   stat, meminfo, vmstat, loadavg, pressure/*, sys/fs/file-nr, net/dev, self/mountinfo + statvfs,
//!   diskstats, /var/log/btmp
//!      └─► samples under the node exporter's names ─► the agent's reports ─► indicators
//! ```
//!
//! Names are those of Prometheus' node exporter, so that a selector written for it works here. Shares
//! (0 to 1, where more is worse) are added under `medic_host_…`: a limit and a trend need them so.
//! Invariants: the number of samples is bounded; what cannot be read is named with its reason and
//! costs nothing else. Deliberately absent: filesystems of the network, as a look at one whose server is
//! gone may never come back.

mod more;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    fs::File,
    io::BufReader,
    path::Path,
};

use medic_proto::fleet::v1::{HostSample, HostStatus};
use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::{SysconfVar, sysconf},
};
use procfs_core::{
    CpuPressure, CpuTime, ExplicitSystemInfo, FromBufRead, FromBufReadSI as _, FromRead as _,
    IoPressure, KernelStats, LoadAverage, Meminfo, MemoryPressure, PressureRecord, VmStat,
    net::{DeviceStatus, InterfaceDeviceStatus},
    process::MountInfos,
};

/// Filesystems and network devices told of; a host with more is one of containers, whose every pod
/// has some.
const FILESYSTEMS_MAX: usize = 32;
const DEVICES_MAX: usize = 32;
/// Filesystems that lie on a disk of this host, or in its memory.
const LOCAL: [&str; 12] = [
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "vfat",
    "xfs", "zfs",
];

/// Samples as they are gathered.
#[derive(Default)]
struct Gathered(Vec<HostSample>);

impl Gathered {
    fn add(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.0.push(HostSample { name: name.to_owned(), labels, value });
    }

    fn plain(&mut self, name: &str, value: f64) {
        self.add(name, &[], value);
    }

    /// Of so much, so much is used. Of nothing there is no share.
    fn share(&mut self, name: &str, labels: &[(&str, &str)], used: u64, of: u64) {
        if of > 0 {
            self.add(name, labels, number(used) / number(of));
        }
    }
}

type Read = Result<(), String>;
type Part = fn(&Path, &mut Gathered) -> Read;

/// Reads the host's figures; `proc` is where procfs is mounted, `btmp` the record of failed logins.
///
/// Blocks for as long as the kernel takes. At most some 800 samples.
pub(super) fn read(proc: &Path, btmp: &Path, now_unix_ms: u64) -> HostStatus {
    let parts: [(&str, Part); 11] = [
        ("cpu", cpu),
        ("memory", memory),
        ("load", load),
        ("oom", oom),
        ("pressure.cpu", pressure_cpu),
        ("pressure.memory", pressure_memory),
        ("pressure.io", pressure_io),
        ("files", files),
        ("network", network),
        ("disks", more::disks),
        ("filesystems", filesystems),
    ];
    let mut gathered = Gathered::default();
    let mut missing = BTreeMap::new();
    for (name, part) in parts {
        if let Err(why) = part(proc, &mut gathered) {
            missing.insert(name.to_owned(), why);
        }
    }
    if let Err(why) = more::auth_failures(btmp, &mut gathered) {
        missing.insert("auth_failures".to_owned(), why);
    }
    HostStatus { read_unix_ms: now_unix_ms, samples: gathered.0, missing }
}

/// Counters and sizes stay below 2^53 for longer than a host lives; beyond, they lose their last digits.
#[allow(clippy::cast_precision_loss, reason = "see above")]
const fn number(of: u64) -> f64 {
    of as f64
}

fn failed(path: &Path, error: impl Display) -> String {
    format!("{}: {error}", path.display())
}

fn open(path: &Path) -> Result<BufReader<File>, String> {
    File::open(path).map(BufReader::new).map_err(|error| failed(path, error))
}

fn parsed<T: FromBufRead>(proc: &Path, name: &str) -> Result<T, String> {
    let path = proc.join(name);
    T::from_buf_read(open(&path)?).map_err(|error| failed(&path, error))
}

fn cpu(proc: &Path, out: &mut Gathered) -> Read {
    let path = proc.join("stat");
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let system = ExplicitSystemInfo {
        boot_time_secs: 0,
        ticks_per_second: ticks.and_then(|n| u64::try_from(n).ok()).unwrap_or(100),
        page_size: 4096,
        is_little_endian: cfg!(target_endian = "little"),
    };
    let stats = KernelStats::from_buf_read(open(&path)?, &system);
    let stats = stats.map_err(|error| failed(&path, error))?;
    let CpuTime { user, nice, system: kernel, idle, iowait, irq, softirq, steal, .. } = stats.total;
    let per_second = number(system.ticks_per_second.max(1));
    for (mode, ticks) in [
        ("user", Some(user)),
        ("nice", Some(nice)),
        ("system", Some(kernel)),
        ("idle", Some(idle)),
        ("iowait", iowait),
        ("irq", irq),
        ("softirq", softirq),
        ("steal", steal),
    ] {
        if let Some(ticks) = ticks {
            out.add("node_cpu_seconds_total", &[("mode", mode)], number(ticks) / per_second);
        }
    }
    out.plain("node_cpus", number(u64::try_from(stats.cpu_time.len()).unwrap_or(u64::MAX)));
    out.plain("node_boot_time_seconds", number(stats.btime));
    Ok(())
}

fn memory(proc: &Path, out: &mut Gathered) -> Read {
    let memory: Meminfo = parsed(proc, "meminfo")?;
    // Kernels before 3.14 do not say what is available: free memory is less than that.
    let available = memory.mem_available.unwrap_or(memory.mem_free);
    out.plain("node_memory_MemTotal_bytes", number(memory.mem_total));
    out.plain("node_memory_MemAvailable_bytes", number(available));
    out.plain("node_memory_SwapTotal_bytes", number(memory.swap_total));
    out.plain("node_memory_SwapFree_bytes", number(memory.swap_free));
    let used = memory.mem_total.saturating_sub(available);
    out.share("medic_host_memory_used_ratio", &[], used, memory.mem_total);
    let swapped = memory.swap_total.saturating_sub(memory.swap_free);
    out.share("medic_host_swap_used_ratio", &[], swapped, memory.swap_total);
    Ok(())
}

fn load(proc: &Path, out: &mut Gathered) -> Read {
    let path = proc.join("loadavg");
    let load = LoadAverage::from_read(open(&path)?).map_err(|error| failed(&path, error))?;
    for (name, value) in
        [("node_load1", load.one), ("node_load5", load.five), ("node_load15", load.fifteen)]
    {
        out.plain(name, f64::from(value));
    }
    Ok(())
}

fn oom(proc: &Path, out: &mut Gathered) -> Read {
    let VmStat(counters) = parsed(proc, "vmstat")?;
    let kills =
        counters.get("oom_kill").ok_or("this kernel does not count oom_kill (before 4.13)")?;
    out.plain("node_vmstat_oom_kill", number(u64::try_from(*kills).unwrap_or_default()));
    Ok(())
}

/// PSI gives microseconds.
fn stalled(out: &mut Gathered, name: &str, record: &PressureRecord) {
    out.plain(name, number(record.total) / 1e6);
}

fn pressure_cpu(proc: &Path, out: &mut Gathered) -> Read {
    let cpu: CpuPressure = parsed(proc, "pressure/cpu")?;
    stalled(out, "node_pressure_cpu_waiting_seconds_total", &cpu.some);
    Ok(())
}

fn pressure_memory(proc: &Path, out: &mut Gathered) -> Read {
    let memory: MemoryPressure = parsed(proc, "pressure/memory")?;
    stalled(out, "node_pressure_memory_waiting_seconds_total", &memory.some);
    stalled(out, "node_pressure_memory_stalled_seconds_total", &memory.full);
    Ok(())
}

fn pressure_io(proc: &Path, out: &mut Gathered) -> Read {
    let io: IoPressure = parsed(proc, "pressure/io")?;
    stalled(out, "node_pressure_io_waiting_seconds_total", &io.some);
    stalled(out, "node_pressure_io_stalled_seconds_total", &io.full);
    Ok(())
}

/// Open files of the whole host: `allocated unused maximum`.
fn files(proc: &Path, out: &mut Gathered) -> Read {
    let path = proc.join("sys/fs/file-nr");
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (Some(Ok(allocated)), Some(Ok(_)), Some(Ok(maximum))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return Err(failed(&path, format_args!("three numbers are expected, not `{text:.60}`")));
    };
    out.plain("node_filefd_allocated", number(allocated));
    out.plain("node_filefd_maximum", number(maximum));
    out.share("medic_host_filefd_used_ratio", &[], allocated, maximum);
    Ok(())
}

fn network(proc: &Path, out: &mut Gathered) -> Read {
    // Of the agent's own network namespace, which is the host's unless somebody put it elsewhere.
    let InterfaceDeviceStatus(devices) = parsed(proc, "self/net/dev")?;
    // The other ends of containers' devices come and go with them.
    let told = |name: &str| name != "lo" && !name.starts_with("veth");
    let devices: BTreeMap<String, DeviceStatus> =
        devices.into_iter().filter(|(name, _)| told(name)).collect();
    for (device, status) in devices.iter().take(DEVICES_MAX) {
        for (name, count) in [
            ("node_network_receive_bytes_total", status.recv_bytes),
            ("node_network_receive_errs_total", status.recv_errs),
            ("node_network_receive_drop_total", status.recv_drop),
            ("node_network_transmit_bytes_total", status.sent_bytes),
            ("node_network_transmit_errs_total", status.sent_errs),
            ("node_network_transmit_drop_total", status.sent_drop),
        ] {
            out.add(name, &[("device", device)], number(count));
        }
    }
    left_out("network devices", devices.len(), DEVICES_MAX)
}

fn filesystems(proc: &Path, out: &mut Gathered) -> Read {
    let MountInfos(mounts) = parsed(proc, "self/mountinfo")?;
    let (mut seen, mut problems) = (BTreeSet::new(), Vec::new());
    for mount in &mounts {
        // One that is mounted in several places is told of once, at its first.
        let local = LOCAL.contains(&mount.fs_type.as_str());
        if !local || seen.len() >= FILESYSTEMS_MAX || !seen.insert(mount.majmin.clone()) {
            continue;
        }
        if let Err(error) = filesystem(&mount.mount_point, &mount.fs_type, out) {
            problems.push(failed(&mount.mount_point, error));
        }
    }
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let all: BTreeSet<&str> = (mounts.iter())
        .filter(|mount| LOCAL.contains(&mount.fs_type.as_str()))
        .map(|mount| mount.majmin.as_str())
        .collect();
    left_out("filesystems", all.len(), FILESYSTEMS_MAX)
}

fn filesystem(at: &Path, kind: &str, out: &mut Gathered) -> nix::Result<()> {
    let told = statvfs(at)?;
    let block = told.fragment_size();
    // What has no blocks is no place to write to.
    if told.blocks() == 0 {
        return Ok(());
    }
    let mount_point = at.to_string_lossy();
    let labels = [("fstype", kind), ("mountpoint", mount_point.as_ref())];
    let bytes = |blocks: u64| number(blocks.saturating_mul(block));
    out.add("node_filesystem_size_bytes", &labels, bytes(told.blocks()));
    out.add("node_filesystem_avail_bytes", &labels, bytes(told.blocks_available()));
    out.add("node_filesystem_files", &labels, number(told.files()));
    out.add("node_filesystem_files_free", &labels, number(told.files_free()));
    let read_only = told.flags().contains(FsFlags::ST_RDONLY);
    out.add("node_filesystem_readonly", &labels, f64::from(u8::from(read_only)));
    // As df has it: of what others than root may use.
    let used = told.blocks().saturating_sub(told.blocks_free());
    let of = used.saturating_add(told.blocks_available());
    out.share("medic_host_filesystem_used_ratio", &labels, used, of);
    let inodes = told.files().saturating_sub(told.files_free());
    out.share("medic_host_filesystem_files_used_ratio", &labels, inodes, told.files());
    Ok(())
}

fn left_out(what: &str, there: usize, told: usize) -> Read {
    if there <= told {
        return Ok(());
    }
    Err(format!("{there} {what} are there, and {told} are told of"))
}

#[cfg(test)]
mod tests;
