//! Which bytes a request asks for.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy::fuzz::range(input));
