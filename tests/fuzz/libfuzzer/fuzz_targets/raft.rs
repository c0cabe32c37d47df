//! libFuzzer over `parsers::raft`.
#![no_main]
#![allow(dead_code, unused_imports, reason = "each target runs one of the parsers")]

#[path = "../../parsers.rs"]
mod parsers;
#[path = "../seeds.rs"]
mod seeds;

libfuzzer_sys::fuzz_target!(
    init: seeds::plant((parsers::raft().seeds)()),
    |bytes: &[u8]| {
        (parsers::raft().run)(bytes);
    }
);
