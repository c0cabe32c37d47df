//! People: they approve, reject, cancel, freeze, resolve, repair by hand, and repeat requests whose
//! answer they have not heard.

use std::{sync::Arc, time::Duration};

use medic_raft::{Ledger as _, LedgerExt as _};
use medic_state::{
    Command, Digest, IncidentId, RequestId, State,
    command::{Approve, Freeze, IncidentNote, Reject},
    incident::IncidentStatus,
    rbac::Principal,
    state::FreezeScope,
};
use tokio::time::sleep;

use super::{cluster::Cluster, ledger::SimLedger};
use crate::{
    coverage::Sometimes,
    history::{Recorder, What},
    rng::Rng,
    world::Fleet,
};

/// Somebody who sits at the console.
pub(super) struct People {
    pub(super) rng: Rng,
    pub(super) fleet: Arc<Fleet>,
    pub(super) recorder: Recorder,
    pub(super) cluster: Cluster,
    /// Requests made so far.
    pub(super) made: u64,
}

impl People {
    /// Works until everything ends.
    pub(super) async fn work(mut self) {
        loop {
            sleep(Duration::from_millis(self.rng.between(500, 3_500))).await;
            let Some(ledger) = self.any() else { continue };
            let incidents: Vec<(IncidentId, IncidentStatus, Option<Digest>)> =
                ledger.read(|state| {
                    let open = state.incidents.values().filter(|incident| !incident.closed());
                    let digest = |plan| state.sagas.get(&plan).map(|saga| saga.digest);
                    open.map(|one| (one.id, one.status, one.plan.and_then(digest))).collect()
                });
            for (id, status, digest) in incidents {
                self.treat(id, status, digest).await;
            }
            self.meddle(&ledger).await;
        }
    }

    fn any(&mut self) -> Option<Arc<SimLedger>> {
        let ledgers = self.cluster.ledgers();
        self.rng.pick(&ledgers).cloned()
    }

    async fn treat(&mut self, id: IncidentId, status: IncidentStatus, digest: Option<Digest>) {
        let note = || IncidentNote { incident: id, note: "by hand".to_owned() };
        match (status, digest) {
            (IncidentStatus::AwaitingApproval, Some(plan_digest)) => {
                let approve = || Command::Approve(Approve { incident: id, plan_digest });
                match self.rng.between(0, 11) {
                    0..=3 => self.ask("ann", approve()).await,
                    4..=5 => self.ask("ben", approve()).await,
                    6 => {
                        let reason = "not now".to_owned();
                        let reject = Reject { incident: id, plan_digest, reason };
                        self.ask("ben", Command::Reject(reject)).await;
                    }
                    _ => {}
                }
            }
            (IncidentStatus::Escalated, _) if self.rng.chance(1, 8) => {
                self.recorder.reached(Sometimes::Escalated);
                self.repair(id);
                self.ask("olga", Command::ResolveIncident(note())).await;
            }
            (IncidentStatus::Remediating | IncidentStatus::Verifying, _)
                if self.rng.chance(1, 60) =>
            {
                self.ask("olga", Command::CancelRemediation(note())).await;
            }
            (
                IncidentStatus::Open
                | IncidentStatus::AwaitingApproval
                | IncidentStatus::Remediating
                | IncidentStatus::Verifying
                | IncidentStatus::RollingBack
                | IncidentStatus::Escalated
                | IncidentStatus::Resolved,
                _,
            ) => {}
        }
    }

    /// Somebody goes there and makes it work.
    fn repair(&mut self, id: IncidentId) {
        let Some(ledger) = self.any() else { return };
        let of = |state: &State| {
            let incident = state.incidents.get(&id)?;
            let symptoms = incident.symptoms.values().map(|known| &known.symptom.target);
            Some(symptoms.map(|target| target.instance.clone()).collect::<Vec<_>>())
        };
        for instance in ledger.read(of).unwrap_or_default() {
            self.fleet.repair(&instance);
        }
    }

    /// Now and then somebody freezes, lifts a freeze, or writes a note.
    async fn meddle(&mut self, ledger: &SimLedger) {
        let frozen: Vec<FreezeScope> = ledger.read(|state| {
            let by_people = state.freezes.iter().filter(|(_, freeze)| freeze.by != "medic");
            by_people.map(|(scope, _)| scope.clone()).collect()
        });
        if let Some(scope) = self.rng.pick(&frozen).cloned() {
            if self.rng.chance(1, 4) {
                self.ask("olga", Command::Unfreeze(scope)).await;
            }
        } else if self.rng.chance(1, 10) {
            let services = self.fleet.services();
            let Some(service) = self.rng.pick(&services).cloned() else { return };
            let tenant = medic_state::manifest::DEFAULT_TENANT.to_owned();
            let scope = FreezeScope::Service { tenant, service };
            let freeze = Freeze { scope, reason: "a deploy".to_owned(), until: None };
            self.ask("olga", Command::Freeze(freeze)).await;
        }
    }

    /// Asks until there is an answer, on one node after the other, under one request id.
    async fn ask(&mut self, user: &str, command: Command) {
        self.made += 1;
        let request = RequestId(format!("people-{}", self.made));
        let mut said = false;
        for _ in 0..4 {
            let Some(ledger) = self.any() else { return };
            let (by, id) = (Principal::user(user), Some(request.clone()));
            let entry = ledger.entry_for(by, id, command.clone());
            let Ok(answer) = ledger.propose(entry).await else { continue };
            let acknowledged = What::Acknowledged {
                index: answer.index,
                request: request.0.clone(),
                answer: answer.answer,
            };
            self.recorder.happened(acknowledged);
            if said {
                self.recorder.reached(Sometimes::RequestRepeated);
                return;
            }
            said = true;
            // An impatient client sends it again.
            if !self.rng.chance(1, 8) {
                return;
            }
        }
    }
}
