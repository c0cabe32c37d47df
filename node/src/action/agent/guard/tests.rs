//! What the kernel's tables say, read.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{privileges::Privileges, sockets::*, *};

#[test]
fn only_sockets_that_wait_for_others_are_listeners() {
    let line = |state: &str| {
        format!(
            "   1: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0"
        )
    };
    let address = "127.0.0.1:8080".parse().unwrap();
    let tcp = Socket { inode: 4711, protocol: "tcp", address };
    assert_eq!(read(&line("0A"), "tcp"), Line::Waits(tcp.clone()));
    assert_eq!(read(&line("01"), "tcp"), Line::Other);
    // Half open ones may stand between the listening ones.
    assert_eq!(read(&line("03"), "tcp"), Line::Opening);
    assert_eq!(read(&line("07"), "udp"), Line::Waits(Socket { protocol: "udp", ..tcp }));
    assert_eq!(read(&line("01"), "udp"), Line::Other);
    let six = line("0A").replace("0100007F", "00000000000000000000000001000000");
    let Line::Waits(socket) = read(&six, "tcp") else { panic!("{six}") };
    assert_eq!(socket.address, "[::1]:8080".parse().unwrap());
    for broken in ["", "1: x 0 0A", "1: zz:1F90 0 0A 0 0 0 0 0 9"] {
        assert_eq!(read(broken, "tcp"), Line::Opening, "{broken}");
    }
}

fn status(uid: &str, caps: &str, rest: &str) -> Privileges {
    let text = format!("Name:\tx\nUid:\t{uid}\nGid:\t0\t0\t0\t0\nCapEff:\t{caps}\n{rest}");
    Privileges::read(&text).unwrap()
}

#[test]
fn gained_rights_are_told_from_lost_ones() {
    let root = status("0 0 0 0", "000001ffffffffff", "NoNewPrivs:\t0\nSeccomp:\t0\n");
    let user = status("33 33 33 33", "0000000000000000", "NoNewPrivs:\t1\nSeccomp:\t2\n");
    assert!(root.exceeds(&user) && !user.exceeds(&root));
    assert_eq!(root.change(&root), None);
    assert_eq!(
        user.change(&root).unwrap(),
        "Uid 33 became 0, CapEff 0 became 1ffffffffff, NoNewPrivs true became false, Seccomp 2 became 0"
    );
    // One that can become root again is root.
    let waiting = status("33 33 0 33", "0000000000000000", "NoNewPrivs:\t1\nSeccomp:\t2\n");
    assert!(waiting.exceeds(&user) && waiting.to_string().contains("33/33/0/33"));
    assert!(Privileges::of(std::process::id()).is_some());
    assert_eq!(Privileges::read("Uid:\t1 2\n"), None);
}

#[test]
fn numbers_of_a_declaration_are_its_ports() {
    let spec = serde_json::json!({
        "key": {"tenant": "t", "service": "s", "instance": "i"}, "command": "/x1234",
        "args": ["--listen=0.0.0.0:8080", "70000", "0"], "env": {"METRICS": ":9100"},
        "working_dir": "", "stop_signal": "", "stop_timeout_ms": 0, "config_path": "",
        "config_content": "admin = 9901", "reload_signal": "", "standby": false, "ports": [25],
    });
    let spec: Spec = serde_json::from_value(spec).unwrap();
    assert_eq!(declared_ports(&spec), BTreeSet::from([25, 8080, 9100, 9901]));
}
