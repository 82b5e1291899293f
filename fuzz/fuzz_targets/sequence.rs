//! Sequences of good and bad requests at the embedded server, and what must hold of the answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_embed::fuzzing::sequence(data));
