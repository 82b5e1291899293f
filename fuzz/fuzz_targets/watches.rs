//! Arbitrary requests on a watch stream of the embedded server, between writes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_embed::fuzzing::watches(data));
