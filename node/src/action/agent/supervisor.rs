//! All instances of one agent: declared, adopted, observed; and the desk where orders arrive.
//!
//! ```text
//!   declaration (newest index, on disk) ──► instances ──► reconcile: first starts, removals
//!   order, query ──► desk ──► one instance
//!   observe ──► report of all instances
//! ```
//!
//! Everything here blocks for as long as disks and processes take: call it off the runtime's
//! threads. Absent on purpose: the network.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use medic_proto::fleet::v1 as wire;
use medic_raft::Env;
use serde::{Deserialize, Serialize};

use super::{
    guard::{Hashes, Round},
    host,
    instance::{ActError, Instance, Wanted},
    journal::{Journal, JournalError},
    orders::{self, Desk},
    procfs,
    spec::{INSTANCES_MAX, Key, Spec},
    store::{self, Store, StoreError},
};

/// Instances started or stopped at a time when a declaration changes.
const RECONCILED_AT_A_TIME: usize = 8;
/// What the stop of a removed instance may take.
const REMOVAL_TIME: Duration = Duration::from_secs(60);
const DECLARATION_VERSION: u32 = 1;

/// Why an agent cannot supervise.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel does not say which boot this is.
    #[error("cannot read the boot id from /proc: {0}")]
    Proc(std::io::Error),
}

/// `declaration.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Declared {
    version: u32,
    /// Log index as of which it was true.
    index: u64,
    instances: Vec<Spec>,
}

/// Supervises the instances of one agent.
#[derive(Debug)]
pub struct Supervisor {
    store: Store,
    env: Env,
    boot: String,
    desk: Desk,
    /// Held while a declaration is taken in, so that an older one cannot overtake.
    declared: Mutex<Declared>,
    instances: RwLock<BTreeMap<Key, Arc<Instance>>>,
    hashes: Mutex<Hashes>,
}

impl Supervisor {
    /// Takes up the state directory: journal, declaration, processes that still run.
    ///
    /// # Errors
    /// When the directory cannot be written, belongs to a running agent, or is damaged.
    pub fn open(state_dir: &Path, env: Env) -> Result<Self, AgentError> {
        let store = Store::open(state_dir)?;
        let boot = procfs::boot_id().map_err(AgentError::Proc)?;
        let journal = Journal::open(&store.path("journal"))?;
        let path = store.path("declaration.json");
        let declared: Declared = store::read_json(&path)?.unwrap_or_default();
        if declared.version > DECLARATION_VERSION {
            let problem =
                format!("version {}, this build reads {DECLARATION_VERSION}", declared.version);
            return Err(StoreError::Damaged { path, problem }.into());
        }
        let mut instances = BTreeMap::new();
        for spec in &declared.instances {
            let dir = store.path("instances").join(spec.key.dir_name());
            let instance = Instance::open(dir, spec.clone(), &boot, env.clone())?;
            instances.insert(spec.key.clone(), Arc::new(instance));
        }
        Ok(Self {
            desk: Desk::new(journal, env.clone()),
            store,
            env,
            boot,
            declared: Mutex::new(declared),
            instances: RwLock::new(instances),
            hashes: Mutex::default(),
        })
    }

    /// The highest fence accepted.
    #[must_use]
    pub fn highest_fence(&self) -> u64 {
        self.desk.highest()
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        let instances = self.instances.read().unwrap_or_else(PoisonError::into_inner);
        instances.values().cloned().collect()
    }

    fn find(&self, key: &Key) -> Option<Arc<Instance>> {
        let instances = self.instances.read().unwrap_or_else(PoisonError::into_inner);
        instances.get(key).cloned()
    }

    /// Takes a declaration in, unless a newer one is known: new instances are started, removed ones
    /// stopped. What cannot be declared is left out, with a warning.
    ///
    /// # Errors
    /// When it cannot be noted on disk; nothing is changed then.
    pub fn declare(&self, declaration: wire::Declaration) -> Result<(), AgentError> {
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        if declaration.index <= declared.index {
            return Ok(());
        }
        let specs = checked(declaration.instances);
        let next = Declared {
            version: DECLARATION_VERSION,
            index: declaration.index,
            instances: specs.clone(),
        };
        store::write_json(&self.store.path("declaration.json"), &next)?;
        *declared = next;
        let removed = self.take(specs);
        in_parallel(removed, |instance| {
            let _act = instance.begin_act();
            let stopped = instance
                .want(Wanted::Stopped)
                .map_err(ActError::from)
                .and_then(|()| instance.stop(Instant::now() + REMOVAL_TIME))
                .and_then(|()| Ok(instance.forget()?));
            match stopped {
                Ok(()) => tracing::info!(instance = %instance.key, "no longer declared: stopped"),
                Err(error) => {
                    tracing::warn!(instance = %instance.key, error.reason, "not removed");
                }
            }
        });
        self.reconcile();
        Ok(())
    }

    /// Makes the instances those of `specs`; gives the ones that are gone.
    fn take(&self, specs: Vec<Spec>) -> Vec<Arc<Instance>> {
        let mut instances = self.instances.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *instances);
        for spec in specs {
            let key = spec.key.clone();
            let taken = match before.remove(&key) {
                Some(instance) => instance.declare(spec).map(|()| instance),
                None => {
                    let dir = self.store.path("instances").join(key.dir_name());
                    Instance::open(dir, spec, &self.boot, self.env.clone()).map(Arc::new)
                }
            };
            match taken {
                Ok(instance) => {
                    instances.insert(key, instance);
                }
                Err(error) => tracing::error!(instance = %key, %error, "cannot be supervised"),
            }
        }
        before.into_values().collect()
    }

    /// Brings every instance to its declared state that was not yet: first starts, and starts after
    /// the machine has booted.
    pub fn reconcile(&self) {
        in_parallel(self.all(), |instance| instance.reconcile());
    }

    /// Carries an order out, once, and says what came of it.
    #[must_use]
    pub fn order(&self, order: &wire::Order) -> wire::Result {
        let Some(target) = order.target.clone().map(Key::from) else {
            return orders::failed(&ActError::permanent("the order names no target"));
        };
        self.desk.order(order, || self.find(&target))
    }

    /// Says what became of a key, and lets no older fence follow.
    #[must_use]
    pub fn query(&self, query: &wire::Query) -> wire::QueryAnswer {
        self.desk.query(query, |target| {
            self.all().into_iter().find(|instance| instance.key.to_string() == target)
        })
    }

    /// Looks at the host, for as long as its kernel takes to answer.
    #[must_use]
    pub fn observe_host(&self) -> wire::HostStatus {
        host::read(Path::new("/proc"), Path::new("/var/log/btmp"), self.env.clock.now().0)
    }

    /// Looks whether the processes still are what was started; the next report tells. Reads `/proc`, and
    /// files that changed: at most 256 MiB of them (or one) a time.
    pub fn guard(&self) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut round = Round::begin(&mut hashes);
        self.all().iter().for_each(|instance| instance.guard(&mut round));
    }

    /// Looks at every instance. `thorough`: at usage, logs and configuration files too.
    #[must_use]
    pub fn observe(&self, thorough: bool) -> wire::Report {
        // One look at all processes serves all instances.
        let table = thorough.then(procfs::Table::read);
        let status = |instance: &Arc<Instance>| instance.status(table.as_ref());
        let instances = self.all().iter().map(status).collect();
        wire::Report { at_unix_ms: self.env.clock.now().0, instances, host: None }
    }
}

/// The instances that can be run, each once.
fn checked(instances: Vec<wire::Instance>) -> Vec<Spec> {
    let mut specs: BTreeMap<Key, Spec> = BTreeMap::new();
    for instance in instances.into_iter().take(INSTANCES_MAX) {
        let name = format!("{}/{}/{}", instance.tenant, instance.service, instance.instance);
        match Spec::from_wire(instance) {
            Ok(spec) => {
                specs.insert(spec.key.clone(), spec);
            }
            Err(problem) => tracing::error!(instance = name, problem, "declaration is refused"),
        }
    }
    specs.into_values().collect()
}

/// Does something with each instance, a few at a time.
fn in_parallel(instances: Vec<Arc<Instance>>, act: impl Fn(&Instance) + Sync) {
    let next = Mutex::new(instances.into_iter());
    let worker = || loop {
        let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
        match taken {
            Some(instance) => act(&instance),
            None => return,
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..RECONCILED_AT_A_TIME {
            scope.spawn(worker);
        }
    });
}
