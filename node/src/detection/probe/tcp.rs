//! TCP: whether somebody accepts a connection.

use super::{Failure, Outcome, judge_io};

pub(super) async fn check(address: &str) -> Outcome {
    let well_formed = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !well_formed {
        return Outcome::NoData(format!("bad address `{address}`: host:port is expected"));
    }
    let resolved = match tokio::net::lookup_host(address).await {
        Ok(resolved) => resolved,
        Err(error) => return Outcome::Bad(Failure::Unreachable(error.to_string())),
    };
    let mut last = Outcome::Bad(Failure::Unreachable("the name has no address".to_owned()));
    for address in resolved {
        match tokio::net::TcpStream::connect(address).await {
            Ok(_) => return Outcome::Good,
            Err(error) => last = judge_io(&error),
        }
    }
    last
}
