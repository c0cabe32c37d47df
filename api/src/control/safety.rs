//! `medic.v1.Safety`.

use medic_proto::v1::{self as pb, safety_server::Safety};
use medic_state::{
    Command,
    command::Freeze,
    state::{FreezeScope, FreezeState},
};
use tonic::{Request, Response, Status};

use super::{
    Control,
    call::grant_of,
    errors::invalid,
    page::{Labels, Paging, Sight, labels},
};
use crate::convert;

/// Longest reason.
const REASON_MAX: usize = 4_096;

/// The tenant a freeze belongs to; `""`: the cluster.
fn tenant_of(scope: &FreezeScope) -> &str {
    match scope {
        FreezeScope::Global | FreezeScope::Region(_) => "",
        FreezeScope::Tenant(tenant)
        | FreezeScope::Service { tenant, .. }
        | FreezeScope::Playbook { tenant, .. } => tenant,
        FreezeScope::Target(target) => &target.tenant,
    }
}

fn freeze_labels(scope: &FreezeScope, freeze: &FreezeState) -> Labels {
    let (kind, name) = match scope {
        FreezeScope::Global => ("global", String::new()),
        FreezeScope::Tenant(tenant) => ("tenant", tenant.clone()),
        FreezeScope::Region(region) => ("region", region.clone()),
        FreezeScope::Service { service, .. } => ("service", service.clone()),
        FreezeScope::Playbook { playbook, .. } => ("playbook", playbook.clone()),
        FreezeScope::Target(target) => ("target", target.to_string()),
    };
    labels([
        ("scope", kind.to_owned()),
        ("tenant", tenant_of(scope).to_owned()),
        ("name", name),
        ("by", freeze.by.clone()),
    ])
}

#[tonic::async_trait]
impl Safety for Control {
    async fn freeze(
        &self,
        request: Request<pb::FreezeRequest>,
    ) -> Result<Response<pb::FreezeResponse>, Status> {
        let grant = grant_of(&request)?;
        let ask = request.into_inner();
        let scope = convert::freeze_scope_from(ask.scope).map_err(invalid)?;
        if ask.reason.trim().is_empty() {
            return Err(invalid("say why: others will find it frozen and wonder"));
        }
        if ask.reason.len() > REASON_MAX {
            return Err(invalid(format!("a reason has at most {REASON_MAX} bytes")));
        }
        let until = match &ask.until {
            None => None,
            Some(at) => {
                Some(convert::time_from(at).ok_or_else(|| invalid("`until` lies before 1970"))?)
            }
        };
        self.fresh(|state| grant.check(state, tenant_of(&scope))).await?;
        let command = Command::Freeze(Freeze { scope, reason: ask.reason, until });
        let (_, receipt) = self.commit(&grant, &ask.request_id, command).await?;
        Ok(Response::new(pb::FreezeResponse { receipt: Some(receipt) }))
    }

    async fn unfreeze(
        &self,
        request: Request<pb::UnfreezeRequest>,
    ) -> Result<Response<pb::UnfreezeResponse>, Status> {
        let grant = grant_of(&request)?;
        let ask = request.into_inner();
        let scope = convert::freeze_scope_from(ask.scope).map_err(invalid)?;
        self.fresh(|state| grant.check(state, tenant_of(&scope))).await?;
        let (_, receipt) = self.commit(&grant, &ask.request_id, Command::Unfreeze(scope)).await?;
        Ok(Response::new(pb::UnfreezeResponse { receipt: Some(receipt) }))
    }

    async fn list_freezes(
        &self,
        request: Request<pb::ListFreezesRequest>,
    ) -> Result<Response<pb::ListFreezesResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        self.view(&request, |state, grant| {
            let sight = Sight::of(state, grant, &ask.tenant)?;
            let items = paging
                .numbered(state.freezes.iter())?
                .filter(|(_, (scope, _))| match tenant_of(scope) {
                    // It holds back everybody's remediations: everybody may know.
                    "" => true,
                    tenant => sight.sees(tenant),
                })
                .filter(|(_, (scope, freeze))| paging.matches(|| freeze_labels(scope, freeze)));
            let (freezes, next_page_token) =
                paging.cut(items, |(scope, freeze)| convert::freeze_info(scope, freeze));
            Ok(pb::ListFreezesResponse { freezes, next_page_token })
        })
        .await
    }
}
