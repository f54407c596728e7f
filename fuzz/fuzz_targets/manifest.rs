//! Which contents a manifest lists.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy::fuzz::manifest(input));
