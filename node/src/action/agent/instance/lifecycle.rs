//! The life of an instance's process: start it, stop it, send it a signal.
//!
//! Everything here but [`Instance::signal`] happens under the act lock; the core lock is held for one
//! look or one change, so that reports never wait for a process to end. Invariant: a start is noted,
//! durably, before the process is, and its pid right after.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{ActError, Core, Instance, Process, Starting, Wanted};
use crate::action::agent::{process, spec, store::StoreError};

/// A process that ends within this time did not start.
const EARLY: Duration = Duration::from_millis(200);
/// What SIGKILL may take, and what of an order's time is kept for it.
const KILL_TIME: Duration = Duration::from_secs(2);
/// Between two looks at a process that is to end. It may not be a child: nothing else tells.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What an instance that is no longer wanted may take to stop when it is declared so.
const DECLARED_STOP: Duration = Duration::from_secs(60);

impl Instance {
    /// Brings it to what is wanted if that is still to be done for the first time.
    pub(in crate::action::agent) fn reconcile(&self) {
        let _act = self.begin_act();
        let (pending, wanted) = {
            let core = self.core();
            (core.record.pending, core.record.wanted)
        };
        if !pending {
            return;
        }
        let brought = match wanted {
            Wanted::Running if self.life().is_some() => Ok(()),
            Wanted::Running => self.start("declared").map(|_| ()),
            Wanted::Stopped => self.stop(Instant::now() + DECLARED_STOP),
        };
        let mut core = self.core();
        if let Err(error) = brought {
            tracing::warn!(instance = %self.key, error.reason, "not brought to its declared state");
            if core.record.last_exit.is_empty() {
                core.record.last_exit = error.reason;
            }
        }
        core.record.pending = false;
        if let Err(error) = self.save(&core) {
            tracing::warn!(instance = %self.key, %error, "its state is not noted on disk");
        }
    }

    /// Starts it. Only under the act lock, and when it does not run. Gives the pid.
    pub(in crate::action::agent) fn start(&self, cause: &str) -> Result<u32, ActError> {
        let pid = {
            let mut core = self.core();
            self.first_config(&mut core)?;
            self.look_at_config(&mut core);
            core.know_config();
            // What a killed parent left behind may still hold the port.
            if let Some(process) = &core.record.process {
                process.id.kill_all(&self.boot).map_err(ActError::retryable)?;
            }
            let start = self.env.entropy.request_id().0;
            let at_ms = self.now_ms();
            let cause = cause.to_owned();
            core.record.starting =
                Some(Starting { start: start.clone(), at_ms, cause: cause.clone() });
            self.save(&core)?;
            let spawned = process::spawn(&core.spec, &start, &self.log(), &self.boot);
            core.record.starting = None;
            let id = match spawned {
                Ok(id) => id,
                Err(error) => {
                    core.record.last_exit = format!("cannot start: {error}");
                    self.save(&core)?;
                    return Err(ActError::retryable(&core.record.last_exit));
                }
            };
            tracing::info!(instance = %self.key, pid = id.pid, cause, "started");
            let pid = id.pid;
            core.record.process = Some(Process { id, started_ms: at_ms, cause, ended: false });
            core.record.starts += 1;
            if let Err(error) = self.save(&core) {
                // It runs, and the noted start finds it again.
                tracing::warn!(instance = %self.key, %error, "its pid is not noted on disk");
            }
            pid
        };
        if self.ends_before(Instant::now() + EARLY) {
            return Err(self.ended_early());
        }
        Ok(pid)
    }

    fn ended_early(&self) -> ActError {
        let how = self.core().record.last_exit.clone();
        let said = process::tail(&self.log());
        ActError::retryable(format!("it ended at once ({how}): {said}"))
    }

    /// Watches its process for a while, at most until the act must be over: one that crashes meanwhile
    /// was not started. Only under the act lock.
    pub(in crate::action::agent) fn outlives(
        &self,
        watch: Duration,
        deadline: Instant,
    ) -> Result<(), ActError> {
        let until = (Instant::now() + watch).min(deadline);
        let ended = !watch.is_zero() && self.ends_before(until);
        if ended { Err(self.ended_early()) } else { Ok(()) }
    }

    fn first_config(&self, core: &mut Core) -> Result<(), StoreError> {
        let Core { spec, record, config, .. } = core;
        let Some(content) = &spec.config_content else { return Ok(()) };
        if record.config.first_written || spec.config_path.is_empty() {
            return Ok(());
        }
        let path = Path::new(&spec.config_path);
        config.put(path, content.as_bytes(), &mut record.config, self.env.clock.now().0)?;
        record.config.first_written = true;
        self.save(core)
    }

    /// Stops it: its signal, its time, SIGKILL. Also what hangs or is paused. Only under the act
    /// lock. What it started and left behind is killed.
    pub(in crate::action::agent) fn stop(&self, deadline: Instant) -> Result<(), ActError> {
        let Some(process) = self.process() else { return Ok(()) };
        if !process.ended {
            let (signal, patience) = {
                let spec = &self.core().spec;
                (spec::signal(&spec.stop_signal), Duration::from_millis(spec.stop_timeout_ms))
            };
            let send = |signal| process.id.signal(signal, &self.boot).map_err(ActError::retryable);
            send(signal.map_err(ActError::permanent)?)?;
            // A paused process takes its signal when it goes on.
            send(Signal::SIGCONT)?;
            let latest = deadline.checked_sub(KILL_TIME).unwrap_or(deadline);
            if !self.ends_before((Instant::now() + patience).min(latest)) {
                tracing::info!(instance = %self.key, pid = process.id.pid, "outstays its time: SIGKILL");
                process.id.kill_all(&self.boot).map_err(ActError::retryable)?;
                if !self.ends_before(Instant::now() + KILL_TIME) {
                    let reason = format!("process {} outlives SIGKILL", process.id.pid);
                    return Err(ActError::retryable(reason));
                }
            }
        }
        process.id.kill_all(&self.boot).map_err(ActError::retryable)
    }

    fn ends_before(&self, deadline: Instant) -> bool {
        loop {
            if self.life().is_none() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Sends it a signal, if it lives.
    pub(in crate::action::agent) fn signal(&self, signal: Signal) -> Result<(), ActError> {
        match self.process().filter(|process| !process.ended) {
            Some(process) => process.id.signal(signal, &self.boot).map_err(ActError::retryable),
            None => Ok(()),
        }
    }
}
