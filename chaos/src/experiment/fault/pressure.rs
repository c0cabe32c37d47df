//! Work and memory beside a target, in its own cgroup: a process of ours that ends with us.

use std::{
    fmt,
    hint::black_box,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::experiment::{
    process,
    system::{Trouble, write},
};

/// How often a worker looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);
/// One in so many bytes is written, so that memory is really there.
const PAGE: usize = 4_096;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Work {
    /// Tells the process from all others.
    pub mark: String,
    /// Threads that work.
    pub cpu: u32,
    /// Bytes that are held.
    pub memory: u64,
    /// Cgroups it joins.
    pub homes: Vec<PathBuf>,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let homes: Vec<String> = self.homes.iter().map(|dir| dir.display().to_string()).collect();
        let (cpu, memory) = (self.cpu, self.memory);
        write!(f, "{cpu} threads that work and {memory} bytes held, in {}", homes.join(", "))
    }
}

/// Command line of the process that does it.
#[derive(Clone, Debug, clap::Args)]
pub struct BurnArgs {
    /// Tells it from all others.
    #[arg(long)]
    mark: String,
    /// Threads that work.
    #[arg(long)]
    cpu: u32,
    /// Bytes that are held.
    #[arg(long)]
    memory: usize,
}

impl Work {
    /// Starts it.
    #[allow(clippy::zombie_processes, reason = "ended by its mark; it ends with this process too")]
    pub(super) fn begin(&self) -> Result<(), Trouble> {
        let program = std::env::current_exe()
            .map_err(Trouble::file("finding", std::path::Path::new("/proc/self/exe")))?;
        let child = Command::new(&program)
            .args(["experiment", "burn", "--mark", &self.mark])
            .args(["--cpu", &self.cpu.to_string(), "--memory", &self.memory.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Trouble::file("starting", &program))?;
        for home in &self.homes {
            write(&home.join("cgroup.procs"), &child.id().to_string())?;
        }
        Ok(())
    }
}

/// Works until the process that started it is gone.
pub(in crate::experiment) fn burn(args: &BurnArgs) {
    let parent = rustix::process::getppid();
    let mut held = vec![0_u8; args.memory];
    for byte in held.iter_mut().step_by(PAGE) {
        *byte = 1;
    }
    black_box(&held);
    for _ in 0..args.cpu {
        std::thread::spawn(|| {
            let mut number = 0_u64;
            loop {
                number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        });
    }
    while rustix::process::getppid() == parent {
        std::thread::sleep(LOOK);
    }
}

/// Ends the process that bears a mark.
pub(in crate::experiment) fn end(mark: &str) -> Result<String, Trouble> {
    let mut ended = 0;
    for pid in process::all() {
        let argv = process::argv(pid);
        let wanted = ["experiment", "burn", "--mark", mark];
        if argv.get(1..5).is_some_and(|args| args == wanted)
            && let Some(worker) = process::ProcessRef::of(pid)
        {
            worker.signal(rustix::process::Signal::KILL)?;
            ended += 1;
        }
    }
    Ok(format!("{ended} workers ended"))
}
