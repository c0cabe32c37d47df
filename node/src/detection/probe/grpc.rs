//! gRPC: `grpc.health.v1.Health/Check` of the server as a whole.
//!
//! Deliberately absent: `https` targets. tonic is built without root certificates here, and an
//! unverified connection would prove nothing; such a probe says that it has no data.

use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Failure, Outcome, io_cause, judge_io, root_cause};

/// A health answer is two bytes.
const ANSWER_BYTES_MAX: usize = 4096;

pub(super) async fn check(url: &str) -> Outcome {
    if url.starts_with("https:") {
        return Outcome::NoData("gRPC health over https is not supported".to_owned());
    }
    let endpoint = match Endpoint::from_shared(url.to_owned()) {
        Ok(endpoint) => endpoint,
        Err(error) => return Outcome::NoData(format!("bad URL `{url}`: {error}")),
    };
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => {
            return io_cause(&error)
                .map_or_else(|| Outcome::Bad(Failure::Unreachable(root_cause(&error))), judge_io);
        }
    };
    let mut client = HealthClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    match client.check(HealthCheckRequest { service: String::new() }).await {
        Ok(answer) => match ServingStatus::try_from(answer.into_inner().status) {
            Ok(ServingStatus::Serving) => Outcome::Good,
            Ok(other) => Outcome::Bad(Failure::NotServing(other.as_str_name().to_owned())),
            Err(error) => Outcome::Bad(Failure::Broken(error.to_string())),
        },
        Err(status) if status.code() == Code::Unimplemented => {
            Outcome::NoData("the server has no health service".to_owned())
        }
        Err(status) => Outcome::Bad(Failure::Broken(status.to_string())),
    }
}
