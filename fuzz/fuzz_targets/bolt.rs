//! Arbitrary bytes as a file of bbolt. What is read must be written and read again as the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_embed::fuzzing::bolt(data));
