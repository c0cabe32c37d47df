//! SRV records (RFC 2782): where a service's endpoints are, ports and all.
//!
//! ```text
//!   _metrics._tcp.example.org ─► name servers of /etc/resolv.conf, one after the other
//!        UDP; cut off ─► TCP ─► host:port of each record
//! ```
//!
//! The system's resolver gives addresses alone. Packets are read by `simple-dns`, whose compression
//! pointers only lead backwards, so that no packet makes it turn in circles. Invariant: an answer counts when it
//! comes from who was asked, under the number and with the question that were sent. Deliberately absent:
//! caching (a source is asked at its interval), search domains, DNSSEC, priorities and weights: like
//! Prometheus, all endpoints are scraped.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE, rdata::RData};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use super::discovery::TARGETS_MAX;

/// Time that one name server is given, UDP and TCP each.
const SERVER_TIMEOUT: Duration = Duration::from_secs(1);
/// Name servers heeded, as by the system's resolver.
const SERVERS_MAX: usize = 3;
/// Bytes of an answer by UDP: more than any server sends unasked.
const UDP_BYTES_MAX: usize = 4_096;

/// An answer that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not DNS.
    #[error("it is no DNS message: {0}")]
    NotDns(String),
    /// To another question.
    #[error("it answers another question")]
    Other,
    /// It does not fit into a datagram.
    #[error("it is cut off")]
    CutOff,
    /// The server says that it cannot.
    #[error("the server says {0}")]
    Refused(String),
    /// There are no such records, or they say that the service is not there.
    #[error("there are no SRV records of this name")]
    None,
}

/// Whether a name is one of SRV records: host names begin with no underscore.
#[must_use]
pub fn is_srv(name: &str) -> bool {
    name.starts_with('_')
}

/// Name servers that a `resolv.conf` names.
#[must_use]
pub fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let named = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if words.next()? != "nameserver" {
            return None;
        }
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    named.take(SERVERS_MAX).collect()
}

/// The question, as it is sent.
///
/// # Errors
/// When the name is none.
pub fn question(id: u16, name: &str) -> Result<Vec<u8>, String> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(|error| format!("`{name}`: {error}"))?;
    packet.questions.push(Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(|error| error.to_string())
}

/// The endpoints that an answer names, `host:port`, at most [`TARGETS_MAX`].
///
/// # Errors
/// When it names none.
pub fn read(answer: &[u8], id: u16, name: &str) -> Result<Vec<String>, BadAnswer> {
    let packet = Packet::parse(answer).map_err(|error| BadAnswer::NotDns(error.to_string()))?;
    let same = |asked: &Question<'_>| {
        let text = asked.qname.to_string();
        let trimmed = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
        trimmed(&text) == trimmed(name) && asked.qtype == TYPE::SRV.into()
    };
    let answers = packet.has_flags(PacketFlag::RESPONSE) && packet.id() == id;
    if !answers || packet.questions.len() != 1 || !packet.questions.iter().all(same) {
        return Err(BadAnswer::Other);
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Err(BadAnswer::CutOff);
    }
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(BadAnswer::None),
        other => return Err(BadAnswer::Refused(format!("{other:?}"))),
    }
    let mut found: Vec<String> = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::SRV(srv) => Some((srv.target.to_string(), srv.port)),
            _ => None,
        })
        .map(|(host, port)| format!("{}:{port}", host.trim_end_matches('.')))
        // A target of `.` says that there is no such service; others are host names.
        .filter(|address| super::discovery::is_address(address))
        .collect();
    found.sort();
    found.dedup();
    found.truncate(TARGETS_MAX);
    if found.is_empty() { Err(BadAnswer::None) } else { Ok(found) }
}

/// Asks the servers in turn until one knows.
///
/// # Errors
/// With what the last of them said.
pub async fn resolve(name: &str, servers: &[SocketAddr], id: u16) -> Result<Vec<String>, String> {
    let question = question(id, name)?;
    let mut failed = "no name server is known: /etc/resolv.conf names none".to_owned();
    for server in servers {
        match ask(*server, &question, id, name).await {
            Ok(found) => return Ok(found),
            Err(error) => failed = format!("{server}: {error}"),
        }
    }
    Err(failed)
}

async fn ask(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
) -> Result<Vec<String>, String> {
    let slow = |_| format!("no answer within {SERVER_TIMEOUT:?}");
    let asked = tokio::time::timeout(SERVER_TIMEOUT, by_udp(server, question, id, name));
    match asked.await.map_err(slow)?.map_err(|error| error.to_string())? {
        Err(BadAnswer::CutOff) => {
            let asked = tokio::time::timeout(SERVER_TIMEOUT, by_tcp(server, question));
            let answer = asked.await.map_err(slow)?.map_err(|error| error.to_string())?;
            read(&answer, id, name).map_err(|error| error.to_string())
        }
        other => other.map_err(|error| error.to_string()),
    }
}

/// What does not answer this question is thrown away: anybody can send to a port.
async fn by_udp(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
) -> std::io::Result<Result<Vec<String>, BadAnswer>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        match read(&answer[..length], id, name) {
            Err(BadAnswer::Other | BadAnswer::NotDns(_)) => {}
            told => return Ok(told),
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests;
