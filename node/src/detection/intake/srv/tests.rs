//! Tests of SRV records, with name servers on loopback.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use simple_dns::{ResourceRecord, rdata::SRV};
use tokio::net::TcpListener;

use super::*;

const NAME: &str = "_metrics._tcp.example.org";

fn answer(id: u16, name: &str, records: &[(&str, u16)], flags: PacketFlag) -> Vec<u8> {
    let mut packet = Packet::new_reply(id);
    packet.set_flags(flags);
    let name = Name::new_unchecked(name);
    packet.questions.push(Question::new(name.clone(), TYPE::SRV.into(), CLASS::IN.into(), false));
    for (target, port) in records {
        let target = Name::new_unchecked(target);
        let record = RData::SRV(SRV { priority: 1, weight: 1, port: *port, target });
        packet.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, 60, record));
    }
    packet.build_bytes_vec_compressed().unwrap()
}

#[test]
fn records_become_endpoints() {
    let records = [("b.example.org", 9100), ("a.example.org", 9101), ("b.example.org", 9100)];
    let told = answer(7, NAME, &records, PacketFlag::RESPONSE);
    assert_eq!(read(&told, 7, NAME).unwrap(), ["a.example.org:9101", "b.example.org:9100"]);
    assert_eq!(read(&told, 7, "_METRICS._tcp.example.org.").unwrap().len(), 2);
}

#[test]
fn what_is_no_answer_is_named() {
    let good = answer(7, NAME, &[("a.example.org", 1)], PacketFlag::RESPONSE);
    assert_eq!(read(&good, 8, NAME), Err(BadAnswer::Other), "another number");
    assert_eq!(read(&good, 7, "_other._tcp.example.org"), Err(BadAnswer::Other));
    assert_eq!(
        read(&question(7, NAME).unwrap(), 7, NAME),
        Err(BadAnswer::Other),
        "no answer at all"
    );
    let cut = answer(7, NAME, &[], PacketFlag::RESPONSE | PacketFlag::TRUNCATION);
    assert_eq!(read(&cut, 7, NAME), Err(BadAnswer::CutOff));
    assert_eq!(read(&answer(7, NAME, &[], PacketFlag::RESPONSE), 7, NAME), Err(BadAnswer::None));
    let absent = answer(7, NAME, &[(".", 0)], PacketFlag::RESPONSE);
    assert_eq!(read(&absent, 7, NAME), Err(BadAnswer::None), "`.`: there is no such service");
    assert!(matches!(read(b"rubbish", 7, NAME), Err(BadAnswer::NotDns(_))));
    let mut failed = good;
    failed[3] |= 2;
    assert!(matches!(read(&failed, 7, NAME), Err(BadAnswer::Refused(_))));
}

#[test]
fn servers_are_those_of_the_system() {
    let text = "# resolver\nsearch example.org\nnameserver 192.0.2.1\nnameserver x\n\
                nameserver 2001:db8::1 # second\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
    let found: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
    assert!(is_srv(NAME) && !is_srv("example.org"));
}

/// A name server whose UDP answers are noise first and cut off then; by TCP it tells all.
#[tokio::test]
async fn a_long_answer_is_asked_for_by_tcp() {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let hosts: Vec<String> = (0..100).map(|n| format!("host-{n}.example.org")).collect();
    let serving = async {
        let mut asked = [0; 512];
        let (length, whose) = udp.recv_from(&mut asked).await.unwrap();
        udp.send_to(b"noise", whose).await.unwrap();
        udp.send_to(&answer(1, NAME, &[("liar", 1)], PacketFlag::RESPONSE), whose).await.unwrap();
        let cut = answer(7, NAME, &[], PacketFlag::RESPONSE | PacketFlag::TRUNCATION);
        udp.send_to(&cut, whose).await.unwrap();
        let (mut stream, _) = tcp.accept().await.unwrap();
        let mut again = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut again).await.unwrap();
        assert_eq!(again, asked[..length]);
        let records: Vec<(&str, u16)> = hosts.iter().map(|host| (host.as_str(), 9100)).collect();
        let told = answer(7, NAME, &records, PacketFlag::RESPONSE);
        stream.write_u16(u16::try_from(told.len()).unwrap()).await.unwrap();
        stream.write_all(&told).await.unwrap();
    };
    let servers = [address];
    let (found, ()) = tokio::join!(resolve(NAME, &servers, 7), serving);
    assert_eq!(found.unwrap().len(), 100);
}

#[tokio::test]
async fn a_server_that_is_gone_is_named_and_the_next_is_asked() {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let serving = async {
        let (_, whose) = udp.recv_from(&mut [0; 512]).await.unwrap();
        let told = answer(7, NAME, &[("a.example.org", 1)], PacketFlag::RESPONSE);
        udp.send_to(&told, whose).await.unwrap();
    };
    let servers = [gone, address];
    let (found, ()) = tokio::join!(resolve(NAME, &servers, 7), serving);
    assert_eq!(found.unwrap(), ["a.example.org:1"]);
    let failed = resolve(NAME, &[gone], 7).await.unwrap_err();
    assert!(failed.starts_with(&gone.to_string()), "{failed}");
    assert!(resolve(NAME, &[], 7).await.unwrap_err().contains("/etc/resolv.conf"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes, 7, NAME).map_or(0, |found| found.len()) <= bytes.len());
    }

    /// One byte of a good answer is another: it is read, or refused, and never goes on for ever.
    #[test]
    fn damage_is_refused_or_read(at in 0_usize..200, to in any::<u8>()) {
        let mut told = answer(7, NAME, &[("a.example.org", 1), ("b.example.org", 2)], PacketFlag::RESPONSE);
        if let Some(byte) = told.get_mut(at) {
            *byte = to;
        }
        prop_assert!(read(&told, 7, NAME).map_or(0, |found| found.len()) <= 2);
    }
}
