//! Arbitrary bytes, and pieces of JSON, as bodies of the embedded server's JSON gateway.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| waypost_embed::fuzzing::json(data));
