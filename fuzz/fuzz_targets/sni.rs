//! Whom the first bytes of a connection name.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy::fuzz::sni(input));
