//! Freezes.

use medic_proto::v1::{self as pb, freeze_scope::Scope};
use medic_state::{
    state::{FreezeScope, FreezeState},
    symptom::Target,
};

use super::{target, time};

/// What a freeze covers.
#[must_use]
pub fn freeze_scope(scope: &FreezeScope) -> pb::FreezeScope {
    let scope = match scope.clone() {
        FreezeScope::Global => Scope::Global(true),
        FreezeScope::Tenant(tenant) => Scope::Tenant(tenant),
        FreezeScope::Region(region) => Scope::Region(region),
        FreezeScope::Service { tenant, service } => {
            Scope::Service(pb::ServiceScope { tenant, service })
        }
        FreezeScope::Playbook { tenant, playbook } => {
            Scope::Playbook(pb::PlaybookScope { tenant, playbook })
        }
        FreezeScope::Target(one) => Scope::Target(target(&one)),
    };
    pb::FreezeScope { scope: Some(scope) }
}

/// Back; an error names what is missing.
///
/// # Errors
/// When the scope is absent or a part of it is empty.
pub fn freeze_scope_from(scope: Option<pb::FreezeScope>) -> Result<FreezeScope, String> {
    let given = |name: &str, value: String| {
        if value.is_empty() { Err(format!("the scope's {name} is empty")) } else { Ok(value) }
    };
    let missing = "name a scope: global, tenant, region, service, playbook or target";
    match scope.and_then(|scope| scope.scope).ok_or(missing)? {
        Scope::Global(true) => Ok(FreezeScope::Global),
        Scope::Global(false) => Err(missing.to_owned()),
        Scope::Tenant(tenant) => Ok(FreezeScope::Tenant(given("tenant", tenant)?)),
        Scope::Region(region) => Ok(FreezeScope::Region(given("region", region)?)),
        Scope::Service(pb::ServiceScope { tenant, service }) => Ok(FreezeScope::Service {
            tenant: given("tenant", tenant)?,
            service: given("service", service)?,
        }),
        Scope::Playbook(pb::PlaybookScope { tenant, playbook }) => Ok(FreezeScope::Playbook {
            tenant: given("tenant", tenant)?,
            playbook: given("playbook", playbook)?,
        }),
        Scope::Target(pb::Target { tenant, service, instance }) => {
            Ok(FreezeScope::Target(Target {
                tenant: given("tenant", tenant)?,
                service: given("service", service)?,
                instance: given("instance", instance)?,
            }))
        }
    }
}

/// A freeze in force.
#[must_use]
pub fn freeze_info(scope: &FreezeScope, freeze: &FreezeState) -> pb::FreezeInfo {
    pb::FreezeInfo {
        scope: Some(freeze_scope(scope)),
        description: scope.to_string(),
        by: freeze.by.clone(),
        reason: freeze.reason.clone(),
        at: Some(time(freeze.at)),
        until: freeze.until.map(time),
    }
}
