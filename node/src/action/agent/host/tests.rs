//! Tests of what a host says: procfs as files, good and broken.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// A procfs with these files.
fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn value(status: &HostStatus, name: &str, label: &str) -> Option<f64> {
    let fits = |sample: &&HostSample| {
        sample.name == name && (label.is_empty() || sample.labels.values().any(|v| v == label))
    };
    status.samples.iter().find(fits).map(|sample| sample.value)
}

const STAT: &str = "cpu  1000 100 300 5000 50 0 20 10 0 0\ncpu0 500 50 150 2500 25 0 10 5 0 0\n\
    cpu1 500 50 150 2500 25 0 10 5 0 0\nintr 1\nctxt 7\nbtime 1700000000\nprocesses 9\n\
    procs_running 1\nprocs_blocked 0\nsoftirq 1\n";
const MEMINFO: &str = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 250 kB\nBuffers: 1 kB\n\
    Cached: 1 kB\nSwapCached: 0 kB\nActive: 1 kB\nInactive: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n\
    Dirty: 0 kB\nWriteback: 0 kB\nMapped: 1 kB\nSlab: 1 kB\nCommitted_AS: 1 kB\n\
    VmallocTotal: 1 kB\nVmallocUsed: 1 kB\nVmallocChunk: 0 kB\n";
const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n\
    full avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n";
const DEVICES: &str = "Inter-|   Receive                                                |  Transmit\n \
    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n  \
    eth0: 100 10 3 4 0 0 0 0 200 20 5 6 0 0 0 0\n  \
    veth1: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n";

const DISKS: &str = "   8       0 sda 10 20 30 40 50 60 70 80 9 1500 110 0 0 0 0 0 0\n   \
    8       1 sda1 1 2 3 4 5 6 7 8 9 10 11\n 259 0 nvme0n1 1 2 3 4 5 6 7 8 9 10 11\n \
    259 1 nvme0n1p2 1 2 3 4 5 6 7 8 9 10 11\n   7 0 loop0 1 2 3 4 5 6 7 8 9 10 11\n";

#[test]
fn figures_go_by_the_node_exporters_names() {
    let folder = proc(&[
        ("stat", STAT),
        ("meminfo", MEMINFO),
        ("loadavg", "1.50 0.75 0.25 1/100 4242\n"),
        ("vmstat", "nr_free_pages 25\noom_kill 3\n"),
        ("pressure/cpu", PRESSURE),
        ("pressure/memory", PRESSURE),
        ("pressure/io", PRESSURE),
        ("sys/fs/file-nr", "500\t0\t1000\n"),
        ("diskstats", DISKS),
        ("btmp", &"x".repeat(3 * size_of::<nix::libc::utmpx>() + 5)),
        ("self/net/dev", DEVICES),
        (
            "self/mountinfo",
            "1 0 0:1 / /proc rw - proc proc rw\n2 0 0:9 / /gone rw - nfs4 host:/ rw\n\
            3 0 8:1 / / rw - ext4 /dev/sda rw\n4 0 8:1 /x /x rw - ext4 /dev/sda rw\n",
        ),
    ]);
    let status = read(folder.path(), &folder.path().join("btmp"), 7);
    assert_eq!(status.missing, BTreeMap::new());
    assert_eq!(status.read_unix_ms, 7);
    let ticks = number(sysconf(SysconfVar::CLK_TCK).unwrap().unwrap().unsigned_abs());
    for (name, label, expected) in [
        ("node_cpu_seconds_total", "user", 1000.0 / ticks),
        ("node_cpu_seconds_total", "steal", 10.0 / ticks),
        ("node_cpus", "", 2.0),
        ("node_boot_time_seconds", "", 1_700_000_000.0),
        ("node_memory_MemAvailable_bytes", "", 250.0 * 1024.0),
        ("medic_host_memory_used_ratio", "", 0.75),
        ("node_load1", "", 1.5),
        ("node_vmstat_oom_kill", "", 3.0),
        ("node_pressure_cpu_waiting_seconds_total", "", 2.5),
        ("node_pressure_memory_stalled_seconds_total", "", 0.5),
        ("node_pressure_io_waiting_seconds_total", "", 2.5),
        ("medic_host_filefd_used_ratio", "", 0.5),
        ("node_network_receive_errs_total", "eth0", 3.0),
        ("node_network_transmit_drop_total", "eth0", 6.0),
        ("node_disk_reads_completed_total", "sda", 10.0),
        ("node_disk_read_bytes_total", "sda", 30.0 * 512.0),
        ("node_disk_write_time_seconds_total", "nvme0n1", 0.008),
        ("node_disk_io_now", "sda", 9.0),
        ("node_disk_io_time_seconds_total", "sda", 1.5),
        ("medic_host_auth_failures_total", "", 3.0),
        ("node_filesystem_readonly", "/", value(&status, "node_filesystem_readonly", "/").unwrap()),
    ] {
        assert_eq!(value(&status, name, label), Some(expected), "{name}{{{label}}}");
    }
    for absent in ["lo", "veth1", "sda1", "nvme0n1p2", "loop0", "/gone", "/x", "/proc"] {
        let told = status.samples.iter().any(|s| s.labels.values().any(|value| value == absent));
        assert!(!told, "{absent} is told of");
    }
    assert_eq!(value(&status, "medic_host_swap_used_ratio", ""), None, "of no swap none is used");
    let share = value(&status, "medic_host_filesystem_used_ratio", "/").unwrap();
    assert!((0.0..=1.0).contains(&share), "{share}");
}

#[test]
fn what_is_missing_or_broken_is_named_and_costs_nothing_else() {
    let folder = proc(&[
        ("stat", "cpu x\n"),
        ("meminfo", MEMINFO),
        ("vmstat", "nr_free_pages 25\n"),
        ("pressure/cpu", "some rubbish\n"),
        ("sys/fs/file-nr", "many\n"),
        ("diskstats", " 8 0 sda 1 2\n"),
        ("self/net/dev", "\n\nwithout a colon\n"),
        ("self/mountinfo", "3 0 8:1 / /no/such/place rw - ext4 /dev/sda rw\n"),
    ]);
    let status = read(folder.path(), &folder.path().join("btmp"), 0);
    assert_eq!(value(&status, "medic_host_memory_used_ratio", ""), Some(0.75));
    for (part, says) in [
        ("cpu", "stat"),
        ("load", "loadavg"),
        ("oom", "oom_kill"),
        ("pressure.cpu", "pressure/cpu"),
        ("pressure.memory", "pressure/memory"),
        ("pressure.io", "pressure/io"),
        ("files", "`many"),
        ("disks", "sda 1 2"),
        ("auth_failures", "btmp"),
        ("network", "net/dev"),
        ("filesystems", "/no/such/place"),
    ] {
        assert!(status.missing[part].contains(says), "{part}: {}", status.missing[part]);
    }
}

#[test]
fn a_host_of_many_devices_and_filesystems_is_told_of_in_part() {
    let devices: String =
        (0..1_000).map(|i| format!("e{i}: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n")).collect();
    let mounts: String =
        (0..1_000).map(|i| format!("{i} 0 8:{i} / / rw - ext4 /dev/sda rw\n")).collect();
    let devices = format!("\n\n{devices}");
    let folder = proc(&[("self/net/dev", &devices), ("self/mountinfo", &mounts)]);
    let status = read(folder.path(), &folder.path().join("btmp"), 0);
    assert_eq!(status.missing["network"], "1000 network devices are there, and 32 are told of");
    assert_eq!(status.missing["filesystems"], "1000 filesystems are there, and 32 are told of");
    assert!(status.samples.len() <= 32 * 6 + 32 * 7, "{}", status.samples.len());
}

#[test]
fn this_host_is_read() {
    let status = read(Path::new("/proc"), Path::new("/var/log/btmp"), 1);
    assert!(value(&status, "node_cpu_seconds_total", "idle").unwrap() > 0.0);
    assert!(value(&status, "node_memory_MemTotal_bytes", "").unwrap() > 0.0);
    assert!(status.samples.len() < 900, "{}", status.samples.len());
}
