//! What a registry asks for before it answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| swarm::source::fuzz::www_authenticate(input));
