//! Experiments on real processes that they did not start: what is done, what is refused, and that all
//! is undone, however the experiment ends.

mod isolated;
mod medic;
mod refused;
mod undone;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use medic_chaos::{
    fleet::ServiceConfig,
    harness::{free_ports, kill_processes_with},
};

/// Anything here takes less.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sample service that nobody supervises, and a folder that is gone afterwards.
struct Stand {
    dir: tempfile::TempDir,
    port: u16,
    args: Vec<String>,
    service: Child,
}

/// Runs `medic-chaos experiment …` to its end.
fn experiment(args: &[&str]) -> Output {
    start(args).wait_with_output().unwrap()
}

/// Starts `medic-chaos experiment …`.
fn start(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_campaign"))
        .arg("experiment")
        .args(args)
        .env("MEDIC_BIN", env!("CARGO_BIN_EXE_medic-under-test"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Everything it said.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Waits for a condition, with a deadline that names it.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says loudly what is not tested here, and why.
fn skipped(what: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr().lock(), "SKIPPED: {what} NOT tested").unwrap();
}

/// State of a process: `S`, `T`; nothing when there is none.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

impl Stand {
    fn new() -> Self {
        Self::within(&[])
    }

    /// The service runs by way of another command, such as `ip netns exec …`.
    fn within(wrapper: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("medic-experiment-").tempdir().unwrap();
        let config = dir.path().join("api.toml");
        std::fs::write(&config, toml::to_string(&ServiceConfig::default()).unwrap()).unwrap();
        let port = free_ports(1).unwrap()[0];
        let args: Vec<String> =
            ["--name", "api", "--port", &port.to_string(), "--config", config.to_str().unwrap()]
                .map(str::to_owned)
                .to_vec();
        let command = [wrapper, &[env!("CARGO_BIN_EXE_sample-service")]].concat();
        let service = Command::new(command[0])
            .args(&command[1..])
            .args(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stand = Self { dir, port, args, service };
        until("the sample service has started", || stand.starts() == 1);
        std::fs::write(stand.path("api.pid"), stand.pid().to_string()).unwrap();
        stand
    }

    fn pid(&self) -> u32 {
        self.service.id()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// How often the service has started, by its own account.
    fn starts(&self) -> usize {
        std::fs::read_to_string(self.path("api.starts")).map_or(0, |text| text.lines().count())
    }

    fn paused(&self) -> bool {
        state(self.pid()) == Some('T')
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The service, as experiments and allow-lists name it.
    fn process(&self) -> String {
        let args = serde_json::to_string(&self.args).unwrap();
        format!("{{exe: {:?}, args: {args}}}", env!("CARGO_BIN_EXE_sample-service"))
    }

    fn pid_file(&self) -> String {
        format!("{{pidFile: {:?}}}", self.path("api.pid"))
    }

    /// An experiment on the service that expects it to answer.
    fn experiment(&self, rest: &str) -> String {
        self.manifest(&self.process(), rest)
    }

    fn manifest(&self, process: &str, rest: &str) -> String {
        let text = format!(
            r"apiVersion: medic/v1
kind: Experiment
metadata: {{name: stand}}
spec:
  probes:
    - {{name: web, http: {{url: 'http://127.0.0.1:{}/healthz', timeout: 300ms}}}}
  steadyState: {{expect: 'web.status == 200', hold: 0s, within: 10s}}
  targets: [{{name: api, process: {process}}}]
{rest}",
            self.port
        );
        self.write("experiment.yaml", &text)
    }

    /// An allow-list with these entries.
    fn allow(&self, targets: &[&str]) -> String {
        let entries: String = targets.iter().map(|entry| format!("    - {entry}\n")).collect();
        let text = format!(
            "apiVersion: medic/v1\nkind: AllowList\nmetadata: {{name: stand}}\nspec:\n  targets:\n{entries}"
        );
        self.write("allow.yaml", &text)
    }

    /// The service alone, with these faults.
    fn allow_service(&self, inject: &str) -> String {
        let mut restart = vec![env!("CARGO_BIN_EXE_sample-service").to_owned()];
        restart.extend(self.args.iter().cloned());
        let restart = serde_json::to_string(&restart).unwrap();
        self.allow(&[&format!(
            "{{process: {}, inject: {inject}, restart: {restart}}}",
            self.process()
        )])
    }

    /// Where experiments keep their folders.
    fn out(&self) -> String {
        self.path("out").display().to_string()
    }

    /// The folder of the only experiment.
    fn folder(&self) -> PathBuf {
        let mut found = std::fs::read_dir(self.path("out")).unwrap();
        let folder = found.next().unwrap().unwrap().path();
        assert!(found.next().is_none(), "one experiment");
        folder
    }

    fn report(&self) -> serde_json::Value {
        let folder = self.folder();
        for name in ["report.md", "report.html"] {
            assert!(std::fs::read_to_string(folder.join(name)).unwrap().len() > 300, "{name}");
        }
        let text = std::fs::read_to_string(folder.join("report.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn journal(&self) -> String {
        journal(&self.folder())
    }
}

fn journal(folder: &Path) -> String {
    folder.join("journal.jsonl").display().to_string()
}

impl Drop for Stand {
    fn drop(&mut self) {
        // What an experiment has started again is not our child.
        kill_processes_with(&self.path("api.toml").to_string_lossy());
        drop(self.service.wait());
    }
}
