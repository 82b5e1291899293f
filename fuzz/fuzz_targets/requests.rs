//! Arbitrary bytes as the message of each request of the embedded server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_embed::fuzzing::requests(data));
