//! A watch that outlives the node it began on.
//!
//! The log index of the last event, or bookmark, is all that is needed to go on at another node:
//! nothing is lost, nothing is seen twice.

use std::time::Duration;

use medic_proto::v1::{self as pb, events_response::Kind};
use tonic::{Status, Streaming};

use super::{
    Client, PAUSE_MAX, PAUSE_MIN,
    reason::{away, in_words},
};

/// What a watch brings.
#[derive(Debug)]
pub enum Moment {
    /// Something was committed.
    Event(Box<pb::Event>),
    /// All that was committed up to this log index has been looked at.
    Bookmark(u64),
    /// The node that told was lost, for this reason; the next moment comes from another.
    Lost(String),
}

/// A watch. It goes on at another node by itself, for as long as it is asked for more.
#[derive(Debug)]
pub struct Events {
    client: Client,
    request: pb::EventsRequest,
    stream: Option<Streaming<pb::EventsResponse>>,
    /// Whether it was ever open; a first attempt that fails is told, later ones are made again.
    begun: bool,
    /// Before the next attempt to open; none after something was heard.
    pause: Duration,
}

impl Client {
    /// Watches; nothing is asked of the cluster before the first moment is.
    #[must_use]
    pub fn events(&self, request: pb::EventsRequest) -> Events {
        let client = self.clone();
        Events { client, request, stream: None, begun: false, pause: Duration::ZERO }
    }
}

impl Events {
    /// Log index up to which everything was seen; `None` before the first moment of a watch that
    /// begins with what is new.
    #[must_use]
    pub fn seen(&self) -> Option<u64> {
        self.request.after_index
    }

    /// The next moment, however long it takes.
    ///
    /// # Errors
    /// When the watch cannot begin, or was refused.
    pub async fn next(&mut self) -> Result<Moment, Status> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => {
                    tokio::time::sleep(self.pause).await;
                    let request = &self.request;
                    let opened = self
                        .client
                        .call(|api| async move { api.watch().events(request.clone()).await })
                        .await;
                    match opened {
                        Ok(response) => {
                            self.begun = true;
                            none.insert(response.into_inner())
                        }
                        Err(status) if self.begun && again(&status) => {
                            return Ok(self.lose(in_words(&status)));
                        }
                        Err(status) => return Err(status),
                    }
                }
            };
            let told = match stream.message().await {
                Ok(Some(told)) => told,
                Ok(None) => return Ok(self.lose("the stream ended".to_owned())),
                Err(status) if again(&status) => return Ok(self.lose(in_words(&status))),
                Err(status) => return Err(status),
            };
            self.pause = Duration::ZERO;
            match told.kind {
                Some(Kind::Event(event)) => {
                    self.request.after_index = Some(event.index);
                    return Ok(Moment::Event(Box::new(event)));
                }
                Some(Kind::Bookmark(index)) => {
                    self.request.after_index = Some(index);
                    return Ok(Moment::Bookmark(index));
                }
                // A kind that this build does not know.
                None => {}
            }
        }
    }

    fn lose(&mut self, why: String) -> Moment {
        let node = self.client.endpoint().to_owned();
        self.stream = None;
        self.client.advance();
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        Moment::Lost(format!("{node}: {why}"))
    }
}

/// Whether another node, or another moment, may do better.
fn again(status: &Status) -> bool {
    away(status).is_some() || status.code() == tonic::Code::DeadlineExceeded
}
