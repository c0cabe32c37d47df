//! `medic watch`: events as they are committed, through failovers.

use medic_api::client::Moment;
use medic_proto::v1 as pb;

use super::{
    args::WatchArgs,
    error::CliError,
    list::incident_id,
    out::Out,
    render::{Style, lists},
    session::Session,
};

/// Runs until interrupted.
pub(super) async fn watch(args: WatchArgs) -> Result<(), CliError> {
    let out = Out::new(args.connect.output.output);
    let session = Session::open(&args.connect)?;
    let request = pb::EventsRequest {
        after_index: args.after,
        tenant: session.tenant(),
        incident: args.incident.as_deref().map(incident_id).transpose()?.unwrap_or_default(),
        commands: args.commands,
        with_incident: false,
    };
    let style = Style::new(out.color());
    let mut events = session.client().events(request);
    loop {
        match events.next().await? {
            Moment::Event(event) => out.value(&event, |event| lists::event(event, style))?,
            Moment::Bookmark(_) => {}
            Moment::Lost(why) => {
                let seen = events.seen().map_or_else(|| "what comes".to_owned(), |i| i.to_string());
                out.note(&format!("lost {why}; going on after {seen} at the next node"));
            }
        }
    }
}
