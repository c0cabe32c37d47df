//! `medic get health`.

use std::{cell::RefCell, collections::BTreeMap};

use medic_proto::v1 as pb;
use serde::Serialize;

use super::{
    args::{Format, GetArgs},
    error::CliError,
    foresee::tell_gaps,
    list::pages,
    out::Out,
    render::{Style, vitals},
    session::Session,
};

/// What programs get: what is missing stands beside what is known.
#[derive(Serialize)]
struct Answer {
    services: Vec<pb::ServiceHealth>,
    instances: Vec<pb::InstanceHealth>,
    /// Not empty: of some nothing is known.
    gaps: Vec<pb::Gap>,
}

/// What comes beside the instances of a page.
#[derive(Default)]
struct Beside {
    services: BTreeMap<(String, String), pb::ServiceHealth>,
    gaps: Vec<pb::Gap>,
}

pub(super) async fn health(
    session: &Session,
    args: &GetArgs,
    (out, now, style): (&Out, u64, Style),
) -> Result<(), CliError> {
    let beside = RefCell::new(Beside::default());
    let (instances, more) = pages(args.limit, |page_size, page_token| {
        let request = pb::ListHealthRequest {
            tenant: session.tenant(),
            matchers: args.matchers.clone(),
            page_size,
            page_token,
        };
        let beside = &beside;
        async move {
            let response = session
                .ask(request, |api, request| async move { api.health().list(request).await })
                .await?;
            let mut beside = beside.borrow_mut();
            for one in response.services {
                let target = one.target.clone().unwrap_or_default();
                beside.services.insert((target.tenant, target.service), one);
            }
            // Those of the last page are the newest.
            beside.gaps = response.gaps;
            Ok((response.instances, response.next_page_token))
        }
    })
    .await?;
    let Beside { services, gaps } = beside.into_inner();
    let answer = Answer { services: services.into_values().collect(), instances, gaps };
    if args.connect.output.output == Format::Jsonl {
        out.list(&answer.instances, |_| String::new())?;
    } else {
        let table = |a: &Answer| vitals::health(&a.services, &a.instances, now, style);
        out.value(&answer, table)?;
    }
    if more {
        out.note("there are more: raise --limit, or narrow with -l");
    }
    tell_gaps(out, args, &answer.gaps);
    Ok(())
}
