//! What a request line asks for, and of whom.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy::fuzz::router(input));
