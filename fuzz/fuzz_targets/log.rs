//! Arbitrary bytes as the log of the embedded server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_embed::fuzzing::log(data));
