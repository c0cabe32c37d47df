//! `medic watch`: events as they are committed, through failovers.
//!
//! The log index of the last event (or bookmark) is all that is needed to go on at another node:
//! nothing is lost, nothing is shown twice.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use medic_proto::v1::{self as pb, events_response::Kind};
use tonic::{Code, Status};

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
    let mut request = pb::EventsRequest {
        after_index: args.after,
        tenant: session.tenant(),
        incident: args.incident.as_deref().map(incident_id).transpose()?.unwrap_or_default(),
        commands: args.commands,
        with_incident: false,
    };
    let pauses = || {
        ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(2))
            .with_jitter()
            .without_max_times()
            .build()
    };
    let mut pause = pauses();
    loop {
        let before = request.after_index;
        let (at, status) = match session.channel().await {
            Ok((at, channel)) => (at, follow(channel, &mut request, &out).await?),
            Err(failed) => failed,
        };
        let gone = matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Ok
        );
        if !gone {
            return Err(status.into());
        }
        session.pass_over(at).await;
        if request.after_index != before {
            pause = pauses();
        }
        out.note(&format!("lost the node ({}); going on at the next", status.message()));
        tokio::time::sleep(pause.next().unwrap_or(Duration::from_secs(2))).await;
    }
}

/// Prints events until the stream ends; `request` remembers how far.
async fn follow(
    channel: tonic::transport::Channel,
    request: &mut pb::EventsRequest,
    out: &Out,
) -> Result<Status, CliError> {
    let mut client = pb::watch_client::WatchClient::new(channel);
    let mut events = match client.events(request.clone()).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Ok(status),
    };
    loop {
        match events.message().await {
            Ok(None) => return Ok(Status::unavailable("the stream ended")),
            Err(status) => return Ok(status),
            Ok(Some(message)) => match message.kind {
                Some(Kind::Event(event)) => {
                    request.after_index = Some(event.index);
                    out.value(&event, |event| lists::event(event, Style::new(out.color())))?;
                }
                Some(Kind::Bookmark(index)) => request.after_index = Some(index),
                None => {}
            },
        }
    }
}
