//! The token server's answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| swarm::source::fuzz::token_answer(input));
